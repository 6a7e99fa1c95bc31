//! What an operator chose for addresses that cannot be taken over as they are: a file, a user a line.

use std::collections::HashMap;
use std::path::Path;

use super::Error;

/// What becomes of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Taken over with another address.
    Email(String),
    /// Left behind in the old table; sessions too.
    Skip,
}

/// Choices by user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices(HashMap<i64, Choice>);

impl Choices {
    /// Reads `<user id> email <address>` and `<user id> skip`; blank lines and what follows `#` are left out.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::Choices(format!("{}: {error}", path.display())))?;
        let mut choices = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (id, choice) = parse(line).ok_or_else(|| {
                let place = format!("{}: line {}", path.display(), number + 1);
                Error::Choices(format!("{place}: must be `<user id> email <address>` or `<user id> skip`"))
            })?;
            choices.insert(id, choice);
        }
        Ok(Self(choices))
    }

    pub(super) fn of(&self, user_id: i64) -> Option<&Choice> {
        self.0.get(&user_id)
    }
}

fn parse(line: &str) -> Option<(i64, Choice)> {
    let mut words = line.split_whitespace();
    let id = words.next()?.parse().ok()?;
    let choice = match (words.next()?, words.next()) {
        ("skip", None) => Choice::Skip,
        ("email", Some(address)) => Choice::Email(address.to_owned()),
        _ => return None,
    };
    words.next().is_none().then_some((id, choice))
}
