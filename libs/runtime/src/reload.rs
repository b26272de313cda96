//! What a running service takes up when it is told to look again (SIGHUP): the configuration is read as at its start, and the log
//! says of each key that has changed whether it is in use now or needs a restart.
//!
//! In use at once is what is logged (`telemetry.log_level`). Files that the configuration names — certificates, keys, key sets, secrets —
//! are looked at by themselves again and again; whoever does that seldom ([`asked`]) looks now. Everything else needs a restart: values
//! that one part of a service has taken up and another has not would be a state that nobody has tested.
//!
//! A configuration that cannot be used changes nothing. What was set in the environment and by flags is what it was at the start.

use std::sync::LazyLock;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::Error;
use crate::config::Settings;
use crate::telemetry::logs;

/// The key of what is logged.
const LOG_LEVEL: &str = "telemetry.log_level";

/// How often it was asked for.
static ASKED: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Sees each time that a look at files is asked for.
pub(crate) fn asked() -> watch::Receiver<u64> {
    ASKED.subscribe()
}

/// Watches for SIGHUP from now on; the signal would end the process otherwise.
pub(crate) fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup())
        .inspect_err(|error| tracing::error!(%error, signal = "SIGHUP", "a signal cannot be watched"))
        .ok()
}

/// Looks again with each signal, as long as the process lives.
pub(crate) async fn follow<C: Settings>(
    mut hangups: Signal,
    running: Value,
    read: impl Fn() -> Result<C, Error>,
) {
    let mut running = running;
    while hangups.recv().await.is_some() {
        ASKED.send_modify(|times| *times += 1);
        let read = read().and_then(|config| {
            serde_json::to_value(&config).map_err(|error| Error::Other(error.to_string()))
        });
        match read {
            Ok(read) => take_up(&mut running, &read),
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be used; everything stays as it is");
            }
        }
    }
}

fn take_up(running: &mut Value, read: &Value) {
    let mut needs_restart = changed(running, read);
    let mut taken_up = Vec::new();
    if let Some(place) = needs_restart.iter().position(|key| key == LOG_LEVEL) {
        let level = read.pointer("/telemetry/log_level");
        match logs::configure(level.and_then(Value::as_str).unwrap_or_default()) {
            Ok(()) => {
                taken_up.push(needs_restart.remove(place));
                if let (Some(known), Some(level)) = (running.pointer_mut("/telemetry/log_level"), level) {
                    known.clone_from(level);
                }
            }
            Err(error) => tracing::error!(%error, key = LOG_LEVEL, "what is logged stays as it is"),
        }
    }
    // Values may be secrets; the keys say enough.
    tracing::info!(
        taken_up = taken_up.join(", "),
        needs_restart = needs_restart.join(", "),
        "the configuration was read again, and certificates and keys are looked at"
    );
}

/// The keys of which two configurations say something else, in order.
fn changed(one: &Value, other: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    collect("", one, other, &mut keys);
    keys
}

fn collect(path: &str, one: &Value, other: &Value, keys: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            let names = ones
                .keys()
                .chain(others.keys().filter(|name| !ones.contains_key(*name)));
            let mut names: Vec<&String> = names.collect();
            names.sort_unstable();
            for name in names {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
                collect(&path, &of(ones), &of(others), keys);
            }
        }
        _ if one != other => keys.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_changed_is_named_by_its_keys_and_nothing_else() {
        let one =
            json!({ "server": { "port": 1, "host": "a" }, "list": [1], "map": { "a": 1 }, "option": null });
        assert_eq!(changed(&one, &one), Vec::<String>::new());
        let other = json!({ "server": { "port": 2, "host": "a" }, "list": [1, 2], "map": { "b": 1 }, "option": { "x": 1 } });
        assert_eq!(
            changed(&one, &other),
            ["list", "map.a", "map.b", "option", "server.port"]
        );
    }
}
