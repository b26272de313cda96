//! Consumers who fetch, and wait where nothing is there.
//!
//! One of those who wait for a target is woken for each message that comes for it through this router. What comes through others
//! over a shared store, or is due by its time, is seen by a look about once a second. Who stops waiting loses nothing: entries are
//! lent out by a task of the router's own, which gives them back where the consumer has left meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use muster_rpc::deadline::Deadline;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::entry::Delivery;
use super::queue::Wanted;
use super::store::Lent;
use super::{Error, Inbox, store};
use crate::target::Target;

/// Longest time that a consumer may wait.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Longest time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Shortest: what is due may be for others, and come again and again.
const BREATH: Duration = Duration::from_millis(50);

/// Who waits for which target.
#[derive(Debug, Default)]
pub struct Waiting {
    targets: Mutex<HashMap<String, Arc<Notify>>>,
}

/// One who waits. Leaves when it is dropped.
struct Place<'w> {
    waiting: &'w Waiting,
    target: &'w str,
    news: Arc<Notify>,
}

impl Waiting {
    /// Wakes one of those who wait for this target.
    pub fn announce(&self, target: &str) {
        if let Some(news) = self.targets.lock().get(target) {
            news.notify_one();
        }
    }

    fn join<'w>(&'w self, target: &'w str) -> Place<'w> {
        let mut targets = self.targets.lock();
        let news = targets.entry(target.to_owned()).or_default();
        Place {
            news: Arc::clone(news),
            waiting: self,
            target,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut targets = self.waiting.targets.lock();
        // The map's own and this one: nobody else waits.
        if Arc::strong_count(&self.news) <= 2 {
            targets.remove(self.target);
        }
    }
}

impl Inbox {
    /// Lends out entries of a target to a consumer, who waits for the first of them for so long; none when the time is over.
    ///
    /// # Errors
    /// Names the field at fault.
    pub async fn receive(
        self: &Arc<Self>,
        target: &str,
        most: usize,
        lease: Duration,
        consumer: &str,
        wait: Duration,
    ) -> Result<Vec<Lent>, Error> {
        let target = Target::parse(target, "target")?.to_string();
        let wanted = Wanted {
            targets: vec![target.clone()],
            delivery: Delivery::Pull,
            most,
            lease,
            by: consumer.to_owned(),
        };
        let clock = &self.forwarder.parts().clock;
        let until = Deadline::after(clock.monotonic(), wait);
        // Before the first look: what comes after it wakes this one.
        let place = self.waiting.join(&target);
        loop {
            // What is due is done by workers about once a second; a consumer need not wait for that.
            let ticked = self.store.tick().await?;
            self.count_dead(ticked.dead);
            let meters = &self.forwarder.parts().meters;
            meters.inbox_ticked(ticked.dead, ticked.returned, ticked.displaced);
            let lent = self.lend(&wanted).await?;
            let left = until.remaining(clock.monotonic());
            let (true, Some(left)) = (lent.is_empty(), left) else {
                return Ok(lent);
            };
            let due = ticked.next.unwrap_or(LOOK).clamp(BREATH, LOOK);
            tokio::select! {
                () = place.news.notified() => {}
                () = tokio::time::sleep(left.min(due)) => {}
                () = self.shutdown.requested() => return Ok(Vec::new()),
            }
        }
    }

    /// Lends out, in a task of its own: one that is broken off in the middle would leave entries lent to nobody.
    async fn lend(self: &Arc<Self>, wanted: &Wanted) -> Result<Vec<Lent>, Error> {
        let (told, lent) = oneshot::channel();
        let (inbox, wanted) = (Arc::clone(self), wanted.clone());
        self.tasks.spawn("lend to a consumer", async move {
            let outcome = inbox.store.lease(&wanted).await;
            if let Err(Ok(lent)) = told.send(outcome) {
                for lent in lent {
                    inbox.return_unharmed(lent.entry.id, lent.token).await;
                }
            }
        });
        let stopped = || store::Error::Unavailable("the router stops".to_owned());
        Ok(lent.await.unwrap_or_else(|_| Err(stopped()))?)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_waits_for_a_target_is_woken_for_it_and_leaves_nothing_behind() {
        let waiting = Waiting::default();
        waiting.announce("weather");
        let (one, other) = (waiting.join("weather"), waiting.join("weather"));
        let elsewhere = waiting.join("planning");
        let mut heard = [&one, &other, &elsewhere].map(|place| Box::pin(place.news.notified()));
        assert!(
            heard
                .iter_mut()
                .all(|heard| heard.as_mut().now_or_never().is_none())
        );
        waiting.announce("weather");
        let woken = heard
            .iter_mut()
            .map(|heard| heard.as_mut().now_or_never().is_some());
        assert_eq!(woken.collect::<Vec<_>>(), [true, false, false]);
        drop(heard);
        drop((one, elsewhere));
        assert_eq!(waiting.targets.lock().len(), 1);
        drop(other);
        assert!(waiting.targets.lock().is_empty());
    }
}
