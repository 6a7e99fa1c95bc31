//! `authservice audit`.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Error, connect, say, text};
use crate::accounts::{Email, Management};
use crate::audit::{Event, Filter, Recorded, Trail};
use crate::config::Config;
use crate::db::Db;

/// Longest user agent in a table, in characters.
const USER_AGENT_LENGTH: usize = 60;

/// List what happened; docs/audit.md tells of every event
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List events, newest first
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Of this user only, by address, or by id, which also finds events of a deleted user
    #[arg(long, value_name = "EMAIL|ID")]
    user: Option<String>,
    /// Of this kind only
    #[arg(long, value_name = "NAME", value_parser = event())]
    event: Option<Event>,
    /// Of this session only
    #[arg(long, value_name = "ID")]
    session: Option<Uuid>,
    /// At or after this time, such as 2026-11-24T00:00:00Z (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// Go on after this event, the last of the page before
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// List so many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// One JSON object a line, with whole times and user agents
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let db = connect(config).await?;
        migration::require_current(db.writer()).await?;
        let Self::List(list) = self;
        list.run(&db, config).await?;
        db.close().await;
        Ok(())
    }
}

impl List {
    async fn run(self, db: &Db, config: &Config) -> Result<(), Error> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Error::Input("--since must be earlier than --until".to_owned()));
        }
        let filter = Filter {
            user_id: match &self.user {
                Some(user) => Some(user_id(user, db, config).await?),
                None => None,
            },
            session_id: self.session,
            event: self.event,
            since: self.since,
            until: self.until,
        };
        // One more tells whether there is another page.
        let mut events = Trail::new(db.clone(), config).list(&filter, self.before, self.limit + 1).await?;
        let has_more = events.len() as u64 > self.limit;
        events.truncate(usize::try_from(self.limit).unwrap_or(usize::MAX));
        for line in if self.json { events.iter().map(as_json).collect() } else { table(&events) } {
            say(&line);
        }
        if let Some(last) = events.last().filter(|_| has_more && !self.json) {
            super::note(&format!("there are more: --before {}", last.id));
        }
        Ok(())
    }
}

async fn user_id(user: &str, db: &Db, config: &Config) -> Result<i64, Error> {
    if let Ok(id) = user.parse() {
        return Ok(id);
    }
    let email = Email::parse(user).map_err(|fault| Error::Input(fault.to_string()))?;
    Ok(Management::new(db.clone(), config)?.by_email(&email).await?.id)
}

/// The names of events; the help lists them.
fn event() -> impl TypedValueParser<Value = Event> {
    PossibleValuesParser::new(Event::all().map(Event::name))
        .map(|name| Event::named(&name).expect("only names of events are possible"))
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let parsed = DateTime::parse_from_rfc3339(text);
    parsed.map(|time| time.to_utc()).map_err(|error| format!("{error}: write it as 2026-11-24T00:00:00Z (RFC 3339)"))
}

fn table(events: &[Recorded]) -> Vec<String> {
    let head = ["ID", "TIME", "EVENT", "USER", "SESSION", "ADDRESS", "DETAILS", "USER AGENT"];
    let shown = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), text::escaped);
    let rows = events.iter().map(|event| {
        [
            event.id.to_string(),
            event.at.to_rfc3339_opts(SecondsFormat::Millis, true),
            text::escaped(&event.event),
            event.user_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            event.session_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            shown(event.ip_address.as_deref()),
            shown(event.details.as_deref()),
            shown(event.user_agent.as_deref().map(cut).as_deref()),
        ]
    });
    text::table(head, rows)
}

fn cut(user_agent: &str) -> String {
    match user_agent.char_indices().nth(USER_AGENT_LENGTH) {
        Some((end, _)) => format!("{}…", &user_agent[..end]),
        None => user_agent.to_owned(),
    }
}

fn as_json(event: &Recorded) -> String {
    // Written by ourselves, as JSON; of anybody else's doing the text is better than nothing.
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
    text::json(&json!({
        "id": event.id,
        "at": event.at,
        "event": event.event,
        "user_id": event.user_id,
        "session_id": event.session_id,
        "ip_address": event.ip_address,
        "user_agent": event.user_agent,
        "details": event.details.as_deref().map(parsed),
    }))
}
