//! What is picked against a look at everybody, and how many are looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_api::a2a::{AgentCard, AgentSkill};
use muster_api::registry as proto;
use muster_runtime::trust::Grants;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use uuid::Uuid;

use super::*;
use crate::catalogue::Catalogue;
use crate::discovery;
use crate::instance::{Load, wire};
use crate::reach::Reach;

const SKILLS: [&str; 3] = ["s0", "s1", "s2"];
const REGIONS: [&str; 3] = ["", "eu", "us"];
const LOADS: [f64; 5] = [0.0, 0.25, 0.5, 0.8, 1.0];

/// A card with the skills whose bits are set; more bits are other cards with the same skills.
fn card(number: u8) -> AgentCard {
    let skills = (0_u8..3).filter(|skill| number & (1 << skill) != 0);
    let skill = |skill: u8| AgentSkill {
        id: SKILLS[usize::from(skill)].to_owned(),
        tags: vec![format!("t{}", number % 2)],
        ..AgentSkill::default()
    };
    AgentCard {
        description: format!("word{} of{number}", number % 3),
        skills: skills.map(skill).collect(),
        ..AgentCard::default()
    }
}

/// Instances of two agents may have the same id.
fn instance(number: u16, card: AgentCard, region: &str, report: Report) -> Instance {
    let message = proto::Instance {
        agent_id: format!("a{}", number % 3),
        region: region.to_owned(),
        card: Some(card),
        endpoint: "http://127.0.0.1:1".to_owned(),
        ..proto::Instance::default()
    };
    let (profile, _) = wire::registration(message, Uuid::from_u128(u128::from(number / 3) + 1)).unwrap();
    Instance {
        profile: Arc::new(profile),
        report,
        registered_at: jiff::Timestamp::UNIX_EPOCH,
        last_heartbeat_at: jiff::Timestamp::UNIX_EPOCH,
        epoch: 1,
    }
}

fn report() -> impl Strategy<Value = Report> {
    let ended = (0_u64..4, 0_u64..3);
    (select(&Status::REPORTED[..]), select(&LOADS[..]), 0_u64..3, ended).prop_map(
        |(status, load, latency, (succeeded, failed))| Report {
            status,
            load: Load::new(load).unwrap(),
            mean_latency: Some(Duration::from_millis(latency)).filter(|latency| !latency.is_zero()),
            succeeded,
            failed,
        },
    )
}

#[derive(Debug, Clone)]
enum Act {
    Come(u16, u8, &'static str, Report),
    Report(u16, Report),
    Go(u16),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u16..300, 1_u8..16, select(&REGIONS[..]), report())
            .prop_filter("a skill", |(_, card, ..)| card & 7 != 0)
            .prop_map(|(number, card, region, report)| Act::Come(number, card, region, report)),
        2 => (0_u16..300, report()).prop_map(|(number, report)| Act::Report(number, report)),
        1 => (0_u16..300).prop_map(Act::Go),
    ]
}

fn granted(targets: Vec<&'static str>) -> Reach {
    Reach::Granted(Arc::new(Grants {
        targets: Some(targets.into_iter().map(Arc::from).collect()),
        namespaces: None,
    }))
}

fn reach() -> impl Strategy<Value = Reach> {
    let some = subsequence(vec!["a0", "a1", "a2"], 0..3).prop_map(granted);
    prop_oneof![Just(Reach::All), some]
}

fn query() -> impl Strategy<Value = Query> {
    let texts = |all: Vec<&'static str>, most: usize| {
        subsequence(all, 0..=most).prop_map(|texts| texts.into_iter().map(str::to_owned).collect())
    };
    let terms = (
        texts(SKILLS.to_vec(), 2),
        texts(vec!["t0", "t1"], 1),
        texts(vec!["word0", "word1", "of5"], 1),
    );
    let region = prop::option::of(select(vec!["eu", "us", "ap"]).prop_map(str::to_owned));
    let statuses = subsequence(Status::REPORTED.to_vec(), 1..=4);
    let sort = select(&Sort::ALL[..]);
    (
        terms,
        region,
        statuses,
        select(&LOADS[..]),
        sort,
        1_usize..20,
        reach(),
    )
        .prop_map(
            |((skills, tags, words), region, statuses, max_load, sort, limit, reach)| Query {
                reach,
                namespace: "default".into(),
                skills,
                tags,
                words,
                region,
                statuses: statuses.into_iter().collect(),
                max_load,
                sort,
                after: None,
                limit,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whoever_is_picked_is_who_a_look_at_everybody_finds(
        acts in prop::collection::vec(act(), 1..500), queries in prop::collection::vec(query(), 1..12),
    ) {
        let mut catalogue = Catalogue::default();
        let mut live: BTreeMap<u16, (Slot, Instance)> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Come(number, with, region, report) => {
                    if let Some((slot, _)) = live.remove(&number) {
                        catalogue.remove("default", slot);
                    }
                    let instance = instance(number, card(with), region, report);
                    live.insert(number, (catalogue.insert(&instance), instance));
                }
                Act::Report(number, report) => if let Some((slot, instance)) = live.get_mut(&number) {
                    instance.report = report;
                    catalogue.report("default", *slot, &report);
                },
                Act::Go(number) => if let Some((slot, _)) = live.remove(&number) {
                    catalogue.remove("default", slot);
                },
            }
        }
        for mut query in queries {
            let seen = || live.values().filter(|(_, instance)| query.reach.sees_instance(instance.key()));
            for skill in SKILLS {
                let has = |instance: &Instance| instance.profile.card.skills().contains(skill);
                let having = seen().filter(|(_, instance)| has(instance)).count() as u64;
                prop_assert_eq!(catalogue.knows("default", skill, &query.reach), having > 0);
                let mut counted = catalogue.skills_within(None, &query.reach);
                let counted = counted.find(|(_, known, _)| *known == skill).map_or(0, |(_, _, count)| count);
                prop_assert_eq!(counted, having);
                let wanted = [format!("{skill}x")].into();
                let nearest = catalogue.nearest("default", &wanted, &query.reach);
                prop_assert!(having > 0 || nearest.iter().all(|near| near != skill), "nobody there has it");
            }
            loop {
                let all = live.values().map(|(_, instance)| instance);
                let wanted = all.filter(|instance| query.wants(&instance.profile.card));
                let expected = discovery::select(wanted, &query);
                let expected: Vec<_> = expected.iter().map(|instance| instance.profile.key.clone()).collect();
                let picked = catalogue.best(&query);
                let keys: Vec<_> = picked.profiles.iter().map(|profile| profile.key.clone()).collect();
                prop_assert_eq!(&keys, &expected);
                prop_assert!(picked.visited <= live.len() + BLOCK * live.len());
                if keys.len() <= query.limit {
                    break;
                }
                let last = &keys[query.limit - 1];
                let last = live.values().find(|(_, instance)| instance.key() == last).unwrap();
                query.after = Some(Rank::of(query.sort, &last.1));
            }
        }
        for (slot, _) in live.into_values() {
            catalogue.remove("default", slot);
        }
        prop_assert_eq!(catalogue.skills(None).count(), 0, "nothing is left of who has gone");
    }
}

const MANY: u16 = 60_000;

/// Everybody has `s0`, every seventh `s1` as well, and every thousandth `s2`.
fn many(load: impl Fn(u16) -> f64) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for number in 0..MANY {
        let of = u8::from(number % 7 == 0) * 2 + u8::from(number % 1_000 == 0) * 4 + 1;
        let report = Report {
            load: Load::new(load(number)).unwrap(),
            ..Report::FRESH
        };
        catalogue.insert(&instance(number, card(of), "", report));
    }
    catalogue
}

fn asking(skill: &str) -> Query {
    let request = proto::DiscoverRequest {
        skills: vec![skill.to_owned()],
        page_size: 10,
        ..proto::DiscoverRequest::default()
    };
    request.try_into().unwrap()
}

#[test]
fn few_of_many_are_looked_at() {
    let catalogue = many(|number| f64::from(u32::from(number) * 7_919 % 10_007) / 10_007.0);
    let visited = |query: &Query| {
        let picked = catalogue.best(query);
        assert_eq!(picked.profiles.len(), 11);
        picked.visited
    };
    assert!(visited(&asking("s0")) <= 20 * BLOCK, "what all have");
    assert!(visited(&asking("s1")) <= 150 * BLOCK, "what some have");
    assert_eq!(visited(&asking("s2")), usize::from(MANY / 1_000), "what few have");
}

#[test]
fn few_are_looked_at_where_all_are_alike() {
    let catalogue = many(|_| 0.0);
    for sort in Sort::ALL {
        let query = Query { sort, ..asking("s1") };
        let picked = catalogue.best(&query);
        assert!(picked.visited <= 10 * BLOCK, "{sort:?}: {}", picked.visited);
    }
}

#[test]
fn nobody_is_looked_at_twice() {
    // Whoever has the skill is the most loaded.
    let catalogue = many(|number| if number % 7 == 0 { 0.7 } else { 0.1 });
    let picked = catalogue.best(&asking("s1"));
    assert_eq!(picked.profiles.len(), 11);
    assert!(picked.visited <= usize::from(MANY).next_multiple_of(BLOCK));
}
