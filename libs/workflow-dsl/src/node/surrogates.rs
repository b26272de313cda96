//! Characters beyond the basic plane in JSON.
//!
//! JSON may write such a character as two escapes, `\ud83d\ude00`, and many programs always do; YAML knows only the
//! one escape `\U0001F600`. A document that is JSON is therefore rewritten to YAML's escape, and the columns behind
//! each place are corrected, so that problems are reported where the author sees them. Text that is not JSON is left
//! alone: there a backslash need not begin an escape.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use crate::problem::Place;

/// By how many characters a pair of escapes is longer than the one that replaces it.
const SHORTER_BY: u32 = 2;

/// A text that YAML understands, and where it is shorter than the author's.
pub(super) struct Rewritten<'t> {
    pub(super) text: Cow<'t, str>,
    /// Places in the rewritten text just behind each escape that became shorter, in order.
    shortened: Vec<Place>,
}

impl Rewritten<'_> {
    /// The place in the author's text.
    pub(super) fn original(&self, place: Place) -> Place {
        let on_the_line = self
            .shortened
            .iter()
            .filter(|shortened| shortened.line == place.line);
        let before = on_the_line
            .filter(|shortened| shortened.column <= place.column)
            .count();
        let missing = SHORTER_BY.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX));
        Place {
            line: place.line,
            column: place.column.saturating_add(missing),
        }
    }
}

/// `text` without pairs of escapes, if it is JSON.
pub(super) fn rewrite(text: &str) -> Rewritten<'_> {
    let may_need_it = text.trim_start().starts_with(['{', '[']) && text.contains("\\u");
    if !may_need_it || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Rewritten {
            text: Cow::Borrowed(text),
            shortened: Vec::new(),
        };
    }
    let mut written = String::with_capacity(text.len());
    let mut shortened = Vec::new();
    let mut place = Place { line: 1, column: 1 };
    let mut rest = text;
    while let Some((piece, replacement)) = next_piece(rest) {
        match replacement {
            Some(character) => {
                written.push_str(&format!("\\U{:08X}", u32::from(character)));
                place.column = place.column.saturating_add(10);
                shortened.push(place);
            }
            None => {
                written.push_str(piece);
                place = behind(place, piece);
            }
        }
        rest = rest.get(piece.len()..).unwrap_or_default();
    }
    Rewritten {
        text: Cow::Owned(written),
        shortened,
    }
}

/// The next character, escape or pair of escapes of a JSON text, and the character that a pair stands for.
fn next_piece(text: &str) -> Option<(&str, Option<char>)> {
    const PAIR: usize = "\\ud83d\\ude00".len();
    let first = text.chars().next()?;
    if first != '\\' {
        return Some((text.get(..first.len_utf8())?, None));
    }
    if let Some(pair) = text.get(..PAIR)
        && let Some(character) = paired(pair)
    {
        return Some((pair, Some(character)));
    }
    let escaped = text.chars().nth(1).map_or(0, char::len_utf8);
    Some((text.get(..1 + escaped)?, None))
}

fn paired(pair: &str) -> Option<char> {
    let unit = |escape: &str| u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok();
    let (high, low) = pair.split_at_checked(6)?;
    let units = [unit(high)?, unit(low)?];
    let mut decoded = char::decode_utf16(units);
    let character = decoded.next()?.ok()?;
    decoded.next().is_none().then_some(character)
}

fn behind(place: Place, piece: &str) -> Place {
    if piece == "\n" {
        return Place {
            line: place.line.saturating_add(1),
            column: 1,
        };
    }
    let characters = u32::try_from(piece.chars().count()).unwrap_or(u32::MAX);
    Place {
        line: place.line,
        column: place.column.saturating_add(characters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_one_escape_and_places_stay_true() {
        let rewritten = rewrite("{\"a\": \"\\ud83d\\ude00\", \"b\":\n 1}");
        assert_eq!(rewritten.text, "{\"a\": \"\\U0001F600\", \"b\":\n 1}");
        let b = Place { line: 1, column: 20 };
        assert_eq!(rewritten.original(b), Place { line: 1, column: 22 });
        let a = Place { line: 1, column: 2 };
        assert_eq!(rewritten.original(a), a);
        let one = Place { line: 2, column: 2 };
        assert_eq!(rewritten.original(one), one);
    }

    #[test]
    fn what_is_no_pair_or_no_json_stays() {
        for text in [
            r#"{"a": "\\ud83d\\ude00"}"#,
            r#"{"a": "\u00e9\u0041"}"#,
            r"{a: '\ud83d\ude00'}",
            r"a: \ud83d\ude00",
        ] {
            assert_eq!(rewrite(text).text, text);
        }
    }
}
