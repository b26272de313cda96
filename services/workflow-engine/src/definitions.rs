//! Parsed documents, shared by the runs that are pinned to the same text.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use muster_workflow_dsl::{Definition, Problems, Resources};
use parking_lot::Mutex;

use crate::off_thread::off_thread;

/// Parses documents, once as long as somebody uses the result.
#[derive(Debug)]
pub struct Definitions {
    /// By digest.
    known: Mutex<HashMap<String, Weak<Definition>>>,
    /// How long a run may take whose document says nothing. A run's own deadline is in its journal from its first
    /// entry on, so that a changed setting changes no run that has begun.
    timeout: Duration,
}

impl Definitions {
    /// None are parsed yet.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            known: Mutex::default(),
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
            return Ok(known);
        }
        // Parsed outside the lock: two who meet here both parse, which costs less than making others wait.
        let (text, resources) = (document.to_owned(), resources.clone());
        let parse = move || muster_workflow_dsl::parse_with(&text, &resources);
        let mut definition = off_thread(parse).await?;
        let workflow = Arc::make_mut(&mut definition.workflow);
        workflow.timeout.get_or_insert(self.timeout.into());
        let definition = Arc::new(definition);
        let mut known = self.known.lock();
        known.retain(|_, definition| definition.strong_count() > 0);
        known.insert(digest, Arc::downgrade(&definition));
        Ok(definition)
    }
}
