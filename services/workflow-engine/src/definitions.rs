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

/// What is kept beyond the runs that follow it, in bytes of text. Parsed, a document is about a hundred times as large: two hundred
/// of ten steps took 25 MiB.
const MOST_KEPT: u64 = 256 * 1024;

/// What a document takes at least.
const LEAST_WEIGHT: u64 = 512;

/// Of about this size documents usually are: only an estimate for tables.
const USUAL: usize = 2_048;

/// Parses documents, once as long as somebody uses the result or has used it lately.
pub struct Definitions {
    /// By digest.
    known: Mutex<HashMap<String, Weak<Definition>>>,
    /// Those that were used lately, by digest, with the bytes of their text.
    lately: Cache<String, (Arc<Definition>, u64), ByText>,
    /// How long a run may take whose document says nothing. A run's own deadline is in its journal from its first
    /// entry on, so that a changed setting changes no run that has begun.
    timeout: Duration,
}

/// Weighs documents by their text.
#[derive(Clone)]
struct ByText;

impl Weighter<String, (Arc<Definition>, u64)> for ByText {
    fn weight(&self, _: &String, (_, bytes): &(Arc<Definition>, u64)) -> u64 {
        LEAST_WEIGHT.max(*bytes)
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
        self.pinned(document, &Resources::new()).await
    }

    /// The definition that runs of `document` follow that were accepted with these resources.
    ///
    /// # Errors
    /// Everything that is wrong with the document, and with the resources.
    pub async fn pinned(&self, document: &str, resources: &Resources) -> Result<Arc<Definition>, Problems> {
        let mut digest = muster_workflow_dsl::digest(document);
        for (name, text) in resources {
            digest = muster_workflow_dsl::digest(&format!(
                "{digest} {name} {}",
                muster_workflow_dsl::digest(text)
            ));
        }
        let known = self.known.lock().get(&digest).and_then(Weak::upgrade);
        if let Some(known) = known {
            // Counts as a use.
            let _ = self.lately.get(&digest);
            return Ok(known);
        }
        let bytes = document.len() + resources.values().map(String::len).sum::<usize>();
        // Parsed outside the lock: two who meet here both parse, which costs less than making others wait.
        let (text, resources) = (document.to_owned(), resources.clone());
        let parse = move || muster_workflow_dsl::parse_with(&text, &resources);
        let mut definition = off_thread(parse).await?;
        let workflow = Arc::make_mut(&mut definition.workflow);
        workflow.timeout.get_or_insert(self.timeout.into());
        let definition = Arc::new(definition);
        let mut known = self.known.lock();
        known.retain(|_, definition| definition.strong_count() > 0);
        known.insert(digest.clone(), Arc::downgrade(&definition));
        drop(known);
        self.lately
            .insert(digest, (Arc::clone(&definition), bytes as u64));
        Ok(definition)
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
