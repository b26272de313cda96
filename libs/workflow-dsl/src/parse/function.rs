//! `use.functions` and `use.catalogs`: functions of one's own.
//!
//! A function is a task with a name. Its definition stands in the document, or elsewhere: in a catalog, where
//! `NAME:VERSION@CATALOG` is found at `functions/NAME/VERSION/function.yaml` below the catalog's address, or at an address that the
//! call itself names. What stands elsewhere is obtained before a run begins and pinned with it ([`crate::parse_with`]); until then
//! a call of it is taken as it is.

use std::collections::{BTreeMap, BTreeSet};

use super::cursor::Cursor;
use super::flow::Targets;
use super::task::List;
use super::{Reader, Resources};
use crate::document::{Call, Destination, External, Function, Kind, TaskList, Uri, UriTemplate};
use crate::node::{self, pointer_to};
use crate::problem::{Place, Problems, Severity, quoted};

/// Most functions of one document, those from elsewhere included.
const MOST: usize = 100;

/// What is known of functions while a document is read.
#[derive(Default)]
pub(super) struct Functions {
    /// Names of those in the document: they may call each other in any order.
    pub(super) names: Vec<String>,
    pub(super) defined: Vec<Function>,
    /// Addresses of catalogs by name; none for one that is wrong.
    pub(super) catalogs: BTreeMap<String, Option<Destination>>,
    external: Vec<External>,
}

impl Reader {
    /// `use.catalogs`.
    pub(super) fn catalogs(&mut self, at: &Cursor<'_>) {
        let Some(fields) = self.object(at) else { return };
        for (name, definition) in fields.iter() {
            let catalog = self.fields(&definition, &["endpoint"]).and_then(|fields| {
                let endpoint = self.require(&fields, "endpoint")?;
                let destination = self.destination(&endpoint, &["http", "https", "file"])?;
                if crate::request::Destination::written(&destination).is_none() {
                        let message = "the address of a catalog and its authentication are written out, without expressions: they \
                                       are needed before there are data; a secret is named by 'use'";
                        self.wrong(&endpoint, message);
                    return None;
                }
                Some(destination)
            });
            self.reusable.functions.catalogs.insert(name.to_owned(), catalog);
        }
    }

    /// `use.functions`.
    pub(super) fn functions(&mut self, at: &Cursor<'_>) {
        let Some(fields) = self.object(at) else { return };
        if fields.entries.len() > MOST {
            self.wrong(at, format!("a document defines at most {MOST} functions"));
            return;
        }
        self.reusable.functions.names = fields.iter().map(|(name, _)| name.to_owned()).collect();
        for (name, definition) in fields.iter() {
            if super::call::is_of_the_language(name) {
                self.wrong_name(
                    &definition,
                    format!("{} is a function of the language", quoted(name)),
                );
                continue;
            }
            if let Some(tasks) = self.function(name, &definition) {
                self.reusable.functions.defined.push(Function {
                    name: name.to_owned(),
                    tasks,
                    raw: None,
                });
            }
        }
    }

    /// The definition of a function: one task, which has no neighbours to go to.
    fn function(&mut self, name: &str, at: &Cursor<'_>) -> Option<TaskList> {
        if let Some(then) = at.child("then") {
            self.wrong_name(
                &then,
                "a function has nowhere to go; where the flow goes is said by the task that calls it",
            );
            return None;
        }
        let targets = Targets {
            names: &[Some(name)],
            list: List::Branches,
        };
        let task = self.task(name, at, &targets)?;
        Some(TaskList {
            pointer: at.pointer.clone(),
            tasks: vec![task],
        })
    }

    /// Whether `name` is that of a function elsewhere; then it is noted down. None if it is one and is wrong.
    pub(super) fn external_function(&mut self, at: &Cursor<'_>, name: &str) -> Option<bool> {
        let endpoint = if name.contains("://") {
            let Uri::Template(address) = self.uri(at, &["http", "https", "file"])? else {
                return None;
            };
            if address.fixed().is_none() {
                self.wrong(
                    at,
                    "the address of a function is written out: it is needed before there are data",
                );
                return None;
            }
            Destination {
                uri: Uri::Template(address),
                authentication: None,
            }
        } else if let Some((function, catalog)) = name.rsplit_once('@') {
            self.catalogued(at, function, catalog)?
        } else {
            return Some(false);
        };
        self.external(at, name, endpoint)?;
        Some(true)
    }

    /// Notes down what stands at the address of a resource; what its text is known by, once it has been obtained.
    pub(super) fn elsewhere(&mut self, at: &Cursor<'_>, kind: Elsewhere) -> Option<String> {
        let resource = self.resource(at)?;
        let Some(written) = crate::request::Destination::written(&resource.endpoint) else {
            let message = format!(
                "the address of a {} and its authentication are written out, without expressions: they are needed before there are \
                 data; a secret is named by 'use'",
                kind.word()
            );
            self.wrong(at, message);
            return None;
        };
        let name = kind.name(&written.uri);
        self.external(at, &name, resource.endpoint)?;
        Some(name)
    }

    /// Notes down something that the document refers to and does not contain.
    pub(super) fn external(&mut self, at: &Cursor<'_>, name: &str, endpoint: Destination) -> Option<()> {
        let functions = &mut self.reusable.functions;
        if functions.external.iter().any(|known| known.name == name) {
            return Some(());
        }
        if functions.external.len() >= MOST {
            let message =
                format!("a document refers to at most {MOST} functions, schemas and scripts elsewhere");
            self.wrong(at, message);
            return None;
        }
        functions.external.push(External {
            name: name.to_owned(),
            endpoint,
        });
        Some(())
    }

    /// Where `function`, which is `NAME:VERSION`, of a catalog is.
    fn catalogued(&mut self, at: &Cursor<'_>, function: &str, catalog: &str) -> Option<Destination> {
        let is_part = |text: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
            !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('.')
        };
        let Some((name, version)) = function
            .split_once(':')
            .filter(|(name, version)| is_part(name) && is_part(version))
        else {
            let message = format!(
                "a function of a catalog is called NAME:VERSION@CATALOG; found {}",
                quoted(function)
            );
            self.wrong(at, message);
            return None;
        };
        self.reusable.note_use("catalogs", catalog);
        let known = self.reusable.functions.catalogs.get(catalog).cloned();
        let Some(known) = known else {
            let names: Vec<String> = self.reusable.functions.catalogs.keys().cloned().collect();
            let nearest = muster_api::names::suggestion(catalog, names.iter().map(String::as_str));
            self.wrong(
                at,
                format!(
                    "no such catalog {}; 'use.catalogs' defines where it is{nearest}",
                    quoted(catalog)
                ),
            );
            return None;
        };
        let Destination { uri, authentication } = known?;
        let base = raw_address(uri.fixed()?.trim_end_matches('/'));
        let address = format!("{base}/functions/{name}/{version}/function.yaml");
        Some(Destination {
            uri: Uri::Template(UriTemplate::parse(&address).ok()?),
            authentication,
        })
    }

    /// Reads the functions from elsewhere that have been obtained. They may call others.
    pub(super) fn obtained(&mut self, resources: &Resources) {
        let mut next = 0;
        while let Some(external) = self.reusable.functions.external.get(next).cloned() {
            next += 1;
            let Some(text) = resources
                .get(&external.name)
                .filter(|_| is_function(&external.name))
            else {
                continue;
            };
            let (function, problems) = self.read_function(&external.name, text);
            if let Some(problem) = (&problems)
                .into_iter()
                .find(|problem| problem.severity == Severity::Error)
            {
                let message = format!(
                    "the definition of the function {} is wrong, in its line {}: {}",
                    quoted(&external.name),
                    problem.line,
                    problem.message
                );
                self.problems.error(Place { line: 1, column: 1 }, "", message);
            }
            self.reusable.functions.defined.extend(function);
        }
    }

    fn read_function(&mut self, name: &str, text: &str) -> (Option<Function>, Problems) {
        let before = std::mem::take(&mut self.problems);
        let mut problems = Problems::default();
        let root = node::read(
            text,
            "a function is a task, such as {set: {text: hello}}",
            &mut problems,
        );
        self.problems = problems;
        let function = root.and_then(|root| {
            let at = Cursor {
                pointer: pointer_to("/use/functions", name),
                ..Cursor::root(&root)
            };
            // Its own expressions see nothing of the document's scope.
            let tasks = self.apart(|reader| reader.function(name, &at))?;
            Some(Function {
                name: name.to_owned(),
                tasks,
                raw: Some(root.to_value()),
            })
        });
        let problems = std::mem::replace(&mut self.problems, before);
        (function, problems)
    }

    /// Reads something that does not see where it is called from.
    fn apart<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let extensions = std::mem::take(&mut self.reusable.extensions);
        let loose = std::mem::take(&mut self.loose);
        let value = read(self);
        self.reusable.extensions = extensions;
        self.loose = loose;
        value
    }

    /// Refuses functions that call themselves.
    pub(super) fn check_recursion(&mut self, at: &Cursor<'_>) {
        let functions = std::mem::take(&mut self.reusable.functions.defined);
        let calls: BTreeMap<&str, Vec<&str>> = functions
            .iter()
            .map(|function| (function.name.as_str(), called(&function.tasks)))
            .collect();
        let mut cycles = Vec::new();
        for name in calls.keys() {
            let mut seen = BTreeSet::new();
            let mut pending = calls.get(name).cloned().unwrap_or_default();
            while let Some(next) = pending.pop() {
                if next == *name {
                    cycles.push(format!(
                        "the function {} ends up calling itself; use a loop",
                        quoted(name)
                    ));
                    break;
                }
                if seen.insert(next) {
                    pending.extend(calls.get(next).into_iter().flatten());
                }
            }
        }
        for cycle in cycles {
            self.wrong_name(at, cycle);
        }
        self.reusable.functions.defined = functions;
    }

    /// The functions, and what the document refers to and does not contain.
    pub(super) fn take_functions(&mut self, resources: &Resources) -> (Vec<Function>, Vec<External>) {
        let functions = &mut self.reusable.functions;
        let defined = std::mem::take(&mut functions.defined);
        let missing = std::mem::take(&mut functions.external).into_iter();
        let missing = missing.filter(|external| !resources.contains_key(&external.name));
        (defined, missing.collect())
    }
}

/// What else than a function may stand elsewhere. Its name says what it is, and is no function's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    Schema,
    Script,
}

impl Elsewhere {
    const ALL: [Self; 2] = [Self::Schema, Self::Script];

    const fn word(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Script => "script",
        }
    }

    /// What the one at this address is known by.
    fn name(self, address: &str) -> String {
        format!("{} {address}", self.word())
    }

    fn is_name(self, name: &str) -> bool {
        name.split_once(' ').is_some_and(|(word, _)| word == self.word())
    }
}

fn is_function(name: &str) -> bool {
    !Elsewhere::ALL.iter().any(|kind| kind.is_name(name))
}

/// The functions that tasks call.
fn called(tasks: &TaskList) -> Vec<&str> {
    let mut names = Vec::new();
    let mut pending = vec![tasks];
    while let Some(list) = pending.pop() {
        for task in &list.tasks {
            if let Kind::Call(Call::Function(call)) = &task.kind {
                names.push(call.function.as_str());
            }
            pending.extend(task.lists());
        }
    }
    names
}

/// Where the files are that a page of a repository shows.
fn raw_address(address: &str) -> String {
    let pages = address.strip_prefix("https://github.com/").and_then(|path| {
        let mut parts = path.splitn(4, '/');
        let (owner, repository) = (parts.next()?, parts.next()?);
        match (parts.next(), parts.next()) {
            (None, _) => Some(format!("{owner}/{repository}/main")),
            (Some("tree" | "blob"), Some(rest)) => Some(format!("{owner}/{repository}/{rest}")),
            _ => None,
        }
    });
    pages.map_or_else(
        || address.to_owned(),
        |path| format!("https://raw.githubusercontent.com/{path}"),
    )
}

#[cfg(test)]
mod tests {
    use super::raw_address;

    #[test]
    fn pages_of_a_repository_lead_to_its_files() {
        for (address, expected) in [
            (
                "https://github.com/a/b",
                "https://raw.githubusercontent.com/a/b/main",
            ),
            (
                "https://github.com/a/b/tree/v1/x",
                "https://raw.githubusercontent.com/a/b/v1/x",
            ),
            ("https://catalog.example/a", "https://catalog.example/a"),
        ] {
            assert_eq!(raw_address(address), expected);
        }
    }
}
