//! Lines that are no entry: the title, the dates, and what else holds for the whole plan.

use super::entry::{self, names, strip_word};
use crate::plan::request::PlanRequest;

/// Reads a line without a marker. True when it was a setting or the title; false when it is an entry.
pub(super) fn read(line: &str, is_first: bool, request: &mut PlanRequest) -> Result<bool, String> {
    let line = line.trim();
    for word in ["start", "start:", "starting", "from", "from:"] {
        if let Some(date) = strip_word(line, word).filter(|rest| is_date_like(rest)) {
            request.start_date = Some(date.to_owned());
            return Ok(true);
        }
    }
    if let Some(date) = keyword(line, "today").filter(|rest| is_date_like(rest)) {
        request.today = Some(date.to_owned());
    } else if let Some(dates) = keyword(line, "avoid").filter(|rest| is_date_like(rest)) {
        request.avoid_dates.extend(names(dates));
    } else if let Some(done) = keyword(line, "done") {
        request.done.extend(names(done));
    } else if let Some(list) = keyword(line, "progress") {
        for part in names(list) {
            request.progress.extend([percent(&part)?]);
        }
    } else if let Some(percent) = keyword(line, "buffer") {
        request.buffer_percent = Some(number(percent.trim_end_matches('%').trim())?);
    } else if let Some(hours) = keyword(line, "hours") {
        request.hours_per_day = Some(number(hours)?);
    } else if let Some(list) = keyword(line, "resources") {
        for part in names(list) {
            let (name, amount) =
                entry::amount(&part).ok_or_else(|| format!("'{part}' is not understood; write crew=2"))?;
            request.resources.insert(name, amount);
        }
    } else if line.eq_ignore_ascii_case("working days") || line.eq_ignore_ascii_case("working days only") {
        request.working_days_only = true;
    } else if let Some(name) = keyword(line, "goal")
        .or_else(|| keyword(line, "plan"))
        .or_else(|| line.strip_prefix('#'))
    {
        title(name, request);
    } else if is_first && request.name.is_none() && !entry::has_duration(line) {
        title(line, request);
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Reads a title, which may end in `from DATE`.
pub(super) fn title(text: &str, request: &mut PlanRequest) {
    let text = text
        .trim_matches(|c: char| c == '#' || c.is_whitespace())
        .trim_end_matches(':');
    let words: Vec<&str> = text.split_whitespace().collect();
    let name = match words.as_slice() {
        [name @ .., from, date]
            if is_date_like(date)
                && ["from", "starting", "on"]
                    .iter()
                    .any(|word| from.eq_ignore_ascii_case(word)) =>
        {
            request.start_date = Some((*date).to_owned());
            name.join(" ")
        }
        _ => words.join(" "),
    };
    if !name.is_empty() {
        request.name = Some(name);
    }
}

/// What follows `word` or `word:`.
fn keyword<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    first
        .trim_end_matches(':')
        .eq_ignore_ascii_case(word)
        .then(|| rest.trim())
}

/// Whether a text begins as a date does, so that `avoid 2014-…` is told from a task called "Avoid traffic".
fn is_date_like(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('-')
}

fn percent(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("'{text}' is not understood; write roof=50");
    let (id, percent) = text.split_once('=').ok_or_else(wrong)?;
    Ok((
        id.trim().to_owned(),
        number(percent.trim_end_matches('%').trim())?,
    ))
}

fn number(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| format!("'{text}' is no number"))
}
