//! Who may use whom (docs/ARCHITECTURE.md), and what every file begins with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const BASE: [&str; 9] = ["client", "clock", "config", "db", "entity", "hmac", "json", "random", "telemetry"];
const SURFACES: [&str; 3] = ["oauth", "ops", "rest"];
const TOP: [&str; 3] = ["cli", "jobs", "routes"];

/// Every module of the library, and which modules above the base it may use. Base modules use the base only.
const ARROWS: [(&str, &[&str]); 15] = [
    ("audit", &[]),
    ("keys", &["audit"]),
    ("limits", &["audit"]),
    ("tokens", &["audit", "keys"]),
    ("sessions", &["audit", "tokens"]),
    ("accounts", &["audit", "limits", "sessions", "tokens"]),
    // Above the domains, beside the application: it works on a database that no server uses yet.
    ("adopt", &["accounts", "audit", "keys", "sessions", "tokens"]),
    // Beside it: it works on the database as a whole, whatever is in it.
    ("backup", &["audit", "keys", "sessions"]),
    // What every surface shares knows of a request whence it comes, and no other thing that a domain says.
    ("web", &["audit"]),
    ("app", &["accounts", "audit", "keys", "limits", "sessions", "tokens"]),
    ("rest", &["accounts", "app", "audit", "limits", "sessions", "tokens", "web"]),
    ("oauth", &["accounts", "app", "audit", "keys", "sessions", "tokens", "web"]),
    ("ops", &["app", "web"]),
    ("routes", &["app", "oauth", "ops", "rest", "web"]),
    ("jobs", &["app", "sessions", "keys", "web"]),
];
/// The command line is above everything but the surfaces, which it reaches through `routes`.
const CLI: [&str; 13] = [
    "adopt", "accounts", "app", "audit", "backup", "jobs", "keys", "limits", "routes", "sessions", "tokens", "web",
    "cli",
];
const DOMAINS: [&str; 8] = ["accounts", "adopt", "audit", "backup", "keys", "limits", "sessions", "tokens"];

/// A source file without its comments.
struct Source {
    path: String,
    code: String,
}

impl Source {
    /// The first segment of its path below `src`: the module that it belongs to.
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("src/");
        path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// The top-level modules that it names after `crate::`.
    fn uses(&self) -> BTreeSet<String> {
        let mut uses = BTreeSet::new();
        for (start, _) in self.code.match_indices("crate::") {
            let rest = &self.code[start + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => uses.extend(first_segments(group)),
                None => uses.extend(identifier(rest)),
            }
        }
        uses
    }
}

/// The first segment of each path in a `{..}` group, of which the brace is open.
fn first_segments(group: &str) -> Vec<String> {
    let (mut depth, mut segments, mut is_start) = (0, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if depth == 0 && is_start && !letter.is_whitespace() => {
                segments.extend(identifier(&group[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
    segments
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Every Rust file below the folder, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "{folder}");
    files
}

fn sources() -> Vec<Source> {
    files("src")
        .into_iter()
        .map(|path| Source {
            code: code(&std::fs::read_to_string(&path).unwrap()),
            path: path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string(),
        })
        .collect()
}

/// The text without its line comments.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}

/// True when the word stands alone in the code.
fn names(code: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    code.match_indices(word).any(|(start, _)| {
        !is_part(code[..start].chars().next_back()) && !is_part(code[start + word.len()..].chars().next())
    })
}

#[test]
fn nobody_uses_what_is_above() {
    let mut faults = Vec::new();
    for source in sources() {
        let module = source.module().to_owned();
        let allowed: Vec<&str> = match module.as_str() {
            "lib" | "main" => continue,
            "cli" => CLI.to_vec(),
            base if BASE.contains(&base) => Vec::new(),
            other => {
                let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == other) else {
                    faults.push(format!("{}: a new module needs its arrows in this test", source.path));
                    continue;
                };
                allowed.to_vec()
            }
        };
        for used in source.uses() {
            let is_allowed = used == module || BASE.contains(&used.as_str()) || allowed.contains(&used.as_str());
            if !is_allowed {
                faults.push(format!("{}: {module} must not use {used}", source.path));
            }
        }
        if names(&source.code, "super::super") {
            faults.push(format!("{}: super::super goes where this test does not look", source.path));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The table above keeps what it promises: no arrow goes up, and no surface has one to another.
#[test]
fn the_arrows_have_a_direction() {
    for (module, allowed) in ARROWS {
        let is_domain = DOMAINS.contains(&module);
        for used in allowed {
            assert!(!SURFACES.contains(used) || TOP.contains(&module), "{module} -> {used}");
            assert!(!TOP.contains(used), "{module} -> {used}");
            assert!(!is_domain || DOMAINS.contains(used), "{module} -> {used}");
            let back = ARROWS.iter().find(|(name, _)| name == used).unwrap().1;
            assert!(!back.contains(&module), "{module} <-> {used}");
        }
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    // Whatever builds or runs a statement. `DbErr`, `SqlErr` and `ConnectionTrait` are everybody's.
    let queries = [
        "EntityTrait",
        "QueryFilter",
        "QueryOrder",
        "QuerySelect",
        "Statement",
        "execute_unprepared",
        "query_all_raw",
        "query_one_raw",
        "sea_query",
    ];
    let mut faults = Vec::new();
    for source in sources() {
        let (path, module) = (source.path.as_str(), source.module());
        if names(&source.code, "josekit") && !["keys", "tokens"].contains(&module) {
            faults.push(format!("{path}: josekit belongs to keys/ and tokens/"));
        }
        let is_quiet = DOMAINS.contains(&module) || (BASE.contains(&module) && module != "client");
        for http in ["poem", "poem_openapi", "hyper"] {
            if is_quiet && names(&source.code, http) {
                faults.push(format!("{path}: {http} does not belong to a domain or the base"));
            }
        }
        let may_query = path.ends_with("/store.rs") || ["db", "entity"].contains(&module);
        for word in queries {
            if !may_query && names(&source.code, word) {
                faults.push(format!("{path}: {word}: queries belong to store.rs"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    let folders = ["src", "migration/src", "tests"];
    let paths = folders.iter().flat_map(|folder| files(folder));
    let silent: Vec<PathBuf> =
        paths.filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//! ")).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

/// A crate that does not take the workspace's lints over has none.
#[test]
fn no_crate_may_be_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = |folder: &str| -> toml::Table {
        std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap().parse().unwrap()
    };
    let workspace = &table("")["workspace"];
    assert_eq!(workspace["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    let members = workspace["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap());
    for member in members.chain([""]) {
        assert_eq!(table(member)["lints"]["workspace"].as_bool(), Some(true), "{member}");
    }
    let outside = workspace["exclude"].as_array().unwrap().iter().map(|folder| folder.as_str().unwrap());
    for folder in outside {
        assert_eq!(table(folder)["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"), "{folder}");
    }
}

/// The scanner finds what it must find.
#[test]
fn paths_are_found_in_every_form() {
    let code = code(
        "use crate::audit::{self, Entry};\nuse crate::{accounts, keys::{Key, Fault}, web};\n// crate::comment\nlet x = crate::json::parse(y);",
    );
    let source = Source { path: "src/rest/auth.rs".to_owned(), code };
    assert_eq!(source.module(), "rest");
    assert_eq!(source.uses().into_iter().collect::<Vec<_>>(), ["accounts", "audit", "json", "keys", "web"]);
    assert!(names("use poem::Route", "poem") && !names("use poem_openapi::Api", "poem"));
}
