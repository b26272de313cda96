//! What is legal and probably not meant.

use super::*;

/// One warning, at this pointer and with these words, and a document that is accepted all the same.
#[track_caller]
fn doubts(tasks: &str, pointer: &str, words: &[&str]) {
    let text = if tasks.starts_with("  -") {
        with_tasks(tasks)
    } else {
        tasks.to_owned()
    };
    let found = complaints(&text);
    let [(place, message)] = found.as_slice() else {
        panic!("expected one warning at {pointer}, found {found:#?}\nin\n{text}");
    };
    assert!(
        place.starts_with("warning ") && place.ends_with(&format!(" {pointer}")),
        "{place}: {message}"
    );
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    let definition = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(definition.warnings.as_slice().len(), 1);
}

/// Nothing to say.
#[track_caller]
fn is_fine(text: &str) {
    let text = if text.starts_with("  -") {
        with_tasks(text)
    } else {
        text.to_owned()
    };
    assert_eq!(complaints(&text), [], "{text}");
}

#[test]
fn conditions_that_do_not_depend_on_data() {
    doubts(
        "  - a: {if: .color = \"red\", set: {x: 1}}\n",
        "/do/0/a/if",
        &["assigns", "'=='"],
    );
    doubts(
        "  - a: {if: 'false', set: {x: 1}}\n",
        "/do/0/a/if",
        &["'false' is always false"],
    );
    doubts(
        "  - a: {switch: [{b: {when: '\"red\"', then: exit}}]}\n",
        "/do/0/a/switch/0/b/when",
        &["always true"],
    );
    doubts(
        "  - a: {for: {in: .x}, while: 1 < 2, do: [{b: {set: '${ $item }'}}]}\n",
        "/do/0/a/while",
        &["'1 < 2' is always true"],
    );
    doubts(
        "  - a: {try: [{b: {set: {x: 1}}}], catch: {when: .status |= 500}}\n",
        "/do/0/a/catch/when",
        &["assigns"],
    );
    is_fine("  - a: {if: '.color == \"red\" and (.n // 0) < 3', set: {x: 1}}\n");
    is_fine("  - a: {if: '(.x = 1) | .y', set: {x: 1}}\n");
}

#[test]
fn cases_that_are_never_taken() {
    doubts(
        "  - a: {switch: [{b: {when: .x, then: exit}}, {c: {when: .y, then: end}}, {d: {when: .x, then: end}}]}\n",
        "/do/0/a/switch/2/d",
        &["never taken", "'b' stands before it"],
    );
    doubts(
        "  - a: {switch: [{b: {when: .x, then: exit}}, {c: {then: exit}}], then: end}\n",
        "/do/0/a/then",
        &["never followed", "without 'when'"],
    );
    is_fine("  - a: {switch: [{b: {when: .x, then: exit}}], then: end}\n");
}

#[test]
fn tasks_behind_one_that_never_ends_well() {
    let raise = "{raise: {error: {type: about:blank, status: 500}}}";
    doubts(
        &format!("  - a: {raise}\n  - b: {{set: {{x: 1}}}}\n"),
        "/do/1/b",
        &["no flow reaches"],
    );
    doubts(
        &format!("  - a: {{do: [{{c: {raise}}}]}}\n  - b: {{set: {{x: 1}}}}\n"),
        "/do/1/b",
        &["no flow reaches"],
    );
    doubts(
        "  - a: {do: [{c: {wait: PT1S, then: end}}]}\n  - b: {set: {x: 1}}\n",
        "/do/1/b",
        &["no flow reaches"],
    );
    doubts(
        &format!(
            "  - a: {{fork: {{branches: [{{c: {raise}}}, {{d: {{wait: PT1S}}}}]}}}}\n  - b: {{set: {{x: 1}}}}\n"
        ),
        "/do/1/b",
        &["no flow reaches"],
    );
    is_fine(&format!(
        "  - a: {{if: .x, {}\n  - b: {{set: {{x: 1}}}}\n",
        raise.trim_start_matches('{')
    ));
    is_fine(&format!(
        "  - a: {{try: [{{c: {raise}}}], catch: {{errors: {{with: {{status: 500}}}}}}}}\n  - b: {{set: {{x: 1}}}}\n"
    ));
    is_fine(&format!(
        "  - a: {{fork: {{compete: true, branches: [{{c: {raise}}}, {{d: {{wait: PT1S}}}}]}}}}\n  - b: {{set: {{x: 1}}}}\n"
    ));
}

#[test]
fn circles_without_a_way_out() {
    doubts(
        "  - a: {wait: PT1S}\n  - b: {set: '${ . }', then: a}\n",
        "/do/0/a",
        &["round for ever"],
    );
    doubts(
        "  - s: {wait: PT1S}\n  - a: {switch: [{x: {when: .x, then: b}}, {y: {then: c}}]}\n  - b: {wait: PT1S, then: a}\n  - c: {wait: PT2S, then: b}\n",
        "/do/0/s",
        &["round for ever"],
    );
    is_fine("  - a: {wait: PT1S}\n  - b: {switch: [{again: {when: .x, then: a}}]}\n");
    is_fine(
        "  - a: {wait: PT1S}\n  - b: {switch: [{again: {when: .x, then: a}}, {out: {then: c}}]}\n  - c: {raise: {error: {type: about:blank, status: 500}}}\n",
    );
}

#[test]
fn fields_of_the_context_that_nobody_exports() {
    let export = "  - b: {set: '${ . }', export: {as: {total: '${ . }'}}}\n";
    doubts(
        &format!("{export}  - a: {{set: {{x: '${{ $context.totl }}'}}}}\n"),
        "/do/1/a/set/x",
        &["has no field 'totl' here", "did you mean 'total'"],
    );
    doubts(
        &format!("{export}  - a: {{do: [{{c: {{if: $context.x, wait: PT1S}}}}]}}\n"),
        "/do/1/a/do/0/c/if",
        &["has no field 'x' here", "'total'"],
    );
    // Before anything is exported the context is the workflow's input.
    is_fine("  - a: {set: {x: '${ $context.x }'}}\n");
    is_fine(&format!("  - a: {{set: {{x: '${{ $context.x }}'}}}}\n{export}"));
    let late = "  - a: {set: {x: '${ $context.x }'}}\n";
    is_fine(&format!("{}{late}", export.replace("{set", "{if: .y, set")));
    is_fine(&format!(
        "  - s: {{switch: [{{c: {{when: .y, then: a}}}}]}}\n{export}{late}"
    ));
    is_fine(&format!(
        "  - d: {{do: [{}]}}\n{late}",
        export.trim().trim_start_matches("- ").replacen("b: ", "{b: ", 1) + "}"
    ));
    for fine in [
        "  - b: {set: '${ . }', export: {as: {total: '${ . }'}}}\n  - a: {set: {x: '${ $context.total }'}}\n",
        "  - a: {set: {x: '${ $context.x // 0 }'}}\n",
        "  - a: {set: {x: '${ $context.x? }'}}\n",
        "  - a: {if: $context == null, set: {x: 1}}\n",
        "  - a: {set: '${ . }', export: {as: '$context + {x: 1}'}}\n",
        "  - a: {do: [{b: {set: '${ . }', export: {as: .}}}], output: {as: $context.x}}\n",
        "  - a: {for: {in: .x}, do: [{b: {set: '${ [$context, $item] }', export: {as: .}}}]}\n",
        "  - a: {fork: {branches: [{b: {set: '${ $context.x }'}}, {c: {set: '${ . }', export: {as: .}}}]}}\n",
        "  - a: {set: '${ $context.x }'}\n  - b: {switch: [{again: {when: .x, then: a}}], export: {as: .}}\n",
        "  - a: {try: [{b: {set: '${ . }', export: {as: .}}}], catch: {do: [{c: {set: '${ $context.x }'}}]}}\n",
    ] {
        is_fine(fine);
    }
}

#[test]
fn retries_that_cannot_help() {
    let document = |filter: &str, retry: &str| {
        format!(
            "  - a: {{try: [{{b: {{wait: PT1S}}}}], catch: {{errors: {{with: {{{filter}}}}}, retry: {retry}}}}}\n"
        )
    };
    let standard = "type: 'https://serverlessworkflow.io/spec/1.0.0/errors/";
    let policy = "{delay: PT1S, limit: {attempt: {count: 3}}}";
    for (filter, words) in [
        (format!("{standard}validation'"), "type 'validation'"),
        (format!("{standard}expression', status: 400"), "type 'expression'"),
        ("status: 403".to_owned(), "status 403"),
    ] {
        let text = document(&filter, policy);
        doubts(&text, "/do/0/a/catch/retry", &[words, "comes again"]);
    }
    for filter in [
        format!("{standard}communication'"),
        "status: 404".to_owned(),
        "status: 503".to_owned(),
    ] {
        is_fine(&document(&filter, policy));
    }
    let text = document(
        "status: 503",
        "{backoff: {exponential: {}}, limit: {attempt: {count: 3}}}",
    );
    doubts(&text, "/do/0/a/catch/retry/backoff", &["without a 'delay'"]);
    let text = document("status: 503", "{delay: PT1H, limit: {duration: PT1M}}");
    doubts(
        &text,
        "/do/0/a/catch/retry",
        &["nothing is ever tried again", "1 h", "1 min"],
    );
    let text = document("status: 503", "{delay: {days: 40}, limit: {attempt: {count: 3}}}");
    doubts(
        &text,
        "/do/0/a/catch/retry/delay",
        &["at most 30 d", "40 d is cut"],
    );
    let text = document("status: 503", "{delay: PT1S, limit: {duration: {days: 1}}}");
    doubts(
        &text,
        "/do/0/a/catch/retry",
        &["10,000 retries end before", "1 d", "10000 s"],
    );
    is_fine(&document(
        "status: 503",
        "{delay: PT1S, limit: {duration: PT10000S}}",
    ));
}

#[test]
fn errors_that_no_one_knows() {
    doubts(
        "  - a: {try: [{b: {wait: PT1S}}], catch: {errors: {with: {type: 'https://serverlessworkflow.io/spec/1.0.0/errors/comunication'}}}}\n",
        "/do/0/a/catch/errors/with/type",
        &["no error 'comunication'", "did you mean 'communication'"],
    );
    doubts(
        "  - a: {raise: {error: {type: 'https://serverlessworkflow.io/spec/1.0.0/errors/timout', status: 408}}}\n",
        "/do/0/a/raise/error/type",
        &["did you mean 'timeout'"],
    );
    doubts(
        "  - a: {try: [{b: {wait: PT1S}}], catch: {errors: {with: {instance: /do/0/b}}}}\n",
        "/do/0/a/catch/errors/with/instance",
        &["no task of this 'try' is at '/do/0/b'", "/do/0/a/try/0/b"],
    );
    is_fine("  - a: {try: [{b: {wait: PT1S}}], catch: {errors: {with: {instance: /do/0/a/try/0/b}}}}\n");
    doubts(
        "  - a: {try: [{b: {wait: PT1S}}], catch: {}}\n",
        "/do/0/a/catch",
        &["does nothing about it"],
    );
}

#[test]
fn time_that_never_comes() {
    doubts(
        "  - a: {wait: PT2H, timeout: {after: PT1M}}\n",
        "/do/0/a/wait",
        &["pause of 2 h never ends", "/do/0/a is 1 min"],
    );
    doubts(
        "  - a: {timeout: {after: PT1M}, do: [{b: {wait: PT1S, timeout: {after: PT5M}}}]}\n",
        "/do/0/a/do/0/b/timeout",
        &["timeout of 5 min never comes", "/do/0/a is 1 min"],
    );
    doubts(
        &format!(
            "timeout: {{after: PT1M}}\n{}",
            with_tasks("  - a: {wait: PT61S}\n")
        ),
        "/do/0/a/wait",
        &["the timeout of the workflow is 1 min"],
    );
    is_fine("  - a: {timeout: {after: PT5M}, do: [{b: {wait: PT1S, timeout: {after: PT1M}}}]}\n");
}

#[test]
fn definitions_that_nothing_uses() {
    for (section, place) in [
        ("use: {timeouts: {short: {after: PT1S}}}", "/use/timeouts/short"),
        (
            "use: {errors: {odd: {type: about:blank, status: 500}}}",
            "/use/errors/odd",
        ),
        (
            "use: {retries: {often: {limit: {attempt: {count: 3}}}}}",
            "/use/retries/often",
        ),
        (
            "use: {authentications: {who: {bearer: {token: '${ .t }'}}}}",
            "/use/authentications/who",
        ),
    ] {
        let text = format!("{section}\n{}", with_tasks("  - a: {set: {x: 1}}\n"));
        doubts(&text, place, &["nothing in this document uses"]);
    }
    let text = format!(
        "use: {{secrets: [key]}}\n{}",
        with_tasks("  - a: {set: {x: 1}}\n")
    );
    doubts(
        &text,
        "/use/secrets/0",
        &["nothing in this document uses this secret"],
    );
    let text = format!(
        "use: {{functions: {{f: {{set: {{x: 1}}}}}}}}\n{}",
        with_tasks("  - a: {set: {x: 1}}\n")
    );
    doubts(&text, "/use/functions/f", &["nothing in this document calls"]);
    let text = format!(
        "use: {{extensions: [{{log: {{extend: try, before: [{{a: {{set: {{x: 1}}}}}}]}}}}]}}\n{}",
        with_tasks("  - a: {set: {x: 1}}\n")
    );
    doubts(&text, "/use/extensions/0/log", &["no task of the kind 'try'"]);
}

#[test]
fn text_that_was_meant_to_be_evaluated_and_values_that_are_lost() {
    doubts(
        "  - a: {set: {customer: .customer.name}}\n",
        "/do/0/a/set/customer",
        &["stays as it is", "${ .customer.name }"],
    );
    doubts(
        "  - a: {for: {each: pet, in: .pets}, do: [{b: {set: {id: $pet.id}}}]}\n",
        "/do/0/a/do/0/b/set/id",
        &["${ $pet.id }"],
    );
    is_fine("  - a: {set: {price: $5, file: ./x.txt, rest: ..., dot: ., other: $nobody}}\n");
    doubts(
        "  - a: {set: {x: 1}}\n  - b: {set: {y: 1}}\n",
        "/do/0/a",
        &["output of this 'set' is lost", "'b' replaces it"],
    );
    is_fine("  - a: {set: {x: 1}}\n  - b: {set: {y: '${ .x }'}}\n");
    is_fine("  - a: {set: {x: 1}, export: {as: .}}\n  - b: {set: {y: 1}}\n");
}

#[test]
fn doubts_stand_beside_errors() {
    let found = complaints(&with_tasks(
        "  - a: {if: 'true', set: {x: 1}}\n  - b: {set: {x: '${ nope }'}}\n",
    ));
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["warning 3:13 /do/0/a/if", "4:18 /do/1/b/set/x"]);
}

#[test]
fn filters_of_errors_that_name_nothing() {
    let tasks = |errors: &str| {
        format!(
            "  - a: {{try: [{{b: {{wait: PT1S}}}}], catch: {{errors: {errors}, do: [{{c: {{set: {{x: 1}}}}}}]}}}}\n"
        )
    };
    is_fine(&tasks("{}"));
    doubts(
        &tasks("{with: {}}"),
        "/do/0/a/catch/errors/with",
        &["every error fits", "leave 'errors' away"],
    );
}

#[test]
fn braces_in_the_type_of_a_filter_and_arguments_that_are_text() {
    doubts(
        "  - a: {try: [{b: {wait: PT1S}}], catch: {errors: {with: {type: 'https://e.com/{x}'}}}}\n",
        "/do/0/a/catch/errors/with/type",
        &["compares the type as it stands", "'when' of the catch"],
    );
    let header = "document: {dsl: '1.0.1', namespace: default, name: sample, version: '1.0.0'}";
    doubts(
        &format!(
            "{header}\nuse: {{functions: {{f: {{set: {{x: 1}}}}}}}}\ndo: [{{a: {{call: f, with: zzz}}}}]\n"
        ),
        "/do/0/a/with",
        &["an object", "the text 'zzz'"],
    );
    doubts(
        &format!(
            "{header}\nuse: {{catalogs: {{c: {{endpoint: 'https://a.b'}}}}}}\ndo: [{{a: {{set: {{x: 1}}}}}}]\n"
        ),
        "/use/catalogs/c",
        &["nothing in this document uses this definition"],
    );
}
