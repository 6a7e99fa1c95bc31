//! docs/audit.md, which tells of every event: the page and the rows agree.

use std::collections::BTreeSet;

use authservice::audit::Event;
use authservice::entity::audit_event;

/// What the page says of an event.
struct Row {
    name: String,
    /// `None`: when the user is known.
    has_user: Option<bool>,
    has_session: bool,
    has_origin: bool,
    details: BTreeSet<String>,
}

fn rows() -> Vec<Row> {
    let page = include_str!("../../../docs/audit.md");
    let lines = page.lines().filter(|line| line.starts_with("| `"));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, when, user, session, from, details] = cells[..] else { panic!("{line}") };
        assert!(when.len() > 10, "{line}");
        let is = |cell: &str| match cell {
            "yes" => true,
            "no" => false,
            _ => panic!("{line}"),
        };
        Row {
            name: name.trim_matches('`').to_owned(),
            has_user: (user != "if known").then(|| is(user)),
            has_session: is(session),
            has_origin: is(from),
            // Names stand in backticks: every second piece.
            details: details.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        }
    });
    rows.collect()
}

/// Asserts that a row has what the page promises, and nothing else.
pub(crate) fn assert_documented(event: &audit_event::Model) {
    let rows = rows();
    let row = rows.iter().find(|row| row.name == event.event).unwrap_or_else(|| panic!("{event:?}"));
    assert!(row.has_user.is_none_or(|has_user| has_user == event.user_id.is_some()), "{event:?}");
    assert_eq!(row.has_session, event.session_id.is_some(), "{event:?}");
    assert_eq!(row.has_origin, event.ip_address.is_some(), "{event:?}");
    assert_eq!(row.has_origin, event.user_agent.is_some(), "{event:?}");
    let details: serde_json::Map<String, serde_json::Value> =
        event.details.as_deref().map(|text| serde_json::from_str(text).unwrap()).unwrap_or_default();
    assert_eq!(row.details, details.keys().cloned().collect(), "{event:?}");
}

#[test]
fn the_page_has_every_event_once_and_no_other() {
    let written: Vec<String> = rows().into_iter().map(|row| row.name).collect();
    let known: Vec<&str> = Event::all().map(Event::name).collect();
    assert_eq!(written, known, "docs/audit.md, in the order of audit::Event");
}

/// Listing finds by name, and the column has room for 64 characters.
#[test]
fn names_are_unique_and_fit() {
    for event in Event::all() {
        let name = event.name();
        assert_eq!(Event::named(name), Some(event));
        assert!(name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
    }
    assert_eq!(Event::named("nothing"), None);
}
