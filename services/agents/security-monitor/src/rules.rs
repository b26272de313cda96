//! Sigma rules: the built-in ones and those of a folder, checked one file at a time.
//!
//! A mistake is reported with the name of its file, all mistakes at once, when the agent starts: a rule that silently
//! does not work is worse than none. Rules are told apart by their id (the title stands in where there is none), and
//! correlations refer to rules of any file by id or name.
//!
//! Besides the standard keys a rule may say what to do about a finding in `response:`.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rsigma_eval::compile_rule;
use rsigma_eval::correlation::compile_correlation;
use rsigma_eval::{CorrelationConfig, CorrelationEngine, TimestampFallback};
use rsigma_parser::{CorrelationRule, Level, SigmaCollection, SigmaRule, parse_sigma_yaml};

use crate::finding::Severity;

/// Most rule files of a folder.
pub const MAX_FILES: usize = 2_000;
/// Largest rule file.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Entries that one evaluation keeps for all windows, and for one window.
const MAX_STATE: usize = 20_000;
const MAX_WINDOW: usize = 1_000;

/// The built-in rules: name and text of each file.
const BUILT_IN: [(&str, &str); 11] = [
    (
        "ssh-brute-force.yml",
        include_str!("../rules/ssh-brute-force.yml"),
    ),
    (
        "ssh-login-after-failures.yml",
        include_str!("../rules/ssh-login-after-failures.yml"),
    ),
    (
        "ssh-user-enumeration.yml",
        include_str!("../rules/ssh-user-enumeration.yml"),
    ),
    ("muster-audit.yml", include_str!("../rules/muster-audit.yml")),
    ("ssh-root-login.yml", include_str!("../rules/ssh-root-login.yml")),
    ("sudo-refused.yml", include_str!("../rules/sudo-refused.yml")),
    (
        "sudo-root-shell.yml",
        include_str!("../rules/sudo-root-shell.yml"),
    ),
    ("account-change.yml", include_str!("../rules/account-change.yml")),
    (
        "web-path-traversal.yml",
        include_str!("../rules/web-path-traversal.yml"),
    ),
    (
        "web-sql-injection.yml",
        include_str!("../rules/web-sql-injection.yml"),
    ),
    ("web-scanning.yml", include_str!("../rules/web-scanning.yml")),
];

/// Rules that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Error(pub Vec<String>);

/// What a finding tells about its rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The rule's name; its id where it has none.
    pub name: String,
    /// Its title.
    pub title: String,
    /// How bad; medium where it does not say.
    pub severity: Severity,
    /// `T1110.001` and the like.
    pub mitre: Vec<String>,
    /// `credential-access` and the like.
    pub tactics: Vec<String>,
    /// What to do.
    pub response: String,
    /// Whether it only feeds correlations, and is no finding by itself.
    pub feeds_only: bool,
}

/// A correlation: what it counts, and by what.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    /// Its id.
    pub id: String,
    /// The fields by which it groups, each with other names that it has in some rules.
    pub group_by: Vec<GroupField>,
    /// The ids of the rules that feed it, directly or through other correlations.
    pub fed_by: BTreeSet<String>,
}

/// A field by which a correlation groups.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupField {
    /// Its name in the correlation.
    pub name: String,
    /// Its name in the events of particular rules, by the rules' ids.
    pub aliases: HashMap<String, String>,
}

/// Rules that work.
#[derive(Debug)]
pub struct Ruleset {
    collection: SigmaCollection,
    rules: HashMap<String, Rule>,
    correlations: Vec<Correlation>,
}

impl Ruleset {
    /// The built-in rules, and those of a folder (`.yml` and `.yaml`, not below it).
    ///
    /// # Errors
    /// Names every file that cannot be used, and why.
    pub fn load(folder: Option<&Path>) -> Result<Self, Error> {
        let mut files: Vec<(String, String)> = BUILT_IN
            .iter()
            .map(|&(name, text)| (name.to_owned(), text.to_owned()))
            .collect();
        let mut mistakes = Vec::new();
        if let Some(folder) = folder {
            match read(folder) {
                Ok(more) => files.extend(more),
                Err(error) => mistakes.push(error),
            }
        }
        Self::new(&files, mistakes)
    }

    /// The rules of some files: name and text of each.
    fn new(files: &[(String, String)], mut mistakes: Vec<String>) -> Result<Self, Error> {
        let mut all = SigmaCollection::new();
        let mut origin: HashMap<String, String> = HashMap::new();
        for (file, text) in files {
            match parse_sigma_yaml(text) {
                Ok(collection) => take(file, collection, &mut all, &mut origin, &mut mistakes),
                Err(error) => mistakes.push(format!("{file}: {error}")),
            }
        }
        let ids = identities(&all);
        for correlation in &all.correlations {
            let file = origin
                .get(identity(correlation.id.as_ref(), &correlation.title))
                .map_or("", String::as_str);
            for wanted in correlation
                .rules
                .iter()
                .filter(|wanted| !ids.contains_key(wanted.as_str()))
            {
                let hint = muster_api::names::suggestion(wanted, ids.keys().copied());
                mistakes.push(format!(
                    "{file}: '{}' refers to the unknown rule '{wanted}'{hint}",
                    correlation.title
                ));
            }
        }
        if !mistakes.is_empty() {
            return Err(Error(mistakes));
        }
        let correlations = correlations(&all, &ids);
        let rules = described(&all, &correlations);
        let ruleset = Self {
            collection: all,
            rules,
            correlations,
        };
        ruleset.engine().map_err(|error| Error(vec![error]))?; // finds circles among correlations
        Ok(ruleset)
    }

    /// A new evaluation, without any memory of others.
    ///
    /// # Errors
    /// Not for rules that have been loaded.
    pub fn engine(&self) -> Result<CorrelationEngine, String> {
        let mut engine = CorrelationEngine::new(CorrelationConfig {
            timestamp_fallback: TimestampFallback::Skip,
            max_state_entries: MAX_STATE,
            max_group_entries: Some(MAX_WINDOW),
            ..CorrelationConfig::default()
        });
        engine
            .add_collection(&self.collection)
            .map_err(|error| error.to_string())?;
        Ok(engine)
    }

    /// What is known about the rule or correlation of that id.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id)
    }

    /// The correlations.
    #[must_use]
    pub fn correlations(&self) -> &[Correlation] {
        &self.correlations
    }

    /// How many rules and correlations there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.collection.rules.len() + self.collection.correlations.len()
    }
}

fn read(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let said = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| said(folder, &error))? {
        let path = entry.map_err(|error| said(folder, &error))?.path();
        let is_rule = path
            .extension()
            .is_some_and(|extension| extension == "yml" || extension == "yaml");
        if is_rule {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(said(
                folder,
                &format!("has more than {MAX_FILES} rule files; use fewer"),
            ));
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let bytes = std::fs::metadata(&path)
            .map_err(|error| said(&path, &error))?
            .len();
        if bytes > MAX_FILE_BYTES {
            return Err(said(
                &path,
                &format!("has {bytes} bytes; at most {MAX_FILE_BYTES} are read"),
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| said(&path, &error))?;
        files.push((path.display().to_string(), text));
    }
    Ok(files)
}

/// Takes the rules of one file that work, and the mistakes of those that do not.
fn take(
    file: &str,
    collection: SigmaCollection,
    all: &mut SigmaCollection,
    origin: &mut HashMap<String, String>,
    mistakes: &mut Vec<String>,
) {
    mistakes.extend(collection.errors.iter().map(|error| format!("{file}: {error}")));
    let nothing =
        collection.rules.is_empty() && collection.correlations.is_empty() && collection.filters.is_empty();
    if nothing && collection.errors.is_empty() {
        mistakes.push(format!("{file}: there is no rule in it"));
    }
    let mut known = |id: &str, title: &str| {
        let other = origin.insert(id.to_owned(), file.to_owned())?;
        Some(format!(
            "{file}: the id '{id}' of '{title}' is already in {other}"
        ))
    };
    for mut rule in collection.rules {
        let id = identity(rule.id.as_ref(), &rule.title).to_owned();
        match compile_rule(&rule) {
            Ok(_) => mistakes.extend(known(&id, &rule.title)),
            Err(error) => mistakes.push(format!("{file}: '{}': {error}", rule.title)),
        }
        rule.id = Some(id);
        all.rules.push(rule);
    }
    for mut rule in collection.correlations {
        let id = identity(rule.id.as_ref(), &rule.title).to_owned();
        match compile_correlation(&rule) {
            Ok(_) => mistakes.extend(known(&id, &rule.title)),
            Err(error) => mistakes.push(format!("{file}: '{}': {error}", rule.title)),
        }
        rule.id = Some(id);
        all.correlations.push(rule);
    }
    all.filters.extend(collection.filters);
}

fn identity<'a>(id: Option<&'a String>, title: &'a str) -> &'a str {
    id.map_or(title, String::as_str)
}

/// The ids and names by which correlations may refer to rules, each with the id that it means.
fn identities(all: &SigmaCollection) -> HashMap<&str, &str> {
    let rules = all
        .rules
        .iter()
        .map(|rule| (rule.id.as_ref(), rule.name.as_ref()));
    let correlations = all
        .correlations
        .iter()
        .map(|rule| (rule.id.as_ref(), rule.name.as_ref()));
    let mut ids = HashMap::new();
    for (id, name) in rules.chain(correlations) {
        if let Some(id) = id {
            ids.insert(id.as_str(), id.as_str());
            if let Some(name) = name {
                ids.insert(name.as_str(), id.as_str());
            }
        }
    }
    ids
}

fn correlations(all: &SigmaCollection, ids: &HashMap<&str, &str>) -> Vec<Correlation> {
    let by_id: HashMap<&str, &CorrelationRule> = all
        .correlations
        .iter()
        .filter_map(|rule| Some((rule.id.as_deref()?, rule)))
        .collect();
    all.correlations
        .iter()
        .map(|rule| Correlation {
            id: rule.id.clone().unwrap_or_default(),
            group_by: rule
                .group_by
                .iter()
                .map(|field| group_field(rule, field, ids))
                .collect(),
            fed_by: feeders(rule, &by_id, ids),
        })
        .collect()
}

fn group_field(rule: &CorrelationRule, field: &str, ids: &HashMap<&str, &str>) -> GroupField {
    let alias = rule.aliases.iter().find(|alias| alias.alias == field);
    let aliases = alias
        .into_iter()
        .flat_map(|alias| &alias.mapping)
        .filter_map(|(rule, name)| Some(((*ids.get(rule.as_str())?).to_owned(), name.clone())));
    GroupField {
        name: field.to_owned(),
        aliases: aliases.collect(),
    }
}

/// The rules that feed a correlation; a circle among correlations ends here too.
fn feeders(
    rule: &CorrelationRule,
    by_id: &HashMap<&str, &CorrelationRule>,
    ids: &HashMap<&str, &str>,
) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut pending: Vec<&str> = rule.rules.iter().map(String::as_str).collect();
    while let Some(reference) = pending.pop() {
        let Some(&id) = ids.get(reference) else { continue };
        if !seen.insert(id) {
            continue;
        }
        match by_id.get(id) {
            Some(correlation) => pending.extend(correlation.rules.iter().map(String::as_str)),
            None => {
                rules.insert(id.to_owned());
            }
        }
    }
    rules
}

fn described(all: &SigmaCollection, correlations: &[Correlation]) -> HashMap<String, Rule> {
    let generating: HashMap<&str, bool> = all
        .correlations
        .iter()
        .filter_map(|rule| Some((rule.id.as_deref()?, rule.generate)))
        .collect();
    let feeds_only = |id: &str| {
        correlations.iter().any(|correlation| {
            correlation.fed_by.contains(id)
                && !generating.get(correlation.id.as_str()).copied().unwrap_or(false)
        })
    };
    let rules = all.rules.iter().filter_map(|rule: &SigmaRule| {
        let id = rule.id.clone()?;
        let response = rule
            .custom_attributes
            .get("response")
            .and_then(|value| value.as_str());
        let feeds_only = feeds_only(&id);
        let name = rule.name.clone().unwrap_or_else(|| id.clone());
        Some((
            id,
            described_one(name, &rule.title, rule.level, &rule.tags, response, feeds_only),
        ))
    });
    let correlations = all.correlations.iter().filter_map(|rule| {
        let id = rule.id.clone()?;
        let response = rule
            .custom_attributes
            .get("response")
            .and_then(|value| value.as_str());
        let name = rule.name.clone().unwrap_or_else(|| id.clone());
        Some((
            id,
            described_one(name, &rule.title, rule.level, &rule.tags, response, false),
        ))
    });
    rules.chain(correlations).collect()
}

fn described_one(
    name: String,
    title: &str,
    level: Option<Level>,
    tags: &[String],
    response: Option<&str>,
    feeds_only: bool,
) -> Rule {
    let attack = || tags.iter().filter_map(|tag| tag.strip_prefix("attack."));
    let is_technique = |tag: &str| {
        tag.strip_prefix(['t', 'T'])
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    Rule {
        name,
        title: title.to_owned(),
        severity: level.map_or(Severity::Medium, Severity::from),
        mitre: attack()
            .filter(|tag| is_technique(tag))
            .map(str::to_uppercase)
            .collect(),
        tactics: attack()
            .filter(|tag| !is_technique(tag))
            .map(|tag| tag.replace('_', "-"))
            .collect(),
        response: response
            .unwrap_or("Look at the quoted lines, and decide with the owner of the host.")
            .to_owned(),
        feeds_only,
    }
}

#[cfg(test)]
mod tests;
