//! What can be seen of it: metrics, what dashboards and rules ask for, alerts, traces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use muster_runtime::clock::{Clock as _, SystemClock};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use url::Url;

use super::attacker::Caller;
use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::health::innermost;
use super::initialisation::{agent_ids, reading};
use super::load::{self, Work};
use super::queries::{Queries, metrics};
use super::trial::{Trial, completed, ended, eventually};
use crate::demo::examples;

/// How long something may take to be seen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an alert may take: groups wait half a minute.
const ALERT_PATIENCE: Duration = Duration::from_secs(120);

/// Largest request of an Alertmanager that is read.
const MOST_ALERT_BYTES: usize = 1 << 20;

/// Metrics of exporters that are not ours, and of Prometheus itself.
const FOREIGN: [&str; 7] = [
    "up",
    "ALERTS",
    "kube_",
    "kubelet_",
    "redis_",
    "container_",
    "node_",
];

/// Ours, but not without an event that harms somebody, or that takes longer than an examination.
const RARE: [(&str, &str); 19] = [
    (
        "router_hedged_calls_total",
        "hedging is off unless it is asked for",
    ),
    (
        "router_stalled_streams_total",
        "a caller has to leave a stream unread for minutes",
    ),
    (
        "router_moved_attempts_total",
        "an instance has to die in the middle of a call",
    ),
    (
        "router_breaker_openings_total",
        "an instance has to fail time and again",
    ),
    (
        "muster_registry_expirations_total",
        "a lease has to end without a goodbye",
    ),
    (
        "agent_push_notifications_total",
        "a caller has to ask for them, with a server of its own",
    ),
    ("agent_messages_refused_total", "an agent has to be full"),
    ("connections_refused_total", "somebody has to be turned away"),
    ("workflow_takeovers_total", "an engine has to be lost"),
    ("workflow_lease_renewals_total", "engines have to share a store"),
    ("workflow_bottlenecks", "looked for every ten minutes"),
    ("background_runs_total", "it works every minute at the earliest"),
    ("telemetry_spans_total", "a collector of traces has to be there"),
    ("mcp_", "a workflow has to call tools"),
    ("customer_", "customers have to rate answers"),
    (
        "issue_resolution_time_seconds_",
        "cases have to be open for a while",
    ),
    (
        "workflow_store_commit_seconds_",
        "the embedded store has it, and Redis has not",
    ),
    ("inbox_", "messages have to wait in the inbox"),
    ("router_inbox_", "messages have to wait in the inbox"),
];

/// A run that fails.
const FAILING: &str = "document: { dsl: 1.0.3, namespace: readiness, name: fails, version: 1.0.0 }\ndo:\n  - stop:\n      raise: { error: { type: https://example.com/errors/full, status: 503, title: Full } }\n";

/// A run that waits and is tried again.
const WAITING: &str = "document: { dsl: 1.0.3, namespace: readiness, name: waits, version: 1.0.0 }\ndo:\n  - rest: { wait: { milliseconds: 100 } }\n";

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Monitoring,
        name: "every part shows its metrics",
        needs: &[Need::MetricsAddresses],
        run: |trial| Box::pin(scraped(trial)),
    },
    Check {
        area: Area::Monitoring,
        name: "what dashboards and rules ask for is there",
        needs: &[Need::MetricsAddresses],
        run: |trial| Box::pin(asked_for(trial)),
    },
    Check {
        area: Area::Monitoring,
        name: "Prometheus scrapes every target",
        needs: &[Need::Prometheus],
        run: |trial| Box::pin(targets(trial)),
    },
    Check {
        area: Area::Monitoring,
        name: "Prometheus answers every query",
        needs: &[Need::Prometheus],
        run: |trial| Box::pin(answered(trial)),
    },
    Check {
        area: Area::Monitoring,
        name: "an alert is delivered",
        needs: &[Need::Alertmanager],
        run: |trial| Box::pin(delivered(trial)),
    },
    Check {
        area: Area::Monitoring,
        name: "a run's trace arrives",
        needs: &[Need::Traces],
        run: |trial| Box::pin(traced(trial)),
    },
];

/// The text of every part's metrics, by the part's name.
async fn scrape(trial: &Trial) -> Result<BTreeMap<String, String>, Stop> {
    let http = trial.target.http()?;
    let mut found = BTreeMap::new();
    let mut wrong = Vec::new();
    for place in &trial.target.places {
        let Some(url) = &place.metrics else { continue };
        match text_of(&http, url).await {
            Ok(text) if series(&text).next().is_some() => {
                found.insert(place.name.clone(), text);
            }
            Ok(_) => wrong.push(format!("{}: {url} shows nothing", place.name)),
            Err(what) => wrong.push(format!("{}: {url}: {what}", place.name)),
        }
    }
    if wrong.is_empty() {
        Ok(found)
    } else {
        Err(Stop::Failed(wrong.join("; ")))
    }
}

/// The text of the metrics at this place.
async fn text_of(http: &reqwest::Client, url: &str) -> Result<String, String> {
    let answer = http.get(url).send().await.map_err(|error| innermost(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("status {status}"));
    }
    answer.text().await.map_err(|error| error.to_string())
}

/// Names and values of the series in the text format of Prometheus.
fn series(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        // Behind it there may be an exemplar.
        let line = line.split(" # {").next()?;
        let name = line.split(['{', ' ']).next()?;
        let value = match line.rsplit_once('}') {
            Some((_, value)) => value,
            None => line.split_once(' ')?.1,
        };
        Some((name, value.split_whitespace().next()?.parse().ok()?))
    })
}

async fn scraped(trial: &mut Trial) -> Verdict {
    let texts = scrape(trial).await?;
    let count: usize = texts.values().map(|text| series(text).count()).sum();
    Ok(Evidence::new(format!("{} parts, {count} series", texts.len()))
        .figure("parts", texts.len())
        .figure("series", count))
}

/// Work of every kind, so that there is something to see.
async fn work(trial: &Trial) -> Result<(), Stop> {
    let mut works = vec![Work::of(trial).await?];
    for example in examples::ALL.iter().skip(1) {
        works.push(Work {
            title: example.title.to_owned(),
            document: example.document.to_owned(),
            input: example.input()?.to_string(),
        });
    }
    for document in [FAILING, WAITING] {
        works.push(Work {
            title: String::new(),
            document: document.to_owned(),
            input: "{}".to_owned(),
        });
    }
    load::some(trial, &works).await?;
    // Each agent, and one that is not there; as nobody, where nobody is let in, that is a refusal to be seen.
    let mut client = trial.target.endpoints.agents()?;
    let mut agents = agent_ids(trial).await?;
    agents.insert("readiness-nobody".to_owned());
    for agent in agents {
        let request = muster_api::a2a::ListTasksRequest {
            tenant: agent,
            page_size: Some(1),
            ..Default::default()
        };
        // How it is answered is no matter here.
        let _answer = client.list_tasks(request).await;
    }
    let _refused = Caller::nobody().list_runs(trial).await?;
    let found = muster_api::registry::DiscoverRequest {
        skills: vec!["weather_forecasting".to_owned()],
        ..Default::default()
    };
    let _found = trial.target.endpoints.registry()?.discover(found).await;
    Ok(())
}

/// Whether a list has this name, or what it begins with.
fn listed<'n>(mut names: impl Iterator<Item = &'n str>, metric: &str) -> bool {
    names.any(|name| metric == name || (name.ends_with('_') && metric.starts_with(name)))
}

async fn asked_for(trial: &mut Trial) -> Verdict {
    let queries = Queries::read(trial.options.deploy.as_deref())?;
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for query in &queries.all {
        for metric in metrics(&query.text) {
            wanted.entry(metric).or_insert_with(|| query.place.clone());
        }
    }
    wanted.retain(|metric, _| !queries.recorded.contains(metric) && !listed(FOREIGN.iter().copied(), metric));
    work(trial).await?;
    let seen = eventually(PATIENCE, async || {
        let texts = scrape(trial).await.map_err(|stop| format!("{stop:?}"))?;
        let names: BTreeSet<&str> = texts
            .values()
            .flat_map(|text| series(text).map(|(name, _)| name))
            .collect();
        let (there, away): (Vec<_>, Vec<_>) =
            wanted.keys().partition(|metric| names.contains(metric.as_str()));
        let rare: Vec<&String> = away
            .iter()
            .copied()
            .filter(|metric| listed(RARE.iter().map(|(name, _)| *name), metric))
            .collect();
        let missing: Vec<String> = away
            .iter()
            .filter(|metric| !rare.contains(metric))
            .map(|metric| format!("{metric} ({})", wanted.get(*metric).map_or("", String::as_str)))
            .collect();
        if missing.is_empty() {
            Ok((there.len(), rare.into_iter().cloned().collect::<Vec<_>>()))
        } else {
            Err(format!("nobody shows {}", missing.join(", ")))
        }
    });
    let (there, rare) = seen.await.map_err(Stop::Failed)?;
    let besides = if rare.is_empty() {
        String::new()
    } else {
        format!("; not yet, as it takes a rare event: {}", rare.join(", "))
    };
    Ok(Evidence::new(format!(
        "{} expressions ask for {there} metrics that are there{besides}",
        queries.all.len()
    ))
    .figure("expressions", queries.all.len())
    .figure("there", there)
    .figure("rare", rare))
}

/// The sum of a metric over all parts.
pub async fn sum(trial: &Trial, metric: &str) -> Result<f64, String> {
    let texts = scrape(trial).await.map_err(|stop| match stop {
        Stop::Failed(what) | Stop::Skipped(what) => what,
    })?;
    let values = texts
        .values()
        .flat_map(|text| series(text).filter(|(name, _)| *name == metric));
    let values: Vec<f64> = values.map(|(_, value)| value).collect();
    if values.is_empty() {
        return Err(format!("nobody shows {metric}"));
    }
    Ok(values.iter().sum())
}

/// The sum of a metric at one place; `None` where it does not show it.
pub async fn one(trial: &Trial, url: &str, metric: &str) -> Result<Option<f64>, String> {
    let http = trial.target.http().map_err(|failure| failure.message)?;
    let text = text_of(&http, url).await?;
    let values: Vec<f64> = series(&text)
        .filter(|(name, _)| *name == metric)
        .map(|(_, value)| value)
        .collect();
    Ok((!values.is_empty()).then(|| values.iter().sum()))
}

/// What an API of Prometheus answers.
async fn api(trial: &Trial, base: &Url, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
    let http = trial.target.http().map_err(|failure| failure.message)?;
    let mut url = base.join(path).map_err(|error| error.to_string())?;
    url.query_pairs_mut().extend_pairs(query);
    let answer = http.get(url).send().await.map_err(|error| innermost(&error))?;
    let text = answer.text().await.map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("no JSON: {error}"))?;
    if value["status"] == "success" {
        return Ok(value["data"].clone());
    }
    Err(value["error"]
        .as_str()
        .unwrap_or("it does not say why")
        .to_owned())
}

fn prometheus(trial: &Trial) -> Result<&Url, Stop> {
    let url = trial
        .target
        .running()
        .and_then(|running| running.prometheus.as_ref());
    url.ok_or_else(|| Stop::skipped(Need::Prometheus.describe()))
}

async fn targets(trial: &mut Trial) -> Verdict {
    let base = prometheus(trial)?;
    let seen = eventually(PATIENCE, async || {
        let data = api(trial, base, "api/v1/query", &[("query", "up{job=\"muster\"}")]).await?;
        let rows = data["result"].as_array().cloned().unwrap_or_default();
        let down: Vec<String> = rows
            .iter()
            .filter(|row| row["value"][1] != "1")
            .map(|row| row["metric"]["instance"].as_str().unwrap_or_default().to_owned())
            .collect();
        match (rows.is_empty(), down.is_empty()) {
            (true, _) => Err("it has no target of the job `muster`".to_owned()),
            (false, false) => Err(format!("not scraped: {}", down.join(", "))),
            (false, true) => Ok(rows.len()),
        }
    });
    let count = seen.await.map_err(Stop::Failed)?;
    Ok(Evidence::new(format!("{count} targets are up")).figure("targets", count))
}

async fn answered(trial: &mut Trial) -> Verdict {
    let base = prometheus(trial)?;
    let queries = Queries::read(trial.options.deploy.as_deref())?;
    let (mut wrong, mut with_series) = (Vec::new(), 0_usize);
    for query in &queries.all {
        match api(trial, base, "api/v1/query", &[("query", &query.text)]).await {
            Ok(data) => {
                let has_series = data["result"].as_array().is_some_and(|rows| !rows.is_empty());
                with_series += usize::from(has_series);
            }
            Err(what) => wrong.push(format!("{}: {what}", query.place)),
        }
    }
    if !wrong.is_empty() {
        return Err(Stop::Failed(wrong.join("; ")));
    }
    Ok(Evidence::new(format!(
        "{} queries answered, {with_series} of them with series",
        queries.all.len()
    ))
    .figure("queries", queries.all.len())
    .figure("withSeries", with_series))
}

async fn delivered(trial: &mut Trial) -> Verdict {
    let running = trial.target.running();
    let known = running.and_then(|running| Some((running.alertmanager.as_ref()?, running.alert_listen?)));
    let (base, listen) = known.ok_or_else(|| Stop::skipped(Need::Alertmanager.describe()))?;
    let name = trial.made.name();
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| Stop::failed(format!("--alert-listen {listen}: {error}")))?;
    let clock = SystemClock::default();
    let before = clock.monotonic();
    raise(trial, base, &name, Duration::from_secs(300)).await?;
    let arrived = tokio::time::timeout(ALERT_PATIENCE, arrival(&listener, &name)).await;
    // It is over, whether it has arrived or not.
    raise(trial, base, &name, Duration::ZERO).await?;
    let from = arrived
        .map_err(|_| {
            Stop::failed(format!(
                "Alertmanager took the alert, and it did not arrive at {listen} within {} s",
                ALERT_PATIENCE.as_secs()
            ))
        })?
        .map_err(|error| Stop::failed(format!("--alert-listen {listen}: {error}")))?;
    let took = clock.monotonic().saturating_sub(before).as_secs_f64();
    Ok(Evidence::new(format!("it arrived from {} after {took:.1} s", from.ip())).figure("seconds", took))
}

/// Tells an Alertmanager of an alert that is over after so long.
async fn raise(trial: &Trial, base: &Url, name: &str, lasts: Duration) -> Result<(), Stop> {
    let now = SystemClock::default().now();
    let ends = now + lasts;
    let alert = json!([{
        "labels": {"alertname": "ReadinessExamination", "severity": "warning", "examination": name},
        "annotations": {
            "summary": "An examination of readiness looks whether alerts arrive",
            "description": "Nothing is wrong. `muster readiness` has raised it, and it ends by itself.",
        },
        "startsAt": now.to_string(),
        "endsAt": ends.to_string(),
    }]);
    let url = base
        .join("api/v2/alerts")
        .map_err(|error| Stop::failed(error.to_string()))?;
    let request = trial
        .target
        .http()?
        .post(url)
        .header("content-type", "application/json");
    let answer = request.body(alert.to_string()).send().await;
    let answer = answer.map_err(|error| Stop::failed(format!("Alertmanager: {}", innermost(&error))))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(Stop::failed(format!(
        "Alertmanager refuses the alert: status {}",
        answer.status()
    )))
}

/// Waits for a request with this text in it, answers all, and says from where it came.
async fn arrival(listener: &TcpListener, name: &str) -> std::io::Result<SocketAddr> {
    loop {
        let (mut stream, from) = listener.accept().await?;
        let mut text = Vec::new();
        let mut piece = [0; 16 << 10];
        let read = async {
            while text.len() < MOST_ALERT_BYTES {
                let count = stream.read(&mut piece).await?;
                text.extend(piece.iter().take(count));
                if count == 0 || is_whole(&text) {
                    break;
                }
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
        };
        // One that is slow or breaks off is not the one that is waited for.
        let _answered = tokio::time::timeout(PATIENCE, read).await;
        if String::from_utf8_lossy(&text).contains(name) {
            return Ok(from);
        }
    }
}

/// Whether a request of HTTP/1.1 is there with all of its body.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_none_or(|length| body.len() >= length)
}

async fn traced(trial: &mut Trial) -> Verdict {
    let agents = agent_ids(trial).await?;
    let (trace, span): (u128, u64) = (rand::rng().random(), rand::rng().random());
    let parent = format!("00-{trace:032x}-{span:016x}-01");
    let mut request = Request::new(trial.made.request(&reading(&agents), "{}"));
    let value =
        AsciiMetadataValue::try_from(parent.as_str()).map_err(|error| Stop::failed(error.to_string()))?;
    request.metadata_mut().insert("traceparent", value);
    let run_id = request.get_ref().run_id.clone();
    let mut client = trial.engine()?;
    client
        .start_run(request)
        .await
        .map_err(|status| Stop::failed(format!("the engine refused the run: {}", status.message())))?;
    ended(&mut client, &run_id)
        .await
        .and_then(completed)
        .map_err(Stop::Failed)?;
    let seen = eventually(PATIENCE, async || {
        let services = services_of(trial, trace).await?;
        let missing: Vec<&str> = ["workflow-engine", "router"]
            .into_iter()
            .filter(|name| !services.iter().any(|seen| seen == name))
            .collect();
        if missing.is_empty() {
            Ok(services)
        } else {
            Err(format!(
                "trace {trace:032x} has no spans of {}",
                missing.join(", ")
            ))
        }
    });
    let services = seen.await.map_err(Stop::Failed)?;
    Ok(Evidence::new(format!(
        "trace {trace:032x}: spans of {}",
        services.join(", ")
    )))
}

/// Whose spans are in a trace.
async fn services_of(trial: &Trial, trace: u128) -> Result<Vec<String>, String> {
    if let Some(collector) = trial.target.collector() {
        let services = collector.services_of(&trace.to_be_bytes());
        return Ok(services.into_keys().collect());
    }
    let base = trial.target.running().and_then(|running| running.traces.as_ref());
    let base = base.ok_or_else(|| Need::Traces.describe().to_owned())?;
    let http = trial.target.http().map_err(|failure| failure.message)?;
    let url = base
        .join(&format!("api/traces/{trace:032x}"))
        .map_err(|error| error.to_string())?;
    let answer = http.get(url).send().await.map_err(|error| innermost(&error))?;
    let text = answer.text().await.map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("no JSON: {error}"))?;
    let mut services = BTreeSet::new();
    collect_services(&value, &mut services);
    Ok(services.into_iter().collect())
}

/// Names of services, as Jaeger (`serviceName`) and Tempo (the attribute `service.name`) say them.
fn collect_services(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_services(item, found)),
        Value::Object(fields) => {
            if let Some(name) = fields.get("serviceName").and_then(Value::as_str) {
                found.insert(name.to_owned());
            }
            if fields.get("key").is_some_and(|key| key == "service.name") {
                let name = value.pointer("/value/stringValue").and_then(Value::as_str);
                found.extend(name.map(str::to_owned));
            }
            fields.values().for_each(|field| collect_services(field, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_with_their_values() {
        let text = "# HELP a x\na 1\nb_total{x=\"} 3\",y=\"z\"} 2 # {trace_id=\"1\"} 1\nnone\n";
        let found: Vec<_> = series(text).collect();
        assert_eq!(found, [("a", 1.0), ("b_total", 2.0)]);
    }

    #[test]
    fn services_are_found_in_what_jaeger_and_tempo_answer() {
        let jaeger = json!({"data": [{"processes": {"p1": {"serviceName": "router"}}}]});
        let tempo = json!({"batches": [{"resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "workflow-engine"}}]}}]});
        let mut found = BTreeSet::new();
        collect_services(&jaeger, &mut found);
        collect_services(&tempo, &mut found);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["router", "workflow-engine"]
        );
    }

    #[test]
    fn a_request_is_whole_with_its_body() {
        assert!(!is_whole(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"));
        assert!(is_whole(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"));
        assert!(!is_whole(b"POST / HTTP/1.1\r\n"));
    }
}
