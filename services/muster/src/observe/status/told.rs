//! What every service says of itself, whichever it is: how it is, which calls it got lately, and whom it refused.

use muster_api::admin::{
    GetHealthRequest, GetHealthResponse, GetRefusalsRequest, GetRefusalsResponse, GetTrafficRequest,
    MethodTraffic, Refused,
};
use serde_json::{Value, json};

use super::{PATIENCE, patient};
use crate::connect::{Endpoints, Service};
use crate::output::Output;

/// Methods that are shown as the slowest.
const SLOWEST: usize = 8;

/// What one service says; nothing of one that does not say, or not to this caller.
pub struct Told {
    service: Service,
    health: Option<GetHealthResponse>,
    methods: Vec<MethodTraffic>,
    /// For admins.
    refusals: Option<GetRefusalsResponse>,
}

/// Asks all three.
pub async fn ask(endpoints: &Endpoints) -> Vec<Told> {
    let (registry, router, engine) = tokio::join!(
        one(endpoints, Service::Registry),
        one(endpoints, Service::Router),
        one(endpoints, Service::Engine)
    );
    vec![registry, router, engine]
}

async fn one(endpoints: &Endpoints, service: Service) -> Told {
    let mut told = Told {
        service,
        health: None,
        methods: Vec::new(),
        refusals: None,
    };
    let Ok(client) = endpoints.admin(service) else {
        return told;
    };
    let (mut of_health, mut of_traffic, mut of_refusals) = (client.clone(), client.clone(), client);
    let asked = async {
        tokio::join!(
            of_health.get_health(patient(GetHealthRequest {})),
            of_traffic.get_traffic(patient(GetTrafficRequest {})),
            of_refusals.get_refusals(patient(GetRefusalsRequest {})),
        )
    };
    if let Ok((health, traffic, refusals)) = tokio::time::timeout(PATIENCE, asked).await {
        told.health = health.ok().map(tonic::Response::into_inner);
        told.methods = traffic
            .map(|traffic| traffic.into_inner().methods)
            .unwrap_or_default();
        told.refusals = refusals.ok().map(tonic::Response::into_inner);
    }
    told
}

fn seconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// So many of so many, in percent.
pub fn share(failed: u64, all: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "calls of five minutes")]
    let percent = 100.0 * failed as f64 / all.max(1) as f64;
    format!("{percent:.1} %")
}

/// Half of the calls and nineteen in twenty took no longer.
pub fn quantiles(p50: f64, p95: f64) -> [String; 2] {
    [seconds(p50), seconds(p95)]
}

impl Told {
    /// Whose words these are.
    pub const fn service(&self) -> Service {
        self.service
    }

    /// In a word, where it says more than that it can do its work.
    pub fn health(&self) -> Option<&str> {
        let health = self.health.as_ref()?;
        (health.status != "healthy").then_some(health.status.as_str())
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let health = self.health.as_ref().map(|health| {
            let checks = health.checks.iter().map(|check| {
                let error = Some(&check.error).filter(|error| !error.is_empty());
                json!({"name": check.name, "status": check.status, "error": error})
            });
            json!({"status": health.status, "ready": health.ready, "checks": checks.collect::<Vec<_>>()})
        });
        let methods = self.methods.iter().map(|method| {
            json!({
                "endpoint": method.endpoint,
                "method": method.method,
                "callsTotal": method.calls_total,
                "lastCalls": method.last_calls,
                "lastFailed": method.last_failed,
                "p50Seconds": method.p50_seconds,
                "p95Seconds": method.p95_seconds,
            })
        });
        let refusals = self.refusals.as_ref().map(|refusals| {
            let reasons = refusals.reasons.iter();
            let callers = refusals.callers.iter().map(|caller| {
                let last = caller.last_at.as_ref().and_then(muster_api::time::from_proto);
                json!({
                    "reason": caller.reason,
                    "who": caller.who,
                    "times": caller.times,
                    "lastAt": last.map(muster_api::time::rfc3339),
                })
            });
            json!({
                "reasons": reasons
                    .map(|reason| json!({"reason": reason.reason, "times": reason.times}))
                    .collect::<Vec<_>>(),
                "callers": callers.collect::<Vec<_>>(),
            })
        });
        json!({"health": health, "methods": methods.collect::<Vec<_>>(), "refusals": refusals})
    }
}

/// The methods that took the longest lately; of those that were not called lately, the last few calls count.
fn slowest(all: &[Told]) -> Vec<(Service, &MethodTraffic)> {
    let mut methods: Vec<(Service, &MethodTraffic)> = all
        .iter()
        .flat_map(|told| told.methods.iter().map(|method| (told.service, method)))
        .collect();
    let slowness = |method: &MethodTraffic| (method.p95_seconds, method.recent_seconds);
    methods.sort_by(|(_, one), (_, other)| {
        let (one, other) = (slowness(one), slowness(other));
        other.0.total_cmp(&one.0).then(other.1.total_cmp(&one.1))
    });
    methods.truncate(SLOWEST);
    methods
}

/// Calls that did not end well, by method and kind of error.
fn refused(all: &[Told]) -> impl Iterator<Item = (Service, &MethodTraffic, &Refused)> {
    let methods = all
        .iter()
        .flat_map(|told| told.methods.iter().map(|method| (told.service, method)));
    methods.flat_map(|(service, method)| {
        let refused = method.refused.iter();
        refused.map(move |refused| (service, method, refused))
    })
}

/// The slowest methods and the refusals of all, for programs.
pub fn json(all: &[Told]) -> (Value, Value) {
    let slowest = slowest(all).into_iter().map(|(service, method)| {
        json!({
            "component": service.name(),
            "endpoint": method.endpoint,
            "recentSeconds": method.recent_seconds,
            "p50Seconds": method.p50_seconds,
            "p95Seconds": method.p95_seconds,
            "lastCalls": method.last_calls,
            "lastFailed": method.last_failed,
            "callsTotal": method.calls_total,
        })
    });
    let refused = refused(all).map(|(service, method, refused)| {
        json!({
            "component": service.name(),
            "endpoint": method.endpoint,
            "statusCode": refused.status_code,
            "errorType": refused.error_type,
            "callsTotal": refused.calls_total,
        })
    });
    (slowest.collect(), refused.collect())
}

/// What is not well, what is slow, and who was refused, for people.
pub fn print(all: &[Told], output: &Output) {
    let unwell: Vec<[String; 3]> = all
        .iter()
        .flat_map(|told| {
            let checks = told.health.iter().flat_map(|health| &health.checks);
            let unwell = checks.filter(|check| !check.error.is_empty());
            unwell.map(|check| {
                let name = told.service.name().to_owned();
                [name, check.name.clone(), check.error.clone()]
            })
        })
        .collect();
    if !unwell.is_empty() {
        output.table(["NOT WELL AT", "CHECK", "WHAT"], unwell);
    }
    let name = |method: &MethodTraffic| method.endpoint.trim_start_matches('/').to_owned();
    let slowest = slowest(all).into_iter().map(|(service, method)| {
        let [p50, p95] = quantiles(method.p50_seconds, method.p95_seconds);
        [
            service.name().to_owned(),
            name(method),
            p50,
            p95,
            share(method.last_failed, method.last_calls),
            method.last_calls.to_string(),
        ]
    });
    output.table(
        ["SLOWEST AT", "METHOD", "P50", "P95", "FAILED", "CALLS IN 5 MIN"],
        slowest.collect(),
    );
    let calls: Vec<[String; 4]> = refused(all)
        .map(|(service, method, refused)| {
            let calls = refused.calls_total.to_string();
            let because = refused.error_type.clone();
            [service.name().to_owned(), name(method), because, calls]
        })
        .collect();
    if calls.is_empty() {
        output.aside("nobody was refused since the start");
    } else {
        output.table(["REFUSED BY", "METHOD", "BECAUSE", "CALLS"], calls);
    }
    let callers: Vec<[String; 5]> = all
        .iter()
        .flat_map(|told| {
            let callers = told.refusals.iter().flat_map(|refusals| &refusals.callers);
            callers.map(|caller| {
                let last = caller.last_at.as_ref().and_then(muster_api::time::from_proto);
                [
                    caller.who.clone(),
                    told.service.name().to_owned(),
                    caller.reason.clone(),
                    caller.times.to_string(),
                    last.map(muster_api::time::rfc3339).unwrap_or_default(),
                ]
            })
        })
        .collect();
    if !callers.is_empty() {
        output.table(["REFUSED CALLER", "BY", "BECAUSE", "TIMES", "LAST"], callers);
    }
}
