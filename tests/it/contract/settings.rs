//! `config/default.toml`: every setting explained, every field of the sections there, and the table that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use authservice::config::{Config, DEFAULTS};

use super::assert_current;

/// Settings that may be given as a file.
const SECRETS: [&str; 4] = ["database.url", "keys.encryption_key", "keys.previous_encryption_key", "traces.headers"];

/// A setting as the file has it.
struct Setting {
    section: String,
    key: String,
    default: String,
    /// The comment above it, or above the settings that stand directly before it.
    meaning: String,
}

impl Setting {
    fn environment(&self) -> String {
        format!("AUTHSERVICE__{}__{}", self.section, self.key).to_ascii_uppercase()
    }
}

fn settings() -> Vec<Setting> {
    let (mut settings, mut section, mut meaning) = (Vec::new(), String::new(), String::new());
    let mut is_comment = false;
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            (section, meaning) = (name.trim_end_matches(']').to_owned(), String::new());
        } else if let Some(text) = line.strip_prefix('#') {
            if !is_comment {
                meaning.clear();
            }
            if !meaning.is_empty() {
                meaning.push(' ');
            }
            meaning.push_str(text.trim());
        } else if let Some((key, default)) = line.split_once(" = ") {
            settings.push(Setting {
                section: section.clone(),
                key: key.to_owned(),
                default: default.to_owned(),
                meaning: meaning.clone(),
            });
        } else {
            assert!(line.is_empty(), "{line}");
            meaning.clear();
        }
        is_comment = line.starts_with('#');
    }
    settings
}

#[test]
fn every_setting_is_explained() {
    let settings = settings();
    let table: toml::Table = DEFAULTS.parse().unwrap();
    let count: usize = table.values().map(|section| section.as_table().unwrap().len()).sum();
    assert_eq!(settings.len(), count, "each setting is read, on a line of its own");
    for setting in settings {
        let name = format!("{}.{}", setting.section, setting.key);
        assert!(setting.meaning.len() > 10, "{name} is not explained");
        assert!(setting.meaning.ends_with(['.', ')', '"']), "{name}: {}", setting.meaning);
    }
}

/// A default without a field would be read and forgotten.
#[test]
fn every_default_has_a_field_and_every_field_a_default() {
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = None;
    for line in include_str!("../../../src/config/sections.rs").lines() {
        if let Some(name) = line.strip_prefix("/// `[") {
            section = Some(name.trim_end_matches("]`").to_owned());
        } else if line == "}" {
            section = None;
        } else if let (Some(section), Some(field)) = (&section, line.strip_prefix("    pub ")) {
            let name = field.split(':').next().unwrap().to_owned();
            fields.entry(section.clone()).or_default().insert(name);
        }
    }
    let mut defaults: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for setting in settings() {
        defaults.entry(setting.section).or_default().insert(setting.key);
    }
    assert_eq!(fields, defaults);
}

/// Each setting can be set by the name that the table gives, and shows up where it came from.
#[test]
fn every_name_in_the_table_works() {
    let settings = settings();
    // All at once, since some depend on others; the defaults again, since they are possible.
    let environment: BTreeMap<String, String> = settings
        .iter()
        .map(|setting| {
            let text = setting.default.trim_matches('"').trim_matches(['[', ']']).to_owned();
            (setting.environment(), text)
        })
        .collect();

    let config = Config::load(None, &environment).unwrap();

    for name in environment.keys() {
        assert!(config.show().lines().any(|line| line.ends_with(&format!("# {name}"))), "{name}");
    }
}

#[test]
fn the_table_of_settings_is_current() {
    let mut page = String::from(
        "# Configuration\n\n\
         Generated from [config/default.toml](../config/default.toml), which also says what wins over what. Do not edit: run\n\
         `UPDATE=1 ./scripts/test.sh --test it contract`.\n\n\
         A setting is written in a TOML file, or given by its environment name. `authservice config show` prints what is in force\n\
         and where it came from; `authservice config check` reports every fault.\n\n\
         Whatever is changed takes a restart, but for secrets in files (`..._FILE`, `POSTGRES_PASSWORD_FILE`, `keys/encryption.key`). A running\n\
         server reads those every 5 seconds, and before each attempt while it waits for its database. It takes what works: a user, a password and options of the URL\n\
         with which it can connect, key-encryption keys that open what is there ([keys.md](keys.md#exchanging-the-key-encryption-key)), headers for\n\
         traces. Otherwise it goes on with those before and says why, once. Another host, port or name of the database takes a restart. A\n\
         configuration file is not read again, whatever it holds; nor are systemd's credentials, which are copied at the start.\n",
    );
    let mut section = String::new();
    for setting in settings() {
        if setting.section != section {
            section.clone_from(&setting.section);
            let head =
                format!("\n## [{section}]\n\n| setting | environment name | default | meaning |\n|---|---|---|---|\n");
            page.push_str(&head);
        }
        let name = format!("{}.{}", setting.section, setting.key);
        let file =
            if SECRETS.contains(&name.as_str()) { " (or with `_FILE` appended: a file that holds it)" } else { "" };
        let meaning = setting.meaning.replace('|', "\\|").replace('<', "&lt;");
        let (environment, default) = (setting.environment(), &setting.default);
        writeln!(page, "| `{}` | `{environment}`{file} | `{default}` | {meaning} |", setting.key).unwrap();
    }
    assert_current("docs/configuration.md", &page);
}
