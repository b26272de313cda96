//! Cases, good and bad, of small workflows.

use std::sync::Arc;

use super::*;

fn definition(tasks: &str) -> Arc<Definition> {
    let text =
        format!("document: {{dsl: '1.0.1', namespace: test, name: test, version: '1.0.0'}}\ndo:\n{tasks}");
    Arc::new(crate::parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}")))
}

/// Asks an agent, twice at most, and tells what it said.
const ASKING: &str = "
  - look:
      try:
        - ask:
            call: a2a
            with: {server: 'agent://weather', method: SendMessage, parameters: {message: {parts: [{data: {city: '${ .city }'}}]}}}
            timeout: {after: PT10S}
            output: {as: '.artifacts[0].parts[0].data'}
      catch:
        errors: {with: {type: 'https://serverlessworkflow.io/spec/1.0.0/errors/communication'}}
        retry: {delay: PT1M, limit: {attempt: {count: 1}}}
        do:
          - excuse: {set: {rainy: null, why: '${ $error.detail }'}}
  - choose:
      switch:
        - wet: {when: .rainy == true, then: warn}
        - dry: {then: end}
  - warn: {set: {take: umbrella}}
";

fn outcomes(tasks: &str, cases: &str) -> Report {
    let definition = definition(tasks);
    let cases = read(cases, &definition.workflow).unwrap_or_else(|problems| panic!("{problems}"));
    run(&definition, &cases)
}

#[test]
fn cases_pass_where_the_run_does_what_they_say() {
    let report = outcomes(
        ASKING,
        "
cases:
  - name: rain
    input: {city: Seattle}
    answers: {ask: {data: {rainy: true}, after: PT2S}}
    expect:
      output: {take: umbrella}
      ran: [look, ask, choose, warn]
      skipped: [excuse]
      calls: {ask: [{parameters: {message: {parts: [{data: {city: Seattle}}]}}}]}
      takes: PT2S
      that: ['.take | startswith(\"umb\")', 'length == 1']
  - name: the second try helps
    answers: {ask: [{error: {type: communication, status: 503}}, {data: {rainy: false}}]}
    expect: {output: {rainy: false}, calls: {/do/0/look/try/0/ask: 2}, takes: PT60S}
  - name: no try helps
    answers: {ask: {error: {type: communication, detail: gone}}}
    expect: {includes: {why: gone}, ran: [ask, ask, excuse]}
  - name: an agent that is silent
    answers: {ask: {silent: true}}
    expect: {error: {type: timeout, status: 408, instance: /do/0/look/try/0/ask}, takes: PT10S}
  - name: cancelled in between
    answers: {ask: {data: {}, after: PT9S}}
    cancel: {after: PT5S}
    expect: {status: cancelled, takes: PT5S}
",
    );
    for outcome in &report.outcomes {
        assert_eq!(outcome.failures, Vec::<String>::new(), "{}", outcome.name);
    }
    assert!(report.passed());
    assert_eq!(report.never_run, Vec::<String>::new());
}

#[test]
fn what_is_not_as_expected_is_told_exactly() {
    let failure = |expect: &str| {
        let cases = format!(
            "cases:\n  - name: rain\n    answers: {{ask: {{data: {{rainy: true}}}}}}\n    expect: {expect}\n"
        );
        let mut report = outcomes(ASKING, &cases);
        assert!(!report.passed(), "{expect}");
        assert_eq!(report.never_run, ["/do/0/look/catch/do/0/excuse"]);
        report.outcomes.remove(0).failures.join("\n")
    };
    for (expect, message) in [
        (
            "{output: {take: coat}}",
            "output: /take: expected \"coat\", but it is \"umbrella\"",
        ),
        (
            "{includes: {give: 1}}",
            "output: /give: expected 1, but it is missing",
        ),
        (
            "{ran: [warn, ask]}",
            "expected 'ask' to run after 'warn'; what ran: /do/0/look, ",
        ),
        ("{skipped: [warn]}", "expected 'warn' not to run"),
        (
            "{calls: {ask: 2}}",
            "expected 'ask' to make 2 calls, but it made 1",
        ),
        (
            "{calls: {ask: [{method: GetTask}]}}",
            "call 1 of 'ask': /method: expected \"GetTask\"",
        ),
        ("{takes: PT1S}", "expected it to take 1 s, but it took 0 ms"),
        (
            "{that: .take == null}",
            "'.take == null' does not hold of the output {\"take\":\"umbrella\"}",
        ),
        (
            "{error: {status: 500}}",
            "expected the run to be faulted, but it is completed with the output",
        ),
        (
            "{status: running}",
            "expected the run to be running, but it is completed",
        ),
    ] {
        let found = failure(expect);
        assert!(found.contains(message), "{expect}: {found}");
    }
}

#[test]
fn a_call_without_an_answer_and_a_run_without_an_end_are_failures() {
    let report = outcomes(ASKING, "cases: [{name: a}]\n");
    let failure = &report.outcomes[0].failures[0];
    assert!(
        failure.starts_with("/do/0/look/try/0/ask makes a call that has no answer"),
        "{failure}"
    );

    let report = outcomes(
        "  - rest: {wait: PT1S}\n  - again: {set: {x: 1}, then: rest}\n",
        "cases: [{name: a}]\n",
    );
    let failure = &report.outcomes[0].failures[0];
    assert!(failure.starts_with("it does not end"), "{failure}");
}

#[test]
fn a_year_passes_at_once() {
    let report = outcomes(
        "  - rest: {wait: P365D}\n  - tell: {set: '${ now | todate }'}\n",
        "cases: [{name: a, start: '2026-03-01T00:00:00Z', expect: {output: '2027-03-01T00:00:00Z', takes: P365D}}]\n",
    );
    assert_eq!(report.outcomes[0].failures, Vec::<String>::new());
}

#[test]
fn people_decide_and_secrets_are_shown() {
    let text = "
document: {dsl: '1.0.1', namespace: test, name: test, version: '1.0.0'}
use: {secrets: [key]}
do:
  - pay:
      call: http
      with: {method: post, endpoint: 'https://bank.test/{account}', headers: {x-key: '${ $secrets.key }'}, body: {sum: '${ .sum }'}}
      metadata: {muster: {approval: {assignees: [ada], title: Pay?}}}
";
    let definition = Arc::new(crate::parse(text).unwrap_or_else(|problems| panic!("{problems}")));
    let cases = "
cases:
  - name: yes
    input: {account: 7, sum: 5}
    secrets: {key: s3cret}
    decisions: {pay: {approve: true, after: PT1H}}
    answers: {pay: {output: {paid: true}}}
    expect:
      output: {paid: true}
      calls: {pay: [{method: POST, headers: {x-key: s3cret}, body: {sum: 5}}]}
      takes: PT1H
  - name: no
    decisions: {pay: {approve: false, comment: too much}}
    expect: {status: faulted, calls: {pay: 0}}
  - name: nobody says anything
    expect: {status: running, calls: {pay: 0}}
";
    let cases = read(cases, &definition.workflow).unwrap_or_else(|problems| panic!("{problems}"));
    for outcome in run(&definition, &cases).outcomes {
        assert_eq!(
            outcome.failures,
            Vec::<String>::new(),
            "{}: {:?}",
            outcome.name,
            outcome.calls
        );
    }
}

#[test]
fn mistakes_in_cases_are_explained() {
    let workflow = definition(ASKING);
    let problems = read(
        "cases:\n  - name: a\n    answers: {aks: {data: 1}, ask: {data: 1, error: {type: x}}}\n    expect: {stauts: completed, that: $x}\n  - expect: {status: complete}\n",
        &workflow.workflow,
    )
    .unwrap_err();
    let text = problems.to_string();
    for words in [
        "3:15: error: the workflow has no task 'aks'; there are 'look', 'ask', 'excuse', 'choose', 'warn' (at",
        "3:36: error: an answer is one of",
        "4:14: error: no such field 'stauts'",
        "no variable '$x' here",
        "5:5: error: the field 'name'",
        "no such status 'complete'; there are 'completed', 'faulted', 'cancelled', 'running'; did you mean 'completed'?",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    let twice = read("cases: [{name: a}, {name: a}]", &workflow.workflow).unwrap_err();
    assert!(twice.to_string().contains("already a case 'a'"), "{twice}");
    assert!(read("cases: []", &workflow.workflow).is_err());
}
