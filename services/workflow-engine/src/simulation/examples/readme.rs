//! The documents that the README shows, and what becomes of each.
//!
//! They are the blocks that are marked `<!-- example: NAME.yaml -->` and hold a document. What the README has them do on a real
//! system, `tests/tests/readme.rs` does.

use serde_json::{Value, json};

use super::Example;
use super::fates::Fate::{self, Completes, Faults, Hears, Refused, Starts, Triggers};

/// All of them. Where two have one file name, the second one is told apart by its number.
pub(crate) fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut fates = fates();
    for (file, document) in documents() {
        let same = examples
            .iter()
            .filter(|example| example.name.starts_with(&format!("README {file}")));
        let name = match same.count() {
            0 => file,
            before => format!("{file} ({})", before + 1),
        };
        let place = fates.iter().position(|(known, _)| *known == name);
        let place = place.unwrap_or_else(|| panic!("say what becomes of {name} of the README"));
        let catalogue = match name.as_str() {
            "order.yaml (2)" => {
                let pack = examples.iter().find(|example| example.name == "README pack.yaml");
                vec![pack.unwrap().document.clone()]
            }
            _ => Vec::new(),
        };
        examples.push(Example {
            name: format!("README {name}"),
            document,
            fate: fates.remove(place).1,
            catalogue,
        });
    }
    let gone: Vec<_> = fates.iter().map(|(name, _)| name).collect();
    assert!(gone.is_empty(), "the README does not show {gone:?} any more");
    examples
}

/// File name and text of each.
fn documents() -> Vec<(String, String)> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let blocks = readme.split("<!-- example: ").skip(1);
    let documents = blocks.filter_map(|block| {
        let (what, rest) = block.split_once(" -->\n```yaml\n")?;
        let file = what.strip_suffix(", refused").unwrap_or(what);
        let (text, _) = rest.split_once("\n```\n")?;
        let is_one_of_the_block = !what.contains('\n') && text.starts_with("document:");
        is_one_of_the_block.then(|| (file.to_owned(), format!("{text}\n")))
    });
    documents.collect()
}

fn fates() -> Vec<(&'static str, Fate)> {
    vec![
        (
            "rain.yaml",
            Completes(json!({"city": "Seattle"}), json!(["2014-03-02"])),
        ),
        (
            "tour.yaml",
            Completes(
                json!({"guests": ["Ada", "Grace"]}),
                json!({"greeted": ["Hello, Ada!", "Hello, Grace!"], "problem": "no more room"}),
            ),
        ),
        ("services.yaml", Completes(Value::Null, json!({"answered": 200}))),
        (
            "asking-back.yaml",
            Completes(Value::Null, json!({"first": "question-1", "then": "question-1"})),
        ),
        (
            "health.yaml",
            Completes(json!({"host": "127.0.0.1"}), json!({"status": "SERVING"})),
        ),
        (
            "tools.yaml",
            Completes(
                json!({"query": "lamps"}),
                json!({"content": [{"type": "text", "text": "found lamps"}], "isError": false}),
            ),
        ),
        (
            "order.yaml",
            Hears(
                json!({"order": 7}),
                vec![
                    ("com.example.order.paid", json!({"order": 7})),
                    ("com.example.parcel.sent", json!({"order": 7, "weight": 2})),
                ],
                "",
                json!([7, 7]),
            ),
        ),
        (
            "welcome.yaml",
            Starts(
                "com.example.customer.new",
                json!({"name": "Ada"}),
                "",
                json!({"text": "Hello, Ada!"}),
            ),
        ),
        (
            "refund.yaml",
            Completes(
                json!({"amount": 30, "customer": "Grace", "order": 7}),
                json!({"refunded": 30}),
            ),
        ),
        ("tolerant.yaml", Completes(Value::Null, json!(1))),
        (
            "booking.yaml",
            Faults(json!({"money": 1}), "https://example.com/errors/money", 402),
        ),
        (
            "frugal.yaml",
            Completes(Value::Null, json!("TASK_STATE_COMPLETED")),
        ),
        (
            "pack.yaml",
            Completes(json!({"item": "lamp"}), json!({"parcel": "lamp", "grams": 400})),
        ),
        (
            "order.yaml (2)",
            Completes(json!({"item": "lamp"}), json!("lamp: 400 g\n")),
        ),
        ("nightly.yaml", Triggers(json!({"tidied": true}))),
        ("mistaken.yaml", Refused("did you mean 'call'")),
        (
            "doubtful.yaml",
            Completes(json!({"color": "blue"}), json!({"color": ".color"})),
        ),
        ("long-wait.yaml", Completes(json!({"n": 1}), json!({"n": 1}))),
    ]
}
