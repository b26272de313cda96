//! Hostile documents are refused before they cost anything.

use super::*;
use crate::node::{DEEPEST, MOST_BYTES, MOST_NODES};

#[test]
fn a_huge_document_is_refused_by_its_size() {
    let text = "a: b\n".repeat(2 * MOST_BYTES);
    refuses(&text, "1:1 ", &["at most 1048576 are allowed"]);
}

#[test]
fn deep_nesting_is_refused_in_both_forms() {
    for open in ["[", "{a: ", "- "] {
        let complaints = complaints(&open.repeat(200_000));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].1.contains("deeper than 64"), "{complaints:?}");
    }
    let deepest = format!("a: {}{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
    refuses(
        &deepest,
        &format!("1:{} /a{}", DEEPEST + 3, "/0".repeat(DEEPEST - 1)),
        &["deeper than 64"],
    );
    let indented: String = (0..500)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    assert!(complaints(&indented)[0].1.contains("deeper than 64"));
}

#[test]
fn alias_bombs_do_not_explode() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let complaints = complaints(&bomb);
    assert_eq!(complaints.len(), 1);
    assert!(complaints[0].1.contains("expand to too much"), "{complaints:?}");
    // Long text is as good a bomb as many values.
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(500_000),
        vec!["*a"; 100].join(", ")
    );
    assert!(super::complaints(&long)[0].1.contains("expand to too much"));
}

#[test]
fn aliases_count_towards_the_depth() {
    let mut tower = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        tower.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(complaints(&tower)[0].1.contains("nests deeper than 64"));
}

#[test]
fn an_anchor_cannot_contain_itself() {
    assert!(complaints("a: &a [*a]\n")[0].1.contains("not complete"));
}

#[test]
fn many_values_are_refused() {
    let text = format!("a: [{}]\n", "1,".repeat(MOST_NODES + 1));
    assert!(complaints(&text)[0].1.contains("more than 50000 values"));
}

#[test]
fn many_mistakes_make_a_short_report() {
    let text: String = (0..20_000).map(|index| format!("field{index}: 1\n")).collect();
    let problems = check(&text);
    assert_eq!(problems.as_slice().len(), 100);
    assert!(problems.omitted() > 19_000);
}

#[test]
fn many_expressions_are_refused() {
    let tasks: String = (0..2100)
        .map(|index| format!("  - t{index}: {{set: {{x: '${{ . }}'}}}}\n"))
        .collect();
    refuses(
        &with_tasks(&tasks),
        "2003:22 /do/2000/t2000/set/x",
        &["more than 2000 expressions"],
    );
}
