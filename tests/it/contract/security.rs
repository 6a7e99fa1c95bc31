//! `docs/security.md`: every test, file and setting that it names exists, and each of its rows is shown by one.

use std::path::Path;

use authservice::config::DEFAULTS;

const PAGE: &str = include_str!("../../../docs/security.md");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What a requirement can be.
const VERDICTS: [&str; 5] = ["met", "met in part", "not met", "not applicable", "left to the operator"];

/// The lines of the page that are text, not commands.
fn lines() -> impl Iterator<Item = &'static str> {
    PAGE.split("\n```").step_by(2).flat_map(str::lines)
}

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Targets of links to this repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http") && !target.starts_with('#'))
}

/// Cells of the rows whose first cell is an id of this kind.
fn rows(is_id: fn(&str) -> bool) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect::<Vec<_>>();
    let rows = lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|cells| cells.first().is_some_and(|id| is_id(id))).collect()
}

/// A name as `cargo test` takes it: modules, then a function.
fn is_test_name(span: &str) -> bool {
    span.contains("::") && span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
}

fn is_test(name: &str) -> bool {
    let (modules, function) = name.rsplit_once("::").unwrap();
    let path = modules.trim_end_matches("::tests").replace("::", "/");
    let files = ["tests/it", "src"].map(|folder| [format!("{folder}/{path}.rs"), format!("{folder}/{path}/mod.rs")]);
    let texts = files.iter().flatten().filter_map(|file| std::fs::read_to_string(Path::new(ROOT).join(file)).ok());
    texts.into_iter().any(|text| has_test(&text, function))
}

/// True when a function of the name has an attribute that makes it a test.
fn has_test(code: &str, function: &str) -> bool {
    let lines: Vec<&str> = code.lines().map(str::trim_start).collect();
    let head = format!("fn {function}(");
    let mut heads = (0..lines.len()).filter(|at| lines[*at].trim_start_matches("async ").starts_with(&head));
    heads.any(|at| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// A file of the repository, by its path from the root.
fn is_file_name(span: &str) -> bool {
    let has_ending = [".rs", ".toml", ".md", ".sh", ".json", ".txt", ".ci/run"].iter().any(|end| span.ends_with(end));
    has_ending && !span.starts_with('/') && !span.contains(' ')
}

#[test]
fn what_the_security_page_names_exists() {
    let settings: toml::Table = DEFAULTS.parse().unwrap();
    let (mut faults, mut tests, mut files) = (Vec::new(), 0, 0);
    for line in lines() {
        for span in spans(line) {
            if is_test_name(span) {
                tests += 1;
                faults.extend((!is_test(span)).then(|| format!("no test {span}")));
            } else if is_file_name(span) {
                files += 1;
                faults.extend((!Path::new(ROOT).join(span).is_file()).then(|| format!("no file {span}")));
            } else if let Some((section, key)) = span.split_once('.')
                && let Some(section) = settings.get(section).and_then(toml::Value::as_table)
            {
                faults.extend((!section.contains_key(key)).then(|| format!("no setting {span}")));
            }
        }
        for target in links(line) {
            files += 1;
            let path = target.split('#').next().unwrap();
            faults.extend((!Path::new(ROOT).join("docs").join(path).exists()).then(|| format!("no file {target}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(tests > 150 && files > 30, "{tests} tests and {files} files are named");
}

#[test]
fn every_threat_of_the_security_page_is_shown_by_a_test() {
    let is_threat = |id: &str| id.strip_prefix('T').is_some_and(|number| number.parse::<u8>().is_ok());
    let threats = rows(is_threat);

    for cells in &threats {
        let is_shown = spans(cells.last().unwrap()).any(|span| is_test_name(span) || span == ".ci/run");
        assert!(cells.len() == 5 && is_shown, "{cells:?}");
    }

    assert!(threats.is_sorted_by(|one, next| one[0] < next[0]), "each once, in order");
    assert!(threats.len() > 35, "{}", threats.len());
}

#[test]
fn every_requirement_of_the_security_page_has_a_verdict_and_what_is_met_has_evidence() {
    let is_requirement = |id: &str| id.split('.').filter(|part| part.parse::<u8>().is_ok()).count() == 3;
    let mut requirements = rows(is_requirement);

    for cells in &requirements {
        let [_, level, _, verdict, evidence] = cells[..] else { panic!("{cells:?}") };
        assert!(["1", "2"].contains(&level) && VERDICTS.contains(&verdict), "{cells:?}");
        let is_shown = spans(evidence).any(|span| is_test_name(span) || is_file_name(span));
        let is_shown = is_shown || links(evidence).next().is_some();
        assert!(!evidence.is_empty() && (is_shown || !verdict.starts_with("met")), "{cells:?}");
    }

    let all = requirements.len();
    requirements.sort();
    requirements.dedup_by_key(|cells| cells[0]);
    assert!(requirements.len() == all && all > 60, "{all}");
}
