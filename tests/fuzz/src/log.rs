//! Logs that the security monitor is sent: any text is evaluated or refused without a panic, and what is found stands in its lines.
//!
//! The first byte of the input says how its lines are written.

use std::sync::LazyLock;

use jiff::Timestamp;
use muster_agent_security_monitor::detection;
use muster_agent_security_monitor::event::{Calendar, Format};
use muster_agent_security_monitor::log::Log;
use muster_agent_security_monitor::rules::Ruleset;

static RULES: LazyLock<Ruleset> = LazyLock::new(|| Ruleset::load(None).expect("the built-in rules work"));

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let format = match which % 3 {
        0 => Format::Auto,
        1 => Format::Jsonl,
        _ => Format::Syslog,
    };
    let calendar = Calendar {
        now: Timestamp::UNIX_EPOCH,
        year: (which % 2 == 0).then_some(2014),
    };
    let Ok(log) = Log::new(&text, format, calendar) else {
        return;
    };
    let found = detection::detect(&RULES, &log).expect("the rules are loaded");
    let told = found.json(&log);
    assert!(told["log"].is_object());
}
