//! Clients of HTTP/2 that make work for nothing, or do nothing, byte by byte.

use muster_runtime::server;
use muster_testkit::frames::{ECHO, ENHANCE_YOUR_CALM, NO_ERROR, goodbyes, rapid_resets};
use muster_testkit::http::{self, Method};

use crate::stage::start;

#[tokio::test]
async fn who_resets_what_it_has_just_asked_for_again_and_again_is_let_go_and_others_are_served() {
    let running = start(&server::Config::default(), |_| {});
    let codes = goodbyes(running.data, &rapid_resets(ECHO, 60)).await;
    assert_eq!(codes.last(), Some(&ENHANCE_YOUR_CALM), "{codes:?}");
    let echoed = http::send(running.data, Method::POST, "/echo", &[], "x".into()).await;
    assert_eq!(echoed.unwrap().text(), "x");
    running.stop().await;
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_told_to_end() {
    let config = server::Config {
        idle_timeout_seconds: 1,
        ..server::Config::default()
    };
    let running = start(&config, |_| {});
    let codes = goodbyes(running.data, &[]).await;
    assert_eq!(codes.last(), Some(&NO_ERROR), "{codes:?}");
    running.stop().await;
}
