//! What every store must do, seen through the port alone. An adapter brings a [`Harness`] and gets the tests with
//! [`suite!`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_api::a2a::{AgentCard, AgentSkill};
use muster_runtime::trust::Grants;
use uuid::Uuid;

use super::watchers::WatchLimits;
use super::{Error, Since, Store, Watch};
use crate::discovery::{Query, Rank, Sort};
use crate::instance::{Binding, Card, Instance, Key, Load, Profile, Report, Status};
use crate::lease::{self, Change, Departure, Terms, Wanted};
use crate::offline;
use crate::reach::Reach;

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
            discovery_goes_by_tags_words_and_regions,
            discovery_sorts_by_reliability_and_cost,
            discovery_comes_in_pages,
            who_falls_silent_is_offline_for_a_while,
            what_there_is_is_counted,
            what_is_granted_is_all_there_is,
            lists_come_in_pages,
            watchers_see_a_snapshot_and_then_every_change,
            a_slow_watcher_is_told_and_the_others_go_on,
            watchers_are_bounded,
            a_watcher_that_comes_back_gets_what_it_missed,
            a_watcher_that_was_away_for_too_long_gets_a_snapshot,
            what_a_heartbeat_says_is_told_as_a_report,
            epochs_and_revisions_only_grow
        );
    };
    ($harness:expr; $($case:ident),+) => {
        /// All cases, one after the other, for a harness that is costly to make.
        #[allow(dead_code, reason = "not every adapter has such a harness")]
        async fn all_cases(harness: &impl $crate::store::conformance::Harness) {
            $($crate::store::conformance::$case(harness).await;)+
        }

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
        offline: offline::Bounds {
            retention: Duration::from_secs(600),
            most: 3,
        },
    }
}

fn limits() -> WatchLimits {
    WatchLimits {
        queue: 4,
        watchers: 2,
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
            name: agent.to_owned(),
            skills: skills.iter().map(|&skill| with_id(skill)).collect(),
            ..AgentCard::default()
        })),
        endpoint: "http://127.0.0.1:7411".parse().unwrap(),
        url: None,
        identity: None,
        region: "eu".to_owned(),
        zone: String::new(),
        node: node.map(str::to_owned),
        version: "1".to_owned(),
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
    let agent = store
        .agent(&"default".into(), &"weather".into(), &Reach::All)
        .await
        .unwrap();
    assert_eq!(agent.instances, [grant.instance]);
    assert!(store.knows_skill("default", "alerts", &Reach::All).await.unwrap());
    assert!(!store.knows_skill("other", "alerts", &Reach::All).await.unwrap());
    let missed = store
        .agent(&"default".into(), &"wether".into(), &Reach::All)
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
    let first = store
        .agents(&"default".into(), None, 2, &Wanted::default())
        .await
        .unwrap();
    let names: Vec<_> = first
        .agents
        .iter()
        .map(|agent| (&*agent.agent_id, agent.instances.len()))
        .collect();
    assert_eq!((names, first.more), (vec![("a", 2), ("b", 1)], true));
    let second = store
        .agents(&"default".into(), Some("b"), 2, &Wanted::default())
        .await
        .unwrap();
    assert_eq!((second.agents.len(), second.more), (1, false));
    assert!(
        store
            .agents(&"other".into(), None, 2, &Wanted::default())
            .await
            .unwrap()
            .agents
            .is_empty()
    );
}

pub(crate) async fn watchers_see_a_snapshot_and_then_every_change(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let first = add(&store, 1, &["s"], Report::FRESH).await;
    let mut watch = store.watch(None).await.unwrap();
    assert_eq!(watch.snapshot, Some(vec![first]));
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
    let mut slow = store.watch(None).await.unwrap();
    let mut quick = store.watch(None).await.unwrap();
    for step in 1..=5_u8 {
        store
            .renew(lease(1), report(f64::from(step) / 10.0, 0))
            .await
            .unwrap();
        assert!(matches!(next(&mut quick).await, Change::Reported(_)));
    }
    let overrun = slow.events.next().await.expect("it is told");
    assert_eq!(overrun, Err(Error::WatchOverrun { queue: 4 }));
}

pub(crate) async fn watchers_are_bounded(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let first = store.watch(None).await.unwrap();
    let _second = store.watch(None).await.unwrap();
    assert!(matches!(
        store.watch(None).await,
        Err(Error::TooManyWatchers { limit: 2 })
    ));
    drop(first);
    assert!(store.watch(None).await.is_ok(), "one has gone");
}

pub(crate) async fn epochs_and_revisions_only_grow(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let mut epochs = vec![add(&store, 1, &["s"], Report::FRESH).await.epoch];
    let before = store.watch(None).await.unwrap().revision;
    epochs.push(add(&store, 1, &["s"], Report::FRESH).await.epoch);
    harness.pass(TTL * 2).await;
    epochs.push(add(&store, 1, &["s"], Report::FRESH).await.epoch);
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    assert!(store.watch(None).await.unwrap().revision > before);
}

pub(crate) async fn what_a_heartbeat_says_is_told_as_a_report(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let mut watch = store.watch(None).await.unwrap();
    let known = add(&store, 1, &["s"], Report::FRESH).await;
    assert_eq!(next(&mut watch).await, Change::Upserted(known.clone()));
    harness.pass(Duration::from_secs(1)).await;
    store.renew(lease(1), report(0.5, 0)).await.unwrap();
    let Change::Reported(told) = next(&mut watch).await else {
        panic!("no report");
    };
    assert_eq!((told.report, told.epoch), (report(0.5, 0), known.epoch));
    store
        .drain(&"default".into(), &"agent".into(), None)
        .await
        .unwrap();
    assert!(
        matches!(next(&mut watch).await, Change::Reported(told) if told.report.status == Status::Draining)
    );
    let again = add(&store, 1, &["s"], Report::FRESH).await;
    assert_eq!(next(&mut watch).await, Change::Upserted(again));
}

pub(crate) async fn a_watcher_that_comes_back_gets_what_it_missed(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["s"], Report::FRESH).await;
    let mut first = store.watch(None).await.unwrap();
    let second = add(&store, 2, &["s"], Report::FRESH).await;
    let seen = first.events.next().await.unwrap().unwrap();
    assert_eq!(seen.change, Change::Upserted(second));
    let since = Since {
        incarnation: first.incarnation,
        revision: seen.revision,
    };
    drop(first);

    let mut idle = store.watch(Some(since)).await.unwrap();
    assert_eq!((idle.snapshot.as_ref(), idle.revision), (None, since.revision));
    let third = add(&store, 3, &["s"], Report::FRESH).await;
    store.end(lease(2)).await.unwrap();
    let mut back = store.watch(Some(since)).await.unwrap();
    assert_eq!((back.snapshot.as_ref(), back.revision), (None, since.revision));
    for watch in [&mut idle, &mut back] {
        let mut revision = since.revision;
        for expected in [
            Change::Upserted(third.clone()),
            Change::Removed(
                profile("agent", 2, &[], None).key.clone(),
                Departure::Deregistered,
            ),
        ] {
            let event = watch.events.next().await.unwrap().unwrap();
            assert_eq!((event.revision, event.change), (revision + 1, expected));
            revision = event.revision;
        }
    }
}

pub(crate) async fn a_watcher_that_was_away_for_too_long_gets_a_snapshot(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["s"], Report::FRESH).await;
    let watch = store.watch(None).await.unwrap();
    let (incarnation, revision) = (watch.incarnation, watch.revision);
    drop(watch);
    let resumes = async |incarnation, revision| {
        let since = Since {
            incarnation,
            revision,
        };
        store.watch(Some(since)).await.unwrap().snapshot.is_none()
    };
    for step in 1..=5_u8 {
        store
            .renew(lease(1), report(f64::from(step) / 10.0, 0))
            .await
            .unwrap();
        let is_kept = step <= 4;
        assert_eq!(resumes(incarnation, revision).await, is_kept, "{step} changes");
    }
    assert!(resumes(incarnation, revision + 1).await);
    assert!(
        !resumes(Uuid::from_u128(1), revision + 1).await,
        "the revision of another life"
    );
    assert!(
        !resumes(incarnation, revision + 100).await,
        "a revision that was never reached"
    );
}

/// Registers an instance whose profile differs in some ways from that of the others.
async fn with(store: &Arc<dyn Store>, number: u128, report: Report, change: impl FnOnce(&mut Profile)) {
    let mut profile = profile("agent", number, &["s"], None);
    change(Arc::make_mut(&mut profile));
    store.register(lease(number), profile, report).await.unwrap();
}

pub(crate) async fn discovery_goes_by_tags_words_and_regions(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let card = |description: &str, tags: &[&str]| {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        Arc::new(Card::new(AgentCard {
            description: description.to_owned(),
            skills: vec![AgentSkill { tags, ..with_id("s") }],
            ..AgentCard::default()
        }))
    };
    with(&store, 1, Report::FRESH, |it| {
        it.card = card("Tells the Weather of tomorrow", &["Meteo", "sea"]);
    })
    .await;
    with(&store, 2, Report::FRESH, |it| {
        it.card = card("weather stations", &["meteo"]);
        it.region = "us".to_owned();
    })
    .await;
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    let ask = |tags: &[&str], words: &[&str], region: &str| Query {
        tags: set(tags),
        words: set(words),
        region: Some(region.to_owned()).filter(|region| !region.is_empty()),
        ..query(&[])
    };
    assert_eq!(ids(&store, ask(&["meteo"], &[], "")).await, [1, 2]);
    assert_eq!(ids(&store, ask(&["meteo", "sea"], &[], "")).await, [1]);
    assert_eq!(ids(&store, ask(&[], &["weather"], "")).await, [1, 2]);
    assert_eq!(ids(&store, ask(&[], &["weather", "stations"], "")).await, [2]);
    assert_eq!(ids(&store, ask(&[], &["weather"], "us")).await, [2]);
    for nobody in [
        ask(&["land"], &[], ""),
        ask(&[], &["tomorrows"], ""),
        ask(&[], &[], "asia"),
        ask(&["sea"], &["stations"], ""),
    ] {
        assert!(ids(&store, nobody).await.is_empty());
    }
    store.end(lease(1)).await.unwrap();
    assert!(ids(&store, ask(&["sea"], &[], "")).await.is_empty());
    assert_eq!(ids(&store, ask(&[], &["weather"], "")).await, [2]);
}

pub(crate) async fn discovery_sorts_by_reliability_and_cost(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let counted = |succeeded, failed| Report {
        succeeded,
        failed,
        ..Report::FRESH
    };
    let costing = |cost| Arc::new(Card::new(Card::costing(cost)));
    with(&store, 1, counted(1, 0), |_| {}).await;
    with(&store, 2, counted(990, 10), |it| it.card = costing(2.5)).await;
    with(&store, 3, counted(0, 5), |it| it.card = costing(0.0)).await;
    with(&store, 4, Report::FRESH, |it| it.card = costing(10.0)).await;
    let by = |sort| Query {
        sort,
        ..query(&["s"])
    };
    assert_eq!(
        ids(&store, by(Sort::Reliability)).await,
        [2, 1, 4, 3],
        "one success proves little, none yet is neither good nor bad"
    );
    assert_eq!(ids(&store, by(Sort::Cost)).await, [3, 2, 4, 1]);
    store.renew(lease(3), counted(10_000, 5)).await.unwrap();
    assert_eq!(ids(&store, by(Sort::Reliability)).await, [3, 2, 1, 4]);
}

pub(crate) async fn discovery_comes_in_pages(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    for number in 1..=5_u8 {
        add(&store, number.into(), &["s"], report(f64::from(number) / 10.0, 0)).await;
    }
    let ask = |after| Query {
        limit: 2,
        after,
        ..query(&["s"])
    };
    let first = store.discover(&ask(None)).await.unwrap();
    assert!(first.more);
    let last = Rank::of(Sort::Load, first.instances.last().unwrap());
    store.end(lease(2)).await.unwrap();
    store.end(lease(5)).await.unwrap();
    let second = store.discover(&ask(Some(last))).await.unwrap();
    let numbers: Vec<_> = second
        .instances
        .iter()
        .map(|instance| instance.key().instance_id.as_u128())
        .collect();
    assert_eq!(
        (numbers, second.more),
        (vec![3, 4], false),
        "whoever left hides and repeats nobody"
    );
}

pub(crate) async fn who_falls_silent_is_offline_for_a_while(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    for number in 1..=4 {
        add(&store, number, &["s"], report(0.9, 0)).await;
        harness.pass(Duration::from_secs(1)).await;
    }
    store.end(lease(4)).await.unwrap();
    add(&store, 5, &["s"], Report::FRESH).await;
    harness.pass(TTL - Duration::from_secs(3)).await;
    store.renew(lease(5), Report::FRESH).await.unwrap();
    let offline = || Query {
        statuses: [Status::Offline].into(),
        ..query(&["s"])
    };
    assert_eq!(ids(&store, offline()).await, [1, 2], "who said goodbye is not");
    harness.pass(Duration::from_secs(2)).await;
    assert_eq!(
        ids(&store, offline()).await,
        [1, 2, 3],
        "whatever their last load"
    );
    assert_eq!(ids(&store, query(&[])).await, [5], "only where it is asked for");
    let both = Query {
        statuses: [Status::Active, Status::Offline].into(),
        limit: 2,
        ..query(&[])
    };
    assert_eq!(ids(&store, both).await, [5, 1]);
    let other = Query {
        skills: ["t".to_owned()].into(),
        ..offline()
    };
    assert!(ids(&store, other).await.is_empty());
    assert_eq!(store.census().await.unwrap().by_status[&Status::Offline], 3);
    let namespace: Arc<str> = "default".into();
    let listed = async |statuses: Option<BTreeSet<Status>>| {
        let wanted = Wanted {
            statuses,
            ..Wanted::default()
        };
        let page = store.agents(&namespace, None, 10, &wanted).await.unwrap();
        page.agents
            .iter()
            .map(|agent| agent.instances.len())
            .sum::<usize>()
    };
    assert_eq!(listed(None).await, 1);
    assert_eq!(listed(Some([Status::Offline].into())).await, 3);
    assert_eq!(listed(Some([Status::Offline, Status::Active].into())).await, 4);
    assert_eq!(
        store.watch(None).await.unwrap().snapshot.unwrap().len(),
        1,
        "watchers do not see them"
    );

    add(&store, 2, &["s"], Report::FRESH).await;
    assert_eq!(ids(&store, offline()).await, [1, 3], "one is back");
    harness.pass(TTL).await;
    assert_eq!(ids(&store, offline()).await.len(), 3, "at most so many are kept");
    harness.pass(Duration::from_secs(600)).await;
    assert!(ids(&store, offline()).await.is_empty());
}

fn reach_of_weather() -> Reach {
    Reach::Granted(Arc::new(Grants {
        targets: Some(vec!["weather".into()]),
        namespaces: Some(vec!["default".into()]),
    }))
}

pub(crate) async fn what_is_granted_is_all_there_is(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    let reach = reach_of_weather();
    let named = |agent: &'static str| move |it: &mut Profile| it.key.agent_id = agent.into();
    with(&store, 1, report(0.5, 0), named("weather")).await;
    let watching = store.watch(None).await.unwrap().within(reach.clone());
    let mut watching = Watch {
        snapshot: None,
        ..watching
    };
    let secret = profile("wether", 2, &["secrets"], None);
    store.register(lease(2), secret, report(0.1, 0)).await.unwrap();
    with(&store, 3, report(0.1, 0), |it| {
        it.key.namespace = "other".into();
        it.key.agent_id = "weather".into();
    })
    .await;

    let asked = |skills: &[&str]| Query {
        reach: reach.clone(),
        ..query(skills)
    };
    let found = store.discover(&asked(&[])).await.unwrap();
    let keys: Vec<&str> = found
        .instances
        .iter()
        .map(|found| &*found.key().agent_id)
        .collect();
    assert_eq!((keys, found.more), (vec!["weather"], false));
    let found = store.discover(&asked(&["secrets"])).await.unwrap();
    assert_eq!((found.instances.len(), found.nearest_skills.len()), (0, 0));
    let found = store.discover(&asked(&["secretz"])).await.unwrap();
    assert_eq!(found.nearest_skills, Vec::<String>::new());
    let other = Query {
        namespace: "other".into(),
        ..asked(&[])
    };
    assert!(store.discover(&other).await.unwrap().instances.is_empty());
    assert!(!store.knows_skill("default", "secrets", &reach).await.unwrap());

    assert!(
        store
            .agent(&"default".into(), &"weather".into(), &reach)
            .await
            .is_ok()
    );
    let unknown = async |agent: &'static str| {
        let refused = store
            .agent(&"default".into(), &agent.into(), &reach)
            .await
            .unwrap_err();
        let Error::Lease(lease::Error::AgentNotFound { nearest, .. }) = refused else {
            panic!("{refused:?}")
        };
        nearest
    };
    assert_eq!(unknown("wether").await, ["weather"], "as if it were not there");
    assert_eq!(unknown("secrets").await, Vec::<String>::new());
    let refused = store.agent(&"other".into(), &"weather".into(), &reach).await;
    assert!(refused.is_err());

    let wanted = Wanted {
        reach: reach.clone(),
        ..Wanted::default()
    };
    let page = store.agents(&"default".into(), None, 1, &wanted).await.unwrap();
    assert_eq!((page.agents.len(), page.more), (1, false));
    let counted = store.statistics(None, 10, &reach).await.unwrap();
    assert_eq!((counted.total.live(), counted.total.agents), (1, 1));
    assert_eq!((counted.namespaces_total, counted.skills_total), (1, 1));
    assert!((counted.total.mean_load() - 0.5).abs() < 1e-6);

    // The next that the watcher hears of is the next that there is for it.
    store.renew(lease(1), report(0.75, 0)).await.unwrap();
    let event = watching.events.next().await.unwrap().unwrap();
    assert_eq!(&*event.change.key().agent_id, "weather");
    let all = store.watch(None).await.unwrap().within(reach);
    assert_eq!(all.snapshot.unwrap().len(), 1);
    let holder = store.holder(lease(2)).await.unwrap().unwrap();
    assert_eq!(&*holder.agent_id, "wether");
    assert_eq!(store.holder(lease(9)).await.unwrap(), None);
    harness.pass(TTL).await;
    store.expire().await.unwrap();
    let counted = store.statistics(None, 10, &reach_of_weather()).await.unwrap();
    assert_eq!(
        (counted.total.live(), counted.offline, counted.expired),
        (0, 1, 0)
    );
}

pub(crate) async fn what_there_is_is_counted(harness: &impl Harness) {
    let store = harness.store(terms(), limits()).await;
    add(&store, 1, &["a", "b"], report(0.25, 0)).await;
    add(&store, 2, &["a"], report(0.75, 0)).await;
    with(&store, 3, Report::FRESH, |it| it.key.namespace = "other".into()).await;
    let busy = Report {
        status: Status::Busy,
        ..report(0.75, 0)
    };
    store.renew(lease(2), busy).await.unwrap();
    let all = store.statistics(None, 1, &Reach::All).await.unwrap();
    assert_eq!((all.total.live(), all.total.agents), (3, 2));
    assert_eq!((all.namespaces_total, all.namespaces.len()), (2, 2));
    assert_eq!(&*all.namespaces[0].0, "default", "the one with the most first");
    assert_eq!((all.skills_total, all.skills.len()), (3, 1));
    assert_eq!(all.skills[0], ("default".into(), "a".to_owned(), 2));
    let ours = store.statistics(Some("default"), 10, &Reach::All).await.unwrap();
    assert_eq!(
        (ours.total.of(Status::Active), ours.total.of(Status::Busy)),
        (1, 1)
    );
    assert!((ours.total.mean_load() - 0.5).abs() < 1e-6);
    harness.pass(TTL).await;
    let later = store.statistics(Some("default"), 10, &Reach::All).await.unwrap();
    assert_eq!((later.total.live(), later.offline, later.skills_total), (0, 2, 0));
    assert_eq!(later.expired, 3);
    assert!(later.total.mean_load().abs() < f64::EPSILON);
}
