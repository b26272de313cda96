//! Which city somebody means, among those that a source knows.

use muster_agent_sdk::Failure;
use muster_api::names;

use crate::question::excerpt;

/// Other names under which people know a city.
const ALIASES: &[(&str, &str)] = &[
    ("new york city", "New York"),
    ("nyc", "New York"),
    ("emerald city", "Seattle"),
];

/// The city of that name, in whatever case.
pub(crate) fn find(field: &str, name: &str, known: &[String]) -> Result<String, Failure> {
    let wanted = name.trim().to_lowercase();
    let proper = ALIASES
        .iter()
        .find(|(alias, _)| *alias == wanted)
        .map_or(wanted.clone(), |(_, city)| city.to_lowercase());
    known
        .iter()
        .find(|city| city.to_lowercase() == proper)
        .cloned()
        .ok_or_else(|| unknown(field, name, known))
}

/// The cities that a text names, in its order. A text that names none is refused with the nearest to one of its
/// words, because a person who types a text means some city.
pub(crate) fn find_in_text(text: &str, known: &[String]) -> Result<Vec<String>, Failure> {
    let lower = text.to_lowercase();
    let names = known
        .iter()
        .map(|city| (city.to_lowercase(), city.as_str()))
        .chain(ALIASES.iter().map(|(alias, city)| ((*alias).to_owned(), *city)));
    let mut found: Vec<(usize, String)> = names
        .filter(|(_, city)| known.iter().any(|it| it == city))
        .filter_map(|(name, city)| Some((place(&lower, &name)?, city.to_owned())))
        .collect();
    found.sort();
    let mut cities: Vec<String> = Vec::new();
    for (_, city) in found {
        if !cities.contains(&city) {
            cities.push(city);
        }
    }
    if cities.is_empty() && !text.trim().is_empty() {
        let meant = text.split(|c: char| !c.is_alphabetic()).find(|word| {
            word.len() > 3 && !names::nearest(word, known.iter().map(String::as_str)).is_empty()
        });
        return Err(unknown("text", meant.unwrap_or(text), known));
    }
    Ok(cities)
}

/// Where the name stands as a word of its own.
fn place(text: &str, name: &str) -> Option<usize> {
    let is_boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(name).map(|(start, _)| start).find(|start| {
        let before = text.get(..*start).and_then(|text| text.chars().next_back());
        let after = text
            .get(start + name.len()..)
            .and_then(|text| text.chars().next());
        is_boundary(before) && is_boundary(after)
    })
}

fn unknown(field: &str, name: &str, known: &[String]) -> Failure {
    Failure::invalid_field(
        field,
        format!(
            "'{}' names no known city; known are {}{}",
            excerpt(name),
            known.join(", "),
            names::suggestion(name, known.iter().map(String::as_str))
        ),
    )
}
