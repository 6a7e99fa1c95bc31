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

/// What was not tried, for want of something.
#[derive(Debug, Clone)]
pub(crate) struct LeftOut {
    pub(crate) fault: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) why: String,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        let verdict = if row.is_kept { "OK" } else { "BROKEN" };
        say(&format!("  {} {} {verdict}: {}: {}", row.fault, row.engine, row.promise, row.figure));
        self.rows.push(row);
    }

    /// Takes over what another one has, in the order of the faults.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.left_out.extend(other.left_out);
        self.rows.sort_by_key(|row| (row.fault, row.engine));
        self.left_out.sort_by_key(|left| (left.fault, left.engine));
    }

    /// True when nothing was tried: a run that tells nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
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
        for left in &self.left_out {
            say(&format!("| {} | {} | not tried | {} | NOT RUN |", left.fault, left.engine, left.why));
        }
        say("");
        say(&format!("{} promises, {} broken, {} not run", self.rows.len(), self.broken(), self.left_out.len()));
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
        let left_out: Vec<_> = self
            .left_out
            .iter()
            .map(|left| json!({"fault": left.fault, "engine": left.engine, "why": left.why}))
            .collect();
        json!({"seed": seed, "broken": self.broken(), "rows": rows, "not_run": left_out}).to_string()
    }
}
