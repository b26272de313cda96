use jiff::SignedDuration;
use muster_workflow_dsl::document::policy::Priority;
use proptest::prelude::*;

use super::*;

fn id(number: usize) -> RunId {
    format!("run-{number}").parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

const HERE: &str = "here";

fn bounds(slots: usize, most_pending: usize) -> Bounds {
    Bounds {
        slots,
        most_pending,
        shares: HashMap::new(),
    }
}

fn schedule(slots: usize, most_pending: usize) -> Schedule {
    Schedule::new(bounds(slots, most_pending))
}

fn run(number: usize) -> Newcomer {
    of(HERE, number, Priority::Normal)
}

fn of(namespace: &str, number: usize, priority: Priority) -> Newcomer {
    let claim = Claim {
        priority,
        limits: Vec::new(),
    };
    Newcomer {
        id: id(number),
        namespace: namespace.into(),
        claim: claim.into(),
    }
}

fn limited(number: usize, group: &str, most: u32) -> Newcomer {
    let limit = Limit {
        group: group.into(),
        most,
    };
    let claim = Claim {
        limits: vec![limit],
        ..Claim::default()
    };
    Newcomer {
        claim: claim.into(),
        ..run(number)
    }
}

/// Who is served, in order, where each run ends at once.
fn served(schedule: &mut Schedule) -> Vec<RunId> {
    let mut order = Vec::new();
    while let Some(next) = schedule.next(at(0)) {
        schedule.leave(&next, Left::Ended);
        order.push(next);
    }
    order
}

fn admitted(schedule: &mut Schedule, numbers: std::ops::Range<usize>) {
    for number in numbers {
        schedule.reserve(&HERE.into()).unwrap();
        schedule.admit(run(number));
    }
}

#[test]
fn runs_begin_in_the_order_of_their_acceptance() {
    let mut schedule = schedule(2, 10);
    admitted(&mut schedule, 0..4);
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    assert_eq!(schedule.next(at(0)), Some(id(1)));
    assert_eq!(schedule.next(at(0)), None);
    assert_eq!(
        schedule.hindrance(&id(3)),
        Some(Hindrance::Slots {
            kept: 0,
            held: 2,
            slots: 2,
            ahead: 1
        })
    );
    schedule.leave(&id(1), Left::Ended);
    assert_eq!(schedule.next(at(0)), Some(id(2)));
    assert_eq!(schedule.place(&id(1)), None);
}

#[test]
fn a_parked_run_holds_no_slot_and_comes_back_when_due() {
    let mut schedule = schedule(1, 10);
    admitted(&mut schedule, 0..2);
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    schedule.leave(&id(0), Left::Parked(Some(at(5))));
    assert_eq!(schedule.next_due(), Some(at(5)));
    assert_eq!(schedule.next(at(4)), Some(id(1)));
    assert_eq!(schedule.next(at(9)), None, "no slot");
    assert_eq!(schedule.place(&id(0)), Some(&Place::Ready));
    schedule.leave(&id(1), Left::Ended);
    assert_eq!(schedule.next(at(9)), Some(id(0)));
}

#[test]
fn woken_and_new_runs_take_turns() {
    let mut schedule = schedule(1, 10);
    admitted(&mut schedule, 0..3);
    for number in 10..13 {
        schedule.resume(run(number));
    }
    assert_eq!(served(&mut schedule), [10, 0, 11, 1, 12, 2].map(id));
}

#[test]
fn the_line_is_bounded_and_counts_what_is_about_to_join() {
    let mut schedule = schedule(1, 2);
    for _ in 0..3 {
        schedule.reserve(&HERE.into()).unwrap();
    }
    assert_eq!(
        schedule.reserve(&HERE.into()),
        Err(Full::Line { queued: 3, most: 2 })
    );
    schedule.give_up(&HERE.into());
    schedule.reserve(&HERE.into()).unwrap();
    // What the store holds is taken back, whatever the limit is now.
    schedule.restore(run(7));
    assert_eq!(schedule.counts().pending, 1);
}

#[test]
fn a_run_can_be_seized_wherever_it_waits() {
    let mut schedule = schedule(1, 10);
    admitted(&mut schedule, 0..3);
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    assert_eq!(schedule.seize(&id(0)), Seized::Active);
    assert_eq!(schedule.seize(&id(1)), Seized::Taken);
    assert_eq!(schedule.seize(&id(1)), Seized::Active);
    schedule.leave(&id(0), Left::Parked(Some(at(5))));
    assert_eq!(schedule.seize(&id(0)), Seized::Taken);
    assert_eq!(
        schedule.counts(),
        Counts {
            running: 0,
            pending: 1,
            waiting: 0,
            set_aside: 0,
            slots: 1
        }
    );
    schedule.leave(&id(0), Left::SetAside("damaged".into()));
    assert_eq!(schedule.seize(&id(0)), Seized::SetAside("damaged".into()));
    assert_eq!(schedule.seize(&id(99)), Seized::Unknown);
    assert_eq!(schedule.next(at(9)), Some(id(2)));
}

#[test]
fn a_run_that_was_set_aside_is_taken_up_again() {
    let mut schedule = schedule(1, 10);
    admitted(&mut schedule, 0..2);
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    schedule.leave(&id(0), Left::SetAside("the store is away".into()));
    assert_eq!(schedule.next(at(0)), Some(id(1)), "its slot is free");
    assert_eq!(schedule.counts().set_aside, 1);
    schedule.leave(&id(1), Left::SetAside("the store is away".into()));
    schedule.take_up(&id(0));
    schedule.take_up(&id(1));
    schedule.take_up(&id(0));
    schedule.take_up(&id(99));
    let counts = schedule.counts();
    assert_eq!((counts.set_aside, counts.pending), (0, 0));
    assert_eq!(served(&mut schedule), [0, 1].map(id));
}

#[test]
fn a_higher_class_goes_first_and_within_a_class_the_earlier() {
    let mut schedule = schedule(1, 10);
    for (number, priority) in [
        (0, Priority::Low),
        (1, Priority::Normal),
        (2, Priority::Urgent),
        (3, Priority::Normal),
        (4, Priority::High),
    ] {
        schedule.restore(of(HERE, number, priority));
    }
    schedule.resume(of(HERE, 5, Priority::Low));
    schedule.resume(of(HERE, 6, Priority::High));
    assert_eq!(served(&mut schedule), [2, 6, 4, 1, 3, 5, 0].map(id));
}

#[test]
fn a_crowd_of_one_namespace_does_not_hold_up_another() {
    let mut schedule = schedule(1, 100_000);
    (0..10_000).for_each(|number| schedule.restore(of("crowd", number, Priority::Urgent)));
    for number in 0..10 {
        let next = schedule.next(at(0)).unwrap();
        schedule.leave(&next, Left::Ended);
        schedule.restore(of("quiet", 20_000 + number, Priority::Low));
        assert_eq!(
            schedule.next(at(0)),
            Some(id(20_000 + number)),
            "it is next, whatever its class"
        );
        schedule.leave(&id(20_000 + number), Left::Ended);
    }
}

#[test]
fn slots_that_are_held_for_long_are_shared_by_weight() {
    let shares = [(
        "double".into(),
        Share {
            weight: 2,
            ..Share::default()
        },
    )]
    .into();
    let mut schedule = Schedule::new(Bounds {
        shares,
        ..bounds(9, 100)
    });
    (0..20).for_each(|number| schedule.restore(of("single", number, Priority::Normal)));
    (20..40).for_each(|number| schedule.restore(of("double", number, Priority::Normal)));
    while schedule.next(at(0)).is_some() {}
    let held: Vec<usize> = schedule
        .namespaces()
        .iter()
        .map(|counts| counts.running)
        .collect();
    assert_eq!(held, [6, 3], "double, single");
}

#[test]
fn a_namespace_holds_no_more_slots_than_it_may() {
    let shares = [(
        HERE.into(),
        Share {
            most_slots: 1,
            ..Share::default()
        },
    )]
    .into();
    let mut schedule = Schedule::new(Bounds {
        shares,
        ..bounds(5, 100)
    });
    admitted(&mut schedule, 0..3);
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    assert_eq!(schedule.next(at(0)), None);
    assert_eq!(
        schedule.hindrance(&id(2)),
        Some(Hindrance::Namespace {
            namespace: HERE.into(),
            most: 1,
            ahead: 1
        })
    );
    schedule.restore(of("there", 9, Priority::Normal));
    assert_eq!(schedule.next(at(0)), Some(id(9)));
    schedule.leave(&id(0), Left::Parked(None));
    assert_eq!(schedule.next(at(0)), Some(id(1)), "who is parked holds none");
}

#[test]
fn runs_of_a_full_group_let_others_pass_and_follow_in_order() {
    let mut schedule = schedule(5, 100);
    for number in 0..3 {
        schedule.restore(limited(number, "orders", 1));
    }
    schedule.restore(run(3));
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    assert_eq!(schedule.next(at(0)), Some(id(3)));
    assert_eq!(schedule.next(at(0)), None);
    let Some(Hindrance::Group { limit, used, ahead }) = schedule.hindrance(&id(2)) else {
        panic!("it waits for its group");
    };
    assert_eq!((&*limit.group, limit.most, used, ahead), ("orders", 1, 1, 1));
    schedule.leave(&id(0), Left::Parked(None));
    assert_eq!(schedule.next(at(0)), None, "it is under way while it waits");
    assert_eq!(schedule.seize(&id(1)), Seized::Taken);
    schedule.leave(&id(1), Left::Ended);
    assert_eq!(schedule.seize(&id(0)), Seized::Taken);
    schedule.leave(&id(0), Left::Ended);
    assert_eq!(schedule.next(at(0)), Some(id(2)));
    schedule.leave(&id(2), Left::Ended);
    schedule.leave(&id(3), Left::Ended);
    assert_eq!(schedule.namespaces(), [], "nothing is kept of what has ended");
}

#[test]
fn room_in_a_group_that_the_first_does_not_take_goes_to_the_next() {
    let mut schedule = schedule(2, 100);
    for number in 0..3 {
        schedule.restore(limited(number, "orders", 1));
    }
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    schedule.restore(run(3));
    assert_eq!(schedule.next(at(0)), Some(id(3)));
    schedule.leave(&id(0), Left::Ended);
    // The first that waits for the group is in line again, others are before it, and it is cancelled.
    schedule.restore(of(HERE, 4, Priority::Urgent));
    assert_eq!(schedule.next(at(0)), Some(id(4)));
    assert_eq!(schedule.seize(&id(1)), Seized::Taken);
    schedule.leave(&id(1), Left::Ended);
    schedule.leave(&id(3), Left::Ended);
    assert_eq!(schedule.next(at(0)), Some(id(2)));
}

#[test]
fn a_run_whose_other_group_is_full_does_not_keep_the_room_from_those_behind_it() {
    let keyed = |number: usize, key: &str| {
        let limit = |group: String, most| Limit {
            group: group.into(),
            most,
        };
        let claim = Claim {
            limits: vec![limit("all".into(), 2), limit(format!("all/{key}"), 1)],
            ..Claim::default()
        };
        Newcomer {
            claim: claim.into(),
            ..run(number)
        }
    };
    let mut schedule = schedule(5, 100);
    for (number, key) in ["a", "b", "a", "c"].iter().enumerate() {
        schedule.restore(keyed(number, key));
    }
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    assert_eq!(schedule.next(at(0)), Some(id(1)));
    assert_eq!(schedule.next(at(0)), None);
    schedule.leave(&id(1), Left::Ended);
    assert_eq!(
        schedule.next(at(0)),
        Some(id(3)),
        "the second of key a waits for the first"
    );
    assert_eq!(schedule.next(at(0)), None);
    schedule.leave(&id(0), Left::Ended);
    assert_eq!(schedule.next(at(0)), Some(id(2)));
}

#[test]
fn a_namespace_that_may_hold_few_slots_does_not_queue_for_the_free_ones_of_all() {
    let share = Share {
        most_slots: 1,
        most_pending: 2,
        ..Share::default()
    };
    let mut schedule = Schedule::new(Bounds {
        shares: [(HERE.into(), share)].into(),
        ..bounds(100, 100)
    });
    admitted(&mut schedule, 0..1);
    assert_eq!(schedule.next(at(0)), Some(id(0)));
    admitted(&mut schedule, 1..3);
    assert!(matches!(
        schedule.reserve(&HERE.into()),
        Err(Full::Namespace {
            queued: 2,
            most: 2,
            ..
        })
    ));
}

#[test]
fn a_namespace_cannot_fill_the_line_alone() {
    let there: Arc<str> = "there".into();
    let shares = [(
        Arc::clone(&there),
        Share {
            most_pending: 2,
            ..Share::default()
        },
    )]
    .into();
    let mut schedule = Schedule::new(Bounds {
        shares,
        ..bounds(0, 20)
    });
    admitted(&mut schedule, 0..18);
    assert_eq!(
        schedule.reserve(&HERE.into()),
        Err(Full::Kept {
            namespace: HERE.into(),
            own: 18,
            queued: 18,
            most: 20
        })
    );
    for _ in 0..2 {
        schedule.reserve(&there).unwrap();
    }
    assert!(matches!(
        schedule.reserve(&there),
        Err(Full::Line { queued: 20, most: 20 })
    ));
    (0..5).for_each(|number| {
        schedule.seize(&id(number));
        schedule.leave(&id(number), Left::Ended);
    });
    assert!(matches!(
        schedule.reserve(&there),
        Err(Full::Namespace {
            queued: 2,
            most: 2,
            ..
        })
    ));
}

#[derive(Debug, Clone)]
enum Action {
    Start,
    Next,
    Leave(usize, u8),
    Seize(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Start),
        Just(Action::Next),
        (any::<usize>(), 0..3_u8).prop_map(|(run, how)| Action::Leave(run, how)),
        any::<usize>().prop_map(Action::Seize),
    ]
}

/// Limits that overlap in every way.
const LIMITS: [&[(&str, u32)]; 7] = [
    &[],
    &[("a", 1)],
    &[("both", 2), ("a", 1)],
    &[("both", 2), ("b", 1)],
    &[("b", 1), ("both", 3)],
    &[("both", 1)],
    &[],
];

/// A run whose namespace, class and groups follow from its number.
fn drawn(number: usize) -> Newcomer {
    let claim = Claim {
        priority: Priority::ALL[number % 4],
        limits: LIMITS[number % LIMITS.len()]
            .iter()
            .map(|(group, most)| Limit {
                group: (*group).into(),
                most: *most,
            })
            .collect(),
    };
    Newcomer {
        id: id(number),
        namespace: format!("namespace-{}", number % 5).into(),
        claim: claim.into(),
    }
}

proptest! {
    #[test]
    fn busy_namespaces_are_served_by_their_weights(
        weights in proptest::collection::vec(1..20_u32, 2..6),
        rounds in 1..200_usize,
    ) {
        let name = |number: usize| Arc::<str>::from(format!("namespace-{number}"));
        let shares = weights.iter().enumerate().map(|(number, weight)| {
            (name(number), Share { weight: *weight, ..Share::default() })
        });
        let mut schedule = Schedule::new(Bounds { shares: shares.collect(), ..bounds(1, 100_000) });
        let count = weights.len();
        for number in 0..count * rounds {
            schedule.restore(of(&name(number % count), number, Priority::Normal));
        }
        let mut served = vec![0_u32; count];
        // As long as all of them have somebody in the line.
        for _ in 0..rounds {
            let next = schedule.next(at(0)).unwrap();
            let number: usize = next.as_str().trim_start_matches("run-").parse().unwrap();
            served[number % count] += 1;
            schedule.leave(&next, Left::Ended);
            for (one, other) in (0..count).flat_map(|one| (0..count).map(move |other| (one, other))) {
                let normal = |who: usize| f64::from(served[who]) / f64::from(weights[who]);
                let quantum = 1.0 / f64::from(weights[one]) + 1.0 / f64::from(weights[other]);
                prop_assert!(normal(one) - normal(other) <= quantum + 1e-9, "{served:?} of {weights:?}");
            }
        }
    }

    #[test]
    fn no_run_is_lost_doubled_or_over_the_limit(actions in proptest::collection::vec(action(), 0..200)) {
        let (slots, limit) = (3, 5);
        let mut schedule = schedule(slots, limit);
        let mut active: Vec<RunId> = Vec::new();
        let mut begun: BTreeSet<usize> = BTreeSet::new();
        let mut alive: BTreeSet<usize> = BTreeSet::new();
        let number = |id: &RunId| id.as_str().trim_start_matches("run-").parse::<usize>().unwrap();
        for (step, action) in actions.into_iter().enumerate() {
            let now = at(step as i64);
            match action {
                Action::Start => {
                    let newcomer = drawn(step);
                    if schedule.reserve(&newcomer.namespace).is_ok() {
                        schedule.admit(newcomer);
                        alive.insert(step);
                    }
                }
                Action::Next => {
                    if let Some(next) = schedule.next(now) {
                        prop_assert!(!active.contains(&next), "worked on twice");
                        begun.insert(number(&next));
                        active.push(next);
                    } else if schedule.counts().running < slots {
                        for run in alive.iter().map(|number| id(*number)) {
                            match schedule.hindrance(&run) {
                                None => {}
                                Some(Hindrance::Group { limit, used, .. }) => prop_assert!(used >= limit.most, "{run:?}"),
                                other => prop_assert!(false, "{run:?} waits for nothing: {other:?}"),
                            }
                        }
                    }
                }
                Action::Leave(run, how) if !active.is_empty() => {
                    let run = active.swap_remove(run % active.len());
                    let left = match how {
                        0 => Left::Ended,
                        1 => Left::Parked((step % 2 == 0).then(|| at(step as i64 + 3))),
                        _ => Left::SetAside("why".into()),
                    };
                    if left == Left::Ended {
                        alive.remove(&number(&run));
                        begun.remove(&number(&run));
                    }
                    schedule.leave(&run, left);
                }
                Action::Seize(run) => {
                    if step > 0 && schedule.seize(&id(run % step)) == Seized::Taken {
                        active.push(id(run % step));
                    }
                }
                Action::Leave(..) => {}
            }
            let counts = schedule.counts();
            prop_assert!(counts.running <= slots);
            prop_assert!(counts.pending <= limit + slots);
            let seized = active.len() - counts.running;
            let total = counts.running + seized + counts.pending + counts.waiting + counts.set_aside;
            prop_assert_eq!(total, alive.len());
            for limit in begun.iter().flat_map(|number| drawn(*number).claim.limits.clone()) {
                let takers = begun.iter().filter(|number| {
                    let limits = &drawn(**number).claim.limits;
                    limits.iter().any(|other| other.group == limit.group)
                });
                let most = LIMITS.iter().copied().flatten().filter(|(group, _)| *group == &*limit.group);
                prop_assert!(takers.count() as u32 <= most.map(|(_, most)| *most).max().unwrap());
            }
        }
    }
}

#[test]
fn the_last_slots_are_kept_for_namespaces_that_hold_less_than_half_of_their_share() {
    let mut schedule = schedule(20, 100);
    for number in 0..40 {
        schedule.restore(of("crowd", number, Priority::Urgent));
    }
    while schedule.next(at(0)).is_some() {}
    assert_eq!(schedule.counts().running, 18);
    assert_eq!(
        schedule.hindrance(&id(18)),
        Some(Hindrance::Slots {
            kept: 2,
            held: 18,
            slots: 20,
            ahead: 0
        })
    );
    for number in 40..50 {
        schedule.restore(of("quiet", number, Priority::Low));
    }
    assert_eq!(schedule.next(at(0)), Some(id(40)));
    assert_eq!(schedule.next(at(0)), Some(id(41)));
    assert_eq!(schedule.next(at(0)), None, "all are in use");
    // Half of the share of two equal namespaces is five slots.
    for (ended, begins) in [(0, 42), (1, 43), (2, 44)] {
        schedule.leave(&id(ended), Left::Ended);
        assert_eq!(schedule.next(at(0)), Some(id(begins)));
    }
    schedule.leave(&id(3), Left::Ended);
    assert_eq!(
        schedule.next(at(0)),
        None,
        "both hold half of their share or more"
    );
    schedule.leave(&id(40), Left::Ended);
    assert_eq!(schedule.next(at(0)), Some(id(45)));
}

#[test]
fn a_run_that_is_due_again_says_since_when_it_was() {
    let mut schedule = schedule(1, 10);
    for number in [1, 2] {
        schedule.restore(run(number));
    }
    assert_eq!(schedule.next(at(1)), Some(id(1)));
    assert_eq!(schedule.take_due_since(&id(1)), None, "it has not waited again");
    schedule.leave(&id(1), Left::Parked(Some(at(10))));
    assert_eq!(schedule.next(at(2)), Some(id(2)));
    assert_eq!(schedule.next(at(10)), None);
    // Told something meanwhile, it keeps its time.
    assert_eq!(schedule.seize(&id(1)), Seized::Taken);
    schedule.leave(&id(1), Left::Waits);
    assert_eq!(schedule.next(at(20)), None);
    schedule.leave(&id(2), Left::Ended);
    assert_eq!(schedule.next(at(30)), Some(id(1)));
    assert_eq!(schedule.take_due_since(&id(1)), Some(at(10)));
    assert_eq!(schedule.take_due_since(&id(1)), None);
    // Parked meanwhile, it counts anew.
    schedule.leave(&id(1), Left::Waits);
    assert_eq!(schedule.seize(&id(1)), Seized::Taken);
    schedule.leave(&id(1), Left::Parked(None));
    schedule.rouse(&id(1));
    assert_eq!(schedule.next(at(40)), Some(id(1)));
    assert_eq!(schedule.take_due_since(&id(1)), Some(at(40)));
}
