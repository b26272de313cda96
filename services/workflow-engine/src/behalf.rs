//! On whose behalf a run works: whoever asked for it, or applied the document that a schedule or an event starts.
//!
//! The caller is written down with the run, as the text by which it travels, when the run is accepted. So each call of an agent
//! names it, whichever engine makes the call and however often engines were restarted since; and its grants are those that it had
//! then. Runs that a run starts are on behalf of the same caller. Where callers are not told apart nothing is written down.

use std::sync::Arc;

use muster_runtime::trust::{Access, Caller};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::run::{RunId, Summary};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behalf {
    /// The key that no two callers share.
    pub key: Arc<str>,
    /// The caller as it travels.
    pub text: Arc<str>,
}

impl Behalf {
    /// Of a caller; nothing where callers are not told apart.
    #[must_use]
    pub fn of(caller: &Caller) -> Option<Self> {
        (!caller.is_anybody()).then(|| Self {
            key: caller.key(),
            text: caller.to_text().into(),
        })
    }
}

/// The caller that was written down.
pub(crate) fn caller(behalf: &Behalf) -> Arc<Caller> {
    // What cannot be read gives nobody's rights.
    Caller::from_text(&behalf.text).unwrap_or_else(|_| Caller::unknown())
}

impl Summary {
    /// Whose run it is.
    #[must_use]
    pub fn caller_key(&self) -> Option<&str> {
        self.marks.behalf.as_ref().map(|behalf| &*behalf.key)
    }
}

impl Engine {
    /// Refuses a run that the caller may not see, as if there were none.
    pub(crate) async fn admit(&self, access: &Access, id: &RunId) -> Result<(), Error> {
        if access.sees_all() {
            return Ok(());
        }
        let known = self.store.summary(id).await?;
        let owner = known.as_ref().and_then(Summary::caller_key);
        if known.is_some() && access.sees(owner, id.as_str()) {
            return Ok(());
        }
        Err(Error::RunNotFound {
            id: id.clone(),
            // Near ids could be those of others.
            suggestion: String::new(),
        })
    }

    /// The wish on behalf of whoever applied the document, where nobody asks for the run.
    pub(crate) async fn for_applier(&self, wish: StartRun) -> StartRun {
        let Source::Catalogue(reference) = &wish.source else {
            return wish;
        };
        let found = self.catalogue().find(reference).await.ok();
        let caller = found.and_then(|workflow| workflow.behalf.as_ref().map(caller));
        StartRun { caller, ..wish }
    }
}

/// Refuses a namespace that the caller has no grant for.
pub(crate) fn check_namespace(caller: Option<&Arc<Caller>>, namespace: &str) -> Result<(), Error> {
    match caller {
        Some(caller) if !caller.sees_all() && !caller.grants.reaches_namespace(namespace) => {
            Err(Error::Forbidden {
                who: caller.subject.as_ref().to_owned(),
                namespace: namespace.to_owned(),
            })
        }
        _ => Ok(()),
    }
}
