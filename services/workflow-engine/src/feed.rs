//! Tells watchers that a run's journal has grown.
//!
//! Only the news travels, not the entries: a watcher reads those from the store at its own pace. So there is no gap
//! between the replay and the live part, a slow watcher costs no memory, and none has to be cut off.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::run::RunId;

/// How far a run's journal goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Length of the journal.
    pub length: u64,
    /// Whether the run has ended.
    pub ended: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Feed {
    watched: Mutex<HashMap<RunId, watch::Sender<Reached>>>,
}

impl Feed {
    /// News of this run from now on. Subscribe first and read the store then, and nothing is missed.
    #[must_use]
    pub fn subscribe(&self, id: &RunId) -> watch::Receiver<Reached> {
        let mut watched = self.watched.lock();
        // Whoever comes sweeps up after those who left.
        watched.retain(|_, sender| sender.receiver_count() > 0);
        watched.entry(id.clone()).or_default().subscribe()
    }

    /// The run's journal goes this far, durably.
    pub fn publish(&self, id: &RunId, reached: Reached) {
        if let Some(sender) = self.watched.lock().get(id) {
            sender.send_replace(reached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_watcher_of_a_run_hears_of_it_and_no_other() {
        let feed = Feed::default();
        let (one, other): (RunId, RunId) = ("one".parse().unwrap(), "other".parse().unwrap());
        let (mut first, mut second, third) =
            (feed.subscribe(&one), feed.subscribe(&one), feed.subscribe(&other));
        let reached = Reached {
            length: 3,
            ended: false,
        };
        feed.publish(&one, reached);
        assert_eq!(*first.wait_for(|news| news.length == 3).await.unwrap(), reached);
        assert_eq!(*second.wait_for(|news| news.length == 3).await.unwrap(), reached);
        assert!(!third.has_changed().unwrap());

        drop((first, second));
        let _fourth = feed.subscribe(&other);
        assert_eq!(feed.watched.lock().len(), 1, "forgotten once nobody watches");
    }
}
