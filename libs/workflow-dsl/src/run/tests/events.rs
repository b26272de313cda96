//! `emit` and `listen`.

use serde_json::json;

use super::world::definition;
use super::*;
use crate::journal::{EventKind, Standard};
use crate::run::{Effect, MOST_EVENTS, Run, Status, Stimulus};

#[test]
fn an_emitted_event_is_complete_and_is_the_output() {
    let world = World::new(
        "
        do:
          - greet:
              emit:
                event:
                  with:
                    source: https://fake-source.com
                    type: com.fake-source.user.greeted.v1
                    attempt: 3
                    data: {greetings: '${ \"Hello \\(.user)!\" }'}
        ",
    )
    .run(json!({"user": "John"}));
    let id = world.log[0].1.id().to_owned();
    assert_eq!(id.len(), 36, "derived from the step");
    world.yields(json!({
        "specversion": "1.0",
        "id": id,
        "source": "https://fake-source.com",
        "type": "com.fake-source.user.greeted.v1",
        "time": "2026-03-01T12:00:00.000Z",
        "datacontenttype": "application/json",
        "attempt": 3,
        "data": {"greetings": "Hello John!"},
    }));
}

#[test]
fn an_event_that_is_none_is_a_fault_of_the_author() {
    let world =
        World::new("do: [{a: {emit: {event: {with: {source: '${ \"a b\" }', type: t}}}}}]").run(json!(null));
    world.faults(Standard::Validation, "'source' must be a URI");
}

#[test]
fn one_event_is_waited_for_and_read_as_asked() {
    for (read, expected) in [
        ("", json!([{"n": 1}])),
        (", read: raw", json!(["{\"n\":1}"])),
        (
            ", read: envelope",
            json!([{"specversion": "1.0", "id": "1", "source": "/tests", "type": "a", "data": {"n": 1}}]),
        ),
    ] {
        let document = format!("do: [{{hear: {{listen: {{to: {{one: {{with: {{type: a}}}}}}{read}}}}}}}]");
        let world = World::new(&document)
            .publish("b", json!({}), 500)
            .publish("a", json!({"n": 1}), 1_000)
            .publish("a", json!({"n": 2}), 2_000)
            .run(json!(null));
        world.yields(expected);
        assert_eq!(
            world.story(),
            [
                "run.started",
                "task.started hear",
                "listen.started hear",
                "event.consumed hear",
                "task.completed hear",
                "run.completed"
            ]
        );
        assert!((world.elapsed() - 1.0).abs() < 0.001);
    }
}

#[test]
fn a_listen_begins_where_the_one_before_it_ended_also_in_loops_and_not_in_branches() {
    let world = World::new(
        "
        do:
          - busy: {wait: PT5S}
          - first: {listen: {to: {one: {with: {type: a}}}}, output: {as: '.[0].n'}, export: {as: '[.]'}}
          - others:
              for: {in: '[1, 2]'}
              do: [{next: {listen: {to: {one: {with: {type: a}}}}, output: {as: '.[0].n'}, export: {as: '$context + [.]'}}}]
          - both:
              fork:
                branches:
                  - left: {listen: {to: {one: {with: {type: a}}}}, output: {as: '.[0].n'}}
                  - right: {do: [{again: {listen: {to: {one: {with: {type: a}}}}, output: {as: '.[0].n'}}}]}
          - last: {listen: {to: {one: {with: {type: a}}}}, output: {as: '.[0].n'}, export: {as: '$context + [.]'}}
        output: {as: $context}
        ",
    );
    let world = (1..=5).fold(world, |world, n| world.publish("a", json!({"n": n}), n * 1_000));
    let world = world.run(json!(null));
    world.yields(json!([1, 2, 3, 5]));
}

#[test]
fn a_run_hears_nothing_from_before_it_was_accepted() {
    let document = definition("do: [{hear: {listen: {to: {one: {with: {type: a}}}}}}]");
    let mut world = World::of(document.clone(), |_| Reply::Silence).publish("a", json!({"n": 1}), 0);
    world.run = Run::new("run-1", document).hearing_from(2);
    let world = world.publish("a", json!({"n": 2}), 0).run(json!(null));
    world.yields(json!([{"n": 2}]));
    assert!(matches!(
        &world.journal[0].kind,
        EventKind::RunStarted { hears_from: 2, .. }
    ));
    assert!(matches!(
        &world.journal[2].kind,
        EventKind::ListenStarted { from: 2, .. }
    ));
}

#[test]
fn any_goes_on_until_a_condition_or_an_event_and_keeps_only_what_counts() {
    let world = |until: &str| {
        let document =
            format!("do: [{{hear: {{listen: {{to: {{any: [{{with: {{type: a}}}}], until: {until}}}}}}}}}]");
        World::new(&document)
            .publish("a", json!(1), 0)
            .publish("end", json!(0), 500)
            .publish("a", json!(2), 1_000)
            .publish("a", json!(3), 2_000)
            .run(json!(null))
    };
    world("'( . | length ) > 1'").yields(json!([1, 2]));
    world("{one: {with: {type: end}}}").yields(json!([1]));
    let endless = world("'${ false }'");
    assert_eq!(endless.run.status(), Status::Running);
    assert!(endless.run.waits_outside());
    world("'${ .[0] | error }'").faults(Standard::Expression, "");
}

#[test]
fn all_waits_for_each_with_the_same_correlation() {
    let document = "
        do:
          - hear:
              listen:
                to:
                  all:
                    - {with: {type: t}, correlate: {room: {from: .data.room}}}
                    - {with: {type: h}, correlate: {room: {from: .data.room}}}
        ";
    let world = World::new(document)
        .publish("t", json!({"room": 1}), 0)
        .publish("h", json!({"room": 2}), 10)
        .publish("t", json!({"room": 2}), 20)
        .publish("h", json!({"room": 1}), 30)
        .run(json!(null));
    world.yields(json!([{"room": 1}, {"room": 1}]));
    assert_eq!(
        world.count("event.consumed hear"),
        2,
        "what does not concern it is not recorded"
    );
}

#[test]
fn an_expected_correlation_is_known_from_the_beginning() {
    let document = "
        do:
          - hear:
              listen: {to: {one: {with: {type: paid}, correlate: {order: {from: .data.order, expect: '${ .id }'}}}}}
        ";
    let world = World::new(document)
        .publish("paid", json!({"order": 1}), 0)
        .publish("paid", json!({"order": "7"}), 10)
        .run(json!({"id": 7}));
    world.yields(json!([{"order": "7"}]));
    let none = World::new(document).run(json!({}));
    none.faults(
        Standard::Expression,
        "'expect' of the correlation 'order' is null",
    );
}

#[test]
fn each_event_is_worked_on_before_the_next_is_heard() {
    let document = "
        do:
          - hear:
              listen: {to: {any: [], until: {one: {with: {type: end}}}}}
              foreach:
                item: got
                at: i
                do:
                  - work: {wait: PT10S}
                  - keep: {set: {n: '${ $got.n * 10 }', i: '${ $i }'}}
                output: {as: .n}
                export: {as: '{last: .}'}
          - after: {set: {all: '${ . }', last: '${ $context.last }'}}
        ";
    let world = World::new(document)
        .publish("a", json!({"n": 1}), 0)
        .publish("a", json!({"n": 2}), 10)
        .publish("end", json!({}), 20)
        .publish("a", json!({"n": 3}), 30)
        .run(json!({}));
    world.yields(json!({"all": [10, 20], "last": 20}));
    assert!((world.elapsed() - 20.0).abs() < 0.1);
    assert_eq!(world.count("item.completed hear"), 2);
}

#[test]
fn a_foreach_without_tasks_shapes_what_is_kept() {
    let document = "
        do:
          - hear:
              listen: {to: {any: [{with: {type: a}}], until: 'map(.n) | add > 3'}}
              foreach: {output: {as: .n}}
        ";
    let world = (1..=4).fold(World::new(document), |world, n| {
        world.publish("a", json!({"n": n}), n)
    });
    world.run(json!(null)).yields(json!([1, 2, 3]));
}

#[test]
fn a_condition_is_judged_on_the_events_and_not_on_what_a_foreach_keeps_of_them() {
    for (read, until) in [
        ("data", "'${ .[-1].x == 2 }'"),
        ("envelope", "'${ .[-1].data.x == 2 }'"),
    ] {
        let value = if read == "data" { "$e.x" } else { "$e.data.x" };
        let document = format!(
            "
            do:
              - hear:
                  listen: {{to: {{any: [{{with: {{type: q}}}}], until: {until}}}, read: {read}}}
                  foreach: {{item: e, do: [{{s: {{set: {{v: '${{ {value} }}'}}}}}}]}}
            "
        );
        let world = (1..=3).fold(World::new(&document), |world, x| {
            world.publish("q", json!({"x": x}), x)
        });
        world.run(json!(null)).yields(json!([{"v": 1}, {"v": 2}]));
    }
}

#[test]
fn the_events_that_a_condition_is_judged_on_are_bounded() {
    let document = "
        do:
          - hear:
              listen: {to: {any: [], until: '${ length < 0 }'}}
              foreach: {output: {as: length}}
        ";
    let large = "x".repeat(1 << 20);
    let world = (0..5).fold(World::new(document), |world, _| {
        world.publish("a", json!(large), 0)
    });
    world
        .run(json!(null))
        .faults(Standard::Runtime, "the events that 'until' is a condition on");
}

#[test]
fn a_listen_times_out_fails_and_is_cancelled_like_any_task() {
    let document = "
        do:
          - guarded:
              try: [{hear: {listen: {to: {one: {with: {type: a}}}}, timeout: {after: PT2S}}}]
              catch: {errors: {with: {status: 408}}, do: [{late: {set: {late: true}}}]}
        ";
    World::new(document)
        .publish("a", json!(1), 3_000)
        .run(json!(null))
        .yields(json!({"late": true}));

    let document = "
        do:
          - hear:
              listen: {to: {one: {with: {type: a}}}}
              foreach: {do: [{bad: {raise: {error: {type: 'about:blank', status: 500, title: Bad}}}}]}
        ";
    let world = World::new(document).publish("a", json!(1), 0).run(json!(null));
    assert_eq!(world.run.status(), Status::Faulted);

    let mut world = World::new("do: [{hear: {listen: {to: {one: {with: {type: a}}}}}}]").run(json!(null));
    assert!(matches!(
        world.run.effects().as_slice(),
        [Effect::Listen { from: 0, .. }, Effect::Timer { .. }] | [Effect::Listen { from: 0, .. }]
    ));
    world.decide(Stimulus::Cancel {
        by: String::new(),
        reason: "enough".into(),
    });
    assert_eq!(world.run.status(), Status::Cancelled);
    assert!(world.run.effects().is_empty() && !world.run.waits_outside());
}

#[test]
fn what_is_kept_is_bounded() {
    let document = "do: [{hear: {listen: {to: {any: [], until: false}}}}]";
    let large = "x".repeat(1 << 20);
    let world = (0..5).fold(World::new(document), |world, _| {
        world.publish("a", json!(large), 0)
    });
    world
        .run(json!(null))
        .faults(Standard::Runtime, "keep less of each with 'foreach.output.as'");

    let many = i64::try_from(MOST_EVENTS).unwrap() + 1;
    let world = (0..many).fold(World::new(document), |world, _| world.publish("a", json!(1), 0));
    let mut world = world;
    world.decide(Stimulus::Start { input: json!(null) });
    while world.run.status() == Status::Running && world.step() {}
    world.faults(Standard::Runtime, "listens to at most 10000 events");
}

#[test]
fn a_run_says_what_it_waits_for() {
    let document = "
        do:
          - hear:
              listen: {to: {one: {with: {type: paid}, correlate: {order: {from: .data.order, expect: '${ .id }'}}}}}
        ";
    let world = World::new(document).run(json!({"id": 7}));
    let waiting = world.run.waiting(world.now);
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].kind.name(), "event");
    assert!(
        waiting[0].message.starts_with(
            "/do/0/hear waits for an event with type \"paid\", correlation order (.data.order) = 7"
        ),
        "{}",
        waiting[0].message
    );
    assert_eq!(waiting[0].details["correlations"], json!({"order": 7}));
}
