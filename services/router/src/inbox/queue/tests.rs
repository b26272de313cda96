use proptest::prelude::*;

use super::*;
use crate::inbox::entry::tests::{POLICY, draft};
use crate::inbox::entry::{Failure, Reason, State};
use crate::priority::Priority;

/// What has ended stays until it is looked at.
const ROOMY: Policy = Policy { ended: 100, ..POLICY };

#[derive(Debug, Clone)]
enum Step {
    Enqueue { id: u8, target: u8, rank: u8, delay: u8 },
    Lease { target: u8, most: u8 },
    Finish(u8),
    Retry(u8, bool),
    Bury(u8),
    Cancel(u8),
    Replay(u8),
    Purge(u8),
    Pass(u16),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, 0..3_u8, 0..4_u8, 0..2_u8)
            .prop_map(|(id, target, rank, delay)| Step::Enqueue { id, target, rank, delay }),
        3 => (0..3_u8, 1..4_u8).prop_map(|(target, most)| Step::Lease { target, most }),
        2 => (0..12_u8).prop_map(Step::Finish),
        2 => (0..12_u8, any::<bool>()).prop_map(|(id, counts)| Step::Retry(id, counts)),
        1 => (0..12_u8).prop_map(Step::Bury),
        1 => (0..12_u8).prop_map(Step::Cancel),
        1 => (0..12_u8).prop_map(Step::Replay),
        1 => (0..12_u8).prop_map(Step::Purge),
        2 => (0..400_u16).prop_map(Step::Pass),
        3 => Just(Step::Tick),
    ]
}

fn token_of(queue: &Queue, id: &str) -> Option<String> {
    match &queue.get(id)?.state {
        State::Delivering { token, .. } => Some(token.clone()),
        _ => None,
    }
}

/// Every index says what follows from the entries, and nothing else.
fn check(queue: &Queue) {
    let entries = || queue.entries.values();
    let ready: usize = queue.ready.values().map(BTreeSet::len).sum();
    assert_eq!(ready, entries().filter(|entry| entry.is_ready()).count());
    for delivery in [Delivery::Push, Delivery::Pull] {
        let queues = queue.ready.iter().filter(|((kind, _), _)| *kind == delivery);
        let mut heads: Vec<_> = queues
            .map(|((_, target), queue)| (queue.first().unwrap(), target))
            .collect();
        heads.sort_unstable();
        let heads: Vec<_> = heads.into_iter().map(|(_, target)| target.clone()).collect();
        assert_eq!(queue.heads(delivery, 0, usize::MAX), heads);
        assert_eq!(
            queue.heads(delivery, 1, 1),
            heads.into_iter().skip(1).take(1).collect::<Vec<_>>()
        );
    }
    assert_eq!(queue.due.len(), queue.entries.len());
    assert_eq!(queue.all.len(), queue.entries.len());
    for status in Status::ALL {
        let count = entries().filter(|entry| entry.status() == status).count();
        assert_eq!(queue.count(status), count, "{status:?}");
    }
    assert_eq!(queue.bytes, entries().map(Entry::bytes).sum::<u64>());
    for (target, open) in &queue.open {
        let of_target = entries().filter(|it| it.target == *target && !it.status().has_ended());
        assert_eq!(*open, of_target.count());
        assert!(*open <= POLICY.entries);
    }
    assert!(queue.count(Status::Pending) + queue.count(Status::Delivering) <= POLICY.total);
    assert!(queue.bytes <= POLICY.bytes);
}

proptest! {
    /// Whatever happens: nothing is lost before it ended, nothing is lent to two, the more urgent and older goes first.
    #[test]
    fn nothing_is_lost_and_nothing_is_lent_twice(steps in proptest::collection::vec(step(), 1..120)) {
        let mut queue = Queue::new(ROOMY);
        let mut now: Millis = 1_000_000_000;
        let counter = std::cell::Cell::new(0_u64);
        let token = || { counter.set(counter.get() + 1); format!("t{}", counter.get()) };
        // What was taken in and has not been seen to end.
        let mut open: BTreeSet<String> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Enqueue { id, target, rank, delay } => {
                    let mut draft = draft(
                        &format!("m{id}"), &format!("a{target}"), Priority::ALL[usize::from(rank)],
                    );
                    draft.delay = Duration::from_secs(u64::from(delay) * 100);
                    if let Ok((entry, false)) = queue.enqueue(&draft, now) {
                        prop_assert!(open.insert(entry.id));
                    }
                }
                Step::Lease { target, most } => {
                    let target = format!("a{target}");
                    let key = (Delivery::Push, target.clone());
                    let best: Vec<String> = queue.ready.get(&key).into_iter().flatten()
                        .filter(|(_, _, id)| queue.get(id).unwrap().expires_at > now)
                        .take(usize::from(most)).map(|(_, _, id)| id.clone()).collect();
                    let lent_before: BTreeSet<String> =
                        queue.by_status[Status::Delivering as usize].values().cloned().collect();
                    let wanted = Wanted {
                        targets: vec![target],
                        delivery: Delivery::Push,
                        most: most.into(),
                        lease: Duration::from_secs(30),
                        by: "r".to_owned(),
                    };
                    let lent = queue.lease(&wanted, now, token);
                    for entry in &lent {
                        prop_assert!(!lent_before.contains(&entry.id));
                        prop_assert!(entry.not_before <= now && entry.expires_at > now);
                    }
                    prop_assert_eq!(lent.into_iter().map(|entry| entry.id).collect::<Vec<_>>(), best);
                }
                Step::Finish(id) => {
                    let id = format!("m{id}");
                    let lease = token_of(&queue, &id);
                    let change = Change::Finish {
                        token: lease.clone().unwrap_or_default(),
                        by: Default::default(), kept: 1, dropped: 0,
                    };
                    prop_assert_eq!(queue.change(&id, change, now).is_ok(), lease.is_some());
                }
                Step::Retry(id, counts) => {
                    let id = format!("m{id}");
                    let lease = token_of(&queue, &id);
                    let change = Change::Retry {
                        token: lease.clone().unwrap_or_default(),
                        delay: Duration::from_secs(20), failure: None, counts,
                    };
                    prop_assert_eq!(queue.change(&id, change, now).is_ok(), lease.is_some());
                }
                Step::Bury(id) => {
                    let id = format!("m{id}");
                    let change = Change::Bury {
                        token: token_of(&queue, &id).unwrap_or_default(),
                        reason: Reason::Refused, failure: Failure::new("X", "", ""),
                    };
                    let _refused = queue.change(&id, change, now);
                }
                Step::Cancel(id) => { let _refused = queue.change(&format!("m{id}"), Change::Cancel, now); }
                Step::Replay(id) => {
                    let id = format!("m{id}");
                    if queue.change(&id, Change::Replay, now).is_ok() {
                        open.insert(id);
                    }
                }
                Step::Purge(id) => { let _refused = queue.purge(&format!("m{id}")); }
                Step::Pass(seconds) => now += u64::from(seconds) * 1000,
                Step::Tick => {
                    queue.tick_at(now);
                }
            }
            check(&queue);
            open.retain(|id| queue.get(id).is_none_or(|entry| !entry.status().has_ended()));
            for id in &open {
                prop_assert!(queue.get(id).is_some(), "{} is lost", id);
            }
        }
        // In the end everything is dead or answered, and then forgotten.
        for _ in 0..10 {
            now += 10_000_000;
            queue.tick_at(now);
        }
        prop_assert!(queue.entries.is_empty());
    }
}

#[test]
fn of_what_has_ended_the_oldest_go_when_there_are_too_many() {
    let mut queue = Queue::new(POLICY);
    for number in 0..6 {
        let id = format!("m{number}");
        queue
            .enqueue(&draft(&id, "weather", Priority::Normal), 1)
            .unwrap();
        queue.change(&id, Change::Cancel, 1).unwrap();
    }
    assert_eq!(queue.tick_at(1).displaced, 2);
    assert!(queue.get("m1").is_none() && queue.get("m2").is_some());
}

#[test]
fn a_target_that_is_full_leaves_room_for_others() {
    let mut queue = Queue::new(POLICY);
    for number in 0..POLICY.entries {
        let draft = draft(&format!("m{number}"), "weather", Priority::Normal);
        queue.enqueue(&draft, 1).unwrap();
    }
    let full = queue.enqueue(&draft("more", "weather", Priority::Urgent), 1);
    assert_eq!(full, Err(Refused::Full(Full::Target(5))));
    for number in 0..3 {
        queue
            .enqueue(&draft(&format!("p{number}"), "planning", Priority::Low), 1)
            .unwrap();
    }
    let full = queue.enqueue(&draft("more", "third", Priority::Urgent), 1);
    assert_eq!(full, Err(Refused::Full(Full::Total(8))));
    // One that is there is answered even then.
    let again = queue
        .enqueue(&draft("m0", "weather", Priority::Normal), 2)
        .unwrap();
    assert!(again.1);
}
