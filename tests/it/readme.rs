//! The README is true: its tour and its verifiers are run as they stand there. So is the first token of docs/quick-start.md.

use std::process::{Command, Stdio};

use crate::support::{TestApp, claims, each_engine};

const README: &str = include_str!("../../README.md");
const QUICK_START: &str = include_str!("../../docs/quick-start.md");
/// The address that the README uses.
const BASE: &str = "http://localhost:9998";

/// The fenced blocks of a chapter of the README, each with its language.
fn blocks(chapter: &str) -> Vec<(&'static str, &'static str)> {
    blocks_of(README, chapter)
}

fn blocks_of(page: &'static str, chapter: &str) -> Vec<(&'static str, &'static str)> {
    let chapter = page.split("\n## ").find_map(|text| text.strip_prefix(chapter)).expect("the chapter is there");
    let fenced = chapter.split("\n```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').expect("a block has a language")).collect()
}

/// True when `text` is `pattern`, in which `…` stands for anything within a line.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else {
        return false;
    };
    rest = after;
    for part in parts {
        // The last part is empty when the pattern ends with `…`.
        let at = if part.is_empty() { Some(rest.len()) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Runs a program beside the server, which lives in this runtime.
async fn output(mut command: Command) -> (bool, String) {
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn the_tour_gives_the_answers_that_the_readme_shows() {
    each_engine(async |app| {
        let blocks = blocks("A tour");
        let steps: Vec<_> = blocks.chunks(2).map(|step| (step[0], step[1])).collect();
        assert!(steps.len() >= 8, "the tour has shrunk");
        let mut script = String::from("set -eu\n");
        for ((language, commands), (shown, _)) in &steps {
            assert_eq!((*language, *shown), ("sh", "json"));
            script.push_str(&commands.replace(BASE, &app.base));
            script.push_str("\necho\necho ----\n");
        }

        let mut bash = Command::new("bash");
        bash.arg("-c").arg(&script);
        let (is_fine, text) = output(bash).await;

        assert!(is_fine, "{text}");
        let answers: Vec<&str> = text.split("----").map(str::trim).collect();
        for (answer, (_, (_, expected))) in answers.iter().zip(&steps) {
            assert!(is_like(answer, expected.trim()), "got\n{answer}\nnot\n{expected}");
        }
        assert_eq!(answers.len(), steps.len() + 1, "{text}");
    })
    .await;
}

#[tokio::test]
async fn the_first_token_of_the_quick_start_is_verified() {
    let python = std::env::var("VERIFIER_PYTHON").expect("VERIFIER_PYTHON is not set: run scripts/test.sh");
    each_engine(async |app| {
        let mut script = String::from("set -eu\n");
        for (language, commands) in blocks_of(QUICK_START, "The first token") {
            assert_eq!(language, "sh");
            // What is installed here is there already.
            let kept = commands.lines().filter(|line| !line.starts_with("python3 -m venv "));
            script.extend(kept.flat_map(|line| [line, "\n"]));
        }
        let script = script.replace(BASE, &app.base).replace("venv/bin/python", &python);

        let mut bash = Command::new("bash");
        bash.arg("-c").arg(script);
        let (is_fine, text) = output(bash).await;

        assert!(is_fine && text.contains("'iss': '") && text.contains(&app.base), "{text}");
    })
    .await;
}

/// Runs a verifier of the README with an access token, a damaged one and a refresh token.
async fn check(app: &TestApp, command: impl Fn(&str) -> Command) {
    let pair = app.alice().await;
    let (head, tail) = pair.access.split_at(pair.access.len() - 10);
    let damaged = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);

    let (is_fine, text) = output(command(&pair.access)).await;
    assert!(is_fine, "{text}");
    assert_eq!(text, claims(&pair.access)["sub"].as_str().expect("a subject"));
    for refused in [&damaged, &pair.refresh] {
        let (is_fine, text) = output(command(refused)).await;
        assert!(!is_fine, "a verifier accepted what it must refuse: {text}");
    }
}

#[tokio::test]
async fn the_python_verifier_of_the_readme_works() {
    let python = std::env::var("VERIFIER_PYTHON").expect("VERIFIER_PYTHON is not set: run scripts/test.sh");
    let code = blocks("Verify tokens").iter().find(|(language, _)| *language == "python").expect("a block").1;
    each_engine(async |app| {
        let code = code.replace(BASE, &app.base);
        check(&app, |token| {
            let mut command = Command::new(&python);
            command.args(["-c", &code, token]);
            command
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_node_verifier_of_the_readme_works() {
    let modules = std::env::var("VERIFIER_NODE_DIR").expect("VERIFIER_NODE_DIR is not set: run scripts/test.sh");
    let code = blocks("Verify tokens").iter().find(|(language, _)| *language == "js").expect("a block").1;
    each_engine(async |app| {
        let script = std::path::Path::new(&modules).join(format!("readme_{}_{:?}.mjs", std::process::id(), app.engine));
        std::fs::write(&script, code.replace(BASE, &app.base)).expect("written");
        check(&app, |token| {
            let mut command = Command::new("node");
            command.arg(&script).arg(token);
            command
        })
        .await;
        std::fs::remove_file(script).expect("removed");
    })
    .await;
}
