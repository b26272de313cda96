//! Challenges of `WWW-Authenticate`, as servers that are called send them: any header is answered or refused without a panic, and an
//! answer is a header in which nothing of a challenge has become something else.

use http::{HeaderMap, HeaderValue, Method};
use muster_workflow_engine::caller::web::Outgoing;
use muster_workflow_engine::caller::web::authentication::User;
use muster_workflow_engine::caller::web::digest;

/// See the module.
pub fn run(bytes: &[u8]) {
    // What is no header never gets there.
    let Ok(header) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let Ok(text) = header.to_str() else { return };
    let user = User {
        username: "Mufasa".to_owned(),
        password: "Circle of \"Life\"".to_owned(),
    };
    let outgoing = Outgoing {
        method: Method::GET,
        url: "https://h.test/a?b=c".parse().expect("an address"),
        headers: HeaderMap::new(),
        body: None,
    };
    let answered = |text: &str| digest::answer(std::iter::once(text), &user, &outgoing);
    let Ok(answer) = answered(text) else { return };
    assert!(HeaderValue::from_str(&answer).is_ok(), "{answer}");
    // It repeats the challenge, which is understood the same way again.
    let again = answered(&answer).expect("it repeats a challenge");
    assert_eq!(lasting(&again), lasting(&answer));
}

/// What does not come of chance: all before the response, and all behind it but the nonce of the client.
fn lasting(answer: &str) -> Vec<&str> {
    let chance = ["response=", "cnonce="];
    let pieces = answer.split(", ");
    let lasting = pieces.filter(|piece| !chance.iter().any(|name| piece.starts_with(name)));
    lasting.collect()
}
