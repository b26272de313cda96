//! Parsed documents, shared by the runs that are pinned to the same text.
//!
//! One is kept as long as a run follows it. Those that were used lately are kept beyond that, up to [`MOST_KEPT`]: a run that
//! begins, or is taken up again, finds its document parsed, however many workflows there are.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use muster_workflow_dsl::{Definition, Problems, Resources};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::off_thread::off_thread;
use crate::pace::Pace;

/// What is kept beyond the runs that follow it, in bytes of text. Parsed, a document is about fifty times as large: one of ten calls
/// has 1.6 KiB of text and takes 75.
const MOST_KEPT: u64 = 512 * 1024;

/// What a document takes at least.
const LEAST_WEIGHT: u64 = 512;

/// Of about this size documents usually are: only an estimate for tables.
const USUAL: usize = 2_048;

/// A parsed document.
#[derive(Clone)]
pub(crate) struct Pinned {
    pub(crate) definition: Arc<Definition>,
    /// How long decisions of its runs have taken, since it was parsed.
    pub(crate) pace: Arc<Pace>,
}

/// One that is kept as long as a run follows it.
struct Known {
    definition: Weak<Definition>,
    pace: Arc<Pace>,
}

/// One that was used lately.
#[derive(Clone)]
struct Lately {
    definition: Arc<Definition>,
    /// Its text, without what it refers to.
    text: Arc<str>,
    /// The bytes of its text and of what it refers to.
    bytes: u64,
}

/// Parses documents, once as long as somebody uses the result or has used it lately.
pub struct Definitions {
    /// By digest.
    known: Mutex<HashMap<String, Known>>,
    /// Those that were used lately, by digest.
    lately: Cache<String, Lately, ByText>,
    /// How long a run may take whose document says nothing. A run's own deadline is in its journal from its first
    /// entry on, so that a changed setting changes no run that has begun.
    timeout: Duration,
}

/// Weighs documents by their text.
#[derive(Clone)]
struct ByText;

impl Weighter<String, Lately> for ByText {
    fn weight(&self, _: &String, lately: &Lately) -> u64 {
        LEAST_WEIGHT.max(lately.bytes)
    }
}

impl Definitions {
    /// None are parsed yet.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            known: Mutex::default(),
            lately: Cache::with_weighter(MOST_KEPT as usize / USUAL, MOST_KEPT, ByText),
            timeout,
        }
    }

    /// The definition that runs of `document` follow.
    ///
    /// # Errors
    /// Everything that is wrong with the document.
    pub async fn get(&self, document: &str) -> Result<Arc<Definition>, Problems> {
        let pinned = self.pinned(document, &Resources::new()).await?;
        Ok(pinned.definition)
    }

    /// The document with this digest and its definition, as far as it is complete without what it refers to, if it was used lately.
    #[must_use]
    pub fn lately(&self, digest: &str) -> Option<(Arc<str>, Arc<Definition>)> {
        let lately = self.lately.get(digest)?;
        Some((lately.text, lately.definition))
    }

    /// The definition that runs of `document` follow that were accepted with these resources.
    ///
    /// # Errors
    /// Everything that is wrong with the document, and with the resources.
    pub(crate) async fn pinned(&self, document: &str, resources: &Resources) -> Result<Pinned, Problems> {
        let mut digest = muster_workflow_dsl::digest(document);
        for (name, text) in resources {
            digest = muster_workflow_dsl::digest(&format!(
                "{digest} {name} {}",
                muster_workflow_dsl::digest(text)
            ));
        }
        if let Some(known) = self.known(&digest) {
            // Counts as a use.
            let _ = self.lately.get(&digest);
            return Ok(known);
        }
        let bytes = document.len() + resources.values().map(String::len).sum::<usize>();
        // Parsed outside the lock: two who meet here both parse, which costs less than making others wait.
        let (text, resources) = (Arc::<str>::from(document), resources.clone());
        let parsed = Arc::clone(&text);
        let parse = move || muster_workflow_dsl::parse_with(&parsed, &resources);
        let mut definition = off_thread(parse).await?;
        let workflow = Arc::make_mut(&mut definition.workflow);
        workflow.timeout.get_or_insert(self.timeout.into());
        let definition = Arc::new(definition);
        let pace = Arc::<Pace>::default();
        let mut known = self.known.lock();
        known.retain(|_, known| known.definition.strong_count() > 0);
        let weak = Known {
            definition: Arc::downgrade(&definition),
            pace: Arc::clone(&pace),
        };
        known.insert(digest.clone(), weak);
        drop(known);
        let lately = Lately {
            definition: Arc::clone(&definition),
            text,
            bytes: bytes as u64,
        };
        self.lately.insert(digest, lately);
        Ok(Pinned { definition, pace })
    }

    fn known(&self, digest: &str) -> Option<Pinned> {
        let known = self.known.lock();
        let Known { definition, pace } = known.get(digest)?;
        Some(Pinned {
            definition: definition.upgrade()?,
            pace: Arc::clone(pace),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(number: usize, padding: usize) -> String {
        format!(
            "# {}\ndocument: {{dsl: '1.0.0', namespace: test, name: n{number}, version: '1.0.0'}}\ndo: [{{a: {{set: {{b: 1}}}}}}]\n",
            "x".repeat(padding)
        )
    }

    #[tokio::test]
    async fn what_was_used_lately_is_not_parsed_again_and_what_is_kept_is_bounded() {
        let definitions = Definitions::new(Duration::from_secs(1));
        let first = Arc::as_ptr(&definitions.get(&document(0, 0)).await.unwrap());
        assert_eq!(
            Arc::as_ptr(&definitions.get(&document(0, 0)).await.unwrap()),
            first
        );
        let padding = 64 * 1024;
        for number in 1..100 {
            definitions.get(&document(number, padding)).await.unwrap();
            assert!(definitions.lately.weight() <= MOST_KEPT);
        }
        assert!(definitions.known.lock().len() <= MOST_KEPT as usize / padding + 1);
        // What a run follows is kept whatever comes.
        let followed = definitions.get(&document(200, 0)).await.unwrap();
        for number in 300..400 {
            definitions.get(&document(number, padding)).await.unwrap();
        }
        assert!(Arc::ptr_eq(
            &definitions.get(&document(200, 0)).await.unwrap(),
            &followed
        ));
    }
}
