//! Versions and extensions.

use serde_json::json;

use super::{list, say, task_of};
use crate::bench::Bench;
use crate::driver::{Binding, Operation};
use crate::errors::{EXTENSION_REQUIRED, VERSION_NOT_SUPPORTED, refused};
use crate::puppet::{Persona, REQUIRED_EXTENSION};

const VERSION: &str = "a2a-version";
const EXTENSIONS: &str = "a2a-extensions";

pub async fn another_version_is_refused(bench: &Bench) {
    let driver = bench.driver().await;
    for version in ["0.3", "9.9", "one"] {
        let driver = driver.header(VERSION, Some(version));
        let outcome = driver.call(Operation::SendMessage, say("echo")).await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
        let outcome = driver.call(Operation::ListTasks, json!({})).await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
        let outcome = driver
            .first_of_stream(Operation::SendStreamingMessage, say("echo"))
            .await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
    }
}

pub async fn another_version_in_the_query_is_refused(bench: &Bench) {
    if bench.binding == Binding::Grpc {
        return;
    }
    let driver = bench.driver().await.header(VERSION, None);
    for version in ["0.3", "9.9"] {
        let driver = driver.query(&format!("A2A-Version={version}"));
        let outcome = driver.call(Operation::SendMessage, say("echo")).await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
        let outcome = driver.call(Operation::ListTasks, json!({})).await;
        refused(outcome, VERSION_NOT_SUPPORTED, version);
    }
    task_of(&driver.query("A2A-Version=1.0"), say("echo")).await;
}

pub async fn no_version_means_0_3(bench: &Bench) {
    let driver = bench.driver().await;
    let outcome = driver
        .header(VERSION, None)
        .call(Operation::SendMessage, say("echo"))
        .await;
    refused(outcome, VERSION_NOT_SUPPORTED, "no version");
}

pub async fn patch_versions_do_not_matter(bench: &Bench) {
    let driver = bench.driver().await;
    for version in ["1.0", "1.0.1"] {
        task_of(&driver.header(VERSION, Some(version)), say("echo")).await;
    }
}

pub async fn a_required_extension_is_required(bench: &Bench) {
    declared(bench).await;
    let driver = bench.driver_of(Persona::Strict).await;
    for driver in [
        driver.clone(),
        driver.header(EXTENSIONS, Some("urn:example:another:v1")),
    ] {
        let outcome = driver.call(Operation::SendMessage, say("echo")).await;
        refused(outcome, EXTENSION_REQUIRED, "SendMessage");
        let outcome = driver
            .first_of_stream(Operation::SendStreamingMessage, say("echo"))
            .await;
        refused(outcome, EXTENSION_REQUIRED, "SendStreamingMessage");
    }
}

pub async fn a_required_extension_that_is_named_serves(bench: &Bench) {
    declared(bench).await;
    let driver = bench.driver_of(Persona::Strict).await;
    for extensions in [
        REQUIRED_EXTENSION.to_owned(),
        format!("urn:example:another:v1, {REQUIRED_EXTENSION}"),
    ] {
        let driver = driver.header(EXTENSIONS, Some(&extensions));
        task_of(&driver, say("echo")).await;
    }
}

pub async fn other_extensions_are_ignored(bench: &Bench) {
    let driver = bench.driver().await;
    let driver = driver.header(EXTENSIONS, Some("urn:example:another:v1,urn:example:third:v2"));
    task_of(&driver, say("echo")).await;
}

async fn declared(bench: &Bench) {
    let card = bench.card_json(Persona::Strict).await;
    let required = list(&card["capabilities"], "extensions")
        .iter()
        .any(|extension| extension["uri"] == REQUIRED_EXTENSION && extension["required"] == true);
    assert!(required, "the card declares what is required: {card}");
}
