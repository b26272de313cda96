//! That there is something new, for any number of followers.
//!
//! Followers are woken in the order in which they began to wait, so that a simulation repeats it; those of
//! [`tokio::sync::watch`] are woken in an order of their own.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts what has happened.
#[derive(Debug, Default)]
pub(crate) struct News {
    count: AtomicU64,
    bell: Notify,
}

/// Somebody who wants to know.
#[derive(Debug)]
pub(crate) struct Follower {
    news: Arc<News>,
    seen: u64,
}

impl News {
    /// Something has happened.
    pub(crate) fn ring(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.bell.notify_waiters();
    }

    /// Hears of what happens from now on.
    pub(crate) fn follow(self: &Arc<Self>) -> Follower {
        Follower {
            news: Arc::clone(self),
            seen: self.count.load(Ordering::Acquire),
        }
    }
}

impl Follower {
    /// Only what happens from now on is new.
    pub(crate) fn catch_up(&mut self) {
        self.seen = self.news.count.load(Ordering::Acquire);
    }

    /// Resolves when there is something new.
    pub(crate) async fn changed(&mut self) {
        loop {
            let mut rung = pin!(self.news.bell.notified());
            // First the bell, then the count: what comes between the two is seen.
            rung.as_mut().enable();
            let count = self.news.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return;
            }
            rung.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_is_new_is_told_once_to_each() {
        let news = Arc::new(News::default());
        let (mut one, mut other) = (news.follow(), news.follow());
        assert!(one.changed().now_or_never().is_none());
        news.ring();
        news.ring();
        assert!(one.changed().now_or_never().is_some());
        assert!(one.changed().now_or_never().is_none());
        other.catch_up();
        assert!(other.changed().now_or_never().is_none());
        let mut waits = std::pin::pin!(other.changed());
        assert!(waits.as_mut().now_or_never().is_none());
        news.ring();
        assert!(waits.now_or_never().is_some());
    }
}
