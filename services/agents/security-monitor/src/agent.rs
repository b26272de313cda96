//! The agent around detection: decode, evaluate off the async threads, encode.

use std::path::PathBuf;
use std::sync::Arc;

use muster_agent_sdk::{Agent, Card, Failure, Reply, Request, Section, Skill, Task};
use muster_runtime::clock::SharedClock;
use muster_runtime::config::Mistakes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::detection::detect;
use crate::event::{Calendar, Format};
use crate::finding::{self, Finding, Severity};
use crate::log::Log;
use crate::response;
use crate::rules::{self, Ruleset};
use crate::statistics::statistics;

/// Finds threats in a log.
pub const THREAT_DETECTION: &str = "threat_detection";
/// Counts a log by source, user and type.
pub const SECURITY_ANALYSIS: &str = "security_analysis";
/// Plans the response to findings.
pub const INCIDENT_RESPONSE: &str = "incident_response";

/// Most findings that one plan is made for.
const MAX_PLANNED: usize = 1_000;

/// What the agent can be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A folder of Sigma rules that are used beside the built-in ones.
    pub rules_directory: Option<PathBuf>,
}

impl Section for Settings {}

/// Reads logs for what speaks of an attack.
pub struct SecurityMonitor {
    rules: Arc<Ruleset>,
    clock: SharedClock,
    processors: Arc<Semaphore>,
}

impl SecurityMonitor {
    /// Loads the rules; `clock` completes times that lack a year.
    ///
    /// # Errors
    /// Names the rule files that cannot be used.
    pub fn new(settings: &Settings, clock: SharedClock) -> Result<Self, muster_runtime::Error> {
        let rules = Ruleset::load(settings.rules_directory.as_deref()).map_err(unusable)?;
        tracing::info!(rules = rules.count(), "detection rules loaded");
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            rules: Arc::new(rules),
            clock,
            processors: Arc::new(Semaphore::new(processors)),
        })
    }
}

fn unusable(error: rules::Error) -> muster_runtime::Error {
    let mut mistakes = Mistakes::default();
    for mistake in error.0 {
        mistakes.add("settings.rules_directory", mistake);
    }
    muster_runtime::Error::Config(mistakes)
}

/// The data part.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    log: Option<String>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    year: Option<i16>,
    #[serde(default)]
    findings: Option<Vec<Finding>>,
}

/// A log to evaluate, or findings to plan for.
enum Job {
    Log {
        field: &'static str,
        text: String,
        format: Format,
        calendar: Calendar,
    },
    Findings(Vec<Finding>),
}

#[derive(Clone, Copy, PartialEq)]
enum Wish {
    Findings,
    Statistics,
    Plan,
}

impl Agent for SecurityMonitor {
    fn card(&self) -> Card {
        let name = "Security monitor";
        let description =
            "Reads log lines (JSON lines, syslog) and reports threats by Sigma rules and unusual rates";
        let example =
            "Mar 14 08:31:10 gateway sshd[2228]: Failed password for root from 192.0.2.143 port 52310 ssh2";
        Card::new("security-monitor", name, description, env!("CARGO_PKG_VERSION"))
            .input_mode("application/x-ndjson")
            .input_mode("application/octet-stream")
            .skill(
                Skill::new(THREAT_DETECTION, "Threat detection", "Findings with severity, evidence and recommended response")
                    .tags(["sigma", "log", "ssh", "anomaly"])
                    .example(example)
                    .idempotent(),
            )
            .skill(
                Skill::new(SECURITY_ANALYSIS, "Security analysis", "Events of a log by type, source and user, with the risk")
                    .tags(["log", "statistics"])
                    .example(example)
                    .idempotent(),
            )
            .skill(
                Skill::new(INCIDENT_RESPONSE, "Incident response", "An ordered plan for findings: contain, eradicate, recover")
                    .tags(["incident", "triage", "plan"])
                    .example(r#"{"findings": [{"rule": "ssh_brute_force", "severity": "high", "source": "192.0.2.143"}]}"#)
                    .idempotent(),
            )
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        let wish = match request.skill.as_deref() {
            Some(SECURITY_ANALYSIS) => Wish::Statistics,
            Some(INCIDENT_RESPONSE) => Wish::Plan,
            _ => Wish::Findings,
        };
        let job = job(&request, wish, self.clock.now())?;
        let Ok(turn) = Arc::clone(&self.processors).acquire_owned().await else {
            return Err(Failure::failed(
                "the agent is shutting down; send the request again",
            ));
        };
        task.working("reading the log").await;
        let rules = Arc::clone(&self.rules);
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn; // until the computation has really ended, also when the handler has not waited for it
            work(&rules, job, wish)
        });
        let done = tokio::select! {
            done = work => done,
            () = task.cancelled() => return Err(Failure::failed("cancelled")),
        };
        let (data, text) = done.map_err(|error| {
            tracing::error!(%error, task = task.id(), "an evaluation ended abnormally");
            Failure::failed("the evaluation ended abnormally; the agent's log says why")
        })??;
        Ok(Reply::completed(text).data(data))
    }
}

fn job(request: &Request, wish: Wish, now: jiff::Timestamp) -> Result<Job, Failure> {
    let body: Body = request.parse()?.unwrap_or_default();
    if body.year.is_some_and(|year| !(1970..=9000).contains(&year)) {
        return Err(Failure::invalid_field("year", "must lie within 1970 and 9000"));
    }
    let mut logs: Vec<(&'static str, String)> = Vec::new();
    logs.extend(body.log.map(|log| ("log", log)));
    for file in request.files() {
        logs.push(("file", String::from_utf8_lossy(&file.bytes).into_owned()));
    }
    if logs.is_empty() && body.findings.is_none() && !request.text().trim().is_empty() {
        logs.push(("text", request.text().to_owned()));
    }
    match (body.findings, logs.pop()) {
        (Some(_), Some(_)) => Err(Failure::invalid_field(
            "findings",
            "came beside a log; send one of them",
        )),
        (Some(_), None) if wish != Wish::Plan => Err(Failure::invalid_field(
            "findings",
            format!("are for {INCIDENT_RESPONSE} only; send a log"),
        )),
        (Some(findings), None) if findings.len() > MAX_PLANNED => {
            let message = format!(
                "has {} entries; at most {MAX_PLANNED} are planned for",
                findings.len()
            );
            Err(Failure::invalid_field("findings", message))
        }
        (Some(findings), None) => Ok(Job::Findings(findings)),
        (None, Some(_)) if !logs.is_empty() => Err(Failure::invalid_field(
            "log",
            "more than one log was sent (data, files); send one",
        )),
        (None, Some((field, text))) => Ok(Job::Log {
            field,
            text,
            format: body.format,
            calendar: Calendar { now, year: body.year },
        }),
        (None, None) => {
            let also = if wish == Wish::Plan {
                ", or 'findings' as threat_detection returns them"
            } else {
                ""
            };
            let message =
                format!("is missing; send log lines as text, as a file, or as 'log' in a data part{also}");
            Err(Failure::invalid_field("log", message))
        }
    }
}

fn work(rules: &Ruleset, job: Job, wish: Wish) -> Result<(Value, String), Failure> {
    let (field, text, format, calendar) = match job {
        Job::Findings(findings) => return Ok(response::plan(&findings)),
        Job::Log {
            field,
            text,
            format,
            calendar,
        } => (field, text, format, calendar),
    };
    let log = Log::new(&text, format, calendar)
        .map_err(|error| Failure::invalid_field(field, error.to_string()))?;
    let detection = detect(rules, &log).map_err(Failure::failed)?;
    let findings = &detection.findings;
    Ok(match wish {
        Wish::Findings => (detection.json(&log), told(findings)),
        Wish::Plan => {
            let (mut data, text) = response::plan(findings);
            if let Some(data) = data.as_object_mut() {
                data.insert("findings".to_owned(), json!(findings));
                data.insert("log".to_owned(), log.describe());
            }
            (data, text)
        }
        Wish::Statistics => {
            let mut data = statistics(&log);
            if let Some(data) = data.as_object_mut() {
                data.insert("log".to_owned(), log.describe());
                data.insert("by_severity".to_owned(), finding::by_severity(findings));
                data.insert("risk".to_owned(), finding::risk(findings));
            }
            let text = counted(&data, findings);
            (data, text)
        }
    })
}

fn told(findings: &[Finding]) -> String {
    const SHOWN: usize = 10;
    if findings.is_empty() {
        return "No findings.".to_owned();
    }
    let counts: Vec<String> = Severity::WORST_FIRST
        .iter()
        .map(|&severity| {
            (
                severity,
                findings
                    .iter()
                    .filter(|finding| finding.severity == severity)
                    .count(),
            )
        })
        .filter(|(_, count)| *count > 0)
        .map(|(severity, count)| format!("{count} {}", severity.name()))
        .collect();
    let mut lines = vec![format!("{} findings: {}", findings.len(), counts.join(", "))];
    lines.extend(findings.iter().take(SHOWN).map(|finding| {
        format!(
            "[{}] {} from {} ({} events)",
            finding.severity.name(),
            finding.title,
            finding.source,
            finding.count
        )
    }));
    lines.join("\n")
}

fn counted(data: &Value, findings: &[Finding]) -> String {
    format!(
        "{} events from {} sources and {} users; {} findings, risk {}",
        data["log"]["events"],
        data["source_count"],
        data["user_count"],
        findings.len(),
        finding::risk(findings)["level"].as_str().unwrap_or_default()
    )
}
