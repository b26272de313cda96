use super::*;
use crate::passage::split;

const SHOP: &str = "# Shop\n\n## Opening hours\n\nThe shop opens at nine and closes at six.\n\n## Delivery times\n\n\
    A parcel arrives after two days.\n\n## Delivery costs\n\nA parcel costs four coins.\n\n## Parcel is missing\n\n\
    When a parcel does not arrive:\n\n1. Ask your neighbours.\n2. Write to us.\n";

fn desk() -> Desk {
    let teams = Teams {
        by_document: [("shop".to_owned(), "clerks".to_owned())].into(),
        otherwise: "all".to_owned(),
    };
    Desk::new(Library::new(split("shop.md", SHOP)).unwrap(), teams)
}

fn inquiry(question: &str) -> Inquiry {
    Inquiry {
        wish: Wish::Answer,
        question: question.to_owned(),
        earlier: Vec::new(),
        asked: 0,
        customer: Some("Ada".to_owned()),
        attempts: 0,
        complexity: None,
        elapsed_minutes: None,
    }
}

fn done(inquiry: &Inquiry) -> Value {
    match desk().handle(inquiry).unwrap() {
        Outcome::Done(data, _) => data,
        Outcome::Question(data, question) => panic!("{question} {data}"),
    }
}

fn asked(inquiry: &Inquiry) -> (Value, String) {
    match desk().handle(inquiry).unwrap() {
        Outcome::Question(data, question) => (data, question),
        Outcome::Done(data, _) => panic!("{data}"),
    }
}

#[test]
fn a_clear_question_is_answered_with_the_passage_quoted() {
    let data = done(&inquiry("When does the shop open in the opening hours?"));
    assert_eq!(data["status"], "answered");
    assert_eq!(
        data["source"]["quote"],
        "The shop opens at nine and closes at six."
    );
    assert_eq!(
        (&data["source"]["file"], &data["source"]["heading"]),
        (&json!("shop.md"), &json!("Shop > Opening hours"))
    );
    assert!(data["confidence"].as_f64().unwrap() >= ANSWER_FROM);
    assert_eq!(data["customer"], "Ada");
}

#[test]
fn a_vague_question_is_asked_back_and_the_reply_settles_it() {
    let (data, question) = asked(&inquiry("delivery"));
    assert!(question.contains("1. Delivery"), "{question}");
    assert_eq!(data["candidates"].as_array().unwrap().len(), 2);
    let reply = |text: &str| Inquiry {
        earlier: vec!["delivery".to_owned()],
        asked: 1,
        ..inquiry(text)
    };
    let topic = data["candidates"][1]["topic"].clone();
    assert_eq!(done(&reply("2"))["source"]["topic"], topic);
    assert_eq!(done(&reply(topic.as_str().unwrap()))["source"]["topic"], topic);
    assert_eq!(
        done(&reply("what does a parcel cost, how many coins"))["source"]["topic"],
        "Delivery costs"
    );
}

#[test]
fn an_unknown_topic_is_asked_back_with_what_there_is() {
    let (data, question) = asked(&inquiry("quantum chromodynamics"));
    assert!(question.contains("Shop"), "{question}");
    assert_eq!(data["confidence"], 0.0);
}

#[test]
fn a_known_issue_is_resolved_by_its_steps() {
    let data = done(&Inquiry {
        wish: Wish::Steps,
        ..inquiry("My parcel is missing, it did not arrive")
    });
    assert_eq!(
        (&data["status"], &data["issue"]),
        (&json!("resolved"), &json!("Parcel is missing"))
    );
    assert_eq!(data["steps"], json!(["Ask your neighbours.", "Write to us."]));
    let (_, question) = asked(&Inquiry {
        wish: Wish::Steps,
        ..inquiry("opening hours")
    });
    assert!(question.contains("no known issue"), "{question}");
}

#[test]
fn the_third_question_back_leads_to_a_person() {
    let earlier = vec!["delivery".to_owned(), "parcel".to_owned(), "hm".to_owned()];
    let data = done(&Inquiry {
        earlier,
        asked: 3,
        ..inquiry("still no")
    });
    assert_eq!(
        (&data["status"], &data["escalation"]["reasons"]),
        (&json!("escalated"), &json!(["attempts"]))
    );
    assert_eq!(data["escalation"]["suggested_team"], "clerks");
}

#[test]
fn the_rules_of_escalation_come_before_an_answer() {
    let data = done(&Inquiry {
        complexity: Some(9),
        ..inquiry("When does the shop open in the opening hours?")
    });
    assert_eq!(data["escalation"]["priority"], "urgent");
    let data = done(&Inquiry {
        wish: Wish::Person,
        ..inquiry("opening hours")
    });
    assert_eq!(data["escalation"]["reasons"], json!(["requested"]));
}
