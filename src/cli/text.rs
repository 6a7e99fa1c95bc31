//! What commands print: tables, JSON lines, and text of strangers in a form that no terminal obeys.

use std::fmt::Write as _;

/// The text with everything escaped that is not plainly visible: control characters of both sets (U+009B begins a terminal's
/// command as ESC [ does), line separators, characters that reverse the direction. The backslash too, so that nothing looks escaped that
/// is not.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\'' => escaped.push(letter),
            _ => escaped.extend(letter.escape_debug()),
        }
    }
    escaped
}

/// One line of JSON (RFC 8259 7) in which the same characters are escaped: JSON itself asks for it only below U+0020.
pub(super) fn json(value: &serde_json::Value) -> String {
    let mut line = String::new();
    for letter in value.to_string().chars() {
        // Outside of strings JSON is plain ASCII, so whatever must be escaped is in one.
        if letter.is_ascii_graphic() || letter.escape_debug().len() == 1 {
            line.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // A String takes everything.
            let _ = write!(line, "\\u{unit:04x}");
        }
    }
    line
}

/// Lines with their cells in columns.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Vec<String> {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows);
    let width = |column: usize| lines.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_obeys_what_is_printed() {
        let rows = [
            ("plain", "curl/8.5 (x; \"y\" 'z')", "curl/8.5 (x; \"y\" 'z')"),
            ("other scripts", "Дом 北 é 😀", "Дом 北 é 😀"),
            ("escape", "\u{1b}[31mred", "\\u{1b}[31mred"),
            ("C1 control sequence introducer", "\u{9b}2J", "\\u{9b}2J"),
            ("C1 operating system command", "\u{9d}0;title\u{9c}", "\\u{9d}0;title\\u{9c}"),
            ("line breaks", "a\r\nb\tc", "a\\r\\nb\\tc"),
            ("bell, delete", "\u{7}\u{7f}", "\\u{7}\\u{7f}"),
            ("line and paragraph separators", "\u{2028}\u{2029}\u{85}", "\\u{2028}\\u{2029}\\u{85}"),
            ("right to left", "\u{202e}gpj", "\\u{202e}gpj"),
            ("invisible", "a\u{200b}b\u{feff}\u{e0041}", "a\\u{200b}b\\u{feff}\\u{e0041}"),
            ("backslash", "\\u{1b}", "\\\\u{1b}"),
        ];
        for (name, text, expected) in rows {
            assert_eq!(escaped(text), expected, "{name}");

            let value = serde_json::json!({ text: text });
            let line = json(&value);
            assert!(line.chars().all(|c| c.is_ascii_graphic() || c.escape_debug().len() == 1), "{name}: {line}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&line).expect("JSON"), value, "{name}");
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [["1".to_owned(), "ö".to_owned(), "x".to_owned()], ["22".to_owned(), "yyy".to_owned(), String::new()]];
        assert_eq!(table(["ID", "B", "C"], rows), ["ID  B    C", "1   ö    x", "22  yyy"]);
    }
}
