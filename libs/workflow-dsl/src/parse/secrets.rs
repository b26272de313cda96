//! `use.secrets`: the names of the secrets that a workflow may use.

use super::Reader;
use super::cursor::Cursor;
use crate::expression::Expression;
use crate::problem::{listed, quoted};
use crate::secret;

/// Most secrets of one document.
const MOST: usize = 100;

impl Reader {
    pub(super) fn secrets(&mut self, at: &Cursor<'_>) -> Vec<String> {
        let Some(items) = self.items(at) else {
            return Vec::new();
        };
        if items.len() > MOST {
            self.wrong(at, format!("a document uses at most {MOST} secrets"));
            return Vec::new();
        }
        let mut names: Vec<String> = Vec::new();
        for item in &items {
            let Some(name) = self.text(item) else { continue };
            if !secret::is_name(name) {
                let rule = "the name of a secret is 1 to 128 letters, digits, '-', '_' and '.', and does not begin with '.'";
                self.wrong(item, format!("{rule}; found {}", quoted(name)));
            } else if names.iter().any(|known| known == name) {
                self.wrong(item, format!("the secret {} is listed twice", quoted(name)));
            } else {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// Whether the secret is listed; reported if it is not.
    pub(super) fn listed_secret(&mut self, at: &Cursor<'_>, name: &str) -> bool {
        self.reusable.note_use("secrets", name);
        let known = &self.reusable.secrets;
        let known = || known.iter().map(String::as_str);
        if known().any(|known| known == name) {
            return true;
        }
        let nearest = muster_api::names::suggestion(name, known());
        let lists = if known().next().is_none() {
            "'use.secrets' lists none; add it there".to_owned()
        } else {
            format!("'use.secrets' lists {}", listed(known()))
        };
        self.wrong(at, format!("no such secret {}; {lists}{nearest}", quoted(name)));
        false
    }

    /// Notes which secrets an expression uses: those it names, or all if it takes them as a whole.
    pub(super) fn note_secrets(&mut self, expression: &Expression) {
        let reads = expression.shape().reads.iter();
        let fields: Vec<&Option<String>> = reads
            .filter(|(variable, _)| variable == "secrets")
            .map(|(_, field)| field)
            .collect();
        for field in fields {
            match field {
                Some(name) => self.reusable.note_use("secrets", name),
                None => {
                    for name in self.reusable.secrets.clone() {
                        self.reusable.note_use("secrets", &name);
                    }
                }
            }
        }
    }

    /// The secrets that an expression names as `$secrets.NAME` are listed.
    pub(super) fn check_secrets(&mut self, at: &Cursor<'_>, source: &str) -> bool {
        let mut fits = true;
        for (start, variable) in source.match_indices("$secrets.") {
            let rest = source.get(start + variable.len()..).unwrap_or_default();
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let length = rest.bytes().take_while(|byte| is_part(*byte)).count();
            if let Some(name) = rest.get(..length).filter(|name| !name.is_empty()) {
                fits &= self.listed_secret(at, name);
            }
        }
        fits
    }
}
