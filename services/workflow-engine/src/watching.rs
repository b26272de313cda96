//! Following a run: what its journal holds, then what comes, then the end; without gap and without a buffer.
//!
//! A run that another engine works on is followed in the store, a few times a second. So whoever watches does not notice that
//! a run goes on elsewhere, and is not cut off when that engine dies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::sync::watch;

use crate::engine::{Engine, View};
use crate::error::Error;
use crate::feed::Reached;
use crate::run::{Entry, RunId};

/// Entries read at once.
const PORTION: usize = 100;

/// How often the store is looked at for a run that another engine works on.
const LOOK: Duration = Duration::from_millis(200);

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The next entry of the journal.
    Entry(Entry),
    /// The run as it ended; nothing follows.
    Ended(Box<View>),
}

struct Watcher {
    engine: Arc<Engine>,
    id: RunId,
    news: watch::Receiver<Reached>,
    /// How far it was when the store was asked.
    known: Reached,
    next_index: u64,
    read: VecDeque<Entry>,
    done: bool,
}

impl Engine {
    /// Follows a run from the entry with index `from` on.
    ///
    /// # Errors
    /// There is no such run.
    pub async fn watch(
        self: &Arc<Self>,
        id: &RunId,
        from: u64,
    ) -> Result<impl Stream<Item = Result<Update, Error>> + Send + use<>, Error> {
        // First the news, then the store: what comes between the two is seen twice rather than never.
        let news = self.feed.subscribe(id);
        let known = self.summary(id).await?.reached();
        let engine = Arc::clone(self);
        let watcher = Watcher {
            engine,
            id: id.clone(),
            news,
            known,
            next_index: from,
            read: VecDeque::new(),
            done: false,
        };
        Ok(stream::unfold(watcher, |mut watcher| async move {
            if watcher.done {
                return None;
            }
            let update = watcher.next().await;
            watcher.done = !matches!(update, Ok(Update::Entry(_)));
            Some((update, watcher))
        }))
    }
}

impl Watcher {
    async fn next(&mut self) -> Result<Update, Error> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                self.next_index = entry.index + 1;
                return Ok(Update::Entry(entry));
            }
            // Marked as seen before the store is read, so that a later change wakes us. Nothing is told before the first change.
            let told = *self.news.borrow_and_update();
            if told.length >= self.known.length {
                self.known = told;
            }
            // Of a run that another engine works on nothing is told here at all.
            if !self.engine.placement.is_here(&self.id) {
                self.known = self.engine.summary(&self.id).await?.reached();
            }
            if self.known.length > self.next_index {
                let read = self.engine.entries(&self.id, self.next_index, PORTION);
                self.read = read.await?.into();
                if !self.read.is_empty() {
                    continue;
                }
            }
            if self.known.ended {
                let view = self.engine.get(&self.id).await?;
                if view.summary.status.is_final() && view.summary.history_length <= self.next_index {
                    return Ok(Update::Ended(Box::new(view)));
                }
            }
            tokio::select! {
                biased;
                () = self.engine.shutdown.requested() => return Err(Error::ShuttingDown),
                () = tokio::time::sleep(LOOK), if self.engine.placement.replicas().is_some() => {}
                changed = self.news.changed() => changed.map_err(|_| Error::Defect("the feed has ended".to_owned()))?,
            }
        }
    }
}
