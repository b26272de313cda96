//! The same message is answered once: a bounded window over (caller, target, message id).
//!
//! The first call with an id leads and does the work. While it is under way, others with the same id and body wait
//! for its answer; for a while afterwards they get the same answer again. The same id with another body is refused.
//! Only answers are kept: after a failure the next call with that id leads anew, and so does one of those who wait
//! when the leader leaves without an answer.
//!
//! The window lives in memory and is bounded by entries, by bytes and by age; the oldest answers go first. What it
//! promises is therefore "not twice in quick succession": a step key or an idempotent agent covers the rest.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::Error;

/// Most calls that wait for one answer.
const MOST_FOLLOWERS: usize = 64;

/// Hash of a request's body.
pub type Fingerprint = [u8; 32];

/// What makes two messages the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who sent it.
    pub caller: String,
    /// Whom it is for.
    pub target: String,
    /// Its id.
    pub message: String,
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long an answer is given again.
    pub age: Duration,
    /// Most answers.
    pub entries: usize,
    /// Most bytes of answers.
    pub bytes: usize,
}

/// The window. `A` is an answer.
#[derive(Debug)]
pub struct Window<A> {
    limits: Limits,
    state: Mutex<State<A>>,
}

#[derive(Debug)]
struct State<A> {
    entries: HashMap<Arc<Key>, Entry<A>>,
    /// Answered keys in the order of their answers.
    answered: VecDeque<Arc<Key>>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<A> {
    fingerprint: Fingerprint,
    stage: Stage<A>,
}

#[derive(Debug)]
enum Stage<A> {
    /// Its leader holds the sender; when the leader leaves, it is gone.
    UnderWay(Weak<Sender<A>>),
    Answered {
        answer: Arc<A>,
        bytes: usize,
        at: Duration,
    },
}

/// What a leader passes to its followers.
type Outcome<A> = Result<Arc<A>, Error>;
type Sender<A> = watch::Sender<Option<Outcome<A>>>;

/// What a call has to do.
#[derive(Debug)]
pub enum Role<'w, A> {
    /// Do the work and report.
    Lead(Lead<'w, A>),
    /// Wait for the answer of another call.
    Follow(Follow<A>),
    /// Give this answer again.
    Repeat(Arc<A>),
}

impl<A> Window<A> {
    /// An empty window.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                entries: HashMap::new(),
                answered: VecDeque::new(),
                bytes: 0,
            }),
        }
    }

    /// A call with this key and body comes in.
    ///
    /// # Errors
    /// When the id was used with another body, or too many calls wait for the same answer.
    pub fn enter(
        &self,
        key: &Arc<Key>,
        fingerprint: Fingerprint,
        now: Duration,
    ) -> Result<Role<'_, A>, Error> {
        let mut state = self.state.lock();
        state.expire(self.limits.age, now);
        if let Some(entry) = state.entries.get(key) {
            if entry.fingerprint != fingerprint {
                let message = key.message.clone();
                return Err(Error::MessageIdReused { message });
            }
            match &entry.stage {
                Stage::Answered { answer, .. } => return Ok(Role::Repeat(Arc::clone(answer))),
                Stage::UnderWay(leader) => {
                    if let Some(leader) = leader.upgrade() {
                        let waiting = leader.receiver_count();
                        return if waiting < MOST_FOLLOWERS {
                            Ok(Role::Follow(Follow {
                                outcome: leader.subscribe(),
                            }))
                        } else {
                            Err(Error::QueueFull { waiting })
                        };
                    }
                }
            }
        }
        let sender = Arc::new(watch::Sender::new(None));
        let stage = Stage::UnderWay(Arc::downgrade(&sender));
        let entry = Entry { fingerprint, stage };
        state.entries.insert(Arc::clone(key), entry);
        Ok(Role::Lead(Lead {
            window: self,
            key: Arc::clone(key),
            sender,
        }))
    }

    /// How many ids are in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// Whether the window is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<A> State<A> {
    fn expire(&mut self, age: Duration, now: Duration) {
        while let Some(Entry {
            stage: Stage::Answered { at, .. },
            ..
        }) = self.answered.front().and_then(|key| self.entries.get(key))
            && now.saturating_sub(*at) >= age
        {
            self.drop_oldest();
        }
    }

    fn keep(&mut self, key: Arc<Key>, answer: Arc<A>, bytes: usize, limits: &Limits, now: Duration) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.stage = Stage::Answered {
            answer,
            bytes,
            at: now,
        };
        self.bytes += bytes;
        self.answered.push_back(key);
        while self.answered.len() > limits.entries || self.bytes > limits.bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self
            .answered
            .pop_front()
            .and_then(|key| self.entries.remove(&key));
        if let Some(Entry {
            stage: Stage::Answered { bytes, .. },
            ..
        }) = oldest
        {
            self.bytes -= bytes;
        }
    }
}

/// The call that does the work for all with the same key.
#[derive(Debug)]
pub struct Lead<'w, A> {
    window: &'w Window<A>,
    key: Arc<Key>,
    sender: Arc<Sender<A>>,
}

impl<A> Lead<'_, A> {
    /// The work is done: keeps an answer of that many bytes and passes it, or the error, to those who wait.
    pub fn report(self, outcome: Outcome<A>, bytes: usize, now: Duration) {
        if let Ok(answer) = &outcome {
            let mut state = self.window.state.lock();
            state.keep(
                Arc::clone(&self.key),
                Arc::clone(answer),
                bytes,
                &self.window.limits,
                now,
            );
        }
        self.sender.send_replace(Some(outcome));
    }
}

impl<A> Drop for Lead<'_, A> {
    fn drop(&mut self) {
        let mut state = self.window.state.lock();
        let own = Arc::downgrade(&self.sender);
        let unanswered = state
            .entries
            .get(&self.key)
            .is_some_and(|entry| matches!(&entry.stage, Stage::UnderWay(leader) if leader.ptr_eq(&own)));
        if unanswered {
            state.entries.remove(&self.key);
        }
    }
}

/// A call that waits for the answer of another.
#[derive(Debug)]
pub struct Follow<A> {
    outcome: watch::Receiver<Option<Outcome<A>>>,
}

impl<A> Follow<A> {
    /// The leader's outcome; `None` when it left without one, so that this call must enter again.
    pub async fn outcome(mut self) -> Option<Outcome<A>> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        age: Duration::from_secs(600),
        entries: 3,
        bytes: 100,
    };

    fn key(message: &str) -> Arc<Key> {
        Arc::new(Key {
            caller: "anybody".to_owned(),
            target: "weather".to_owned(),
            message: message.to_owned(),
        })
    }

    fn enter<'w>(window: &'w Window<u32>, message: &str, now: u64) -> Role<'w, u32> {
        window
            .enter(&key(message), [0; 32], Duration::from_secs(now))
            .unwrap()
    }

    fn answer(window: &Window<u32>, message: &str, answer: u32, bytes: usize, now: u64) {
        match enter(window, message, now) {
            Role::Lead(lead) => lead.report(Ok(Arc::new(answer)), bytes, Duration::from_secs(now)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recent_answer_is_given_again_and_an_old_one_is_not() {
        let window = Window::new(LIMITS);
        answer(&window, "m", 1, 10, 0);
        assert!(matches!(enter(&window, "m", 599), Role::Repeat(answer) if *answer == 1));
        assert!(matches!(enter(&window, "m", 600), Role::Lead(_)));
    }

    #[test]
    fn another_body_under_the_same_id_is_refused() {
        let window = Window::new(LIMITS);
        answer(&window, "m", 1, 10, 0);
        let refused = window.enter(&key("m"), [1; 32], Duration::ZERO);
        assert!(matches!(refused, Err(Error::MessageIdReused { message }) if message == "m"));
    }

    #[tokio::test]
    async fn those_who_come_while_it_is_under_way_share_the_outcome() {
        let window = Window::new(LIMITS);
        let Role::Lead(lead) = enter(&window, "m", 0) else {
            panic!("nobody leads")
        };
        let Role::Follow(follow) = enter(&window, "m", 0) else {
            panic!("it does not follow")
        };
        lead.report(Ok(Arc::new(7)), 1, Duration::ZERO);
        assert_eq!(*follow.outcome().await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_failure_is_shared_but_not_kept() {
        let window = Window::<u32>::new(LIMITS);
        let Role::Lead(lead) = enter(&window, "m", 0) else {
            panic!("nobody leads")
        };
        let Role::Follow(follow) = enter(&window, "m", 0) else {
            panic!("it does not follow")
        };
        lead.report(Err(Error::TargetMissing), 0, Duration::ZERO);
        assert!(matches!(follow.outcome().await, Some(Err(Error::TargetMissing))));
        assert!(matches!(enter(&window, "m", 0), Role::Lead(_)));
        assert!(window.is_empty());
    }

    #[tokio::test]
    async fn when_the_leader_leaves_another_takes_over() {
        let window = Window::<u32>::new(LIMITS);
        let lead = enter(&window, "m", 0);
        let Role::Follow(follow) = enter(&window, "m", 0) else {
            panic!("it does not follow")
        };
        drop(lead);
        assert!(follow.outcome().now_or_never().unwrap().is_none());
        assert!(matches!(enter(&window, "m", 0), Role::Lead(_)));
    }

    #[test]
    fn followers_are_bounded() {
        let window = Window::<u32>::new(LIMITS);
        let _lead = enter(&window, "m", 0);
        let followers: Vec<_> = (0..MOST_FOLLOWERS).map(|_| enter(&window, "m", 0)).collect();
        assert!(matches!(
            window.enter(&key("m"), [0; 32], Duration::ZERO),
            Err(Error::QueueFull { .. })
        ));
        drop(followers);
        assert!(matches!(enter(&window, "m", 0), Role::Follow(_)));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_whatever_comes(
            steps in proptest::collection::vec((0u8..10, 0usize..150, 0u64..400), 0..100),
        ) {
            let window = Window::new(LIMITS);
            let mut now = 0;
            for (message, bytes, passed) in steps {
                now += passed;
                if let Role::Lead(lead) = enter(&window, &message.to_string(), now) {
                    lead.report(Ok(Arc::new(1)), bytes, Duration::from_secs(now));
                }
                let state = window.state.lock();
                prop_assert!(state.entries.len() <= LIMITS.entries && state.bytes <= LIMITS.bytes);
                prop_assert_eq!(state.entries.len(), state.answered.len());
            }
        }
    }
}
