//! What every store must do, seen through the port alone. An adapter brings a [`Harness`] and gets the tests with
//! [`suite!`].

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_api::a2a::AgentCard;
use uuid::Uuid;

use super::memory::WatchLimits;
use super::{Error, Store, Watch};
use crate::discovery::{Query, Sort};
use crate::instance::{Instance, Key, Load, Profile, Report, Status};
use crate::lease::{self, Change, Departure, Terms};

/// How a test gets a store, and how time passes for it.
pub(crate) trait Harness {
    async fn store(&self, terms: Terms, limits: WatchLimits) -> Arc<dyn Store>;
    async fn pass(&self, time: Duration);
}

macro_rules! suite {
    ($harness:expr) => {
        $crate::store::conformance::suite!($harness;
            a_registered_instance_is_found_and_described,
            leases_end_by_time_and_by_farewell,
            heartbeats_keep_leases_and_skills_alive,
            a_replaced_or_unknown_lease_is_refused,
            full_nodes_and_full_registries_refuse,
            draining_takes_out_of_the_choice,
            discovery_filters_sorts_and_limits,
            lists_come_in_pages,
            watchers_see_a_snapshot_and_then_every_change,
            a_slow_watcher_is_told_and_the_others_go_on,
            watchers_are_bounded,
            epochs_and_revisions_only_grow
        );
    };
    ($harness:expr; $($case:ident),+) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::store::conformance::$case(&$harness).await;
            }
        )+
    };
}
pub(crate) use suite;

const TTL: Duration = Duration::from_secs(90);

fn terms() -> Terms {
    Terms {
        time_to_live: TTL,
        max_per_node: 2,
        max_instances: 5,
    }
}

fn limits() -> WatchLimits {
    WatchLimits {
        queue: 4,
        watchers: 2,
    }
}

fn profile(agent: &str, instance: u128, skills: &[&str], node: Option<&str>) -> Arc<Profile> {
    Arc::new(Profile {
        key: Key {
            namespace: "default".into(),
            agent_id: agent.into(),
            instance_id: Uuid::from_u128(instance),
        },
        card: AgentCard {
            name: agent.to_owned(),
            ..Default::default()
        },
        skills: skills.iter().map(|&skill| skill.to_owned()).collect(),
        endpoint: "http://127.0.0.1:7411".parse().unwrap(),
        region: "eu".to_owned(),
        zone: String::new(),
        node: node.map(str::to_owned),
        version: "1".to_owned(),
    })
}

fn lease(number: u128) -> Uuid {
    Uuid::from_u128(1000 + number)
}

fn query(skills: &[&str]) -> Query {
    Query {
        namespace: "default".into(),
        skills: skills.iter().map(|&skill| skill.to_owned()).collect(),
        statuses: [Status::Active].into(),
        max_load: 0.8,
        sort: Sort::Load,
        limit: 50,
    }
}

fn report(load: f64, latency: u64) -> Report {
    Report {
        load: Load::new(load).unwrap(),
        mean_latency: Some(Duration::from_millis(latency)).filter(|latency| !latency.is_zero()),
        ..Report::FRESH
    }
}

async fn ids(store: &Arc<dyn Store>, query: Query) -> Vec<u128> {
    let found = store.discover(&query).await.unwrap().instances;
    found
        .iter()
        .map(|instance| instance.key().instance_id.as_u128())
        .collect()
}

async fn add(store: &Arc<dyn Store>, number: u128, skills: &[&str], report: Report) -> Instance {
    let profile = profile("agent", number, skills, None);
    store
        .register(lease(number), profile, report)
        .await
        .unwrap()
        .instance
}

async fn next(watch: &mut Watch) -> Change {
    watch
        .events
        .next()
        .await
        .expect("the stream goes on")
        .expect("nothing was lost")
        .change
}

pub(crate) async fn a_registered_instance_is_found_and_described(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let given = profile("weather", 1, &["forecast", "alerts"], Some("n"));
    let grant = store
        .register(lease(1), Arc::clone(&given), report(0.25, 10))
        .await
        .unwrap();
    assert_eq!((grant.lease, &grant.instance.profile), (lease(1), &given));
    let found = store.discover(&query(&["forecast"])).await.unwrap().instances;
    assert_eq!(found.as_slice(), std::slice::from_ref(&grant.instance));
    let agent = store.agent(&"default".into(), &"weather".into()).await.unwrap();
    assert_eq!(agent.instances, [grant.instance]);
    assert!(store.knows_skill("default", "alerts").await.unwrap());
    assert!(!store.knows_skill("other", "alerts").await.unwrap());
    let missed = store
        .agent(&"default".into(), &"wether".into())
        .await
        .unwrap_err();
    assert!(missed.to_string().contains("'weather'"), "{missed}");
}

pub(crate) async fn leases_end_by_time_and_by_farewell(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["s"], Report::FRESH).await;
    harness.pass(Duration::from_secs(30)).await;
    add(&store, 2, &["s"], Report::FRESH).await;
    let until_next = store.expire().await.unwrap().expect("two leases");
    assert!(
        until_next <= Duration::from_secs(60) && until_next > Duration::from_secs(58),
        "{until_next:?}"
    );
    harness.pass(Duration::from_secs(60)).await;
    assert_eq!(ids(&store, query(&["s"])).await, [2]);
    store.end(lease(2)).await.unwrap();
    store.end(lease(2)).await.expect("ending twice is no error");
    assert!(ids(&store, query(&[])).await.is_empty());
    assert_eq!(store.expire().await.unwrap(), None);
    assert_eq!(store.census().await.unwrap().expired, 1);
}

pub(crate) async fn heartbeats_keep_leases_and_skills_alive(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["s", "t"], Report::FRESH).await;
    for _ in 0..10 {
        harness.pass(Duration::from_secs(60)).await;
        store.renew(lease(1), report(0.5, 20)).await.unwrap();
    }
    harness.pass(Duration::from_secs(60)).await;
    let found = store.discover(&query(&["s", "t"])).await.unwrap().instances;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].report, report(0.5, 20));
    assert!(found[0].last_heartbeat_at > found[0].registered_at);
}

pub(crate) async fn a_replaced_or_unknown_lease_is_refused(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let refused = |lease| Error::Lease(lease::Error::LeaseNotFound { lease });
    assert_eq!(store.renew(lease(9), Report::FRESH).await, Err(refused(lease(9))));
    add(&store, 1, &["old"], Report::FRESH).await;
    store
        .register(lease(2), profile("agent", 1, &["new"], None), Report::FRESH)
        .await
        .unwrap();
    assert_eq!(store.renew(lease(1), Report::FRESH).await, Err(refused(lease(1))));
    store.end(lease(1)).await.unwrap();
    assert_eq!(
        ids(&store, query(&["new"])).await,
        [1],
        "an old lease ends nothing"
    );
    assert!(ids(&store, query(&["old"])).await.is_empty());
}

pub(crate) async fn full_nodes_and_full_registries_refuse(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    for number in 1..=2 {
        let on_node = profile("agent", number, &["s"], Some("n"));
        store
            .register(lease(number), on_node, Report::FRESH)
            .await
            .unwrap();
    }
    let third = store
        .register(lease(3), profile("agent", 3, &["s"], Some("n")), Report::FRESH)
        .await;
    let full = lease::Error::NodeFull {
        node: "n".to_owned(),
        limit: 2,
    };
    assert_eq!(third.unwrap_err(), Error::Lease(full));
    for number in 3..=5 {
        add(&store, number, &["s"], Report::FRESH).await;
    }
    let sixth = store
        .register(lease(6), profile("agent", 6, &["s"], None), Report::FRESH)
        .await;
    assert_eq!(
        sixth.unwrap_err(),
        Error::Lease(lease::Error::TableFull { limit: 5 })
    );
}

pub(crate) async fn draining_takes_out_of_the_choice(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["s"], Report::FRESH).await;
    add(&store, 2, &["s"], Report::FRESH).await;
    let (namespace, agent) = ("default".into(), "agent".into());
    assert_eq!(
        store.drain(&namespace, &agent, Some(Uuid::from_u128(1))).await,
        Ok(1)
    );
    let renewal = store.renew(lease(1), Report::FRESH).await.unwrap();
    assert!(renewal.drain_requested);
    assert!(
        !store
            .renew(lease(2), Report::FRESH)
            .await
            .unwrap()
            .drain_requested
    );
    assert_eq!(ids(&store, query(&["s"])).await, [2]);
    let draining = Query {
        statuses: [Status::Draining].into(),
        ..query(&["s"])
    };
    assert_eq!(ids(&store, draining).await, [1]);
    assert_eq!(store.drain(&namespace, &agent, None).await, Ok(2));
    assert_eq!(store.census().await.unwrap().by_status[&Status::Draining], 2);
    assert!(
        store
            .drain(&namespace, &agent, Some(Uuid::from_u128(9)))
            .await
            .is_err()
    );
    assert!(store.drain(&namespace, &"nobody".into(), None).await.is_err());
}

pub(crate) async fn discovery_filters_sorts_and_limits(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["a"], report(0.5, 0)).await;
    add(&store, 2, &["a", "b"], report(0.1, 30)).await;
    add(&store, 3, &["a", "b"], report(0.1, 20)).await;
    add(&store, 4, &["b"], report(0.9, 1)).await;
    assert_eq!(
        ids(&store, query(&["a"])).await,
        [3, 2, 1],
        "by load, then latency"
    );
    assert_eq!(
        ids(
            &store,
            Query {
                sort: Sort::Latency,
                ..query(&["a"])
            }
        )
        .await,
        [3, 2, 1]
    );
    assert_eq!(ids(&store, query(&["a", "b"])).await, [3, 2]);
    assert_eq!(ids(&store, query(&[])).await, [3, 2, 1], "no skill is no filter");
    assert_eq!(
        ids(
            &store,
            Query {
                max_load: 1.0,
                sort: Sort::Latency,
                ..query(&[])
            }
        )
        .await,
        [4, 3, 2, 1]
    );
    assert_eq!(
        ids(
            &store,
            Query {
                limit: 1,
                ..query(&[])
            }
        )
        .await,
        [3]
    );
    let busy = Report {
        status: Status::Busy,
        ..report(0.2, 0)
    };
    store.renew(lease(1), busy).await.unwrap();
    assert_eq!(ids(&store, query(&["a"])).await, [3, 2]);
    let both = Query {
        statuses: [Status::Active, Status::Busy].into(),
        ..query(&["a"])
    };
    assert_eq!(ids(&store, both).await, [3, 2, 1]);
}

pub(crate) async fn lists_come_in_pages(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    for (number, agent) in [(1, "c"), (2, "a"), (3, "b"), (4, "a")] {
        store
            .register(lease(number), profile(agent, number, &["s"], None), Report::FRESH)
            .await
            .unwrap();
    }
    let first = store.agents(&"default".into(), None, 2).await.unwrap();
    let names: Vec<_> = first
        .agents
        .iter()
        .map(|agent| (&*agent.agent_id, agent.instances.len()))
        .collect();
    assert_eq!((names, first.more), (vec![("a", 2), ("b", 1)], true));
    let second = store.agents(&"default".into(), Some("b"), 2).await.unwrap();
    assert_eq!((second.agents.len(), second.more), (1, false));
    assert!(
        store
            .agents(&"other".into(), None, 2)
            .await
            .unwrap()
            .agents
            .is_empty()
    );
}

pub(crate) async fn watchers_see_a_snapshot_and_then_every_change(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let first = add(&store, 1, &["s"], Report::FRESH).await;
    let mut watch = store.watch().await.unwrap();
    assert_eq!(watch.snapshot, [first]);
    let second = add(&store, 2, &["s"], Report::FRESH).await;
    assert_eq!(next(&mut watch).await, Change::Upserted(second));
    store.renew(lease(2), Report::FRESH).await.unwrap();
    store.end(lease(2)).await.unwrap();
    let key = profile("agent", 2, &[], None).key.clone();
    let left = Change::Removed(key, Departure::Deregistered);
    assert_eq!(next(&mut watch).await, left, "an unchanged heartbeat is no event");
    harness.pass(TTL).await;
    store.expire().await.unwrap();
    let key = profile("agent", 1, &[], None).key.clone();
    assert_eq!(next(&mut watch).await, Change::Removed(key, Departure::Expired));
}

pub(crate) async fn a_slow_watcher_is_told_and_the_others_go_on(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["s"], Report::FRESH).await;
    let mut slow = store.watch().await.unwrap();
    let mut quick = store.watch().await.unwrap();
    for step in 1..=5_u8 {
        store
            .renew(lease(1), report(f64::from(step) / 10.0, 0))
            .await
            .unwrap();
        assert!(matches!(next(&mut quick).await, Change::Upserted(_)));
    }
    let overrun = slow.events.next().await.expect("it is told");
    assert_eq!(overrun, Err(Error::WatchOverrun { queue: 4 }));
}

pub(crate) async fn watchers_are_bounded(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let first = store.watch().await.unwrap();
    let _second = store.watch().await.unwrap();
    assert!(matches!(
        store.watch().await,
        Err(Error::TooManyWatchers { limit: 2 })
    ));
    drop(first);
    assert!(store.watch().await.is_ok(), "one has gone");
}

pub(crate) async fn epochs_and_revisions_only_grow(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let mut epochs = vec![add(&store, 1, &["s"], Report::FRESH).await.epoch];
    let before = store.watch().await.unwrap().revision;
    epochs.push(add(&store, 1, &["s"], Report::FRESH).await.epoch);
    harness.pass(TTL * 2).await;
    epochs.push(add(&store, 1, &["s"], Report::FRESH).await.epoch);
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert!(store.watch().await.unwrap().revision > before);
}
