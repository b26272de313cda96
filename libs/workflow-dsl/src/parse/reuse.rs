//! The section `use`: what a document defines once and refers to by name.

use std::collections::{BTreeMap, BTreeSet};

use super::Reader;
use super::cursor::Cursor;
use super::function::Functions;
use crate::document::{Authentication, ErrorTemplate, Extension, Period, Retry};
use crate::problem::{listed, quoted};

/// What `use` defines. A definition that is itself wrong is kept as `None`, so that a reference to it is not reported
/// as unknown as well.
#[derive(Default)]
pub(super) struct Reusable {
    timeouts: Definitions<Period>,
    retries: Definitions<Retry>,
    errors: Definitions<ErrorTemplate>,
    authentications: Definitions<Authentication>,
    pub(super) secrets: Vec<String>,
    pub(super) functions: Functions,
    /// What was referred to: the section and the name.
    used: BTreeSet<(&'static str, String)>,
    pub(super) extensions: Vec<Extension>,
}

type Definitions<T> = BTreeMap<String, Option<T>>;

impl Reusable {
    /// That something refers to a definition.
    pub(super) fn note_use(&mut self, section: &'static str, name: &str) {
        self.used.insert((section, name.to_owned()));
    }

    /// Whether something refers to a definition.
    pub(super) fn is_used(&self, section: &'static str, name: &str) -> bool {
        self.used.contains(&(section, name.to_owned()))
    }

    /// The definitions that nothing referred to: the section and the name of each.
    pub(super) fn unused(&self) -> Vec<(&'static str, String)> {
        let names = |section: &'static str, names: Vec<&String>| {
            let unused = names.into_iter().map(move |name| (section, name.clone()));
            unused
                .filter(|definition| !self.used.contains(definition))
                .collect::<Vec<_>>()
        };
        [
            names("timeouts", self.timeouts.keys().collect()),
            names("retries", self.retries.keys().collect()),
            names("errors", self.errors.keys().collect()),
            names("authentications", self.authentications.keys().collect()),
            names("catalogs", self.functions.catalogs.keys().collect()),
        ]
        .concat()
    }
}

impl Reader {
    pub(super) fn reusable(&mut self, at: &Cursor<'_>) {
        const ALLOWED: &[&str] = &[
            "authentications",
            "catalogs",
            "errors",
            "extensions",
            "functions",
            "retries",
            "secrets",
            "timeouts",
        ];
        let Some(fields) = self.fields(at, ALLOWED) else {
            return;
        };
        // First, because the others refer to them.
        if let Some(section) = fields.get("secrets") {
            self.reusable.secrets = self.secrets(&section);
        }
        if let Some(section) = fields.get("authentications") {
            self.reusable.authentications = self.definitions(&section, Self::inline_authentication);
        }
        if let Some(section) = fields.get("timeouts") {
            self.reusable.timeouts = self.definitions(&section, Self::inline_timeout);
        }
        if let Some(section) = fields.get("errors") {
            self.reusable.errors = self.definitions(&section, Self::inline_error);
        }
        if let Some(section) = fields.get("retries") {
            // A policy does not know which `catch` will use it, hence only the default name of the error.
            let variables = [super::catch::DEFAULT_VARIABLE.to_owned()];
            self.reusable.retries = self.with_variables(variables, |reader| {
                reader.definitions(&section, Self::inline_retry)
            });
        }
        if let Some(section) = fields.get("catalogs") {
            self.catalogs(&section);
        }
        if let Some(section) = fields.get("functions") {
            self.functions(&section);
            self.check_recursion(&section);
        }
        // Last, because functions are extended by nothing.
        if let Some(section) = fields.get("extensions") {
            self.reusable.extensions = self.extensions(&section);
        }
    }

    fn definitions<T>(
        &mut self,
        section: &Cursor<'_>,
        mut read: impl FnMut(&mut Self, &Cursor<'_>) -> Option<T>,
    ) -> Definitions<T> {
        let Some(fields) = self.object(section) else {
            return Definitions::new();
        };
        fields
            .iter()
            .map(|(name, definition)| (name.to_owned(), read(self, &definition)))
            .collect()
    }

    pub(super) fn reused_timeout(&mut self, at: &Cursor<'_>, name: &str) -> Option<Period> {
        self.reusable.note_use("timeouts", name);
        match self.reusable.timeouts.get(name) {
            Some(timeout) => timeout.clone(),
            None => self.unknown(at, name, "timeout", |reusable| {
                reusable.timeouts.keys().cloned().collect()
            }),
        }
    }

    pub(super) fn reused_retry(&mut self, at: &Cursor<'_>, name: &str) -> Option<Retry> {
        self.reusable.note_use("retries", name);
        match self.reusable.retries.get(name) {
            Some(retry) => retry.clone(),
            None => self.unknown(at, name, "retry policy", |reusable| {
                reusable.retries.keys().cloned().collect()
            }),
        }
    }

    pub(super) fn reused_error(&mut self, at: &Cursor<'_>, name: &str) -> Option<ErrorTemplate> {
        self.reusable.note_use("errors", name);
        match self.reusable.errors.get(name) {
            Some(error) => error.clone(),
            None => self.unknown(at, name, "error", |reusable| {
                reusable.errors.keys().cloned().collect()
            }),
        }
    }

    pub(super) fn reused_authentication(&mut self, at: &Cursor<'_>, name: &str) -> Option<Authentication> {
        self.reusable.note_use("authentications", name);
        match self.reusable.authentications.get(name) {
            Some(authentication) => authentication.clone(),
            None => self.unknown(at, name, "authentication", |reusable| {
                reusable.authentications.keys().cloned().collect()
            }),
        }
    }

    fn unknown<T>(
        &mut self,
        at: &Cursor<'_>,
        name: &str,
        what: &str,
        known: impl Fn(&Reusable) -> Vec<String>,
    ) -> Option<T> {
        let known = known(&self.reusable);
        let known = || known.iter().map(String::as_str);
        let nearest = muster_api::names::suggestion(name, known());
        let defined = if known().next().is_none() {
            "'use' defines none".to_owned()
        } else {
            format!("'use' defines {}", listed(known()))
        };
        self.wrong(at, format!("no such {what} {}; {defined}{nearest}", quoted(name)));
        None
    }
}
