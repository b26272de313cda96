//! Crashes: whatever prefix of a journal is left, the run goes on to the same end, and nothing recorded is repeated.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{Called, definition};
use super::*;
use crate::document::Definition;
use crate::journal::{Event, EventKind, Standard};
use crate::run::{Approval, Effect, Run, Status, Stimulus};
use crate::usage;

/// A small task, as YAML in flow style.
fn task() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("{set: {n: '${ (.n? // 0) + 1 }', seen: '${ [$context.count? // 0, (.n? // 0)] }'}}".to_owned()),
        Just("{set: '${ {n: ((.n? // 0) + 1)} }', export: {as: '{count: ((.n? // 0))}'}}".to_owned()),
        (0..4_u8).prop_map(|agent| call(agent, "")),
        (0..4_u8).prop_map(|agent| call(agent, ", output: {as: '{n: (.n? // 0), got: .}'}")),
        (0..4_u8).prop_map(|agent| call(agent, ", timeout: {after: PT3S}")),
        (0..4_u8).prop_map(|agent| call(agent, &format!(", metadata: {{muster: {{compensation: {}}}}}", call(agent, "")))),
        Just(
            "{set: '${ {n: ((.n? // 0) + 1)} }', metadata: {muster: {compensation: {do: [{x: {wait: PT1S}}, {y: {if: '.n > 3', raise: {error: {type: 'about:blank', status: 500}}}}]}}}}"
                .to_owned()
        ),
        (0..3_u8).prop_map(|seconds| format!("{{wait: PT{seconds}S}}")),
        Just("{wait: '${ \"PT\\((.n? // 0) % 4)S\" }'}".to_owned()),
        Just(
            "{set: {n: '${ (.n? // 0) + 1 }'}, output: {schema: {document: {properties: {n: {maximum: 3}}}}}, input: {schema: {document: {type: object}}}}"
                .to_owned()
        ),
        (0..4_u8).prop_map(|agent| call(agent, ", timeout: {after: '${ {seconds: ((.n? // 0) + 1)} }'}")),
        Just("{if: '(.n? // 0) > 1', set: {n: 0}}".to_owned()),
        (0..4_u8).prop_map(|host| format!(
            "{{call: grpc, with: {{service: {{name: a.B, host: a{host}}}, method: Get, arguments: {{n: '${{ .n? // 0 }}'}}}}, timeout: {{after: PT3S}}}}"
        )),
        Just("{call: mcp, with: {method: tools/call, parameters: {name: x, arguments: {n: '${ .n? // 0 }'}}, timeout: PT2S, transport: {http: {endpoint: 'http://a1/mcp'}}}}".to_owned()),
        Just("{call: a2a, with: {server: 'http://a2/{n}', method: message/stream, parameters: {message: {parts: [{text: hi}]}}}}".to_owned()),
        (any::<bool>(), prop::sample::select(vec!["none", "stdout"])).prop_map(|(awaited, returns)| format!(
            "{{run: {{workflow: {{namespace: test, name: x, input: {{n: '${{ .n? // 0 }}'}}}}, await: {awaited}, return: {returns}}}}}"
        )),
        any::<bool>().prop_map(|awaited| format!(
            "{{run: {{shell: {{command: cat, stdin: '${{ . }}'}}, await: {awaited}}}, timeout: {{after: PT3S}}}}"
        )),
        Just("{raise: {error: {type: 'about:blank', status: 500, detail: '${ tostring }'}}}".to_owned()),
        Just("{switch: [{low: {when: '(.n? // 0) < 2', then: exit}}, {other: {then: continue}}]}".to_owned()),
        Just("{switch: [{done: {when: '(.n? // 0) > 3', then: end}}]}".to_owned()),
        Just("{set: {n: '${ .x | error }'}}".to_owned()),
        (0..4_u8).prop_map(|agent| call(agent, &gate("deadline: PT6S, escalate: {after: PT1S, to: [boss]}"))),
        Just(format!("{{set: {{n: 1}}, timeout: {{after: PT2S}}{}}}", gate("deadline: '${ {seconds: ((.n? // 0) + 1)} }'"))),
        (0..4_u8).prop_map(|agent| format!(
            "{{call: http, with: {{method: post, endpoint: 'http://a{agent}/{{n}}', body: {{n: '${{ .n? // 0 }}'}}}}}}"
        )),
        (0..4_u8).prop_map(|function| format!("{{call: f{function}, with: {{n: '${{ (.n? // 0) + 1 }}'}}}}")),
        Just("{call: f1, output: {as: '{n: (.n? // 0)}'}, timeout: {after: PT5S}}".to_owned()),
        Just("{emit: {event: {with: {source: /run, type: made, data: {n: '${ .n? // 0 }'}}}}, output: {as: .data}}".to_owned()),
        listen(),
    ];
    leaf.prop_recursive(3, 14, 3, |inner| {
        let list = prop::collection::vec(inner, 1..4).prop_map(|tasks| {
            let named = tasks
                .into_iter()
                .enumerate()
                .map(|(index, task)| format!("{{t{index}: {task}}}"));
            format!("[{}]", named.collect::<Vec<_>>().join(", "))
        });
        prop_oneof![
            list.clone().prop_map(|list| format!("{{do: {list}}}")),
            list.clone()
                .prop_map(|list| format!("{{do: {list}, timeout: {{after: PT4S}}}}")),
            (list.clone(), 0..4_u8).prop_map(|(list, count)| format!(
                "{{for: {{each: item, in: '[range({count})]'}}, do: {list}}}"
            )),
            list.clone().prop_map(|list| format!(
                "{{for: {{each: item, in: '[1, 2, 3]'}}, while: $item < 3, do: {list}}}"
            )),
            (list.clone(), any::<bool>())
                .prop_map(|(list, compete)| format!("{{fork: {{compete: {compete}, branches: {list}}}}}")),
            (list.clone(), prop::sample::select(vec!["0.3", "0.5", "1"])).prop_map(|(list, ratio)| format!(
                "{{fork: {{branches: {list}}}, metadata: {{muster: {{minSuccessRatio: {ratio}}}}}}}"
            )),
            list.clone().prop_map(|list| format!(
                "{{for: {{in: '[1, 2, 3]'}}, do: {list}, metadata: {{muster: {{maxIterations: 2}}}}}}"
            )),
            list.clone().prop_map(|list| format!(
                "{{do: {list}, timeout: {{after: PT3S}}{}}}",
                gate("deadline: PT9S")
            )),
            (list.clone(), catch()).prop_map(|(list, catch)| {
                let catch = catch.replace("HANDLER", &list);
                format!(
                    "{{try: {list}, catch: {catch}{}}}",
                    gate("escalate: {after: PT2S, to: boss}")
                )
            }),
            (list.clone(), catch(), list).prop_map(|(list, catch, handler)| {
                let catch = catch.replace("HANDLER", &handler);
                format!("{{try: {list}, catch: {catch}}}")
            }),
        ]
    })
}

/// A task that listens to the events of [`log`], or to what other tasks emit.
fn listen() -> impl Strategy<Value = String> {
    let to = prop::sample::select(vec![
        "{one: {with: {type: made}}}",
        "{one: {with: {type: a}, correlate: {n: {from: .data.n, expect: '${ .n? // 0 }'}}}}",
        "{all: [{with: {type: a}, correlate: {n: {from: .data.n}}}, {with: {type: b}, correlate: {n: {from: .data.n}}}]}",
        "{any: [{with: {type: a, data: '${ .n > 1 }'}}, {with: {type: b}}]}",
        "{any: [{with: {type: a}}], until: '${ length > 1 }'}",
        "{any: [], until: {one: {with: {type: b}}}}",
    ]);
    let each = prop::sample::select(vec![
        "",
        ", foreach: {output: {as: .n}}",
        ", foreach: {item: got, do: [{keep: {set: {n: '${ $got.n }'}}}], export: {as: '{count: .n}'}}",
        ", foreach: {do: [{ask: CALL}, {nap: {wait: PT1S}}]}",
    ]);
    (to, each, any::<bool>()).prop_map(|(to, each, limited)| {
        let each = each.replace("CALL", &call(1, ""));
        let timeout = if limited { ", timeout: {after: PT3S}" } else { "" };
        format!("{{listen: {{to: {to}}}{each}{timeout}, output: {{as: '{{n: length}}'}}}}")
    })
}

/// Events that come whatever a run does.
pub(super) fn log(world: World) -> World {
    [
        ("a", 1, 0),
        ("b", 1, 500),
        ("a", 2, 1_500),
        ("b", 2, 2_500),
        ("b", 0, 2_500),
        ("a", 0, 6_000),
    ]
    .into_iter()
    .fold(world, |world, (kind, n, after)| {
        world.publish(kind, json!({"n": n}), after)
    })
}

fn call(agent: u8, more: &str) -> String {
    format!(
        "{{call: a2a, with: {{server: 'agent://a{agent}', method: message/send, parameters: {{message: {{parts: [{{data: {{n: '${{ .n? // 0 }}'}}}}]}}}}}}{more}}}"
    )
}

/// Metadata with an approval.
fn gate(more: &str) -> String {
    format!(
        ", metadata: {{muster: {{approval: {{title: '${{ \"go on with \\(.n? // 0)\" }}', assignees: [ada], {more}}}}}}}"
    )
}

fn catch() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{}",
        "{do: HANDLER}",
        "{errors: {with: {status: 408}}}",
        "{when: '$error.status < 500', do: HANDLER}",
        "{retry: {limit: {attempt: {count: 2}}}}",
        "{retry: {delay: PT1S, backoff: {exponential: {}}, limit: {attempt: {count: 3}}}, do: HANDLER}",
        "{retry: {delay: '${ \"PT1S\" }', limit: {attempt: {count: 2, duration: '${ {seconds: ((.n? // 0) + 1)} }'}, duration: '${ \"PT8S\" }'}}}",
        "{retry: {delay: PT1S, jitter: {from: PT0S, to: PT2S}, limit: {attempt: {count: 2, duration: PT2S}}}, do: HANDLER}",
    ])
}

pub(super) fn document() -> impl Strategy<Value = Arc<Definition>> {
    let tasks = prop::collection::vec(task(), 1..4);
    (tasks, any::<bool>(), extensions()).prop_map(|(tasks, limited, extensions)| {
        let tasks = tasks
            .into_iter()
            .enumerate()
            .map(|(index, task)| format!("  - t{index}: {task}\n"));
        let timeout = if limited { "timeout: {after: PT9S}\n" } else { "" };
        let policy = if limited { "" } else { "budget: {tokens: 9, deadline: PT7S}" };
        let header = format!(
            "document: {{dsl: '1.0.0', namespace: test, name: test, version: '1.0.0', metadata: {{muster: {{{policy}}}}}}}"
        );
        definition(&format!(
            "{header}\n{timeout}use: {{functions: {{{}}}{extensions}}}\ndo:\n{}",
            functions(),
            tasks.collect::<String>()
        ))
    })
}

/// `use.functions`.
fn functions() -> String {
    let calls = [call(0, ""), call(1, "")];
    let [ask, other] = calls;
    format!(
        "f0: {ask}, f1: {{do: [{{a: {{set: {{n: '${{ .n? // 0 }}'}}}}}}, {{b: {{call: f0, with: {{n: '${{ .n }}'}}}}}}]}}, \
         f2: {{fork: {{compete: true, branches: [{{a: {other}}}, {{b: {{wait: PT1S}}}}]}}}}, \
         f3: {{try: [{{a: {other}}}], catch: {{retry: {{delay: PT1S, limit: {{attempt: {{count: 2}}}}}}}}}}"
    )
}

/// `use.extensions`, or nothing.
fn extensions() -> impl Strategy<Value = String> {
    let tasks = (
        0..4_u8,
        prop::sample::select(vec!["", ", then: exit", ", then: continue"]),
        0..3_u8,
    );
    let tasks = tasks.prop_map(|(agent, then, kind)| match kind {
        0 => format!("[{{x: {}}}]", call(agent, then)),
        1 => format!("[{{x: {{if: '(.n? // 0) > 1', set: {{n: 7}}{then}}}}}, {{y: {{wait: PT1S}}}}]"),
        _ => format!("[{{x: {{do: [{{z: {}}}]{then}}}}}]", call(agent, "")),
    });
    let target = prop::sample::select(vec!["all", "call", "try", "composite", "for", "set", "switch"]);
    let when = prop::sample::select(vec![
        "",
        ", when: '(.n? // 0) < 2'",
        ", when: '$task.call == \"a2a\"'",
    ]);
    let one =
        (target, when, prop::option::of(tasks.clone()), tasks).prop_map(|(target, when, before, after)| {
            let before = before
                .map(|tasks| format!(", before: {tasks}"))
                .unwrap_or_default();
            format!("{{extend: {target}{when}{before}, after: {after}}}")
        });
    prop::collection::vec(one, 0..3).prop_map(|extensions| {
        if extensions.is_empty() {
            return String::new();
        }
        let named = extensions.into_iter().enumerate();
        let named: Vec<String> = named
            .map(|(index, extension)| format!("{{e{index}: {extension}}}"))
            .collect();
        format!(", extensions: [{}]", named.join(", "))
    })
}

/// Agents that react to a message as a function of it and of a seed, as real ones do that deduplicate.
pub(super) fn agents(seed: u64) -> impl Fn(&Called) -> Reply {
    move |called| {
        let (high, low) = called.message_id.as_u64_pair();
        let dice = (high ^ low ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let delay = i64::try_from(dice % 5).unwrap() * 700;
        match dice % 11 {
            0 | 1 => Reply::Failure(problem_of(Standard::Communication), delay),
            2 => Reply::Failure(problem_of(Standard::Timeout), delay),
            3 => Reply::Silence,
            _ => Reply::Answer(
                json!({
                    "n": called.data.get("n").and_then(Value::as_u64).unwrap_or(0) + dice % 3,
                    "metadata": {usage::KEY: {"tokens": dice % 4}},
                }),
                delay,
            ),
        }
    }
}

/// People who decide, or do not, as a function of the question and of a seed.
pub(super) fn people(seed: u64, prompt: bool) -> impl Fn(&Approval) -> Option<(bool, i64)> {
    move |approval| {
        let dice = (approval.number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let delay = if prompt {
            0
        } else {
            i64::try_from(dice % 5).unwrap() * 900
        };
        match dice % 9 {
            0 if !prompt => None,
            1 => Some((false, delay)),
            _ => Some((true, delay)),
        }
    }
}

/// A run that has nothing left to do but to wait for an agent that is silent.
fn finished(world: &World) -> bool {
    world.run.status() != Status::Running
        || world
            .run
            .effects()
            .iter()
            .all(|effect| matches!(effect, Effect::Call { .. } | Effect::Listen { .. }))
}

/// What has been emitted is in the log also after the crash.
fn emitted(whole: &World, again: &mut World) {
    let known = again.log.len();
    again.log.extend(whole.log.iter().skip(known).cloned());
}

pub(super) fn outcome(run: &Run) -> (Status, Option<&Value>, Option<&crate::journal::Problem>) {
    (run.status(), run.output(), run.error())
}

/// Messages of the calls whose end is recorded.
fn recorded(definition: &Arc<Definition>, journal: &[Event]) -> BTreeSet<uuid::Uuid> {
    let mut run = Run::new("run-1", Arc::clone(definition));
    let mut messages = BTreeSet::new();
    for event in journal {
        let before = calls(&run);
        run.apply(event).unwrap();
        let after = calls(&run);
        messages.extend(before.difference(&after));
    }
    messages
}

fn calls(run: &Run) -> BTreeSet<uuid::Uuid> {
    let messages = run.effects().into_iter().filter_map(|effect| match effect {
        Effect::Call { message_id, .. } => Some(message_id),
        Effect::Listen { .. } | Effect::Timer { .. } => None,
    });
    messages.collect()
}

/// The limits of retries in the document, checked against the journal.
fn check_retries(definition: &Definition, journal: &[Event]) -> Result<(), TestCaseError> {
    for event in journal {
        let EventKind::TaskRetried { task, attempt, .. } = &event.kind else {
            continue;
        };
        let Some(crate::document::Kind::Try(attempts)) =
            definition.workflow.task(task).map(|task| &task.kind)
        else {
            return Err(TestCaseError::fail("only a try is retried"));
        };
        let limit = attempts
            .catch
            .retry
            .as_ref()
            .and_then(|retry| retry.limit.attempts)
            .unwrap_or(u32::MAX);
        prop_assert!(attempt - 1 <= limit, "{} retries of {}", attempt - 1, task);
    }
    Ok(())
}

/// What somebody wants of a run, by number.
fn wish(number: u8) -> Stimulus {
    let (by, reason) = ("ada".to_owned(), String::new());
    match number {
        0 => Stimulus::Pause { by, reason },
        1 => Stimulus::Resume { by, reason },
        2 => Stimulus::Terminate { by, reason },
        _ => Stimulus::Cancel { by, reason },
    }
}

/// Lets the run go on to its end, with wishes after so many steps. A run that is held and has nothing else to wait for
/// is let go.
pub(super) fn steered(world: &mut World, wishes: &[(usize, u8)]) {
    for step in 0..5_000 {
        for (_, number) in wishes.iter().filter(|(at, _)| *at == step) {
            world.decide(wish(*number));
        }
        if !world.step() {
            if !world.run.is_paused() {
                return;
            }
            world.decide(wish(1));
        }
    }
    panic!("the run does not end: {:?}", world.run.activity(world.now));
}

/// Retries the run if it can be.
pub(super) fn retried(world: &mut World) {
    if !matches!(world.run.status(), Status::Faulted | Status::Cancelled) {
        return;
    }
    let (_, trail) = super::rewinding::folded(world, "run-1", &world.journal);
    if trail.end().is_some_and(|end| trail.undone_before(end).is_none()) {
        world.retry(None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn wishes_compensations_and_retries_survive_a_crash_after_any_event(
        definition in document(),
        seed in any::<u64>(),
        wishes in prop::collection::vec((0..12_usize, 0..4_u8), 0..4),
        retries in 0..3_u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut whole = World::of(Arc::clone(&definition), agents(seed)).asking(people(seed, true));
        whole.decide(Stimulus::Start { input: json!({"n": 0}) });
        steered(&mut whole, &wishes);
        for _ in 0..retries {
            retried(&mut whole);
            steered(&mut whole, &[]);
        }
        prop_assert!(finished(&whole));
        let (folded, _) = super::rewinding::folded(&whole, "run-1", &whole.journal);
        prop_assert_eq!(folded.effects(), whole.run.effects());
        prop_assert_eq!(outcome(&folded), outcome(&whole.run));
        prop_assert_eq!(folded.compensation(), whole.run.compensation());
        prop_assert_eq!(folded.next_index(), whole.journal.len() as u64);

        let kept = 1 + cut.index(whole.journal.len());
        let prefix = &whole.journal[..kept];
        let (run, _) = super::rewinding::folded(&whole, "run-1", prefix);
        let mut again = World::of(Arc::clone(&definition), agents(seed)).asking(people(seed, true));
        again.run = run;
        again.journal = prefix.to_vec();
        again.now = prefix[kept - 1].time;
        again.decide(Stimulus::Tick);
        steered(&mut again, &[]);
        prop_assert!(finished(&again));
        let cancelled = prefix.iter().any(|event| matches!(event.kind, EventKind::RunCancelling { .. }));
        let retried = prefix.iter().any(|event| matches!(event.kind, EventKind::RunRetried { .. }));
        if cancelled && !retried && again.run.status() != Status::Running {
            prop_assert_eq!(again.run.status(), Status::Cancelled);
        }
    }

    #[test]
    fn a_run_survives_a_crash_after_any_event(definition in document(), seed in any::<u64>(), cut in any::<prop::sample::Index>()) {
        let whole = log(World::of(Arc::clone(&definition), agents(seed))).asking(people(seed, false)).run(json!({"n": 0}));
        prop_assert!(finished(&whole));
        check_retries(&definition, &whole.journal)?;

        // The fold of the journal is the state that wrote it.
        let mut folded = Run::new("run-1", Arc::clone(&definition));
        for event in &whole.journal {
            let text = serde_json::to_string(event).unwrap();
            folded.apply(&serde_json::from_str(&text).unwrap()).unwrap();
        }
        prop_assert_eq!(folded.effects(), whole.run.effects());
        prop_assert_eq!(outcome(&folded), outcome(&whole.run));
        prop_assert_eq!(folded.next_index(), whole.run.next_index());

        // A crash leaves a prefix, perhaps only a part of what was decided at once.
        let kept = cut.index(whole.journal.len() + 1);
        let prefix = &whole.journal[..kept];
        let mut again = World::of(Arc::clone(&definition), agents(seed)).asking(people(seed, false));
        again.log.clone_from(&whole.log);
        for event in prefix {
            again.run.apply(event).unwrap();
        }
        again.journal = prefix.to_vec();
        again.now = prefix.last().map_or(again.now, |event| event.time);
        match kept {
            0 => again.decide(Stimulus::Start { input: json!({"n": 0}) }),
            _ => again.decide(Stimulus::Tick),
        };
        again.go_on();
        prop_assert!(finished(&again));
        check_retries(&definition, &again.journal)?;
        let done = recorded(&definition, prefix);
        let repeated = again.calls.iter().find(|called| done.contains(&called.message_id));
        prop_assert_eq!(repeated, None, "a recorded step is not called again");
    }

    #[test]
    fn without_waiting_agents_a_crash_changes_nothing(definition in document(), seed in any::<u64>(), cut in any::<prop::sample::Index>()) {
        // What a retry's jitter leaves to chance is drawn anew after a crash, unless it is recorded.
        prop_assume!(!format!("{definition:?}").contains("\"jitter\""));
        // Agents that answer at once, so that the time of the crash does not decide a race or a timeout.
        let prompt = move |called: &Called| match agents(seed)(called) {
            Reply::Answer(value, _) => Reply::Answer(value, 0),
            Reply::Failure(problem, _) => Reply::Failure(problem, 0),
            Reply::Silence => Reply::Answer(json!({"n": 1}), 0),
        };
        let whole = log(World::of(Arc::clone(&definition), prompt)).asking(people(seed, true)).run(json!({"n": 0}));
        let kept = 1 + cut.index(whole.journal.len());
        let mut again = log(World::of(Arc::clone(&definition), prompt)).asking(people(seed, true));
        emitted(&whole, &mut again);
        for event in &whole.journal[..kept] {
            again.run.apply(event).unwrap();
        }
        again.now = whole.journal[kept - 1].time;
        again.go_on();
        prop_assert_eq!(outcome(&again.run), outcome(&whole.run));
    }

    #[test]
    fn branches_keep_their_order_whatever_their_speed(delays in prop::collection::vec(0..9_i64, 1..8)) {
        let branches = (0..delays.len()).map(|index| format!("{{b{index}: {}}}", call(u8::try_from(index).unwrap(), "")));
        let document = format!("do:\n  - all: {{fork: {{branches: [{}]}}}}\n", branches.collect::<Vec<_>>().join(", "));
        let expected: Vec<String> = (0..delays.len()).map(|index| format!("agent://a{index}")).collect();
        let world = World::with_agents(&document, move |called| {
            let index: usize = called.agent.trim_start_matches("agent://a").parse().unwrap();
            Reply::Answer(json!(called.agent), delays[index])
        });
        world.run(json!(null)).yields(json!(expected));
    }
}
