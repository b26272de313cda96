//! Cases, and a naive model that a thousand random histories are compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::a2a::{AgentCard, AgentSkill};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::discovery::{Query, Rank, Sort, reliability};
use crate::instance::{Binding, Card, Load, Profile, Report};
use crate::offline;
use crate::reach::Reach;

const TTL: Duration = Duration::from_secs(90);

fn terms() -> Terms {
    Terms {
        time_to_live: TTL,
        max_per_node: 2,
        max_instances: 6,
        offline: offline::Bounds {
            retention: Duration::from_secs(600),
            most: 3,
        },
    }
}

fn table() -> Table {
    Table::new(terms(), 0)
}

fn at(seconds: u64) -> Moment {
    Moment {
        wall: Timestamp::from_second(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap(),
        monotonic: Duration::from_secs(seconds),
    }
}

fn with_id(skill: &str) -> AgentSkill {
    AgentSkill {
        id: skill.to_owned(),
        ..AgentSkill::default()
    }
}

fn profile(agent: &str, instance: u128, skills: &[&str], node: Option<&str>) -> Arc<Profile> {
    Arc::new(Profile {
        key: Key {
            namespace: "default".into(),
            agent_id: agent.into(),
            instance_id: Uuid::from_u128(instance),
        },
        card: Arc::new(Card::new(AgentCard {
            skills: skills.iter().map(|&skill| with_id(skill)).collect(),
            ..AgentCard::default()
        })),
        endpoint: "http://127.0.0.1:7411".parse().unwrap(),
        url: None,
        identity: None,
        region: String::new(),
        zone: String::new(),
        node: node.map(str::to_owned),
        version: String::new(),
        binding: Binding::Grpc,
        weight: 100,
        origin: None,
    })
}

fn lease(number: u128) -> Uuid {
    Uuid::from_u128(1000 + number)
}

fn query(skills: &[&str]) -> Query {
    Query {
        reach: Reach::All,
        namespace: "default".into(),
        skills: skills.iter().map(|&skill| skill.to_owned()).collect(),
        tags: BTreeSet::new(),
        words: BTreeSet::new(),
        region: None,
        statuses: [Status::Active].into(),
        max_load: 0.8,
        sort: Sort::Load,
        after: None,
        limit: 50,
    }
}

fn report(load: f64) -> Report {
    Report {
        load: Load::new(load).unwrap(),
        ..Report::FRESH
    }
}

fn found(table: &mut Table, now: Moment, skills: &[&str]) -> Vec<u128> {
    let found = table.discover(now, &query(skills)).instances;
    found
        .iter()
        .map(|instance| instance.key().instance_id.as_u128())
        .collect()
}

#[test]
fn a_lease_lasts_its_time_and_not_a_moment_longer() {
    let mut table = table();
    table
        .register(
            at(0),
            lease(1),
            profile("weather", 1, &["forecast"], None),
            Report::FRESH,
        )
        .unwrap();
    assert_eq!(table.expire(at(1)), Some(Duration::from_secs(89)));
    assert_eq!(found(&mut table, at(89), &["forecast"]), [1]);
    assert_eq!(found(&mut table, at(90), &["forecast"]), [0_u128; 0]);
    let changes: Vec<Change> = table
        .take_events()
        .into_iter()
        .map(|event| event.change)
        .collect();
    assert!(matches!(
        &changes[..],
        [Change::Upserted(_), Change::Removed(_, Departure::Expired)]
    ));
    assert_eq!(
        table.renew(at(90), lease(1), Report::FRESH),
        Err(Error::LeaseNotFound { lease: lease(1) })
    );
}

#[test]
fn heartbeats_keep_the_instance_and_its_skills() {
    let mut table = table();
    table
        .register(
            at(0),
            lease(1),
            profile("weather", 1, &["forecast", "alerts"], None),
            Report::FRESH,
        )
        .unwrap();
    for beat in 1..=20 {
        table.renew(at(beat * 60), lease(1), report(0.1)).unwrap();
    }
    assert_eq!(found(&mut table, at(20 * 60 + 89), &["forecast", "alerts"]), [1]);
    assert_eq!(
        table.take_events().len(),
        2,
        "the registration, and the one heartbeat that changed the load"
    );
}

#[test]
fn replacing_ends_the_old_lease_and_raises_the_epoch() {
    let mut table = table();
    let first = table
        .register(
            at(0),
            lease(1),
            profile("weather", 1, &["old"], None),
            Report::FRESH,
        )
        .unwrap();
    let second = table
        .register(
            at(10),
            lease(2),
            profile("weather", 1, &["new"], None),
            Report::FRESH,
        )
        .unwrap();
    assert!(second.instance.epoch > first.instance.epoch);
    assert!(table.renew(at(11), lease(1), Report::FRESH).is_err());
    assert_eq!(found(&mut table, at(11), &["old"]), [0_u128; 0]);
    assert_eq!(
        found(&mut table, at(99), &["new"]),
        [1],
        "the old lease's deadline at 90 s ends nothing"
    );
}

#[test]
fn epochs_grow_after_an_expiry_too() {
    let mut table = table();
    let first = table
        .register(
            at(0),
            lease(1),
            profile("weather", 1, &["s"], None),
            Report::FRESH,
        )
        .unwrap();
    let again = table
        .register(
            at(500),
            lease(2),
            profile("weather", 1, &["s"], None),
            Report::FRESH,
        )
        .unwrap();
    assert!(again.instance.epoch > first.instance.epoch);
}

#[test]
fn a_node_holds_so_many_and_frees_what_leaves() {
    let mut table = table();
    for number in 1..=2 {
        table
            .register(
                at(0),
                lease(number),
                profile("a", number, &["s"], Some("n")),
                Report::FRESH,
            )
            .unwrap();
    }
    let third = || profile("a", 3, &["s"], Some("n"));
    let refused = table
        .register(at(0), lease(3), third(), Report::FRESH)
        .unwrap_err();
    assert_eq!(
        refused,
        Error::NodeFull {
            node: "n".to_owned(),
            limit: 2
        }
    );
    table
        .register(at(0), lease(4), profile("a", 2, &["s"], Some("n")), Report::FRESH)
        .expect("a replacement on the same node is no further instance");
    table
        .register(at(0), lease(5), profile("a", 5, &["s"], None), Report::FRESH)
        .expect("without a node no limit");
    table.end(at(1), lease(1));
    table
        .register(at(1), lease(6), third(), Report::FRESH)
        .expect("one has left");
    assert!(
        table
            .register(at(1), lease(7), profile("a", 5, &["s"], Some("n")), Report::FRESH)
            .is_err()
    );
}

#[test]
fn the_table_is_bounded() {
    let mut table = table();
    for number in 0..6 {
        table
            .register(
                at(0),
                lease(number),
                profile("a", number + 1, &["s"], None),
                Report::FRESH,
            )
            .unwrap();
    }
    let refused = table.register(at(0), lease(9), profile("a", 9, &["s"], None), Report::FRESH);
    assert_eq!(refused.unwrap_err(), Error::TableFull { limit: 6 });
    table
        .register(at(90), lease(9), profile("a", 9, &["s"], None), Report::FRESH)
        .expect("all others are gone");
}

#[test]
fn a_drain_holds_whatever_heartbeats_say_and_survives_a_new_registration() {
    let mut table = table();
    for number in 1..=2 {
        table
            .register(
                at(0),
                lease(number),
                profile("a", number, &["s"], None),
                Report::FRESH,
            )
            .unwrap();
    }
    let drained = table.drain(at(1), &"default".into(), &"a".into(), Some(Uuid::from_u128(1)));
    assert_eq!(drained, Ok(1));
    assert!(
        table
            .renew(at(2), lease(1), Report::FRESH)
            .unwrap()
            .drain_requested
    );
    assert_eq!(found(&mut table, at(2), &["s"]), [2]);
    table
        .register(at(3), lease(3), profile("a", 1, &["s"], None), Report::FRESH)
        .unwrap();
    assert_eq!(found(&mut table, at(3), &["s"]), [2]);
    assert_eq!(table.drain(at(4), &"default".into(), &"a".into(), None), Ok(2));
    assert_eq!(found(&mut table, at(4), &["s"]), [0_u128; 0]);
}

#[test]
fn draining_nobody_is_refused_with_the_nearest_name() {
    let mut table = table();
    table
        .register(
            at(0),
            lease(1),
            profile("weather", 1, &["s"], None),
            Report::FRESH,
        )
        .unwrap();
    let unknown = table
        .drain(at(1), &"default".into(), &"wether".into(), None)
        .unwrap_err();
    assert!(
        unknown.to_string().contains("did you mean 'weather'"),
        "{unknown}"
    );
    let gone = table
        .drain(
            at(1),
            &"default".into(),
            &"weather".into(),
            Some(Uuid::from_u128(2)),
        )
        .unwrap_err();
    assert!(matches!(gone, Error::InstanceNotFound { .. }));
}

#[test]
fn nobody_has_the_skill_but_the_nearest_is_told() {
    let mut table = table();
    table
        .register(
            at(0),
            lease(1),
            profile("w", 1, &["weather_forecasting"], None),
            report(0.9),
        )
        .unwrap();
    let missed = table.discover(at(1), &query(&["weather_forcasting"]));
    assert_eq!(missed.nearest_skills, ["weather_forecasting"]);
    let loaded = table.discover(at(1), &query(&["weather_forecasting"]));
    assert!(
        loaded.instances.is_empty() && loaded.nearest_skills.is_empty(),
        "the skill exists, but is too loaded"
    );
}

#[test]
fn namespaces_do_not_see_each_other() {
    let mut table = table();
    table
        .register(at(0), lease(1), profile("w", 1, &["s"], None), Report::FRESH)
        .unwrap();
    let elsewhere = Query {
        namespace: "other".into(),
        ..query(&["s"])
    };
    assert!(table.discover(at(1), &elsewhere).instances.is_empty());
    assert!(
        table
            .discover(
                at(1),
                &Query {
                    skills: [].into(),
                    ..elsewhere
                }
            )
            .instances
            .is_empty()
    );
    assert!(
        table
            .agents(at(1), &"other".into(), None, 50, &Wanted::default())
            .0
            .is_empty()
    );
}

#[test]
fn pages_hold_whole_agents_in_order() {
    let mut table = table();
    for (number, agent) in ["c", "a", "b", "a"].into_iter().enumerate() {
        let number = number as u128 + 1;
        table
            .register(
                at(0),
                lease(number),
                profile(agent, number, &["s"], None),
                Report::FRESH,
            )
            .unwrap();
    }
    let (first, more) = table.agents(at(1), &"default".into(), None, 2, &Wanted::default());
    assert!(more);
    let ids: Vec<_> = first
        .iter()
        .map(|agent| (&*agent.agent_id, agent.instances.len()))
        .collect();
    assert_eq!(ids, [("a", 2), ("b", 1)]);
    let (rest, more) = table.agents(at(1), &"default".into(), Some("b"), 2, &Wanted::default());
    assert_eq!((rest.len(), &*rest[0].agent_id, more), (1, "c", false));
}

/// The same rules, as slowly and plainly as they can be written.
#[derive(Default)]
struct Model {
    live: Vec<(u128, Arc<Profile>, Report, Duration, bool)>,
}

impl Model {
    fn expire(&mut self, now: Moment) {
        self.live
            .retain(|(_, _, _, deadline, _)| *deadline > now.monotonic);
    }

    fn find(&self, wanted: &BTreeSet<String>, sort: Sort, max_load: f64) -> Vec<u128> {
        let mut fitting: Vec<_> = self
            .live
            .iter()
            .filter(|(_, profile, report, _, drained)| {
                wanted.is_subset(profile.card.skills())
                    && report.status == Status::Active
                    && !drained
                    && report.load.get() <= max_load
            })
            .collect();
        fitting.sort_by(|a, b| {
            let load = a.2.load.get().partial_cmp(&b.2.load.get()).unwrap();
            let speed = |report: &Report| report.mean_latency.unwrap_or(Duration::MAX);
            let latency = speed(&a.2).cmp(&speed(&b.2));
            let measured = match sort {
                Sort::Load => load.then(latency),
                Sort::Latency => latency.then(load),
                Sort::Reliability => reliability(&b.2).total_cmp(&reliability(&a.2)).then(load),
                Sort::Cost => load,
            };
            measured.then_with(|| a.1.key.instance_id.cmp(&b.1.key.instance_id))
        });
        fitting
            .iter()
            .map(|(_, profile, ..)| profile.key.instance_id.as_u128())
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register {
        instance: u128,
        skills: BTreeSet<String>,
        node: Option<String>,
    },
    Renew {
        instance: u128,
        status: Status,
        load: u8,
        latency: u8,
    },
    End {
        instance: u128,
    },
    Drain {
        instance: u128,
    },
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let skills = prop::collection::btree_set(
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        1..=3,
    );
    let node = prop::option::of(prop::sample::select(vec!["n", "m"]).prop_map(str::to_owned));
    let status = prop::sample::select(Status::REPORTED.to_vec());
    prop_oneof![
        3 => (1..=8_u128, skills, node).prop_map(|(instance, skills, node)| Step::Register { instance, skills, node }),
        3 => (1..=8_u128, status, 0..=10_u8, 0..=3_u8)
            .prop_map(|(instance, status, load, latency)| Step::Renew { instance, status, load, latency }),
        1 => (1..=8_u128).prop_map(|instance| Step::End { instance }),
        1 => (1..=8_u128).prop_map(|instance| Step::Drain { instance }),
        3 => (0..=60_u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_history_agrees_with_the_model(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut table = table();
        let mut model = Model::default();
        let mut now = at(0);
        let mut seconds = 0;
        let mut next_lease = 0;
        let mut watched: BTreeMap<Key, Instance> = BTreeMap::new();
        let mut revision = 0;

        for step in steps {
            model.expire(now);
            match step {
                Step::Pass { seconds: passed } => {
                    seconds += passed;
                    now = at(seconds);
                    model.expire(now);
                    table.expire(now);
                }
                Step::Register { instance, skills, node } => {
                    next_lease += 1;
                    let skills: Vec<&str> = skills.iter().map(String::as_str).collect();
                    let profile = profile("agent", instance, &skills, node.as_deref());
                    let others: Vec<_> =
                        model.live.iter().filter(|(_, known, ..)| known.key != profile.key).collect();
                    let on_node = others.iter().filter(|(_, known, ..)| known.node == profile.node).count();
                    let fits = others.len() < 6 && (profile.node.is_none() || on_node < 2);
                    let result = table.register(now, lease(next_lease), Arc::clone(&profile), Report::FRESH);
                    prop_assert_eq!(result.is_ok(), fits, "{:?}", result);
                    if fits {
                        let old = model.live.iter().position(|(_, known, ..)| known.key == profile.key);
                        let drained = old.is_some_and(|index| model.live.remove(index).4);
                        model.live.push((next_lease, profile, Report::FRESH, now.monotonic + TTL, drained));
                    }
                }
                Step::Renew { instance, status, load, latency } => {
                    let report = Report {
                        status,
                        load: Load::new(f64::from(load) / 10.0).unwrap(),
                        mean_latency: Some(Duration::from_secs(latency.into())).filter(|latency| !latency.is_zero()),
                        succeeded: latency.into(),
                        failed: load.into(),
                    };
                    let known = model.live.iter_mut().find(|(_, p, ..)| p.key.instance_id.as_u128() == instance);
                    match known {
                        Some((number, _, known, deadline, drained)) => {
                            *known = report;
                            *deadline = now.monotonic + TTL;
                            let renewal = table.renew(now, lease(*number), report);
                            prop_assert_eq!(renewal.map(|renewal| renewal.drain_requested), Ok(*drained));
                        }
                        None => prop_assert!(table.renew(now, lease(999), report).is_err()),
                    }
                }
                Step::End { instance } => {
                    let known = model.live.iter().position(|(_, p, ..)| p.key.instance_id.as_u128() == instance);
                    if let Some(index) = known {
                        let (number, ..) = model.live.remove(index);
                        table.end(now, lease(number));
                        table.end(now, lease(number));
                    }
                }
                Step::Drain { instance } => {
                    let wanted = Some(Uuid::from_u128(instance));
                    let known = model.live.iter_mut().find(|(_, p, ..)| p.key.instance_id.as_u128() == instance);
                    let result = table.drain(now, &"default".into(), &"agent".into(), wanted);
                    prop_assert_eq!(result.is_ok(), known.is_some());
                    if let Some((.., drained)) = known {
                        *drained = true;
                    }
                }
            }

            for event in table.take_events() {
                prop_assert_eq!(event.revision, revision + 1, "no revision is skipped or repeated");
                revision = event.revision;
                match event.change {
                    Change::Upserted(instance) | Change::Reported(instance) => { watched.insert(instance.key().clone(), instance); }
                    Change::Removed(key, _) => prop_assert!(watched.remove(&key).is_some()),
                }
            }
            let (seen, instances) = table.snapshot(now);
            prop_assert_eq!(seen, revision);
            prop_assert_eq!(instances.len(), model.live.len());
            for instance in &instances {
                let from_events = watched.get(instance.key()).expect("every live instance was announced");
                prop_assert_eq!(&from_events.report, &instance.report);
                prop_assert_eq!(from_events.epoch, instance.epoch);
            }
            prop_assert_eq!(watched.len(), instances.len());
            let counted = table.statistics(now, None, 10, &Reach::All);
            prop_assert_eq!(counted.total.live(), model.live.len() as u64);
            prop_assert_eq!(counted.total.agents, u64::from(!model.live.is_empty()));
            let loads: f64 = instances.iter().map(|instance| instance.report.load.get()).sum();
            let mean = loads / (instances.len().max(1) as f64);
            prop_assert!((counted.total.mean_load() - mean).abs() < 1e-6);
            for status in Status::REPORTED {
                let here = instances.iter().filter(|instance| instance.report.status == status).count();
                prop_assert_eq!(counted.total.of(status), here as u64);
            }
            for (_, skill, count) in &counted.skills {
                let have = model.live.iter().filter(|(_, profile, ..)| profile.card.skills().contains(skill));
                prop_assert_eq!(*count, have.count() as u64);
            }
            let all: BTreeSet<&String> = model.live.iter().flat_map(|(_, profile, ..)| profile.card.skills()).collect();
            prop_assert_eq!(counted.skills.len(), all.len());
            for wanted in [&[][..], &["a"], &["b", "c"], &["a", "b", "c"], &["d"]] {
                for (sort, max_load) in
                    [(Sort::Load, 0.8), (Sort::Latency, 0.5), (Sort::Reliability, 1.0), (Sort::Cost, 0.8)]
                {
                    let query = Query { sort, max_load, ..query(wanted) };
                    let expected = model.find(&query.skills, sort, max_load);
                    let found = table.discover(now, &query).instances;
                    let found: Vec<u128> = found.iter().map(|i| i.key().instance_id.as_u128()).collect();
                    prop_assert_eq!(&found, &expected);
                    let short = table.discover(now, &Query { limit: 2, ..query.clone() }).instances;
                    let short: Vec<u128> = short.iter().map(|i| i.key().instance_id.as_u128()).collect();
                    prop_assert_eq!(&short, &expected[..expected.len().min(2)]);
                    let (mut paged, mut after) = (Vec::new(), None);
                    loop {
                        let page = table.discover(now, &Query { limit: 2, after: after.clone(), ..query.clone() });
                        paged.extend(page.instances.iter().map(|i| i.key().instance_id.as_u128()));
                        match page.instances.last() {
                            Some(last) if page.more => after = Some(Rank::of(sort, last)),
                            _ => break,
                        }
                    }
                    prop_assert_eq!(&paged, &expected);
                }
            }
        }
    }
}
