//! One entry of a list: a name, what stands in parentheses, and what it waits for.

use std::collections::BTreeMap;

/// What stands before an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// `-`, `*`, `+` or `•`.
    Bullet,
    /// `1.` or `1)`.
    Number,
}

/// How long a task takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Duration {
    Days(f64),
    Hours(f64),
}

/// An entry.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Item {
    pub id: Option<String>,
    pub name: String,
    pub numbered: bool,
    pub duration: Option<Duration>,
    pub weather_sensitive: bool,
    pub resources: BTreeMap<String, u32>,
    pub earliest_start: Option<String>,
    pub after: Vec<String>,
}

/// Splits the marker off.
pub(super) fn marker(text: &str) -> (Option<Marker>, &str) {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix(['-', '*', '+', '•'])
        && rest.starts_with(char::is_whitespace)
    {
        return (Some(Marker::Bullet), rest.trim());
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if let Some(rest) = text.get(digits..).and_then(|rest| rest.strip_prefix(['.', ')']))
        && digits > 0
        && rest.starts_with(char::is_whitespace)
    {
        return (Some(Marker::Number), rest.trim());
    }
    (None, text)
}

/// Reads an entry without its marker.
pub(super) fn read(text: &str) -> Result<Item, String> {
    let (id, text) = split_id(text);
    let mut item = Item {
        id,
        ..Item::default()
    };
    if !read_parentheses(text, &mut item)? && !read_words(text, &mut item)? {
        let (name, after) = split_after(text);
        item.name = name.trim().to_owned();
        item.after = after;
    }
    if item.name.is_empty() {
        return Err(format!("'{text}' names nothing; write `Name (3d)`"));
    }
    Ok(item)
}

/// Whether a text has a duration where an entry would have it.
pub(super) fn has_duration(text: &str) -> bool {
    read(text).is_ok_and(|item| item.duration.is_some())
}

fn split_id(text: &str) -> (Option<String>, &str) {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    match text.split_once(':') {
        Some((id, rest)) if !id.is_empty() && id.chars().all(allowed) && !rest.trim().is_empty() => {
            (Some(id.to_owned()), rest.trim())
        }
        _ => (None, text),
    }
}

/// `Name (3d, weather) after a, b`. False when there are no parentheses, or they belong to the name.
fn read_parentheses(text: &str, item: &mut Item) -> Result<bool, String> {
    let Some((before, rest)) = text.rsplit_once('(') else {
        return Ok(false);
    };
    let Some((inside, behind)) = rest.split_once(')') else {
        return Err(format!("'(' is not closed in '{text}'"));
    };
    let mut read = Item::default();
    let unknown: Vec<&str> = inside
        .split(',')
        .map(str::trim)
        .filter(|attribute| !read_attribute(attribute, &mut read))
        .collect();
    let any_known = inside.split(',').count() > unknown.len();
    if !any_known {
        return Ok(false);
    }
    if let Some(unknown) = unknown.first() {
        return Err(format!(
            "'{unknown}' is not understood; in parentheses stand a duration (3d, 4h), `weather`, a resource \
             (@crew, @crew=2) and `from DATE`"
        ));
    }
    read.after = match behind.trim() {
        "" => Vec::new(),
        behind => match strip_word(behind, "after") {
            Some(list) => names(list),
            None => {
                return Err(format!(
                    "'{behind}' is not understood; behind the parentheses may stand `after NAME, NAME`"
                ));
            }
        },
    };
    *item = Item {
        id: item.id.take(),
        name: before.trim().to_owned(),
        ..read
    };
    Ok(true)
}

/// `name 3d weather @crew after a, b`. False when no word is a duration.
fn read_words(text: &str, item: &mut Item) -> Result<bool, String> {
    let mut read = Item::default();
    let mut name: Vec<&str> = Vec::new();
    let mut words = text.split_whitespace();
    for word in words.by_ref() {
        if duration(word).is_some() && !name.is_empty() {
            read.duration = duration(word);
            break;
        }
        name.push(word);
    }
    if read.duration.is_none() {
        return Ok(false);
    }
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("after") {
            let list: Vec<&str> = words.by_ref().collect();
            read.after = names(&list.join(" "));
        } else if !read_attribute(word.trim_end_matches(','), &mut read) {
            return Err(format!(
                "'{word}' is not understood; behind the duration may stand `weather`, @resource and `after NAME, NAME`"
            ));
        }
    }
    *item = Item {
        id: item.id.take(),
        name: name.join(" "),
        ..read
    };
    Ok(true)
}

fn split_after(text: &str) -> (&str, Vec<String>) {
    // Searched in the text itself: lower-casing may change the length of other letters.
    let mut places = text
        .match_indices(' ')
        .map(|(index, _)| index)
        .filter(|&index| index > 0)
        .rev();
    let found = places.find_map(|index| Some((index, strip_word(&text[index + 1..], "after")?)));
    found.map_or((text, Vec::new()), |(index, list)| (&text[..index], names(list)))
}

/// What follows a word, whatever its case.
pub(super) fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = text.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then(|| rest.trim())
}

/// The names of a list with commas or `and`.
pub(super) fn names(list: &str) -> Vec<String> {
    let parts = list.split(',').flat_map(|part| part.split(" and "));
    parts
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn read_attribute(text: &str, item: &mut Item) -> bool {
    if let Some(duration) = duration(text) {
        item.duration = Some(duration);
        return true;
    }
    if text.eq_ignore_ascii_case("weather") || text.eq_ignore_ascii_case("outdoors") {
        item.weather_sensitive = true;
        return true;
    }
    if let Some(resource) = text.strip_prefix('@') {
        return match amount(resource) {
            Some((name, amount)) => item.resources.insert(name, amount).is_none(),
            None => false,
        };
    }
    if let Some(date) = strip_word(text, "from") {
        item.earliest_start = Some(date.to_owned());
        return true;
    }
    false
}

/// `crew` or `crew=2`.
pub(super) fn amount(text: &str) -> Option<(String, u32)> {
    let (name, amount) = match text.split_once('=') {
        Some((name, amount)) => (name, amount.trim().parse().ok()?),
        None => (text, 1),
    };
    let name = name.trim();
    (!name.is_empty()).then(|| (name.to_owned(), amount))
}

/// `3d`, `1.5 days`, `4h`, `2 hours`.
fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().ok()?;
    match unit.trim().to_ascii_lowercase().as_str() {
        "d" | "day" | "days" => Some(Duration::Days(number)),
        "h" | "hour" | "hours" => Some(Duration::Hours(number)),
        _ => None,
    }
}
