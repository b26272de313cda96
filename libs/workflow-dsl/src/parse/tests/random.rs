//! Whatever the text is, an answer comes back.

use proptest::prelude::*;

use super::*;

/// Every place that is reported is one of the text.
fn is_sound(text: &str) -> Result<(), TestCaseError> {
    let problems = check(text);
    prop_assert_eq!(parse(text).is_err(), problems.has_errors());
    // In YAML a carriage return alone ends a line too.
    let lines = u32::try_from(text.split(['\n', '\r']).count()).expect("a short text");
    for problem in &problems {
        prop_assert!(
            problem.line >= 1 && problem.line <= lines + 1,
            "{} of {lines} lines",
            problem.line
        );
        prop_assert!(problem.column >= 1);
        prop_assert!(problem.pointer.is_empty() || problem.pointer.starts_with('/'));
    }
    prop_assert!(
        problems
            .as_slice()
            .is_sorted_by_key(|problem| (problem.line, problem.column))
    );
    Ok(())
}

/// A right document in which some stretch is replaced.
fn mutated() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        Just(String::new()),
        ".{0,4}",
        "[\\[\\]{}:,\"'|>&*!%@`\\n\\t -]{1,4}",
        prop::sample::select(vec!["do", "then: x", "${", "}", "&a", "*a", "null", "- ", ": "])
            .prop_map(str::to_owned),
    ];
    (any::<prop::sample::Index>(), 0..40_usize, words).prop_map(|(at, length, word)| {
        let mut characters: Vec<char> = WHOLE.chars().collect();
        let start = at.index(characters.len());
        let end = (start + length).min(characters.len());
        characters.splice(start..end, word.chars());
        characters.into_iter().collect()
    })
}

/// A right document of which some lines are missing, doubled or swapped.
fn reordered() -> impl Strategy<Value = String> {
    let edits = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            0..3_u8,
        ),
        1..4,
    );
    edits.prop_map(|edits| {
        let mut lines: Vec<&str> = WHOLE.lines().collect();
        for (from, to, edit) in edits {
            let (from, to) = (from.index(lines.len()), to.index(lines.len()));
            match edit {
                0 => {
                    lines.remove(from);
                }
                1 => lines.insert(to, lines[from]),
                _ => lines.swap(from, to),
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text(text in any::<String>()) {
        is_sound(&text)?;
    }

    #[test]
    fn any_yaml_like_text(text in "([a-d\\- :\\[\\]{},\"'&*|>#!?\\n\\t0-9.~]|\\$\\{|do|set){0,80}") {
        is_sound(&text)?;
    }

    #[test]
    fn a_right_document_with_one_wrong_stretch(text in mutated()) {
        is_sound(&text)?;
    }

    #[test]
    fn a_right_document_with_lines_moved(text in reordered()) {
        is_sound(&text)?;
    }

    #[test]
    fn any_json_value_is_read_as_itself(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("JSON");
        let mut problems = Problems::default();
        let node = node::read(&text, "", &mut problems);
        prop_assert_eq!(node.map(|node| node.to_value()), Some(value), "{}\n{}", problems, text);
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<u64>().prop_map(serde_json::Value::from),
        any::<f32>().prop_map(|number| serde_json::Value::from(f64::from(number))),
        ".{0,12}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-z/~ \"\\\\]{1,6}", inner, 0..5)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}
