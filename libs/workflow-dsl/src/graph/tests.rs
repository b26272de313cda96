//! Pictures of small workflows, and of hostile ones.

use std::fmt::Write as _;

use super::*;
use crate::parse;

fn workflow(tasks: &str) -> std::sync::Arc<Workflow> {
    let text =
        format!("document: {{dsl: '1.0.1', namespace: test, name: small, version: '1.0.0'}}\ndo:\n{tasks}");
    parse(&text)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .workflow
}

const SMALL: &str = "
  - choose:
      switch:
        - big: {when: .n > 9, then: loop}
        - odd: {when: .n < 0, then: refuse}
        - other: {then: end}
  - loop:
      for: {each: city, in: .cities}
      do:
        - ask: {call: a2a, with: {server: 'agent://weather', method: SendMessage, parameters: {message: {parts: [{text: hi}]}}}}
        - rest: {wait: PT2H, if: .tired}
      then: choose
  - refuse:
      try:
        - fail: {raise: {error: {type: about:blank, status: 500}}}
      catch:
        retry: {delay: PT1S, limit: {attempt: {count: 3}}}
        do:
          - both: {fork: {compete: true, branches: [{one: {wait: PT1S}}, {two: {set: {a: 1, b: 2}}}]}}
";

#[test]
fn mermaid_text_names_every_task_and_way() {
    let text = mermaid(&workflow(SMALL));
    let expected = r#"---
title: "test/small@1.0.0"
---
flowchart TD
    start([start])
    stop([end])
    task0{"choose<br/>switch"}
    subgraph task1["loop<br/>for each city in .cities"]
        task2[["ask<br/>a2a SendMessage agent://weather"]]
        task3(["rest<br/>wait 2 h<br/>if .tired"])
        task2 --> task3
    end
    subgraph task4["refuse<br/>try, again up to 3 times"]
        subgraph task4part0["try"]
            task5>"fail<br/>raise 500 about:blank"]
        end
        subgraph task4part1["catch"]
            subgraph task6["both<br/>fork: the first to complete wins"]
                task7(["one<br/>wait 1 s"])
                task8["two<br/>set a, b"]
            end
        end
    end
    task0 -->|"big"| task1
    task0 -->|"odd"| task4
    task0 -->|"other"| stop
    task1 --> task0
    task4 --> stop
    start --> task0
"#;
    assert_eq!(text, expected);
}

#[test]
fn an_svg_is_well_formed_and_holds_every_task() {
    let image = svg(&workflow(SMALL));
    assert!(image.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\""));
    for name in [
        "choose", "loop", "ask", "rest", "refuse", "fail", "both", "one", "two",
    ] {
        assert!(
            image.contains(&format!(">{name}</text>")),
            "{name} is not in\n{image}"
        );
    }
    for word in ["other: end", ">big<", ">odd<", ">try<", ">catch<", "if .tired"] {
        assert!(image.contains(word), "{word} is not in\n{image}");
    }
    let opened = image.matches("<rect").count();
    assert_eq!(opened, 10, "nine tasks and the ground");
}

#[test]
fn what_authors_write_stays_text() {
    let nasty = r#"  - "</text><script>alert(1)</script>": {set: {x: 1}}
  - "\"] click task0 call alert() end": {set: {y: "${ . }"}, if: ".a < \"&\""}
"#;
    let drawn = workflow(nasty);
    let image = svg(&drawn);
    assert!(!image.contains("<script"), "{image}");
    assert!(image.contains("&lt;/text&gt;&lt;script&gt;"), "{image}");
    let text = mermaid(&drawn);
    assert!(
        !text.contains("\"] click") && text.contains("#34;#93; click"),
        "{text}"
    );
}

#[test]
fn a_large_document_makes_a_picture_in_proportion() {
    let mut tasks = String::new();
    for index in 0..2000 {
        let target = (index * 7919) % 2000;
        let _infallible = writeln!(
            tasks,
            "  - t{index}: {{switch: [{{far: {{when: .x, then: t{target}}}}}, {{on: {{then: continue}}}}]}}"
        );
    }
    // As many expressions as a document may have.
    let drawn = workflow(&tasks);
    let (text, image) = (mermaid(&drawn), svg(&drawn));
    assert!(text.len() < 600_000, "{}", text.len());
    assert!(image.len() < 2_500_000, "{}", image.len());

    let deep = format!(
        "  - a: {}{{set: {{x: 1}}}}{}\n",
        "{do: [{a: ".repeat(19),
        "}]}".repeat(19)
    );
    assert!(svg(&workflow(&deep)).contains("set x"));
}
