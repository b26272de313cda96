//! The same message is answered once: a bounded window over (caller, target, message id).
//!
//! The first call with an id leads and does the work. While it is under way, others with the same id and body wait
//! for its answer; for a while afterwards they get the same answer again. The same id with another body is refused.
//! Only answers are kept: after a failure the next call with that id leads anew, and so does one of those who wait
//! when the leader leaves without an answer. Where a message was given to an instance and nobody knows what became of it, the
//! instance is kept, too: the next call goes there first, where an agent that knows its messages does not begin again.
//!
//! The window lives in memory and is bounded by entries, by bytes and by age; the oldest answers go first. What it
//! promises is therefore "not twice in quick succession": a step key or an idempotent agent covers the rest.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::Error;
use crate::fleet;

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
    /// Keys that nobody leads, in the order in which that began.
    settled: VecDeque<Arc<Key>>,
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
    /// What became of it is not known.
    Lost(Lost),
}

/// Where a message was last seen, and when.
#[derive(Debug, Clone)]
struct Lost {
    instance: Arc<fleet::Key>,
    at: Duration,
}

impl<A> Stage<A> {
    /// Since when nobody leads.
    const fn settled(&self) -> Option<Duration> {
        match self {
            Self::UnderWay(_) => None,
            Self::Answered { at, .. } | Self::Lost(Lost { at, .. }) => Some(*at),
        }
    }
}

/// What a leader passes to its followers.
type Outcome<A> = Result<Arc<A>, Error>;
type Sender<A> = watch::Sender<Option<Outcome<A>>>;

/// What a call has to do.
#[derive(Debug)]
pub enum Role<A> {
    /// Do the work and report.
    Lead(Lead<A>),
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
                settled: VecDeque::new(),
                bytes: 0,
            }),
        }
    }

    /// A call with this key and body comes in.
    ///
    /// # Errors
    /// When the id was used with another body, or too many calls wait for the same answer.
    pub fn enter(
        self: &Arc<Self>,
        key: &Arc<Key>,
        fingerprint: Fingerprint,
        now: Duration,
    ) -> Result<Role<A>, Error> {
        let mut state = self.state.lock();
        let mut before = None;
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
                Stage::Lost(lost) => before = Some(lost.clone()),
            }
        }
        if before.is_some() {
            state.settled.retain(|settled| settled != key);
        }
        let sender = Arc::new(watch::Sender::new(None));
        let stage = Stage::UnderWay(Arc::downgrade(&sender));
        let entry = Entry { fingerprint, stage };
        state.entries.insert(Arc::clone(key), entry);
        Ok(Role::Lead(Lead {
            window: Arc::clone(self),
            key: Arc::clone(key),
            sender,
            before,
            has_answered: false,
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
        let since = |entry: &Entry<A>| entry.stage.settled();
        while let Some(at) = self
            .settled
            .front()
            .and_then(|key| self.entries.get(key))
            .and_then(since)
            && now.saturating_sub(at) >= age
        {
            self.drop_oldest();
        }
    }

    /// Nobody leads any more; that many bytes are kept.
    fn settle(&mut self, key: Arc<Key>, stage: Stage<A>, bytes: usize, limits: &Limits) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.stage = stage;
        self.bytes += bytes;
        self.settled.push_back(key);
        while self.settled.len() > limits.entries || self.bytes > limits.bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.settled.pop_front().and_then(|key| self.entries.remove(&key));
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
pub struct Lead<A> {
    window: Arc<Window<A>>,
    key: Arc<Key>,
    sender: Arc<Sender<A>>,
    /// Where an earlier call lost sight of the message.
    before: Option<Lost>,
    /// Whether an answer is kept, so that nothing is left to do when this goes.
    has_answered: bool,
}

impl<A> Lead<A> {
    /// The instance that an earlier call gave the message to without learning what became of it.
    #[must_use]
    pub fn before(&self) -> Option<&Arc<fleet::Key>> {
        self.before.as_ref().map(|lost| &lost.instance)
    }

    /// The message is with this instance, and no more is known. Those who wait enter again.
    pub fn lose(mut self, instance: Arc<fleet::Key>, now: Duration) {
        self.before = Some(Lost { instance, at: now });
    }

    /// The work is done: keeps an answer of that many bytes and passes it, or the error, to those who wait.
    pub fn report(mut self, outcome: Outcome<A>, bytes: usize, now: Duration) {
        if let Ok(answer) = &outcome {
            self.has_answered = true;
            let mut state = self.window.state.lock();
            let stage = Stage::Answered {
                answer: Arc::clone(answer),
                bytes,
                at: now,
            };
            state.settle(Arc::clone(&self.key), stage, bytes, &self.window.limits);
        }
        self.sender.send_replace(Some(outcome));
    }
}

impl<A> Drop for Lead<A> {
    fn drop(&mut self) {
        if self.has_answered {
            return;
        }
        let mut state = self.window.state.lock();
        let own = Arc::downgrade(&self.sender);
        let unanswered = state
            .entries
            .get(&self.key)
            .is_some_and(|entry| matches!(&entry.stage, Stage::UnderWay(leader) if leader.ptr_eq(&own)));
        if !unanswered {
            return;
        }
        match self.before.take() {
            None => {
                state.entries.remove(&self.key);
            }
            Some(before) => {
                let key = Arc::clone(&self.key);
                state.settle(key, Stage::Lost(before), 0, &self.window.limits);
            }
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

    fn enter(window: &Arc<Window<u32>>, message: &str, now: u64) -> Role<u32> {
        window
            .enter(&key(message), [0; 32], Duration::from_secs(now))
            .unwrap()
    }

    fn answer(window: &Arc<Window<u32>>, message: &str, answer: u32, bytes: usize, now: u64) {
        match enter(window, message, now) {
            Role::Lead(lead) => lead.report(Ok(Arc::new(answer)), bytes, Duration::from_secs(now)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recent_answer_is_given_again_and_an_old_one_is_not() {
        let window = Arc::new(Window::new(LIMITS));
        answer(&window, "m", 1, 10, 0);
        assert!(matches!(enter(&window, "m", 599), Role::Repeat(answer) if *answer == 1));
        assert!(matches!(enter(&window, "m", 600), Role::Lead(_)));
    }

    #[test]
    fn another_body_under_the_same_id_is_refused() {
        let window = Arc::new(Window::new(LIMITS));
        answer(&window, "m", 1, 10, 0);
        let refused = window.enter(&key("m"), [1; 32], Duration::ZERO);
        assert!(matches!(refused, Err(Error::MessageIdReused { message }) if message == "m"));
    }

    #[tokio::test]
    async fn those_who_come_while_it_is_under_way_share_the_outcome() {
        let window = Arc::new(Window::new(LIMITS));
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
        let window = Arc::new(Window::<u32>::new(LIMITS));
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
        let window = Arc::new(Window::<u32>::new(LIMITS));
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
        let window = Arc::new(Window::<u32>::new(LIMITS));
        let _lead = enter(&window, "m", 0);
        let followers: Vec<_> = (0..MOST_FOLLOWERS).map(|_| enter(&window, "m", 0)).collect();
        assert!(matches!(
            window.enter(&key("m"), [0; 32], Duration::ZERO),
            Err(Error::QueueFull { .. })
        ));
        drop(followers);
        assert!(matches!(enter(&window, "m", 0), Role::Follow(_)));
    }

    fn instance(name: &str) -> Arc<fleet::Key> {
        Arc::new(fleet::Key {
            agent: "weather".to_owned(),
            instance: name.to_owned(),
        })
    }

    #[test]
    fn where_a_message_was_lost_sight_of_is_known_to_the_next() {
        let window = Arc::new(Window::<u32>::new(LIMITS));
        let Role::Lead(lead) = enter(&window, "m", 0) else {
            panic!("nobody leads")
        };
        assert!(lead.before().is_none());
        lead.lose(instance("w1"), Duration::ZERO);
        let Role::Lead(lead) = enter(&window, "m", 1) else {
            panic!("nobody leads")
        };
        assert_eq!(lead.before(), Some(&instance("w1")));
        // One who leaves before it has sent it again changes nothing.
        drop(lead);
        let Role::Lead(lead) = enter(&window, "m", 2) else {
            panic!("nobody leads")
        };
        assert_eq!(lead.before(), Some(&instance("w1")));
        lead.report(Ok(Arc::new(1)), 1, Duration::from_secs(2));
        assert!(matches!(enter(&window, "m", 3), Role::Repeat(_)));
        assert!(matches!(enter(&window, "m", 602), Role::Lead(lead) if lead.before().is_none()));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_whatever_comes(
            steps in proptest::collection::vec((0u8..10, 0usize..150, 0u64..400, 0u8..4), 0..100),
        ) {
            let window = Arc::new(Window::new(LIMITS));
            let mut now = 0;
            for (message, bytes, passed, end) in steps {
                now += passed;
                if let Role::Lead(lead) = enter(&window, &message.to_string(), now) {
                    match end {
                        0 => lead.lose(instance("w1"), Duration::from_secs(now)),
                        1 => drop(lead),
                        _ => lead.report(Ok(Arc::new(1)), bytes, Duration::from_secs(now)),
                    }
                }
                let state = window.state.lock();
                prop_assert!(state.entries.len() <= LIMITS.entries && state.bytes <= LIMITS.bytes);
                prop_assert_eq!(state.entries.len(), state.settled.len());
            }
        }
    }
}
