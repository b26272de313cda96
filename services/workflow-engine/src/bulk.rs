//! One thing done to each run that a search finds, a page at a time.
//!
//! Whoever wants it done to all asks again with the token. There is nothing in memory between two pages, so a restart
//! in between costs nothing; and because pages go by the time of creation, what becomes of the runs moves none of them
//! to another page.

use std::sync::Arc;

use crate::controls::Wish;
use crate::engine::Engine;
use crate::error::Error;
use crate::run::{RunId, Status};
use crate::store::Filter;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// See [`Engine::cancel`].
    Cancel,
    /// See [`Engine::terminate`].
    Terminate,
    /// See [`Engine::pause`].
    Pause,
    /// See [`Engine::resume`].
    Resume,
    /// See [`Engine::retry`].
    Retry,
    /// See [`Engine::delete`].
    Delete,
    /// See [`Engine::erase`].
    Erase,
}

/// A wish about many runs.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// What to do; nothing: only find them.
    pub action: Option<Action>,
    /// To which runs.
    pub filter: Filter,
    /// How many at a time.
    pub page_size: u32,
    /// Where to go on.
    pub page_token: String,
    /// Who wants it, and why.
    pub wish: Wish,
}

/// What became of one of them: where it stands then, unless it is gone.
pub type Outcome<E> = (RunId, Result<Option<Status>, E>);

impl Engine {
    /// Does it to the runs of one page, by way of `once`; returns what became of them, and where to go on.
    ///
    /// # Errors
    /// The search would find everything, or the token is not one of this list's.
    pub async fn bulk<E>(
        self: &Arc<Self>,
        bulk: Bulk,
        once: impl AsyncFn(&Arc<Self>, Action, &RunId, Wish) -> Result<Option<Status>, E>,
    ) -> Result<(Vec<Outcome<E>>, String), Error> {
        if bulk.filter.admits_all() {
            let message = "finds every run; narrow it by a status, namespace, name, label or time";
            return Err(Error::field("search", message));
        }
        let (found, next) = self.list(&bulk.filter, bulk.page_size, &bulk.page_token).await?;
        let mut outcomes = Vec::with_capacity(found.len());
        for run in found {
            let outcome = match bulk.action {
                None => Ok(Some(run.status)),
                Some(action) => once(self, action, &run.id, bulk.wish.clone()).await,
            };
            outcomes.push((run.id, outcome));
        }
        Ok((outcomes, next))
    }

    /// Does it to one run that is worked on here.
    ///
    /// # Errors
    /// As what is done.
    pub async fn once(
        self: &Arc<Self>,
        action: Action,
        id: &RunId,
        wish: Wish,
    ) -> Result<Option<Status>, Error> {
        let view = match action {
            Action::Cancel => self.cancel(id, wish).await,
            Action::Terminate => self.terminate(id, wish).await,
            Action::Pause => self.pause(id, wish).await,
            Action::Resume => self.resume(id, wish).await,
            Action::Retry => self.retry(id, String::new(), wish).await,
            Action::Erase => self.erase(id, wish).await,
            Action::Delete => return self.delete(id).await.map(|()| None),
        };
        view.map(|view| Some(view.summary.status))
    }
}
