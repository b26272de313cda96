use proptest::prelude::*;

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
            for (id, agent) in &view.agents {
                for skill in &agent.skills {
                    prop_assert!(view.by_skill[skill].contains(id));
                }
            }
            let listed: usize = view.by_skill.values().map(BTreeSet::len).sum();
            prop_assert_eq!(listed, view.agents.values().map(|agent| agent.skills.len()).sum::<usize>());
        }
        let seen: BTreeSet<(String, String)> = view.keys().into_iter().map(|key| (key.agent, key.instance)).collect();
        prop_assert_eq!(seen, expected);
    }
}
