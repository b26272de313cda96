//! Who listens for which events: plain data, driven from outside.
//!
//! A run that listens and waits is entered here with its interests, once it has looked at all events itself. From then on each
//! event is offered in the order of the log, and marks those that it may concern; they look at it themselves. So an event costs
//! as much as there are listeners that it may concern, not as there are listeners: they are found by the type that they name,
//! and by the value of the first correlation that they know.
//!
//! Rejected: a record of each subscription in the store. The journal of a run says what it listens for and from where, every
//! run that has not ended is folded after a restart anyway, and two truths can disagree.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::expression::Expression;
use muster_workflow_dsl::hearing::{Interest, extract};

use crate::run::RunId;

/// A listener: a run, and the activation of the task that listens.
type Key = Arc<(RunId, u64)>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    /// All events below this position have been offered.
    reached: u64,
    /// Nearly always one for each run, so that a map would be mostly empty room.
    runs: HashMap<RunId, Vec<Subscription>>,
    /// Those that do not name the type.
    any: HashSet<Key>,
    kinds: HashMap<String, Kind>,
}

#[derive(Debug)]
struct Subscription {
    key: Key,
    interests: Arc<[Interest]>,
    /// Position of the first event since it was entered that may concern it.
    marked: Option<u64>,
}

impl Subscription {
    fn activation(&self) -> u64 {
        self.key.1
    }
}

/// Those that name one type.
#[derive(Debug, Default)]
struct Kind {
    all: HashSet<Key>,
    /// By the text of the expression that takes a text from an event.
    keyed: HashMap<Arc<str>, Keyed>,
}

/// Those that take a text from an event in the same way, by what it must be.
#[derive(Debug)]
struct Keyed {
    from: Expression,
    listeners: HashMap<String, HashSet<Key>>,
}

impl Kind {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.keyed.is_empty()
    }
}

impl Subscriptions {
    /// The position of the next event to be offered.
    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    /// Whether nobody listens.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// All events below this position have been offered, or need not be.
    pub(crate) fn reach(&mut self, position: u64) {
        self.reached = self.reached.max(position);
    }

    /// Enters a listener that has looked at all events below `seen`.
    ///
    /// # Errors
    /// It has to look at those up to the returned position first.
    pub(crate) fn enter(
        &mut self,
        run: &RunId,
        activation: u64,
        interests: &Arc<[Interest]>,
        seen: u64,
    ) -> Result<(), u64> {
        if seen < self.reached {
            return Err(self.reached);
        }
        self.leave(run, activation);
        let key = Arc::new((run.clone(), activation));
        for interest in interests.iter() {
            self.index(&key, interest);
        }
        let subscription = Subscription {
            key,
            interests: Arc::clone(interests),
            marked: None,
        };
        let all = self.runs.entry(run.clone()).or_default();
        all.reserve_exact(1);
        all.push(subscription);
        Ok(())
    }

    fn index(&mut self, key: &Key, interest: &Interest) {
        let Some(kind) = interest.kind() else {
            self.any.insert(Arc::clone(key));
            return;
        };
        let kind = self.kinds.entry(kind.to_owned()).or_default();
        match interest.key() {
            None => {
                kind.all.insert(Arc::clone(key));
            }
            Some((from, wanted)) => {
                let keyed = kind.keyed.entry(from.source().into()).or_insert_with(|| Keyed {
                    from: from.clone(),
                    listeners: HashMap::new(),
                });
                let same = keyed.listeners.entry(wanted.to_owned()).or_default();
                same.insert(Arc::clone(key));
            }
        }
    }

    /// Takes a listener out; the position from which on it has to look for itself, if it was in.
    pub(crate) fn leave(&mut self, run: &RunId, activation: u64) -> Option<u64> {
        let MapEntry::Occupied(mut entry) = self.runs.entry(run.clone()) else {
            return None;
        };
        let all = entry.get_mut();
        let at = all
            .iter()
            .position(|subscription| subscription.activation() == activation)?;
        let subscription = all.swap_remove(at);
        if all.is_empty() {
            entry.remove();
        }
        self.forget(&subscription);
        Some(subscription.marked.unwrap_or(self.reached))
    }

    /// Takes a run out that has ended.
    pub(crate) fn end(&mut self, run: &RunId) {
        for subscription in self.runs.remove(run).into_iter().flatten() {
            self.forget(&subscription);
        }
    }

    fn forget(&mut self, subscription: &Subscription) {
        let key = &subscription.key;
        for interest in subscription.interests.iter() {
            let Some(name) = interest.kind() else {
                self.any.remove(key);
                continue;
            };
            let Some(kind) = self.kinds.get_mut(name) else {
                continue;
            };
            kind.all.remove(key);
            if let Some((from, wanted)) = interest.key()
                && let Some(keyed) = kind.keyed.get_mut(from.source())
            {
                if let Some(same) = keyed.listeners.get_mut(wanted) {
                    same.remove(key);
                    if same.is_empty() {
                        keyed.listeners.remove(wanted);
                    }
                }
                if keyed.listeners.is_empty() {
                    kind.keyed.remove(from.source());
                }
            }
            if kind.is_empty() {
                self.kinds.remove(name);
            }
        }
    }

    /// Where a listener has to look, if an event may concern it; it is out then.
    pub(crate) fn marked(&mut self, run: &RunId, activation: u64) -> Option<u64> {
        let mut all = self.runs.get(run)?.iter();
        let marked = all
            .find(|subscription| subscription.activation() == activation)?
            .marked?;
        self.leave(run, activation);
        Some(marked)
    }

    /// The next event: marks those that it may concern, and returns their runs.
    pub(crate) fn offer(&mut self, position: u64, event: &CloudEvent, now: Timestamp) -> BTreeSet<RunId> {
        let mut woken = BTreeSet::new();
        for key in self.candidates(event, now) {
            let (run, activation) = &*key;
            let mut all = self.runs.get_mut(run).into_iter().flatten();
            let subscription = all.find(|subscription| subscription.activation() == *activation);
            let Some(subscription) = subscription.filter(|subscription| subscription.marked.is_none()) else {
                continue;
            };
            let mut interests = subscription.interests.iter();
            if interests.any(|interest| interest.admits(event, now)) {
                subscription.marked = Some(position);
                woken.insert(run.clone());
            }
        }
        self.reach(position.saturating_add(1));
        woken
    }

    fn candidates(&self, event: &CloudEvent, now: Timestamp) -> Vec<Key> {
        let mut candidates: Vec<Key> = self.any.iter().cloned().collect();
        if let Some(kind) = self.kinds.get(event.kind()) {
            candidates.extend(kind.all.iter().cloned());
            for keyed in kind.keyed.values() {
                let same = extract(&keyed.from, event, now).and_then(|value| keyed.listeners.get(&value));
                candidates.extend(same.into_iter().flatten().cloned());
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use muster_workflow_dsl::document::Kind as TaskKind;
    use muster_workflow_dsl::hearing::{Correlations, Hearing};
    use serde_json::{Value, json};

    use super::*;

    fn run(text: &str) -> RunId {
        text.parse().unwrap()
    }

    /// The interests of a task that listens to this, while it expects this.
    fn interests(to: &str, expect: Value) -> Arc<[Interest]> {
        let document = format!(
            "document: {{dsl: '1.0.0', namespace: t, name: t, version: '1.0.0'}}\ndo: [{{a: {{listen: {{to: {to}}}}}}}]"
        );
        let definition = muster_workflow_dsl::parse(&document).unwrap();
        let TaskKind::Listen(listen) = &definition.workflow.tasks.tasks[0].kind else {
            panic!("it listens");
        };
        let expect: Correlations = serde_json::from_value(expect).unwrap();
        Hearing::new(&listen.to, expect).interests(&listen.to).into()
    }

    fn event(kind: &str, data: Value) -> CloudEvent {
        let event = json!({"specversion": "1.0", "id": "1", "source": "/t", "type": kind, "data": data});
        CloudEvent::check(event).unwrap()
    }

    fn ids(woken: BTreeSet<RunId>) -> Vec<String> {
        woken.into_iter().map(String::from).collect()
    }

    #[test]
    fn an_event_marks_those_that_it_may_concern_once() {
        let mut subscriptions = Subscriptions::default();
        let now = Timestamp::UNIX_EPOCH;
        let order = "{one: {with: {type: order}, correlate: {id: {from: .data.id}}}}";
        for (id, to, expect) in [
            ("seven", order, json!({"id": 7})),
            ("eight", order, json!({"id": "8"})),
            ("every-order", order, json!({})),
            ("any", "{any: [], until: 'false'}", json!({})),
            ("other", "{one: {with: {type: other}}}", json!({})),
            ("pattern", "{one: {with: {type: 'o.*r'}}}", json!({})),
        ] {
            subscriptions
                .enter(&run(id), 0, &interests(to, expect), 1)
                .unwrap();
        }
        assert_eq!(
            ids(subscriptions.offer(1, &event("order", json!({"id": 8})), now)),
            ["any", "eight", "every-order", "pattern"]
        );
        assert_eq!(
            ids(subscriptions.offer(2, &event("order", json!({"id": 7})), now)),
            ["seven"],
            "the others look for themselves from the first event on"
        );
        assert_eq!(subscriptions.marked(&run("eight"), 0), Some(1));
        assert_eq!(subscriptions.marked(&run("eight"), 0), None);
        assert_eq!(subscriptions.marked(&run("other"), 0), None);
        assert_eq!(subscriptions.leave(&run("other"), 0), Some(3));
        assert_eq!(
            subscriptions.enter(&run("late"), 0, &interests(order, json!({})), 2),
            Err(3),
            "it has not seen the second event"
        );
        for id in ["seven", "every-order", "any", "pattern"] {
            subscriptions.end(&run(id));
        }
        assert!(subscriptions.is_empty() && subscriptions.kinds.is_empty() && subscriptions.any.is_empty());
    }
}
