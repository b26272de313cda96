//! Retrying runs that failed, and forking them.

use serde_json::{Value, json};

use super::*;
use crate::journal::{Event, EventKind, Standard};
use crate::run::rewind::{Again, Refused, Trail, skipped};
use crate::run::{Effect, Run, Status, Stimulus};

fn call(agent: &str) -> String {
    format!(
        "{agent}: {{call: a2a, with: {{server: 'agent://{agent}', method: SendMessage, parameters: {{message: {{parts: [{{data: '${{ . }}'}}]}}}}}}}}"
    )
}

/// The events that count.
pub(super) fn effective(journal: &[Event]) -> Vec<Event> {
    let retries: Vec<(u64, u64)> = journal
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::RunRetried { to, .. } => Some((event.index, to)),
            _ => None,
        })
        .collect();
    let spans = skipped(&retries);
    let counts = |event: &&Event| !spans.iter().any(|span| span.contains(&event.index));
    journal.iter().filter(counts).cloned().collect()
}

/// The run folded from what counts of these events.
pub(super) fn folded(world: &World, id: &str, journal: &[Event]) -> (Run, Trail) {
    let mut run = Run::new(id.to_owned(), world.run.definition().clone());
    let mut trail = Trail::default();
    for event in effective(journal) {
        trail.observe(&run, &event);
        run.apply(&event).unwrap();
    }
    (run, trail)
}

impl World {
    /// Retries the run that has ended.
    pub(super) fn retry(&mut self, from: Option<&str>) {
        let (ended, trail) = folded(self, "run-1", &self.journal);
        let to = match from {
            Some(step) => trail.start_of(step),
            None => trail.end(),
        };
        let to = to.unwrap();
        assert_eq!(trail.undone_before(to), None);
        let length = self.journal.len() as u64;
        let (mut run, _) = folded(self, "run-1", &self.journal[..usize::try_from(to).unwrap()]);
        let again = Again {
            asks: trail.asking_at(to).filter(|_| from.is_none()),
            length,
            next_activation: ended.next_activation(),
            generation: ended.generation(),
            ended: ended.time(),
            by: "ada".into(),
            reason: "again".into(),
            from: from.map(Into::into),
        };
        let event = run.retry(again, self.now).unwrap();
        self.journal.push(event);
        self.forget_calls();
        self.run = run;
        self.decide(Stimulus::Tick);
    }
}

/// Agents of which `bad` fails so often, and every other one says what it was asked.
fn failing(times: usize) -> impl FnMut(&world::Called) -> Reply {
    let mut left = times;
    move |called| match called.agent.as_str() {
        "agent://bad" if left > 0 => {
            left -= 1;
            Reply::Failure(problem_of(Standard::Communication), 10)
        }
        "agent://slow" => Reply::Answer(json!("slow"), 1_000),
        _ => Reply::Answer(called.data.clone(), 0),
    }
}

fn agents(world: &World) -> Vec<&str> {
    world
        .calls
        .iter()
        .map(|called| called.agent.trim_start_matches("agent://"))
        .collect()
}

#[test]
fn a_retry_goes_on_before_the_task_that_failed_in_a_new_message_of_the_same_step() {
    let document = format!("do:\n  - {}\n  - {}\n  - {}\n", call("a"), call("bad"), call("c"));
    let mut world = World::with_agents(&document, failing(2)).run(json!("in"));
    world.faults(Standard::Communication, "as told");
    world.retry(None);
    world.go_on();
    world.faults(Standard::Communication, "as told");
    world.retry(None);
    world.go_on();
    world.yields(json!("in"));
    assert_eq!(agents(&world), ["a", "bad", "bad", "bad", "c"]);
    let bad: Vec<_> = world.calls[1..4].iter().collect();
    assert!(
        bad.windows(2)
            .all(|pair| pair[0].message_id != pair[1].message_id && pair[0].step_key == pair[1].step_key)
    );
    assert_eq!(world.run.generation(), 2);
    let (run, _) = folded(&world, "run-1", &world.journal);
    assert_eq!(
        (run.status(), run.output()),
        (world.run.status(), world.run.output())
    );
}

#[test]
fn what_other_branches_had_recorded_is_kept_and_what_they_had_in_flight_is_sent_again() {
    let document = format!(
        "do:\n  - all: {{fork: {{branches: [{{{}}}, {{{}}}, {{{}}}]}}}}\n",
        call("quick"),
        call("bad"),
        call("slow")
    );
    let mut world = World::with_agents(&document, failing(1)).run(json!("in"));
    world.faults(Standard::Communication, "as told");
    world.retry(None);
    world.go_on();
    world.yields(json!(["in", "in", "slow"]));
    assert_eq!(agents(&world), ["quick", "bad", "slow", "bad", "slow"]);
}

#[test]
fn an_error_is_followed_to_where_it_came_up() {
    let document = format!(
        "
        do:
          - outer:
              do:
                - guarded:
                    try: [{{{}}}, {{inner: {{do: [{{{}}}]}}}}]
                    catch: {{errors: {{with: {{status: 404}}}}}}
        ",
        call("a"),
        call("bad")
    );
    let mut world = World::with_agents(&document, failing(1)).run(json!("in"));
    world.faults(Standard::Communication, "as told");
    world.retry(None);
    world.go_on();
    world.yields(json!("in"));
    assert_eq!(agents(&world), ["a", "bad", "bad"]);
}

#[test]
fn a_named_step_begins_again_as_it_did() {
    let document = format!("do:\n  - {}\n  - {}\n  - {}\n", call("a"), call("b"), call("bad"));
    let mut world = World::with_agents(&document, failing(1)).run(json!("in"));
    world.retry(Some("/do/1/b"));
    world.go_on();
    world.yields(json!("in"));
    assert_eq!(agents(&world), ["a", "b", "bad", "b", "bad"]);
    let starts: Vec<u64> = world
        .journal
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::TaskStarted { activation, .. } => Some(activation),
            _ => None,
        })
        .collect();
    assert!(
        starts.windows(2).all(|pair| pair[0] < pair[1]),
        "no number is given twice: {starts:?}"
    );
}

#[test]
fn a_task_that_timed_out_has_its_whole_time_again() {
    let ask = "call: a2a, with: {server: agent://a, method: GetTask, parameters: {id: x}}";
    let document =
        format!("timeout: {{after: PT40S}}\ndo:\n  - slow: {{{ask}, timeout: {{after: PT30S}}}}\n");
    let mut world = World::with_agents(&document, |_| Reply::Silence).run(json!(null));
    world.faults(Standard::Timeout, "/do/0/slow");
    world.now += jiff::SignedDuration::from_secs(1_000);
    world.retry(None);
    let due = world.now + jiff::SignedDuration::from_secs(30);
    assert!(
        world.run.effects().contains(&Effect::Timer { due }),
        "{:?}",
        world.run.effects()
    );
}

#[test]
fn a_cancelled_run_goes_on_where_it_was() {
    let mut world = World::new("do:\n  - nap: {wait: PT1H}\n  - done: {set: {a: 1}}\n");
    world.decide(Stimulus::Start { input: json!(null) });
    world.decide(Stimulus::Cancel {
        by: String::new(),
        reason: String::new(),
    });
    assert_eq!(world.run.status(), Status::Cancelled);
    world.retry(None);
    world.go_on();
    world.yields(json!({"a": 1}));
}

#[test]
fn what_was_compensated_is_known_and_a_step_before_it_can_begin_again() {
    let done = "done: {set: {a: 1}, metadata: {muster: {compensation: {set: {b: 1}}}}}";
    let document = format!("do:\n  - {}\n  - {done}\n  - {}\n", call("a"), call("bad"));
    let mut world = World::with_agents(&document, failing(1)).run(json!("in"));
    let (_, trail) = folded(&world, "run-1", &world.journal);
    assert_eq!(trail.undone_before(trail.end().unwrap()), Some("/do/1/done"));
    assert_eq!(trail.start_of("/do/1/done/metadata/muster/compensation"), None);
    world.retry(Some("/do/1/done"));
    world.go_on();
    world.yields(json!({"a": 1}));
    assert_eq!(world.run.compensation(), None);
}

/// A fork of the run in the world, from the start of a step.
fn forked(world: &World, step: &str, input: Option<Value>) -> Result<World, Refused> {
    let (_, trail) = folded(world, "run-1", &world.journal);
    let index = usize::try_from(trail.start_of(step).unwrap()).unwrap();
    let (mut run, _) = folded(world, "run-2", &world.journal[..index]);
    let event = run.fork("run-1", "ada".into(), Some(step), input, world.now)?;
    let mut other = World::of(world.run.definition().clone(), failing(0));
    other.journal = world.journal[..index].to_vec();
    other.journal.push(event);
    other.now = world.now;
    other.run = run;
    other.decide(Stimulus::Tick);
    other.go_on();
    Ok(other)
}

#[test]
fn a_fork_begins_at_a_step_with_its_input_or_another() {
    let document = format!("do:\n  - {}\n  - {}\n", call("a"), call("b"));
    let world = World::new(&document).run(json!("in"));
    let same = forked(&world, "/do/1/b", None).unwrap();
    same.yields(json!("in"));
    assert_eq!(agents(&same), ["b"]);
    assert_ne!(same.calls[0].message_id, world.calls[1].message_id, "another run");
    forked(&world, "/do/1/b", Some(json!("other")))
        .unwrap()
        .yields(json!("other"));

    let document = format!("do:\n  - both: {{fork: {{branches: [{{{}}}]}}}}\n", call("a"));
    let world = World::new(&document).run(json!("in"));
    let branch = "/do/0/both/fork/branches/0/a";
    assert!(matches!(
        forked(&world, branch, Some(json!(1))),
        Err(Refused::Branch(_))
    ));
    forked(&world, branch, None).unwrap().yields(json!(["in"]));
}

#[test]
fn a_step_in_a_loop_begins_in_its_last_iteration() {
    let document = format!(
        "do:\n  - each: {{for: {{each: n, in: '[1, 2, 3]'}}, do: [{{{}}}]}}\n",
        call("a")
    );
    let world = World::new(&document).run(json!("in"));
    let other = forked(&world, "/do/0/each/do/0/a", Some(json!("other"))).unwrap();
    other.yields(json!("other"));
    assert_eq!(other.calls.len(), 1);
}
