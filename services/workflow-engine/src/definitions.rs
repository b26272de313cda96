//! Parsed documents, shared by the runs that are pinned to the same text.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use muster_workflow_dsl::{Definition, Problems};
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
        let digest = muster_workflow_dsl::digest(document);
        let known = self.known.lock().get(&digest).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        // Parsed outside the lock: two who meet here both parse, which costs less than making others wait.
        let text = document.to_owned();
        let mut definition = off_thread(move || muster_workflow_dsl::parse(&text)).await?;
        let workflow = Arc::make_mut(&mut definition.workflow);
        workflow.timeout.get_or_insert(self.timeout.into());
        let definition = Arc::new(definition);
        let mut known = self.known.lock();
        known.retain(|_, definition| definition.strong_count() > 0);
        known.insert(digest, Arc::downgrade(&definition));
        Ok(definition)
    }
}
