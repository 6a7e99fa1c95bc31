//! Completions as a shell uses them, and manual pages.

use std::process::Command;

use super::{BINARY, Operator};

/// What bash offers for these words, of which the last is being typed.
fn offered(words: &[&str]) -> Vec<String> {
    // `complete -p` names the function that bash would call, with the command, the word and the word before it.
    let script = r#"
        eval "$("$BINARY" completions bash)"
        function=$(complete -p authservice | sed 's/.*-F \([^ ]*\).*/\1/')
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
        "$function" authservice "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || true
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    let done = bash.args(["-euc", script, "bash"]).args(words).env("BINARY", BINARY).output().unwrap();
    assert!(done.status.success(), "{words:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let rows: [(&[&str], &[&str]); 6] = [
        (&["authservice", "ke"], &["keys"]),
        (&["authservice", "keys", "re"], &["revoke", "reseal"]),
        (&["authservice", "users", "set"], &["set-password"]),
        (&["authservice", "doctor", "--js"], &["--json"]),
        (&["authservice", "keys", "rotate", "--purpose", ""], &["signing", "refresh"]),
        (&["authservice", "nothing-like-it"], &[]),
    ];
    for (words, expected) in rows {
        let offered: Vec<String> = offered(words).into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(offered, expected, "{words:?}");
    }
}

#[test]
fn every_shell_gets_a_script_whatever_the_environment() {
    let operator = Operator::new().with("AUTHSERVICE__SERVER__PORT", "wrong");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = operator.run(&["completions", shell]).exits(0);
        assert!(script.stdout.contains("set-password") && script.stderr.is_empty(), "{shell}: {script:?}");
    }
    operator.run(&["completions", "tcsh"]).exits(2);
    assert_eq!(operator.files(), Vec::<String>::new());
}

#[test]
fn every_command_has_a_manual_page() {
    let operator = Operator::new().with("AUTHSERVICE__SERVER__PORT", "wrong");

    operator.run(&["man", "--directory", "."]).exits(0);

    let pages = operator.files();
    for page in ["authservice.1", "authservice-keys.1", "authservice-keys-export-public.1", "authservice-doctor.1"] {
        assert!(pages.iter().any(|name| name == page), "{page}: {pages:?}");
    }
    let page = std::fs::read_to_string(operator.path("authservice.1")).unwrap();
    assert!(page.contains(".TH authservice 1") && page.contains("authservice\\-keys(1)"), "{page}");
    assert_eq!(operator.run(&["man"]).exits(0).stdout, page);
    let nowhere = operator.run(&["man", "--directory", "nowhere"]).exits(65);
    assert!(nowhere.stderr.contains("nowhere"), "{nowhere:?}");
}
