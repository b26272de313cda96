//! What dashboards and rules ask Prometheus for, and the names of the metrics in it.
//!
//! Those that this program was built with, or those of a directory. Of an expression only the names of its metrics are wanted, so it
//! is split into words; whether it is a good expression is for Prometheus to say. Rejected: a parser of PromQL, whose generated
//! tables cost more to build than the rest of the command.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;
use crate::read;

/// Largest file of a dashboard or of rules.
const LARGEST: u64 = 4 << 20;

/// The dashboards of this program.
const DASHBOARDS: [(&str, &str); 5] = [
    (
        "agent_system_overview.json",
        include_str!("../../../../deploy/grafana/dashboards/agent_system_overview.json"),
    ),
    (
        "workflow_performance.json",
        include_str!("../../../../deploy/grafana/dashboards/workflow_performance.json"),
    ),
    (
        "a2a_communication.json",
        include_str!("../../../../deploy/grafana/dashboards/a2a_communication.json"),
    ),
    (
        "resource_utilization.json",
        include_str!("../../../../deploy/grafana/dashboards/resource_utilization.json"),
    ),
    (
        "error_tracking.json",
        include_str!("../../../../deploy/grafana/dashboards/error_tracking.json"),
    ),
];

/// The rules of this program.
const RULES: [(&str, &str); 2] = [
    (
        "recording.yml",
        include_str!("../../../../deploy/prometheus/rules/recording.yml"),
    ),
    (
        "alerts.yml",
        include_str!("../../../../deploy/prometheus/rules/alerts.yml"),
    ),
];

/// An expression that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Where it stands.
    pub place: String,
    /// Its text, with what a dashboard fills in.
    pub text: String,
}

/// All that is asked for.
#[derive(Debug, Default)]
pub struct Queries {
    /// Every expression.
    pub all: Vec<Query>,
    /// Names that rules give to what they compute.
    pub recorded: BTreeSet<String>,
}

impl Queries {
    /// Those of this program, or of the directory `deploy` of another one.
    pub fn read(deploy: Option<&Path>) -> Result<Self, Failure> {
        let mut queries = Self::default();
        for (name, own) in DASHBOARDS {
            let text = text(deploy, "grafana/dashboards", name, own)?;
            let dashboard: Value =
                serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
            queries.add_dashboard(name, &dashboard);
        }
        for (name, own) in RULES {
            let text = text(deploy, "prometheus/rules", name, own)?;
            let rules: Value =
                yaml_serde::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
            queries.add_rules(name, &rules);
        }
        Ok(queries)
    }

    fn add_dashboard(&mut self, name: &str, dashboard: &Value) {
        let panels = dashboard["panels"].as_array().into_iter().flatten();
        let targets = panels.flat_map(|panel| {
            let title = panel["title"].as_str().unwrap_or_default();
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.filter_map(move |target| Some((title, target["expr"].as_str()?)))
        });
        let notes = dashboard["annotations"]["list"].as_array().into_iter().flatten();
        let notes = notes.filter_map(|note| Some(("annotation", note["expr"].as_str()?)));
        for (title, text) in targets.chain(notes) {
            self.all.push(Query {
                place: format!("{name}: {title}"),
                text: text.replace("$service", ".*").replace("$__rate_interval", "1m"),
            });
        }
    }

    fn add_rules(&mut self, name: &str, rules: &Value) {
        let groups = rules["groups"].as_array().into_iter().flatten();
        for rule in groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()) {
            if let Some(recorded) = rule["record"].as_str() {
                self.recorded.insert(recorded.to_owned());
            }
            let title = rule["alert"].as_str().or(rule["record"].as_str());
            if let Some(text) = rule["expr"].as_str() {
                self.all.push(Query {
                    place: format!("{name}: {}", title.unwrap_or_default()),
                    text: text.to_owned(),
                });
            }
        }
    }
}

fn text(deploy: Option<&Path>, folder: &str, name: &str, own: &str) -> Result<String, Failure> {
    match deploy {
        None => Ok(own.to_owned()),
        Some(deploy) => {
            let path = deploy.join(folder).join(name);
            read::bounded_text(&format!("--deploy-dir {}", path.display()), &path, LARGEST)
        }
    }
}

/// Words of the language that are no metrics where no parenthesis follows.
const WORDS: [&str; 30] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "atan2",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "inf",
    "nan",
    "start",
    "end",
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "stddev",
    "stdvar",
    "count",
    "count_values",
    "bottomk",
    "topk",
    "quantile",
    "limitk",
    "limit_ratio",
];

/// Words after which labels stand in parentheses.
const LABELLED: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names of the metrics in an expression.
pub fn metrics(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(letter) = rest.chars().next() {
        let begins_word = letter.is_ascii_alphabetic() || letter == '_' || letter == ':';
        if begins_word || letter.is_ascii_digit() {
            let length = rest
                .find(|letter: char| !(letter.is_ascii_alphanumeric() || "_:.".contains(letter)))
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            let after = after.trim_start();
            let lower = word.to_ascii_lowercase();
            if LABELLED.contains(&lower.as_str()) && after.starts_with('(') {
                rest = past(after, ')');
                continue;
            }
            if begins_word && !after.starts_with('(') && !WORDS.contains(&lower.as_str()) {
                found.insert(word.to_owned());
            }
            rest = after;
            continue;
        }
        rest = match letter {
            '{' => past(rest, '}'),
            '[' => past(rest, ']'),
            '"' | '\'' | '`' => past_text(rest, letter),
            '#' => rest.split_once('\n').map_or("", |(_, next)| next),
            other => rest.get(other.len_utf8()..).unwrap_or_default(),
        };
    }
    found
}

/// What comes after the next `end` outside of texts.
fn past(text: &str, end: char) -> &str {
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if letter == end {
            return rest.get(letter.len_utf8()..).unwrap_or_default();
        }
        rest = match letter {
            '"' | '\'' | '`' => past_text(rest, letter),
            other => rest.get(other.len_utf8()..).unwrap_or_default(),
        };
    }
    rest
}

/// What comes after a text that begins here.
fn past_text(text: &str, quote: char) -> &str {
    let mut escaped = true; // the first is the quote that begins it
    for (at, letter) in text.char_indices() {
        if letter == quote && !escaped {
            return text.get(at + letter.len_utf8()..).unwrap_or_default();
        }
        escaped = letter == '\\' && !escaped;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_from_functions_labels_and_texts() {
        for (expression, expected) in [
            ("up", &["up"][..]),
            (
                r#"sum by (service) (rate(a_total{code=~"5..",x="}b_total"}[5m]))"#,
                &["a_total"],
            ),
            ("sum(a) / on (pod) group_left (node) b > bool 0.5", &["a", "b"]),
            (
                "histogram_quantile(0.95, sum by (le) (rate(h_bucket[1m])))",
                &["h_bucket"],
            ),
            (
                "a offset 5m unless b and c:d:rate5m or vector(1)",
                &["a", "b", "c:d:rate5m"],
            ),
            (r#"label_replace(m, "to", "$1", "from", "(.*)")"#, &["m"]),
            ("max_over_time(a[30m:1m]) - 1e9 # b", &["a"]),
            ("count without (x, y) (ALERTS) > 100", &["ALERTS"]),
        ] {
            let found: Vec<String> = metrics(expression).into_iter().collect();
            assert_eq!(found, expected, "{expression}");
        }
    }

    #[test]
    fn every_dashboard_and_rule_of_this_program_asks_for_something() {
        let queries = Queries::read(None).unwrap();
        assert!(queries.all.len() > 50, "{}", queries.all.len());
        for query in &queries.all {
            assert!(
                !metrics(&query.text).is_empty() || query.text.contains("vector"),
                "{query:?}"
            );
        }
        assert!(!queries.recorded.is_empty());
    }
}
