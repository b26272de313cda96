//! Everything that is printed goes through here: for people or as JSON, and nothing breaks when a reader of the
//! pipe has gone.

pub mod listing;

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::failure::Failure;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text and tables.
    Human,
    /// JSON.
    Json,
}

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    terminal: bool,
}

impl Output {
    /// Prints to standard output in that format.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Whether scripts read this.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether spinners and colours make sense.
    pub fn is_terminal(&self) -> bool {
        self.terminal && !self.is_json()
    }

    /// The JSON object that answers the command.
    pub fn json(&self, value: &Value) {
        self.line(&serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string()));
    }

    /// One JSON object of a sequence, on a line of its own.
    pub fn json_line(&self, value: &Value) {
        self.line(&value.to_string());
    }

    /// A line for people.
    pub fn line(&self, text: &str) {
        // A closed pipe (`muster … | head`) is the reader's decision, not an error.
        let mut out = std::io::stdout().lock();
        let _closed = writeln!(out, "{}", printable(text)).and_then(|()| out.flush());
    }

    /// A line beside the output, on standard error: where standard output carries something else.
    pub fn aside(&self, text: &str) {
        let _closed = writeln!(std::io::stderr().lock(), "{}", printable(text));
    }

    /// A heading for people; bold on a terminal.
    pub fn heading(&self, text: &str) {
        self.line("");
        let (bold, plain) = if self.is_terminal() {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        let _closed = writeln!(std::io::stdout().lock(), "{bold}{}{plain}", printable(text));
    }

    /// A table for people.
    pub fn table<const N: usize>(&self, header: [&str; N], rows: Vec<[String; N]>) {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if !self.terminal {
            table.set_width(140);
        }
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        self.line(&table.to_string());
    }

    /// Why the command failed: on standard error, as JSON where scripts read.
    pub fn failure(&self, failure: &Failure) {
        let text = if self.is_json() {
            let remedy = failure.remedy.as_deref();
            json!({"error": {"message": failure.message, "remedy": remedy, "reason": failure.reason, "exitCode": failure.exit as u8}})
                .to_string()
        } else {
            let remedy = failure
                .remedy
                .as_ref()
                .map(|remedy| format!("\n  → {remedy}"))
                .unwrap_or_default();
            printable(&format!("muster: {}{remedy}", failure.message)).into_owned()
        };
        let _closed = writeln!(std::io::stderr().lock(), "{text}");
    }
}

/// What agents and services say must not steer the terminal: control characters are shown, not sent.
fn printable(text: &str) -> Cow<'_, str> {
    let steers = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut shown, letter| {
        if steers(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
        shown
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(printable("plain\ttext\n"), "plain\ttext\n");
        assert_eq!(printable("\x1b]0;owned\x07"), "\\u{1b}]0;owned\\u{7}");
    }
}
