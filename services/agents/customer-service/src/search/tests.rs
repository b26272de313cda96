use super::*;
use crate::knowledge;
use crate::passage::split;
use proptest::prelude::*;

fn library(markdown: &str) -> Library {
    Library::new(split("test.md", markdown)).unwrap()
}

const ZOO: &str = "# Zoo\n\n## Feeding the penguins\n\nPenguins eat herring at noon.\n\n## Tickets\n\nA ticket costs \
    five coins; children pay nothing.\n\n## Feeding the bears\n\nBears eat honey in the morning.\n";

#[test]
fn the_passage_that_fits_is_first_and_sure() {
    let library = library(ZOO);
    let finding = library
        .search("Hello, when do the penguins eat their herring?", |_| true)
        .unwrap();
    assert_eq!(finding.hits[0].passage.topic(), "Feeding the penguins");
    assert!(finding.confidence >= 0.8, "{}", finding.confidence);
    let finding = library
        .search("How much do children pay for tickets?", |_| true)
        .unwrap();
    assert_eq!(finding.hits[0].passage.topic(), "Tickets");
    assert!(finding.confidence >= 0.8, "{}", finding.confidence);
}

#[test]
fn vague_and_foreign_questions_are_unsure() {
    let library = library(ZOO);
    for question in [
        "feeding",
        "How do I bake bread with honey and rye?",
        "zoo",
        "",
        "please help me",
        "?!",
    ] {
        let confidence = library.search(question, |_| true).unwrap().confidence;
        assert!(confidence < 0.8, "{question}: {confidence}");
    }
}

#[test]
fn only_accepted_passages_are_found() {
    let library = library(ZOO);
    let finding = library
        .search("penguins", |passage| passage.topic() == "Tickets")
        .unwrap();
    assert_eq!((finding.hits.len(), finding.confidence), (0, 0.0));
}

#[test]
fn no_question_is_a_query_language() {
    let library = library(ZOO);
    for question in [
        "text:\"penguins",
        "((((",
        "+a -b AND OR NOT *",
        "heading:[a TO z]",
        &"x ".repeat(10_000),
    ] {
        library.search(question, |_| true).unwrap();
    }
}

proptest! {
    #[test]
    fn confidence_is_a_share_and_grows_with_what_it_is_made_of(
        coverage in 0.0..=1.0f64, information in 0.0..30.0f64, best in 0.0..40.0f32, rival in 0.0..=1.0f32,
    ) {
        let rival = best * rival;
        let value = confidence(coverage, information, best, rival);
        prop_assert!((0.0..=1.0).contains(&value));
        prop_assert!(value <= coverage + 1e-12);
        prop_assert!(confidence(coverage, information + 1.0, best, rival) >= value);
        prop_assert!(confidence(coverage, information, best, rival * 0.5) >= value);
    }

    #[test]
    fn any_question_has_an_answer_or_none(question in "(?s).{0,120}") {
        let library = library(ZOO);
        let finding = library.search(&question, |_| true).unwrap();
        prop_assert!((0.0..=1.0).contains(&finding.confidence));
        prop_assert!(finding.hits.iter().all(|hit| (0.0..=1.0 + 1e-9).contains(&hit.coverage)));
    }
}

/// What people ask, and the passage that answers it: answered right or asked back, never answered wrong, and
/// mostly answered.
#[test]
fn questions_about_muster_are_answered_from_the_right_document() {
    let library = Library::new(knowledge::built_in()).unwrap();
    let questions = [
        (
            "How do I start all services with one command?",
            "getting-started.md",
        ),
        (
            "How can I send a message to an agent by skill?",
            "getting-started.md",
        ),
        ("Which ports do the services use?", "configuration.md"),
        (
            "What happens to a run when the engine is killed?",
            "durability.md",
        ),
        ("How does the router choose an instance?", "routing.md"),
        ("How is a lease renewed by heartbeats?", "agents.md"),
        ("Which workflow tasks are supported?", "workflows.md"),
        ("How do I retry a failed call in a workflow?", "workflows.md"),
        ("Is TLS supported?", "security.md"),
        (
            "Which environment variables set the configuration?",
            "configuration.md",
        ),
        ("The port is already in use", "troubleshooting.md"),
        (
            "What does confidence below 0.8 mean for customer service?",
            "agents.md",
        ),
    ];
    let mut answered = 0;
    for (question, file) in questions {
        let finding = library.search(question, |_| true).unwrap();
        let best = &finding.hits[0];
        if finding.confidence >= 0.8 {
            assert_eq!(best.passage.file, file, "{question}");
            answered += 1;
        }
    }
    assert!(
        answered + 2 >= questions.len(),
        "only {answered} of {} were answered",
        questions.len()
    );
    for question in [
        "How do I cook pasta?",
        "What is the weather in Oslo tomorrow?",
        "agents",
        "Can I pay by card?",
    ] {
        let finding = library.search(question, |_| true).unwrap();
        assert!(finding.confidence < 0.8, "{question}: {}", finding.confidence);
    }
}
