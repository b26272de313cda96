//! The messages that came lately: one that comes again is not worked on again.
//!
//! Who sends a message and hears nothing sends it again, with the same id. It gets the task that the first delivery has made, however
//! that came to be: at work, waiting, ended. The same id with other content is refused. Both are told apart by hashes, so that an
//! entry is small whatever was sent: one of caller and message id, one of the message and the metadata of its request in canonical form
//! (as encoded from what was decoded, which has maps in order). How the answer is to come does not count: a message that was sent may
//! come again as a stream. Nor does the trace in the metadata: a router that sends a message again does so within another span.
//!
//! Deliveries that come while the first is looked at wait for it. Where it is refused and makes no task, it is as if it had not been,
//! and one of those who wait is the next.
//!
//! The window is bounded in time and in number. What made a task is kept with it ([`Record::sent`](crate::tasks::record::Record)), so
//! that on a disk the window outlasts the process as the task does. Where instances share a store, each has a window of its own: whoever
//! sends again to another instance is told apart by a router alone.
//!
//! Rejected: keeping answers (the task is kept anyway, and is newer); a longer window (a message id is a name for a retry, not for good).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use a2a_pb::proto as pb;
use muster_api::error::{Error, Reason};
use muster_runtime::trace::{TRACEPARENT, TRACESTATE};
use parking_lot::Mutex;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::tasks::record::Sent;

/// How long a message is known, in seconds.
const AGE: i64 = 600;
/// Most messages that are known.
const MOST: usize = 10_000;
/// Most deliveries that wait for the first.
const MOST_WAITING: usize = 64;

type Hash = [u8; 32];

/// A delivery of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    key: Hash,
    fingerprint: Hash,
    second: i64,
}

/// The window. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    inner: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    entries: HashMap<Hash, Entry>,
    /// Those that made a task, oldest first, with when they came.
    made: VecDeque<(i64, Hash)>,
}

#[derive(Debug)]
struct Entry {
    fingerprint: Hash,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The first delivery has the sender; when it leaves, it is gone.
    UnderWay(Weak<watch::Sender<()>>),
    Made {
        task: String,
        second: i64,
    },
}

/// What becomes of a delivery.
#[derive(Debug)]
pub(crate) enum Role {
    /// It is the first.
    First(First),
    /// Another is the first, and is looked at; afterwards this one is to come in again.
    Later(watch::Receiver<()>),
    /// It has made this task.
    Known(String),
}

/// The first delivery of a message.
#[derive(Debug)]
pub(crate) struct First {
    window: Window,
    delivery: Delivery,
    sender: Arc<watch::Sender<()>>,
}

impl Delivery {
    /// A message of a caller that comes at a second of Unix time.
    pub(crate) fn new(caller: &str, request: &pb::SendMessageRequest, second: i64) -> Self {
        let id = request
            .message
            .as_ref()
            .map_or("", |message| message.message_id.as_str());
        let key = Sha256::new()
            .chain_update((caller.len() as u64).to_be_bytes())
            .chain_update(caller)
            .chain_update(id);
        let mut content = pb::SendMessageRequest {
            message: request.message.clone(),
            metadata: request.metadata.clone(),
            ..Default::default()
        };
        // The span of each delivery is another one.
        let of_message = content.message.as_mut().map(|message| &mut message.metadata);
        for metadata in of_message.into_iter().chain([&mut content.metadata]) {
            if let Some(known) = metadata {
                for name in [TRACEPARENT, TRACESTATE] {
                    known.fields.remove(name);
                }
            }
            *metadata = metadata.take().filter(|known| !known.fields.is_empty());
        }
        Self {
            key: key.finalize().into(),
            fingerprint: Sha256::digest(content.encode_to_vec()).into(),
            second,
        }
    }

    /// What is kept of it with its task.
    pub(crate) fn kept(&self) -> Sent {
        Sent {
            key: self.key.to_vec(),
            fingerprint: self.fingerprint.to_vec(),
            second: self.second,
        }
    }

    /// What was kept; `None` for what has another form.
    fn of(sent: &Sent) -> Option<Self> {
        Some(Self {
            key: sent.key.as_slice().try_into().ok()?,
            fingerprint: sent.fingerprint.as_slice().try_into().ok()?,
            second: sent.second,
        })
    }
}

impl Window {
    /// Of what was kept with tasks.
    pub(crate) fn load(&self, mut kept: Vec<(Sent, String)>) {
        kept.sort_by_key(|(sent, _)| sent.second);
        let mut inside = self.inner.lock();
        for (sent, task) in kept {
            if let Some(delivery) = Delivery::of(&sent) {
                inside.make(&delivery, task);
            }
        }
    }

    /// A delivery comes in.
    ///
    /// # Errors
    /// The id was used with other content, or too many deliveries wait for the first.
    pub(crate) fn enter(&self, delivery: Delivery) -> Result<Role, Error> {
        let mut inside = self.inner.lock();
        inside.expire(delivery.second);
        if let Some(entry) = inside.entries.get(&delivery.key) {
            let sender = match &entry.stage {
                Stage::UnderWay(sender) => sender.upgrade(),
                Stage::Made { .. } => None,
            };
            let is_there = sender.is_some() || matches!(entry.stage, Stage::Made { .. });
            if is_there && entry.fingerprint != delivery.fingerprint {
                return Err(Error::new(
                    Reason::MessageIdReused,
                    "the message id was used before with another message",
                )
                .with_field("message.message_id"));
            }
            if let Stage::Made { task, .. } = &entry.stage {
                return Ok(Role::Known(task.clone()));
            }
            if let Some(sender) = sender {
                let waiting = sender.receiver_count();
                if waiting < MOST_WAITING {
                    return Ok(Role::Later(sender.subscribe()));
                }
                let message =
                    format!("{waiting} deliveries of the message wait for the first, as many as may");
                return Err(Error::new(Reason::AgentBusy, message).with_retry_after(Duration::from_secs(1)));
            }
        }
        let sender = Arc::new(watch::Sender::new(()));
        let stage = Stage::UnderWay(Arc::downgrade(&sender));
        let fingerprint = delivery.fingerprint;
        inside.entries.insert(delivery.key, Entry { fingerprint, stage });
        Ok(Role::First(First {
            window: self.clone(),
            delivery,
            sender,
        }))
    }

    /// The task of a delivery has been forgotten.
    pub(crate) fn forget(&self, delivery: &Delivery, task: &str) {
        let mut inside = self.inner.lock();
        let is_that = |entry: &Entry| matches!(&entry.stage, Stage::Made { task: made, .. } if made == task);
        if inside.entries.get(&delivery.key).is_some_and(is_that) {
            inside.entries.remove(&delivery.key);
        }
    }
}

impl Inside {
    fn make(&mut self, delivery: &Delivery, task: String) {
        let second = delivery.second;
        let entry = Entry {
            fingerprint: delivery.fingerprint,
            stage: Stage::Made { task, second },
        };
        self.entries.insert(delivery.key, entry);
        self.made.push_back((second, delivery.key));
        while self.made.len() > MOST {
            self.drop_oldest();
        }
    }

    fn expire(&mut self, now: i64) {
        while self
            .made
            .front()
            .is_some_and(|(second, _)| now.saturating_sub(*second) >= AGE)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((second, key)) = self.made.pop_front() else {
            return;
        };
        // It may have been forgotten and made again since.
        let is_that =
            |entry: &Entry| matches!(entry.stage, Stage::Made { second: made, .. } if made == second);
        if self.entries.get(&key).is_some_and(is_that) {
            self.entries.remove(&key);
        }
    }
}

impl First {
    /// What is kept of it with its task.
    pub(crate) fn kept(&self) -> Sent {
        self.delivery.kept()
    }

    /// It has made this task.
    pub(crate) fn made(self, task: &str) {
        self.window.inner.lock().make(&self.delivery, task.to_owned());
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let own = Arc::downgrade(&self.sender);
        let is_own = |entry: &Entry| matches!(&entry.stage, Stage::UnderWay(sender) if sender.ptr_eq(&own));
        let mut inside = self.window.inner.lock();
        if inside.entries.get(&self.delivery.key).is_some_and(is_own) {
            inside.entries.remove(&self.delivery.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost_types::{Struct, Value, value::Kind};

    use super::*;

    fn request(id: &str, text: &str) -> pb::SendMessageRequest {
        pb::SendMessageRequest {
            message: Some(pb::Message {
                message_id: id.to_owned(),
                parts: vec![pb::Part {
                    content: Some(pb::part::Content::Text(text.to_owned())),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn delivery(id: &str, text: &str, second: i64) -> Delivery {
        Delivery::new("ada", &request(id, text), second)
    }

    fn first(window: &Window, delivery: Delivery) -> First {
        match window.enter(delivery).unwrap() {
            Role::First(first) => first,
            other => panic!("{other:?}"),
        }
    }

    fn known(window: &Window, delivery: Delivery) -> Option<String> {
        match window.enter(delivery).unwrap() {
            Role::Known(task) => Some(task),
            Role::First(_) => None,
            Role::Later(_) => panic!("nobody is under way"),
        }
    }

    #[test]
    fn the_same_again_is_known_and_the_same_id_with_something_else_is_refused() {
        let window = Window::default();
        first(&window, delivery("m", "hello", 0)).made("t");
        assert_eq!(known(&window, delivery("m", "hello", 1)).as_deref(), Some("t"));
        let refused = window.enter(delivery("m", "other", 1)).unwrap_err();
        assert_eq!(refused.reason, Reason::MessageIdReused);
        let of_another = Delivery::new("bob", &request("m", "other"), 1);
        assert_eq!(known(&window, of_another), None);
        window.forget(&delivery("m", "hello", 1), "t");
        assert_eq!(known(&window, delivery("m", "other", 1)), None);
    }

    #[test]
    fn the_order_of_maps_and_the_way_of_the_answer_do_not_count() {
        let field = |name: &str, number: f64| {
            let value = Value {
                kind: Some(Kind::NumberValue(number)),
            };
            (name.to_owned(), value)
        };
        // As another sender would write the fields: the later one first.
        let entry = |name: &str, number: f64| {
            let one = Struct {
                fields: BTreeMap::from([field(name, number)]),
            };
            one.encode_to_vec()
        };
        let swapped = [entry("b", 2.0), entry("a", 1.0)].concat();
        let ordered = [entry("a", 1.0), entry("b", 2.0)].concat();
        let [one, other] = [swapped, ordered].map(|bytes| {
            let metadata = Some(Struct::decode(bytes.as_slice()).unwrap());
            let mut request = request("m", "hello");
            request.metadata.clone_from(&metadata);
            request.message.as_mut().unwrap().metadata = metadata;
            request
        });
        let at_once = pb::SendMessageRequest {
            configuration: Some(pb::SendMessageConfiguration {
                return_immediately: true,
                ..Default::default()
            }),
            ..other
        };
        assert_eq!(Delivery::new("ada", &one, 0), Delivery::new("ada", &at_once, 0));
    }

    #[test]
    fn the_trace_in_the_metadata_does_not_count() {
        let traced = |span: &str, more: &str| {
            let field = |name: &str, text: &str| {
                let kind = Some(Kind::StringValue(text.to_owned()));
                (name.to_owned(), Value { kind })
            };
            let fields = [
                field(TRACEPARENT, span),
                field(TRACESTATE, span),
                field("more", more),
            ];
            let metadata = Some(Struct {
                fields: fields.into(),
            });
            let mut request = request("m", "hello");
            request.metadata.clone_from(&metadata);
            request.message.as_mut().unwrap().metadata = metadata;
            Delivery::new("ada", &request, 0)
        };
        assert_eq!(traced("one", "x"), traced("other", "x"));
        assert_ne!(traced("one", "x"), traced("one", "y"));
    }

    #[tokio::test]
    async fn who_comes_meanwhile_waits_and_is_the_next_where_the_first_makes_nothing() {
        let window = Window::default();
        let leader = first(&window, delivery("m", "hello", 0));
        assert!(window.enter(delivery("m", "other", 0)).is_err());
        let waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| match window.enter(delivery("m", "hello", 0)).unwrap() {
                Role::Later(waiting) => waiting,
                other => panic!("{other:?}"),
            })
            .collect();
        let refused = window.enter(delivery("m", "hello", 0)).unwrap_err();
        assert_eq!(refused.reason, Reason::AgentBusy);
        drop(leader);
        for mut waiting in waiting {
            assert!(waiting.changed().await.is_err());
        }
        first(&window, delivery("m", "other", 0)).made("t");
    }

    #[test]
    fn it_is_bounded_in_time_and_number() {
        let window = Window::default();
        let kept = (0..=MOST).map(|number| {
            let sent = delivery(&number.to_string(), "hello", 0).kept();
            (sent, format!("t{number}"))
        });
        window.load(kept.collect());
        assert_eq!(known(&window, delivery("0", "hello", 0)), None);
        assert_eq!(
            known(&window, delivery("1", "hello", AGE - 1)).as_deref(),
            Some("t1")
        );
        assert_eq!(known(&window, delivery("1", "hello", AGE)), None);
        let inside = window.inner.lock();
        assert!(inside.entries.is_empty() && inside.made.is_empty());
    }

    proptest! {
        /// Whatever comes and goes, nothing stays that no delivery can find.
        #[test]
        fn nothing_is_left_behind(steps in prop::collection::vec((0..4_u8, 0..3_u8, 0..300_i64), 0..60)) {
            let window = Window::default();
            let mut now = 0;
            for (id, what, later) in steps {
                now += later;
                let delivery = delivery(&id.to_string(), "hello", now);
                match (window.enter(delivery).unwrap(), what) {
                    (Role::First(first), 0 | 1) => first.made("t"),
                    (Role::Known(task), 0) => window.forget(&delivery, &task),
                    (Role::First(_) | Role::Known(_), _) => {}
                    (Role::Later(_), _) => prop_assert!(false, "nobody is under way"),
                }
            }
            let mut inside = window.inner.lock();
            prop_assert!(inside.entries.len() <= inside.made.len());
            inside.expire(now + AGE);
            prop_assert!(inside.entries.is_empty() && inside.made.is_empty());
        }
    }
}
