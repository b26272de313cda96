//! An engine whose data directory is encrypted.

use std::fs;
use std::path::{Path, PathBuf};

use muster_api::workflow::RunStatus;
use muster_runtime::{Listeners, Shutdown};
use muster_workflow_engine::Config;
use muster_workflow_engine::store::embedded::FORMAT;
use serde_json::{Value, json};

use crate::backups::{back_up, restore};
use crate::harness::{Engine, document};

/// A key of 32 times the same byte, in base64.
fn key(letter: char) -> String {
    format!("{}=", letter.to_string().repeat(42) + "A")
}

fn key_file(place: &Path, lines: &[(&str, char)]) -> PathBuf {
    let lines: Vec<String> = lines
        .iter()
        .map(|(id, letter)| format!("{id} {}\n", key(*letter)))
        .collect();
    let path = place.join("keys");
    fs::write(&path, lines.concat()).unwrap();
    path
}

/// Whether any file in the directory holds this text.
fn holds(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// Why no engine starts on this directory with this file of keys.
async fn refused(directory: &Path, key_file: Option<PathBuf>) -> String {
    let mut config = Config::default();
    config.engine.data_directory = directory.to_owned();
    config.engine.encryption_key_file = key_file;
    let listeners = Listeners::ephemeral().unwrap();
    let ended = muster_workflow_engine::run(config, listeners, Shutdown::new()).await;
    ended.unwrap_err().to_string()
}

const WAITS: &str = "  - keep: {set: '${ . }'}\n  - nap: {wait: PT30M}\n  - end: {set: '${ . }'}\n";

async fn waits(engine: &Engine, id: &str, said: &str) {
    let input = json!({"said": said, "more": "x".repeat(100_000)}).to_string();
    engine.start_run(&document(WAITS), id, &input).await.unwrap();
    engine.until(id, RunStatus::Waiting).await;
}

async fn ends(engine: &Engine, id: &str, said: &str) {
    let run = engine.until(id, RunStatus::Completed).await;
    let output: Value = serde_json::from_str(&run.output_json).unwrap();
    assert_eq!(output["said"], said);
    engine.intact(id).await;
}

#[tokio::test]
async fn what_is_said_is_in_no_file_and_read_with_its_keys_alone() {
    let place = tempfile::tempdir().unwrap();
    let file = key_file(place.path(), &[("2026", 'B')]);
    let mut engine = Engine::start_with(|settings| settings.encryption_key_file = Some(file)).await;
    waits(&engine, "secret", "what nobody else is to know").await;
    let backup = back_up(&engine).await;
    engine.stop().await;
    let directory = engine.data_directory().to_owned();
    assert!(holds(&directory, "secret"), "ids are not encrypted");
    assert!(!holds(&directory, "nobody else"));
    assert!(!backup.windows(11).any(|window| window == b"nobody else"));

    let without = refused(&directory, None).await;
    assert!(without.contains("is encrypted and needs key '2026'"), "{without}");
    let other = key_file(place.path(), &[("2025", 'C')]);
    let missing = refused(&directory, Some(other)).await;
    assert!(missing.contains("is encrypted and needs key '2026'"), "{missing}");
    let other = key_file(place.path(), &[("2026", 'C')]);
    let wrong = refused(&directory, Some(other)).await;
    assert!(wrong.contains("with another key '2026'"), "{wrong}");
    let absent = refused(&directory, Some("/absent".into())).await;
    assert!(
        absent.starts_with("engine.encryption_key_file: /absent: "),
        "{absent}"
    );

    // Another key writes from now on, and the old one reads.
    let rotated = key_file(place.path(), &[("2027", 'D'), ("2026", 'B')]);
    engine
        .restart_stopped_with(|settings| settings.encryption_key_file = Some(rotated))
        .await;
    waits(&engine, "later", "what nobody else is to know either").await;
    engine.pass(40 * 60);
    engine.restart().await;
    ends(&engine, "secret", "what nobody else is to know").await;
    ends(&engine, "later", "what nobody else is to know either").await;
    engine.stop().await;
    let old = key_file(place.path(), &[("2026", 'B')]);
    let missing = refused(&directory, Some(old.clone())).await;
    assert!(missing.contains("needs key '2027'"), "{missing}");

    // The backup was taken before.
    let restored = place.path().join("restored");
    restore(&backup, &restored);
    assert!(refused(&restored, None).await.contains("needs key '2026'"));
    let restored = Engine::start_with(|settings| {
        settings.data_directory = restored;
        settings.encryption_key_file = Some(old);
    })
    .await;
    restored.until("secret", RunStatus::Waiting).await;
    restored.intact("secret").await;
}

#[tokio::test]
async fn a_plain_directory_is_read_and_what_is_written_from_then_on_is_encrypted() {
    let place = tempfile::tempdir().unwrap();
    let mut engine = Engine::start().await;
    waits(&engine, "before", "what was plain").await;
    engine.stop().await;
    let directory = engine.data_directory().to_owned();
    assert!(holds(&directory, "what was plain"));
    let file = key_file(place.path(), &[("first", 'B')]);
    engine
        .restart_stopped_with(|settings| settings.encryption_key_file = Some(file))
        .await;
    waits(&engine, "after", "what is not").await;
    engine.pass(40 * 60);
    engine.restart().await;
    ends(&engine, "before", "what was plain").await;
    ends(&engine, "after", "what is not").await;
    engine.stop().await;
    assert!(!holds(&directory, "what is not"));
    assert!(refused(&directory, None).await.contains("needs key 'first'"));
    let mark = fs::read_to_string(directory.join("format")).unwrap();
    assert_eq!(mark, format!("workflow-engine {} sealed\n", FORMAT.version));
}
