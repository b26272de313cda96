use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use muster_runtime::clock::Clock;
use tokio::time::Instant;

use super::*;
use crate::store::answers::Room;
use crate::store::answers::conformance::answer;
use crate::store::memory::MemoryAnswers;

/// A clock that goes with tokio's, which tests stop.
struct Stopped(Instant);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.monotonic()).unwrap();
        Timestamp::UNIX_EPOCH + passed
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A store that is away when a test says so.
struct Shaky {
    store: MemoryAnswers,
    is_away: AtomicBool,
}

impl Shaky {
    fn there(&self) -> Result<&MemoryAnswers, store::Error> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(store::Error("it is away".to_owned()));
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl Answers for Shaky {
    async fn claim(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<Found, store::Error> {
        self.there()?.claim(id, claim, now).await
    }

    async fn renew(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<bool, store::Error> {
        self.there()?.renew(id, claim, now).await
    }

    async fn keep(
        &self,
        id: &Id,
        claim: &Claim,
        answer: &Answer,
        now: Timestamp,
    ) -> Result<bool, store::Error> {
        self.there()?.keep(id, claim, answer, now).await
    }

    async fn leave(&self, id: &Id, claim: &Claim) -> Result<(), store::Error> {
        self.there()?.leave(id, claim).await
    }

    async fn sweep_answers(&self, before: Timestamp) -> Result<usize, store::Error> {
        self.there()?.sweep_answers(before).await
    }
}

/// Two routers over one store.
struct Pair {
    store: Arc<Shaky>,
    one: Arc<Durable>,
    other: Arc<Durable>,
    clock: SharedClock,
    _other_worker: Worker,
}

/// And the worker of the first, which does nothing yet.
fn pair() -> (Pair, Worker) {
    let store = Arc::new(Shaky {
        store: MemoryAnswers::new(Room {
            entries: 10,
            bytes: 1000,
        }),
        is_away: AtomicBool::new(false),
    });
    let clock: SharedClock = Arc::new(Stopped(Instant::now()));
    let limits = Limits {
        age: Duration::from_secs(3600),
        answer_bytes: 100,
    };
    let durable = || Durable::new(Arc::clone(&store) as Arc<dyn Answers>, limits, Arc::clone(&clock));
    let ((one, worker), (other, _other_worker)) = (durable(), durable());
    let pair = Pair {
        store,
        one,
        other,
        clock,
        _other_worker,
    };
    (pair, worker)
}

fn key() -> Key {
    Key {
        caller: "anybody".to_owned(),
        target: "weather".to_owned(),
        message: "m".to_owned(),
    }
}

impl Pair {
    async fn enter(&self, router: &Arc<Durable>, body: u8, within: u64) -> Result<Entered, Error> {
        let deadline = Deadline::after(self.clock.monotonic(), Duration::from_secs(within));
        router.enter(&key(), [body; 32], deadline).await
    }

    async fn lead(&self, router: &Arc<Durable>) -> Lead {
        match self.enter(router, 1, 100).await {
            Ok(Entered::Lead(lead)) => lead,
            Ok(Entered::Known(answer)) => panic!("answered: {answer:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn known(&self, router: &Arc<Durable>) -> Answer {
        match self.enter(router, 1, 100).await {
            Ok(Entered::Known(answer)) => answer,
            Ok(Entered::Lead(_)) => panic!("it leads"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_router_waits_for_the_answer_however_long_that_takes() {
    let (pair, _worker) = pair();
    let lead = pair.lead(&pair.one).await;
    let working = async {
        lead.working(tokio::time::sleep(Duration::from_secs(60))).await;
        assert!(lead.keep(answer(b"yes")).await.unwrap());
    };
    let ((), found) = tokio::join!(working, pair.known(&pair.other));
    assert_eq!(found, answer(b"yes"));
    assert_eq!(pair.known(&pair.one).await, answer(b"yes"));
}

#[tokio::test(start_paused = true)]
async fn who_died_is_followed_when_its_lease_has_ended_and_says_nothing_afterwards() {
    let (pair, _worker) = pair();
    // Nobody renews the lease, and nobody leaves.
    let dead = pair.lead(&pair.one).await;
    let before = pair.clock.monotonic();
    let lead = pair.lead(&pair.other).await;
    let passed = pair.clock.monotonic() - before;
    assert!(
        passed >= LEASE && passed < LEASE + Duration::from_secs(1),
        "{passed:?}"
    );
    assert!(!dead.keep(answer(b"first")).await.unwrap());
    assert!(lead.keep(answer(b"second")).await.unwrap());
    assert_eq!(pair.known(&pair.one).await, answer(b"second"));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_without_an_answer_is_followed_at_once() {
    let (pair, worker) = pair();
    let before = pair.clock.monotonic();
    drop(pair.lead(&pair.one).await);
    // The worker does what is there before it ends.
    let shutdown = Shutdown::new();
    shutdown.trigger();
    worker.run(shutdown).await.unwrap();
    drop(pair.lead(&pair.other).await);
    assert!(pair.clock.monotonic() - before < Duration::from_secs(1));
    let refused = pair.one.work(std::future::ready(())).await;
    assert!(matches!(refused, Err(Error::ShuttingDown)));
}

#[tokio::test(start_paused = true)]
async fn another_body_is_refused_and_a_deadline_ends_the_waiting() {
    let (pair, _worker) = pair();
    let _lead = pair.lead(&pair.one).await;
    let reused = pair.enter(&pair.other, 2, 100).await.err();
    assert!(matches!(reused, Some(Error::MessageIdReused { message }) if message == "m"));
    let before = pair.clock.monotonic();
    let late = pair.enter(&pair.other, 1, 2).await.err();
    assert!(matches!(late, Some(Error::DeadlineExceeded { .. })));
    let passed = pair.clock.monotonic() - before;
    assert!(
        passed >= Duration::from_secs(2) && passed < Duration::from_secs(3),
        "{passed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_kept_is_not_given_and_kept_later() {
    let (pair, worker) = pair();
    let lead = pair.lead(&pair.one).await;
    pair.store.is_away.store(true, Ordering::Relaxed);
    let refused = lead.keep(answer(b"yes")).await;
    assert!(matches!(refused, Err(Error::Store { .. })));
    let entered = pair.enter(&pair.other, 1, 100).await.err();
    assert!(matches!(entered, Some(Error::Store { .. })));
    let shutdown = Shutdown::new();
    let working = worker.run(shutdown.clone());
    let returns = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        pair.store.is_away.store(false, Ordering::Relaxed);
        // Its lease has some seconds left, in which the worker is quicker than whoever waits.
        let found = pair.known(&pair.other).await;
        shutdown.trigger();
        found
    };
    let (ended, found) = tokio::join!(working, returns);
    ended.unwrap();
    assert_eq!(found, answer(b"yes"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_the_store_does_not_renew_for_a_while_is_renewed_when_it_is_back() {
    let (pair, _worker) = pair();
    let lead = pair.lead(&pair.one).await;
    pair.store.is_away.store(true, Ordering::Relaxed);
    lead.working(tokio::time::sleep(Duration::from_secs(60))).await;
    pair.store.is_away.store(false, Ordering::Relaxed);
    lead.working(tokio::time::sleep(RENEWAL + Duration::from_secs(1)))
        .await;
    let late = pair.enter(&pair.other, 1, 5).await.err();
    assert!(matches!(late, Some(Error::DeadlineExceeded { .. })));
    assert!(lead.keep(answer(b"yes")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn answers_are_forgotten_after_their_time() {
    let (pair, _worker) = pair();
    let lead = pair.lead(&pair.one).await;
    assert!(lead.keep(answer(b"yes")).await.unwrap());
    tokio::time::sleep(Duration::from_secs(3599)).await;
    pair.one.sweep().await.unwrap();
    assert_eq!(pair.known(&pair.other).await, answer(b"yes"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    pair.one.sweep().await.unwrap();
    drop(pair.lead(&pair.other).await);
}

#[test]
fn what_differs_in_a_part_is_another_message() {
    let keys = [
        ("a", "b", "c"),
        ("ab", "", "c"),
        ("a", "bc", ""),
        ("", "ab", "c"),
        ("a", "b", "d"),
    ];
    let ids: std::collections::BTreeSet<Id> = keys
        .iter()
        .map(|(caller, target, message)| {
            id(&Key {
                caller: (*caller).to_owned(),
                target: (*target).to_owned(),
                message: (*message).to_owned(),
            })
        })
        .collect();
    assert_eq!(ids.len(), keys.len());
}
