use proptest::prelude::*;

use super::instance::Availability;
use super::*;

const GRACE: Duration = Duration::from_secs(90);
const SECOND: Duration = Duration::from_secs(1);

fn instance(agent: &str, id: &str, skills: &[&str]) -> Instance {
    Instance::example(agent, id, skills)
}

fn view() -> View {
    let mut view = View::new("default", GRACE);
    view.snapshot(
        vec![
            instance("weather", "w1", &["forecasting", "current"]),
            instance("weather", "w2", &["forecasting"]),
            instance("planning", "p1", &["scheduling"]),
        ],
        SECOND,
    );
    view
}

fn serving(view: &View, target: &str, skills: &[&str]) -> Result<Vec<String>, Error> {
    let target = Target::parse(target, "tenant").unwrap();
    let skills: Vec<String> = skills.iter().map(|skill| (*skill).to_owned()).collect();
    let found = view.serving(Some(&target), &skills)?;
    Ok(found.iter().map(|instance| instance.key().instance).collect())
}

#[test]
fn agents_and_skills_are_found() {
    let view = view();
    assert_eq!(serving(&view, "weather", &[]).unwrap(), ["w1", "w2"]);
    assert_eq!(serving(&view, "skill:forecasting", &[]).unwrap(), ["w1", "w2"]);
    assert_eq!(serving(&view, "skill:forecasting", &["current"]).unwrap(), ["w1"]);
    assert_eq!(serving(&view, "weather", &["current"]).unwrap(), ["w1"]);
}

#[test]
fn what_is_not_there_is_answered_with_the_nearest_names() {
    let view = view();
    assert!(matches!(
        serving(&view, "wether", &[]),
        Err(Error::UnknownAgent { nearest, .. }) if nearest == ["weather"]
    ));
    assert!(matches!(
        serving(&view, "skill:forcasting", &[]),
        Err(Error::UnknownSkill { nearest, .. }) if nearest == ["forecasting"]
    ));
    assert!(matches!(
        serving(&view, "skill:scheduling", &["forecasting"]),
        Err(Error::UnmatchedSkills { skills, nearest, lacking, .. })
            if skills == ["forecasting", "scheduling"] && nearest == "planning" && lacking == ["forecasting"]
    ));
}

#[test]
fn before_the_registry_has_answered_that_is_what_is_said() {
    let view = View::new("default", GRACE);
    assert!(matches!(serving(&view, "weather", &[]), Err(Error::NoView)));
}

#[test]
fn the_view_outlives_the_registry_and_says_so() {
    let mut view = view();
    assert!(!view.is_stale());
    view.disconnected();
    view.sweep(100 * GRACE);
    assert!(view.is_stale());
    assert_eq!(view.age(11 * SECOND), Some(10 * SECOND));
    assert_eq!(serving(&view, "weather", &[]).unwrap(), ["w1", "w2"]);
}

#[test]
fn a_registry_that_starts_empty_does_not_empty_the_view_at_once() {
    let mut view = view();
    view.disconnected();
    view.snapshot(vec![], 10 * SECOND);
    view.upsert(instance("weather", "w2", &["forecasting"]), 11 * SECOND);
    view.sweep(12 * SECOND);
    assert_eq!(serving(&view, "weather", &[]).unwrap(), ["w1", "w2"]);
    view.sweep(10 * SECOND + GRACE);
    assert_eq!(serving(&view, "weather", &[]).unwrap(), ["w2"]);
    assert!(
        serving(&view, "planning", &[]).unwrap().is_empty(),
        "known, but deserted"
    );
}

#[test]
fn a_deserted_agent_is_remembered_for_a_while() {
    let mut view = view();
    let key = Key {
        agent: "planning".to_owned(),
        instance: "p1".to_owned(),
    };
    view.remove("default", &key, 2 * SECOND);
    view.sweep(3 * SECOND);
    assert!(serving(&view, "planning", &[]).unwrap().is_empty());
    assert!(serving(&view, "skill:scheduling", &[]).unwrap().is_empty());
    view.sweep(2 * SECOND + REMEMBERED);
    assert!(matches!(
        serving(&view, "planning", &[]),
        Err(Error::UnknownAgent { .. })
    ));
}

#[test]
fn who_takes_work_and_did_not_before_is_told_apart() {
    let mut view = view();
    let key = Key {
        agent: "new".to_owned(),
        instance: "n1".to_owned(),
    };
    let fresh = || instance("new", "n1", &["s"]);
    assert!(view.upsert(fresh(), SECOND));
    assert!(!view.upsert(fresh(), SECOND), "it was there");
    let mut says = |availability| {
        let report = Report {
            epoch: fresh().epoch,
            availability,
            load: 0.5,
        };
        view.report("default", &key, report, SECOND)
    };
    assert!(!says(Availability::Busy), "it took work before");
    assert!(!says(Availability::Leaving));
    assert!(says(Availability::Active));
    assert!(!says(Availability::Leaving));
    assert!(view.upsert(fresh(), SECOND), "it has registered anew");
}

#[test]
fn other_namespaces_are_not_seen() {
    let mut view = view();
    let mut foreign = instance("weather", "w3", &["forecasting"]);
    foreign.namespace = "other".to_owned();
    view.upsert(foreign, SECOND);
    let key = Key {
        agent: "weather".to_owned(),
        instance: "w1".to_owned(),
    };
    view.remove("other", &key, SECOND);
    assert_eq!(serving(&view, "weather", &[]).unwrap(), ["w1", "w2"]);
}

proptest! {
    /// Whatever the order of changes, without a loss of the stream the view is what the registry last said.
    #[test]
    fn the_view_follows_the_registry(changes in proptest::collection::vec((0u8..3, 0u8..4, any::<bool>()), 0..60)) {
        let mut view = View::new("default", GRACE);
        view.snapshot(vec![], Duration::ZERO);
        let mut expected = BTreeSet::new();
        for (second, (agent, id, present)) in changes.into_iter().enumerate() {
            let now = Duration::from_secs(second as u64);
            let (agent, id) = (format!("a{agent}"), format!("i{id}"));
            if present {
                view.upsert(instance(&agent, &id, &["s", &id]), now);
                expected.insert((agent, id));
            } else {
                view.remove("default", &Key { agent: agent.clone(), instance: id.clone() }, now);
                expected.remove(&(agent, id));
            }
            view.sweep(now);
        }
        let seen: BTreeSet<(String, String)> = view.keys().into_iter().map(|key| (key.agent, key.instance)).collect();
        prop_assert_eq!(seen, expected);
    }
}

/// Instances and what each can do.
type Able = BTreeMap<String, BTreeSet<String>>;

/// The same rules, as slowly and plainly as they can be written.
#[derive(Default)]
struct Model {
    /// By agent: its instances with their skills, and what those could do who left last.
    agents: BTreeMap<String, (Able, BTreeSet<String>)>,
}

impl Model {
    fn skills(&self, agent: &str) -> BTreeSet<String> {
        let (instances, remembered) = &self.agents[agent];
        if instances.is_empty() {
            remembered.clone()
        } else {
            instances.values().flatten().cloned().collect()
        }
    }

    fn serving(&self, target: Option<&Target>, skills: &[String]) -> Result<Vec<(String, String)>, Error> {
        let mut required: Vec<&str> = skills.iter().map(String::as_str).collect();
        required.extend(target.and_then(Target::skill));
        let all: BTreeSet<String> = self.agents.keys().flat_map(|agent| self.skills(agent)).collect();
        for skill in &required {
            if !all.contains(*skill) {
                return Err(Error::UnknownSkill {
                    skill: (*skill).to_owned(),
                    nearest: owned(names::nearest(skill, all.iter().map(String::as_str))),
                });
            }
        }
        let agents: Vec<&String> = match target {
            Some(Target::Agent(id)) => match self.agents.get_key_value(id) {
                Some((id, _)) => vec![id],
                None => {
                    return Err(Error::UnknownAgent {
                        agent: id.clone(),
                        nearest: owned(names::nearest(id, self.agents.keys().map(String::as_str))),
                    });
                }
            },
            _ => self.agents.keys().collect(),
        };
        let lacking = |agent: &String| -> Vec<&str> {
            let have = self.skills(agent);
            required
                .iter()
                .copied()
                .filter(|skill| !have.contains(*skill))
                .collect()
        };
        let able: Vec<&String> = agents
            .iter()
            .copied()
            .filter(|agent| lacking(agent).is_empty())
            .collect();
        if able.is_empty() {
            let nearest = agents.into_iter().map(|agent| (agent.clone(), lacking(agent)));
            let nearest = nearest.min_by_key(|(agent, lacking)| (lacking.len(), agent.clone()));
            let (nearest, lacking) = nearest.unwrap_or_default();
            return Err(Error::UnmatchedSkills {
                skills: owned(required.clone()),
                of: match target {
                    Some(Target::Agent(id)) => format!(" '{id}'"),
                    _ => String::new(),
                },
                nearest,
                lacking: owned(lacking),
            });
        }
        let mut found = Vec::new();
        for agent in able {
            for (instance, have) in &self.agents[agent].0 {
                if required.iter().all(|skill| have.contains(*skill)) {
                    found.push((agent.clone(), instance.clone()));
                }
            }
        }
        Ok(found)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_index_answers_as_a_search_of_everything_would(
        changes in proptest::collection::vec((0u8..4, 0u8..3, 0u8..16, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let mut view = View::new("default", GRACE);
        view.snapshot(vec![], Duration::ZERO);
        let mut model = Model::default();
        let mut now = Duration::ZERO;
        for (agent, id, skills, present, pause) in changes {
            if pause {
                now += REMEMBERED / 8;
            }
            let (agent, id) = (format!("agent-{agent}"), format!("i{id}"));
            let names = ["alpha", "beta", "gamma", "delta"];
            let skills: Vec<&str> =
                (0..4).filter(|bit| skills & (1 << bit) != 0).map(|bit| names[bit]).collect();
            if present {
                view.upsert(instance(&agent, &id, &skills), now);
                let known = model.agents.entry(agent.clone()).or_default();
                known.0.insert(id, skills.iter().map(|&skill| skill.to_owned()).collect());
            } else {
                view.remove("default", &Key { agent: agent.clone(), instance: id.clone() }, now);
                if model.agents.contains_key(&agent) {
                    let could = model.skills(&agent);
                    let known = model.agents.entry(agent.clone()).or_default();
                    if known.0.remove(&id).is_some() && known.0.is_empty() {
                        known.1 = could;
                    }
                }
            }
            view.sweep(now);
            model.agents.retain(|agent, _| view.knows(agent));
            prop_assert_eq!(view.count(), view.instances().count());
            for target in [None, Some("agent-0"), Some("agent-9"), Some("skill:alpha"), Some("skill:alpa")] {
                let target = target.map(|target| Target::parse(target, "tenant").unwrap());
                for skills in [&[][..], &["beta"], &["gamma", "delta"], &["delta", "delta", "alpha"]] {
                    let skills: Vec<String> = skills.iter().map(|&skill| skill.to_owned()).collect();
                    let found = view.serving(target.as_ref(), &skills).map(|found| {
                        found.iter().map(|found| (found.id.agent.clone(), found.id.instance.clone())).collect::<Vec<_>>()
                    });
                    let expected = model.serving(target.as_ref(), &skills);
                    prop_assert_eq!(format!("{found:?}"), format!("{expected:?}"));
                }
            }
        }
    }

    /// A view that is swapped for a copy with a snapshot in it is as good as one that was built from nothing.
    #[test]
    fn a_snapshot_leaves_no_trace_of_what_was_before(
        before in proptest::collection::btree_set((0u8..4, 0u8..3), 0..10),
        after in proptest::collection::btree_set((0u8..4, 0u8..3), 0..10),
    ) {
        let all = |ids: &BTreeSet<(u8, u8)>, skill: &str| -> Vec<Instance> {
            ids.iter().map(|(agent, id)| instance(&format!("a{agent}"), &format!("i{id}"), &[skill])).collect()
        };
        let mut view = View::new("default", GRACE);
        view.snapshot(all(&before, "old"), Duration::ZERO);
        view.snapshot(all(&after, "new"), SECOND);
        view.sweep(SECOND + GRACE);
        view.sweep(SECOND + GRACE + REMEMBERED);
        let mut fresh = View::new("default", GRACE);
        fresh.snapshot(all(&after, "new"), SECOND);
        prop_assert_eq!(view.keys(), fresh.keys());
        prop_assert_eq!(format!("{:?}", view.skills), format!("{:?}", fresh.skills));
        prop_assert!(view.deserted.is_empty() && view.unconfirmed.is_empty());
    }
}
