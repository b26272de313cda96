//! Where the inbox is kept: the port, its adapters, and the suite that every adapter passes.
//!
//! What an adapter promises: a change is as durable as the store can make it before it is answered; two that meet in one entry
//! are told apart by the entry itself, so that of two who want it one gets it; times are the store's own, so that replicas
//! whose clocks differ agree on when a lease ends.

pub mod local;
pub mod redis;

use async_trait::async_trait;
use bytes::Bytes;

use super::entry::{Change, Delivery, Draft, Entry, Refusal};
use super::queue::{Counts, Filter, Full, Page, Refused, Ticked, Wanted};

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such entry.
    #[error("the inbox has no entry '{0}'")]
    Unknown(String),
    /// The id was used with another message.
    #[error("entry '{0}' is there with another message, target or way of delivery")]
    IdReused(String),
    /// There is no room.
    #[error("{}", full(.0))]
    Full(Full),
    /// The lease is somebody else's, or has ended with the entry.
    #[error("entry '{0}' is not under this lease any more")]
    LeaseLost(String),
    /// The entry is in another state than this takes.
    #[error("entry '{0}' is {1}")]
    State(String, &'static str),
    /// The store cannot read or write; whether it was done is not known.
    #[error("the inbox cannot be read or written: {0}")]
    Unavailable(String),
}

fn full(full: &Full) -> String {
    match full {
        Full::Target(most) => format!("{most} messages wait for this target already, which is the limit"),
        Full::Total(most) => format!("the inbox holds {most} messages already, which is the limit"),
        Full::Bytes(most) => {
            format!("the inbox has no room left for so large a message; it holds {most} bytes at most")
        }
    }
}

impl Error {
    /// What refused a change of this entry.
    #[must_use]
    pub fn of(id: &str, refused: Refused) -> Self {
        let id = id.to_owned();
        match refused {
            Refused::Unknown => Self::Unknown(id),
            Refused::IdReused => Self::IdReused(id),
            Refused::Full(full) => Self::Full(full),
            Refused::Entry(Refusal::LeaseLost) => Self::LeaseLost(id),
            Refused::Entry(Refusal::State(status)) => Self::State(id, status.name()),
        }
    }
}

/// An entry that was lent out, with its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lent {
    /// The entry.
    pub entry: Entry,
    /// The token of its lease.
    pub token: String,
    /// The message, encoded.
    pub body: Bytes,
}

/// All that is kept of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The entry.
    pub entry: Entry,
    /// The message, encoded; gone when it is done.
    pub body: Option<Bytes>,
    /// The answer, encoded.
    pub answer: Option<Bytes>,
}

/// Entries and their messages.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Takes a message in: the entry, and whether it was there before.
    async fn enqueue(&self, draft: &Draft) -> Result<(Entry, bool), Error>;

    /// All of an entry; `None` where there is none.
    async fn read(&self, id: &str) -> Result<Option<Kept>, Error>;

    /// The entries after a place of the list, by sequence, and from where to go on. A part may be short.
    async fn list(&self, filter: &Filter, after: u64, most: usize) -> Result<Page, Error>;

    /// Lends out the first entries of some targets.
    async fn lease(&self, wanted: &Wanted) -> Result<Vec<Lent>, Error>;

    /// Changes an entry; `answer` is kept where the change is its end.
    async fn change(&self, id: &str, change: Change, answer: Option<Bytes>) -> Result<Entry, Error>;

    /// Forgets an entry that has ended.
    async fn purge(&self, id: &str) -> Result<(), Error>;

    /// Does what is due by now: times to live and leases that end, entries whose time comes or that are forgotten. A limited
    /// number of them; where more are due, [`Ticked::next`] is zero.
    async fn tick(&self) -> Result<Ticked, Error>;

    /// The targets that have entries to be lent out, in the order of their first ones: so many at most, after the first `skipped`.
    async fn heads(&self, delivery: Delivery, skipped: usize, most: usize) -> Result<Vec<String>, Error>;

    /// How much there is.
    async fn counts(&self) -> Result<Counts, Error>;

    /// Why it takes no more writes; `None` while it does.
    fn failure(&self) -> Option<String>;
}

/// A fresh token.
#[must_use]
pub fn token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
pub(crate) mod conformance {
    //! What every store of the inbox must do.

    use std::time::Duration;

    use super::super::entry::tests::{POLICY, draft};
    use super::super::entry::{Failure, Policy, Reason, State, Status};
    use super::*;
    use crate::priority::Priority;

    /// What the suites hold a store to.
    pub(crate) const HELD_TO: Policy = POLICY;

    fn wanted(targets: &[&str], most: usize) -> Wanted {
        Wanted {
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            delivery: Delivery::Push,
            most,
            lease: Duration::from_secs(30),
            by: "router".to_owned(),
        }
    }

    fn ids(lent: &[Lent]) -> Vec<&str> {
        lent.iter().map(|lent| lent.entry.id.as_str()).collect()
    }

    fn finish(lent: &Lent, kept: usize) -> Change {
        Change::Finish {
            token: lent.token.clone(),
            by: ("weather".to_owned(), "w1".to_owned()),
            kept: kept as u64,
            dropped: 0,
        }
    }

    fn retry(lent: &Lent, seconds: u64, counts: bool) -> Change {
        Change::Retry {
            token: lent.token.clone(),
            delay: Duration::from_secs(seconds),
            failure: Some(Failure::new("UNAVAILABLE", "NO_INSTANCE_AVAILABLE", "nobody")),
            counts,
        }
    }

    /// Runs the suite on an empty store; `advance` moves its clock.
    pub(crate) async fn run(store: &dyn Store, advance: &(dyn Fn(Duration) + Sync)) {
        order_leases_and_outcomes(store, advance).await;
        empty(store).await;
        times(store, advance).await;
        empty(store).await;
        bounds(store).await;
        empty(store).await;
        lists(store).await;
        empty(store).await;
        strange_names(store).await;
    }

    /// Ends and forgets everything.
    async fn empty(store: &dyn Store) {
        let mut page = store.list(&Filter::default(), 0, 100).await.unwrap();
        loop {
            for entry in &page.entries {
                if let State::Delivering { token, .. } = &entry.state {
                    let change = Change::Bury {
                        token: token.clone(),
                        reason: Reason::Refused,
                        failure: Failure::new("X", "", ""),
                    };
                    store.change(&entry.id, change, None).await.unwrap();
                } else if entry.status() == Status::Pending {
                    store.change(&entry.id, Change::Cancel, None).await.unwrap();
                }
                store.purge(&entry.id).await.unwrap();
            }
            let Some(next) = page.next else { break };
            page = store.list(&Filter::default(), next, 100).await.unwrap();
        }
        assert_eq!(store.counts().await.unwrap().by_status, [0; 4]);
    }

    async fn order_leases_and_outcomes(store: &dyn Store, advance: &(dyn Fn(Duration) + Sync)) {
        let (low, _) = store
            .enqueue(&draft("low", "weather", Priority::Low))
            .await
            .unwrap();
        assert_eq!(low.status(), Status::Pending);
        for (id, target, priority) in [
            ("normal-1", "weather", Priority::Normal),
            ("normal-2", "weather", Priority::Normal),
            ("urgent", "skill:planning", Priority::Urgent),
        ] {
            let (_, existed) = store.enqueue(&draft(id, target, priority)).await.unwrap();
            assert!(!existed);
        }
        // The same again is the same entry; another message is refused.
        let (same, existed) = store
            .enqueue(&draft("low", "weather", Priority::Urgent))
            .await
            .unwrap();
        assert!(existed && same == low);
        let other = store.enqueue(&draft("low", "planning", Priority::Low)).await;
        assert_eq!(other, Err(Error::IdReused("low".to_owned())));

        assert_eq!(
            store.heads(Delivery::Push, 0, 10).await.unwrap(),
            ["skill:planning", "weather"]
        );
        assert_eq!(
            store.heads(Delivery::Push, 0, 1).await.unwrap(),
            ["skill:planning"]
        );
        assert_eq!(store.heads(Delivery::Push, 1, 10).await.unwrap(), ["weather"]);
        assert!(store.heads(Delivery::Push, 2, 10).await.unwrap().is_empty());
        assert!(store.heads(Delivery::Pull, 0, 10).await.unwrap().is_empty());

        // Over the targets by urgency, then first come first served; nobody else is asked.
        let both = store
            .lease(&wanted(&["weather", "skill:planning"], 2))
            .await
            .unwrap();
        assert_eq!(ids(&both), ["urgent", "normal-1"]);
        assert_eq!(both[1].body, "body of normal-1");
        assert_eq!(both[1].entry.attempts, 1);
        let rest = store
            .lease(&wanted(&["weather", "skill:planning"], 9))
            .await
            .unwrap();
        assert_eq!(ids(&rest), ["normal-2", "low"]);
        assert!(store.lease(&wanted(&["weather"], 9)).await.unwrap().is_empty());
        assert!(store.heads(Delivery::Push, 0, 10).await.unwrap().is_empty());

        // Done: the answer is there, the message is not.
        let answer = Bytes::from_static(b"sunny");
        let done = store
            .change("urgent", finish(&both[0], 5), Some(answer.clone()))
            .await
            .unwrap();
        assert_eq!(done.status(), Status::Done);
        let kept = store.read("urgent").await.unwrap().unwrap();
        assert_eq!((kept.entry, kept.body, kept.answer), (done, None, Some(answer)));
        let again = store.change("urgent", finish(&both[0], 5), None).await;
        assert_eq!(again, Err(Error::LeaseLost("urgent".to_owned())));

        // Back: it keeps its place, and its message.
        store
            .change("normal-1", retry(&both[1], 0, true), None)
            .await
            .unwrap();
        let next = store.lease(&wanted(&["weather"], 1)).await.unwrap();
        assert_eq!((ids(&next), next[0].entry.attempts), (vec!["normal-1"], 2));
        assert_eq!(next[0].body, "body of normal-1");
        let late = store.change("normal-1", finish(&both[1], 0), None).await;
        assert_eq!(
            late,
            Err(Error::LeaseLost("normal-1".to_owned())),
            "a lease is told apart from a later one"
        );

        // A lease that is prolonged lasts; one that is not runs out and fences its holder.
        advance(Duration::from_secs(20));
        let extend = Change::Extend {
            token: next[0].token.clone(),
            lease: Duration::from_secs(30),
        };
        store.change("normal-1", extend, None).await.unwrap();
        advance(Duration::from_secs(20));
        let ticked = store.tick().await.unwrap();
        assert_eq!((ticked.returned, ticked.dead), (2, 0), "normal-2 and low");
        assert_eq!(
            store.change("low", finish(&rest[1], 0), None).await,
            Err(Error::LeaseLost("low".to_owned()))
        );
        let back = store.lease(&wanted(&["weather"], 9)).await.unwrap();
        assert_eq!(ids(&back), ["normal-2", "low"]);
        assert_eq!(back[0].entry.failures, 1);

        // Dead at once, and back from the dead.
        let bury = Change::Bury {
            token: back[0].token.clone(),
            reason: Reason::Refused,
            failure: Failure::new("INVALID_ARGUMENT", "", "no"),
        };
        let dead = store.change("normal-2", bury, None).await.unwrap();
        assert!(matches!(
            dead.state,
            State::Dead {
                reason: Reason::Refused,
                ..
            }
        ));
        let replayed = store.change("normal-2", Change::Replay, None).await.unwrap();
        assert_eq!((replayed.status(), replayed.failures), (Status::Pending, 0));
        assert!(matches!(
            store.change("normal-2", Change::Replay, None).await,
            Err(Error::State(_, "pending"))
        ));
        let kept = store.read("normal-2").await.unwrap().unwrap();
        assert_eq!(kept.body.unwrap(), "body of normal-2");
        let counts = store.counts().await.unwrap();
        assert_eq!(counts.by_status, [1, 2, 1, 0]);
        assert_eq!(counts.targets, [("weather".to_owned(), 3)]);
        assert!(store.purge("low").await.is_err(), "it has not ended");
        assert_eq!(store.purge("x").await, Err(Error::Unknown("x".to_owned())));
        assert_eq!(store.read("x").await, Ok(None));
    }

    async fn times(store: &dyn Store, advance: &(dyn Fn(Duration) + Sync)) {
        let mut later = draft("later", "weather", Priority::Urgent);
        later.delay = Duration::from_secs(100);
        later.ttl = Duration::from_secs(50);
        store.enqueue(&later).await.unwrap();
        let mut short = draft("short", "weather", Priority::Normal);
        short.ttl = Duration::from_secs(10);
        store.enqueue(&short).await.unwrap();
        assert_eq!(store.heads(Delivery::Push, 0, 9).await.unwrap(), ["weather"]);
        let next = store.tick().await.unwrap().next.unwrap();
        assert!(next <= Duration::from_secs(10), "{next:?}");

        // What has outlived its time is not lent out, also before anybody has looked.
        advance(Duration::from_secs(11));
        assert!(store.lease(&wanted(&["weather"], 9)).await.unwrap().is_empty());
        assert_eq!(store.tick().await.unwrap().dead, 1);
        let dead = store.read("short").await.unwrap().unwrap();
        assert!(matches!(
            dead.entry.state,
            State::Dead {
                reason: Reason::Expired,
                ..
            }
        ));
        assert!(dead.body.is_some(), "it can be replayed");

        advance(Duration::from_secs(90));
        store.tick().await.unwrap();
        let lent = store.lease(&wanted(&["weather"], 9)).await.unwrap();
        assert_eq!(ids(&lent), ["later"]);
        // Held back after a failure, and dead in the end, because its time was up before it came again.
        store
            .change("later", retry(&lent[0], 40, false), None)
            .await
            .unwrap();
        assert!(store.lease(&wanted(&["weather"], 9)).await.unwrap().is_empty());
        advance(Duration::from_secs(60));
        assert_eq!(store.tick().await.unwrap().dead, 1);
        let dead = store.read("later").await.unwrap().unwrap().entry;
        assert_eq!(dead.last_failure.unwrap().reason, "NO_INSTANCE_AVAILABLE");

        // Age makes up for priority.
        store
            .enqueue(&draft("old", "weather", Priority::Normal))
            .await
            .unwrap();
        advance(Duration::from_secs(61));
        store
            .enqueue(&draft("high", "weather", Priority::High))
            .await
            .unwrap();
        store
            .enqueue(&draft("urgent", "weather", Priority::Urgent))
            .await
            .unwrap();
        let lent = store.lease(&wanted(&["weather"], 9)).await.unwrap();
        assert_eq!(ids(&lent), ["urgent", "old", "high"]);

        // Dead letters are forgotten after their retention.
        advance(HELD_TO.dead_retention);
        store.tick().await.unwrap();
        assert_eq!(store.read("later").await, Ok(None));
        assert_eq!(store.read("short").await, Ok(None));
    }

    async fn bounds(store: &dyn Store) {
        for number in 0..HELD_TO.entries {
            let draft = draft(&format!("w{number}"), "weather", Priority::Normal);
            store.enqueue(&draft).await.unwrap();
        }
        let full = store.enqueue(&draft("more", "weather", Priority::Urgent)).await;
        assert_eq!(full, Err(Error::Full(Full::Target(HELD_TO.entries))));
        for number in HELD_TO.entries..HELD_TO.total {
            let draft = draft(&format!("p{number}"), "planning", Priority::Normal);
            store.enqueue(&draft).await.unwrap();
        }
        let full = store.enqueue(&draft("more", "third", Priority::Urgent)).await;
        assert_eq!(full, Err(Error::Full(Full::Total(HELD_TO.total))));
        // The same again needs no room.
        assert!(
            store
                .enqueue(&draft("w0", "weather", Priority::Normal))
                .await
                .unwrap()
                .1
        );

        // Of what has ended only so many are kept, and a dead one comes back only where there is room.
        for number in 0..HELD_TO.entries {
            store
                .change(&format!("w{number}"), Change::Cancel, None)
                .await
                .unwrap();
        }
        let ticked = store.tick().await.unwrap();
        assert_eq!(ticked.displaced, HELD_TO.entries - HELD_TO.ended);
        assert_eq!(store.read("w0").await, Ok(None), "the oldest goes");
        for number in 0..HELD_TO.entries {
            let draft = draft(&format!("v{number}"), "weather", Priority::Normal);
            store.enqueue(&draft).await.unwrap();
        }
        let replayed = store.change("w1", Change::Replay, None).await;
        assert_eq!(replayed, Err(Error::Full(Full::Target(HELD_TO.entries))));

        let mut large = draft("large", "third", Priority::Normal);
        large.body = vec![0; usize::try_from(HELD_TO.bytes).unwrap()].into();
        store.change("v0", Change::Cancel, None).await.unwrap();
        assert_eq!(
            store.enqueue(&large).await,
            Err(Error::Full(Full::Bytes(HELD_TO.bytes)))
        );
    }

    async fn lists(store: &dyn Store) {
        for number in 0..4 {
            let target = if number % 2 == 0 { "weather" } else { "planning" };
            let draft = draft(&format!("m{number}"), target, Priority::Normal);
            store.enqueue(&draft).await.unwrap();
        }
        store.change("m0", Change::Cancel, None).await.unwrap();
        let names =
            |page: &Page| -> Vec<String> { page.entries.iter().map(|entry| entry.id.clone()).collect() };
        let all = Filter::default();
        let first = store.list(&all, 0, 3).await.unwrap();
        assert_eq!(names(&first), ["m0", "m1", "m2"]);
        // One that comes in between does not move the others.
        store
            .enqueue(&draft("m4", "weather", Priority::Urgent))
            .await
            .unwrap();
        let second = store.list(&all, first.next.unwrap(), 3).await.unwrap();
        assert_eq!(
            (names(&second), second.next),
            (vec!["m3".to_owned(), "m4".to_owned()], None)
        );
        let pending = Filter {
            status: Some(Status::Pending),
            target: Some("weather".to_owned()),
            ..Filter::default()
        };
        assert_eq!(names(&store.list(&pending, 0, 10).await.unwrap()), ["m2", "m4"]);
        let dead = Filter {
            status: Some(Status::Dead),
            ..Filter::default()
        };
        assert_eq!(names(&store.list(&dead, 0, 10).await.unwrap()), ["m0"]);
        let of_nobody = Filter {
            caller: Some("nobody".to_owned()),
            ..Filter::default()
        };
        assert!(store.list(&of_nobody, 0, 10).await.unwrap().entries.is_empty());
    }

    async fn strange_names(store: &dyn Store) {
        // Ids are the callers' and may be any text, skills nearly any.
        let (id, target) = ("m\u{0}:{x} \n ü", "skill:a}b{c:%");
        let mut strange = draft(id, target, Priority::High);
        strange.body = vec![0, 255, 10, 13].into();
        store.enqueue(&strange).await.unwrap();
        assert_eq!(store.heads(Delivery::Push, 0, 9).await.unwrap(), [target]);
        let lent = store.lease(&wanted(&[target], 1)).await.unwrap();
        assert_eq!((lent[0].entry.id.as_str(), &lent[0].body), (id, &strange.body));
        store.change(id, finish(&lent[0], 0), None).await.unwrap();
        store.purge(id).await.unwrap();
        assert_eq!(store.read(id).await, Ok(None));
    }
}
