//! Lists as people write them, and what is refused with its line.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Outline {
    parse("text", text).unwrap()
}

fn waits(outline: &Outline, id: &str) -> Vec<String> {
    let task = outline.request.tasks.iter().find(|task| task.id == id);
    task.unwrap_or_else(|| panic!("no task {id}")).depends_on.clone()
}

#[test]
fn the_example_of_the_documentation_reads_as_it_says() {
    let outline = read(
        "Roof repair from 2014-03-03\n\
         avoid 2014-03-05, 2014-03-06\n\
         working days only\n\
         resources: crew=2\n\
         - Preparation\n\
         \x20 - Survey (1d)\n\
         \x20 - Order material (4h) after Survey\n\
         - Shingles (3d, weather, @crew) after Preparation\n\
         1. Paint (1d)\n\
         2. Clean up (2h)\n",
    );
    let request = &outline.request;
    assert_eq!(request.name.as_deref(), Some("Roof repair"));
    assert_eq!(request.start_date.as_deref(), Some("2014-03-03"));
    assert_eq!(request.avoid_dates, ["2014-03-05", "2014-03-06"]);
    assert!(request.working_days_only);
    assert_eq!(request.resources["crew"], 2);
    let ids: Vec<&str> = request.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["survey", "order-material", "shingles", "paint", "clean-up"]);
    assert_eq!(waits(&outline, "order-material"), ["survey"]);
    assert_eq!(
        waits(&outline, "shingles"),
        ["order-material"],
        "the group's last task"
    );
    assert!(request.tasks[2].weather_sensitive);
    assert_eq!(waits(&outline, "paint"), [""; 0]);
    assert_eq!(waits(&outline, "clean-up"), ["paint"]);
    assert_eq!(outline.groups[0].tasks, ["survey", "order-material"]);
    assert!(request.plan(None).is_ok());
}

#[test]
fn one_line_is_enough() {
    let outline = read(
        "Roof repair from 2014-03-03: survey 1d; order 4h after survey; roof 3d weather after order, survey; avoid 2014-03-05",
    );
    assert_eq!(outline.request.name.as_deref(), Some("Roof repair"));
    assert_eq!(outline.request.start_date.as_deref(), Some("2014-03-03"));
    assert_eq!(outline.request.avoid_dates, ["2014-03-05"]);
    assert_eq!(waits(&outline, "roof"), ["survey", "order"]);
    assert_eq!(outline.request.tasks[1].duration_hours, Some(4.0));
}

#[test]
fn a_group_that_waits_makes_its_first_tasks_wait() {
    let outline =
        read("- A (1d)\n- Group after A\n  1. B (1d)\n  2. C (1d)\n  - D (1d)\n- E (1d) after Group\n");
    assert_eq!(waits(&outline, "b"), ["a"]);
    assert_eq!(waits(&outline, "c"), ["b"]);
    assert_eq!(waits(&outline, "d"), ["a"]);
    assert_eq!(waits(&outline, "e"), ["c", "d"]);
}

#[test]
fn names_may_have_parentheses_and_ids_may_be_given() {
    let outline = read(
        "- s1: Order (from Bob) (2 days)\n- Clean up after the party (1h) after s1\n- Order (1d)\n- Order (1d)\n",
    );
    assert_eq!(outline.request.tasks[0].name.as_deref(), Some("Order (from Bob)"));
    assert_eq!(outline.request.tasks[0].duration_days, Some(2.0));
    assert_eq!(waits(&outline, "clean-up-after-the-party"), ["s1"]);
    assert_eq!(outline.request.tasks[3].id, "order-2");
}

#[test]
fn a_goal_without_durations_is_still_a_list() {
    let outline = read("Goal: Move house\n* Pack\n\t* Books\n\t* Kitchen after Books\n* Drive after Pack\n");
    assert_eq!(outline.request.name.as_deref(), Some("Move house"));
    assert_eq!(outline.request.tasks.len(), 3);
    assert_eq!(waits(&outline, "drive"), ["kitchen"]);
    assert_eq!(waits(&outline, "kitchen"), ["books"]);
}

#[test]
fn mistakes_name_their_line() {
    for (text, line, hint) in [
        ("", "names no task", ""),
        ("Title only\n", "names no task", ""),
        ("- A (1d)\n- B (1d) after C\n", "line 2", "no line has that name"),
        (
            "- Survey (1d)\n- B (1d) after Survy\n",
            "line 2",
            "did you mean 'Survey'",
        ),
        ("- A (1d, wether)\n", "line 1", "'wether' is not understood"),
        ("- A (1d\n", "line 1", "not closed"),
        ("- A (1d) before B\n", "line 1", "'before B' is not understood"),
        ("- A (3d)\n  - B (1d)\n", "line 1", "has parts"),
        ("- a: X (1d)\n- a: Y (1d)\n", "line 2", "given twice"),
        ("- !!! (1d)\n", "line 1", "no letter or digit"),
        ("buffer lots\n- A (1d)\n", "line 1", "no number"),
    ] {
        let error = parse("text", text).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(hint), "{text:?}: {error}");
    }
}

#[test]
fn what_would_multiply_is_bounded() {
    let deep: String = (0..30)
        .map(|depth| format!("{}- x\n", " ".repeat(depth)))
        .collect();
    assert!(
        parse("text", &deep)
            .unwrap_err()
            .message
            .contains("nested deeper")
    );
    let long = "- x (1d)\n".repeat(MAX_ENTRIES + 1);
    assert!(
        parse("text", &long)
            .unwrap_err()
            .message
            .contains("more than 1000 entries")
    );
    let children = " - x (1d)\n".repeat(400);
    let wide = format!("- A\n{children}- B after A\n{children}");
    assert!(
        parse("text", &wide)
            .unwrap_err()
            .message
            .contains("wait for single tasks")
    );
}

#[test]
fn a_circle_is_refused_by_the_plan() {
    let mut request = read("- A (1d) after B\n- B (1d) after A\n").request;
    request.start_date = Some("2014-03-03".to_owned());
    assert!(request.plan(None).unwrap_err().message.contains("a → b → a"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "([ \t]{0,4}[-*1-9.)]{0,2} ?[A-Za-z0-9 ():;,@=%#é]{0,30}( after [a-c, ]{0,6})?\n){0,8}") {
        if let Ok(outline) = parse("text", &text) {
            let _ = outline.request.plan(None);
        }
    }
}
