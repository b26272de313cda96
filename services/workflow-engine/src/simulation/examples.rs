//! Every example workflow, killed at every commit, cut after every journal entry, and failed at every call.
//!
//! The examples are the documents in `tests/examples/`, one for each of the language's own, and the documents that the README
//! shows. What becomes of each is said in tables: without faults in the tables of fates, when one of its calls fails in
//! [`handling`], and when something else goes wrong in [`mishap`]. An example, or a call of one, of which the tables say nothing
//! fails the test.
//!
//! An example is performed in lives like those of [`super::life`], on the same simulated store and under the same witness. Other
//! than there, its people do one thing after the other, and whoever is called stands for a library, its clerks and its programs
//! ([`library`]). What they answer follows from the task that asks and from the number of its attempt, both of which the durable
//! journal says: so a message that is sent again is answered as before, in whichever life.
//!
//! The lives are told apart by where the first one ends: right before and right after the commit with the number `n`, for each `n`
//! until a life does not get that far; and once more each, with a second kill while the engine recovers. All of them must end as
//! the one without a kill. A single kill is tried with every mishap, too.
//!
//! Rejected: plans of chance with the examples among their documents. They would meet each boundary sooner or later, and nobody
//! could say that they had met all. Also rejected: the callers of the real engine on a simulated network. The boundaries that are
//! asked for here are those of the journal; what the callers make of a network, `tests/engine/examples.rs` has on a real one.

#[path = "../../tests/engine/examples/fates.rs"]
mod fates;
mod handling;
mod library;
mod lives;
mod mishap;
mod outcome;
mod people;
mod readme;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use fates::{CHILD, Fate};

/// Where the library is, in place of an address of this machine.
const LIBRARY: &str = "http://library.test";

/// A document, and what is known of it.
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) document: String,
    pub(crate) fate: Fate,
    /// Documents of the catalogue that it runs.
    pub(crate) catalogue: Vec<String>,
}

impl Example {
    /// Name of the workflow. The document may be none that can be read.
    fn workflow(&self) -> &str {
        let (_, rest) = self.document.split_once("name: ").unwrap();
        let end = rest.find([',', ' ', '\n']).unwrap();
        &rest[..end]
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Example> {
    let mut examples = of_the_language();
    examples.extend(readme::examples());
    examples
}

/// Those in `tests/examples/`.
fn of_the_language() -> Vec<Example> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/examples");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort_by_key(|path| path.file_stem().unwrap().to_owned());
    let fates = fates::fates();
    let stems = paths
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap());
    let (stems, known): (Vec<_>, Vec<_>) = (stems.collect(), fates.iter().map(|(name, _)| *name).collect());
    assert_eq!(stems, known, "say in the table of fates what becomes of each");
    fates
        .into_iter()
        .zip(&paths)
        .map(|((name, fate), path)| Example {
            name: name.to_owned(),
            document: placed(&std::fs::read_to_string(path).unwrap()),
            fate,
            catalogue: if name == "run-subflow" {
                vec![CHILD.to_owned()]
            } else {
                Vec::new()
            },
        })
        .collect()
}

/// The text with the addresses of the simulation. What is read when a run is accepted is a file there: reading it is no call.
fn placed(text: &str) -> String {
    text.replace("LOCAL/functions", "file:///functions")
        .replace("LOCAL", LIBRARY)
        .replace("GRPC", "7402")
        .replace("PROGRAMS", "/programs")
}
