//! What a run tells: progress lines, and at the end a table of promises.

use std::io::Write as _;

use serde_json::json;

/// Writes a line to standard output; a closed pipe is nobody's fault.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// One promise and what was seen of it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) fault: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) promise: String,
    pub(crate) figure: String,
    pub(crate) is_kept: bool,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        let verdict = if row.is_kept { "OK" } else { "BROKEN" };
        say(&format!("  {} {} {verdict}: {}: {}", row.fault, row.engine, row.promise, row.figure));
        self.rows.push(row);
    }

    pub(crate) fn broken(&self) -> usize {
        self.rows.iter().filter(|row| !row.is_kept).count()
    }

    pub(crate) fn print(&self) {
        say("");
        say("| fault | engine | promise | figure | |");
        say("|---|---|---|---|---|");
        for row in &self.rows {
            let verdict = if row.is_kept { "OK" } else { "BROKEN" };
            say(&format!("| {} | {} | {} | {} | {verdict} |", row.fault, row.engine, row.promise, row.figure));
        }
        say("");
        say(&format!("{} promises, {} broken", self.rows.len(), self.broken()));
    }

    /// The run on one line, for a program.
    pub(crate) fn as_json(&self, seed: u64) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "fault": row.fault,
                    "engine": row.engine,
                    "promise": row.promise,
                    "figure": row.figure,
                    "is_kept": row.is_kept,
                })
            })
            .collect();
        json!({"seed": seed, "broken": self.broken(), "rows": rows}).to_string()
    }
}
