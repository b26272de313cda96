//! The requests of the data port, counted and measured: rate, errors and duration of every method.
//!
//! The series of an endpoint are looked up once and kept: to find one by its labels makes and hashes several strings, for
//! every request. The label `endpoint` is bounded by the contract and by the routes; `method`, `status_code` and `grpc_code`
//! are closed sets.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tonic::Code;

use crate::clock::SharedClock;
use crate::metrics::{
    Counter, ERRORS, GRPC_HANDLED, GRPC_HANDLING, Histogram, Metrics, REQUEST_SECONDS, REQUESTS,
};
use crate::recent::{Recent, Summary};
use crate::trace::Span;

/// How many calls the mean of the last few is about.
const RECENT: u64 = 16;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    /// As HTTP has it.
    pub(super) status: u16,
    /// As gRPC has it, of a gRPC request that came to a status.
    pub(super) code: Option<Code>,
}

/// Finds the series of an endpoint. Clones share them.
#[derive(Clone)]
pub(crate) struct Requests {
    metrics: Metrics,
    clock: SharedClock,
    /// The service, in `errors_total`.
    component: &'static str,
    routes: Arc<RwLock<HashMap<&'static str, Endpoints>>>,
}

/// The series of a method, by endpoint.
type Endpoints = HashMap<Box<str>, Arc<Route>>;

/// The series of one method at one endpoint.
pub(super) struct Route {
    requests: Requests,
    method: &'static str,
    pub(super) endpoint: Box<str>,
    /// Until the head.
    seconds: Histogram,
    /// Mean of the last few times until the head, in nanoseconds.
    recent: AtomicU64,
    /// The last minutes.
    last: Recent,
    /// Few: an endpoint knows a handful of endings.
    ended: RwLock<Vec<(Ending, Arc<Ended>)>>,
}

/// What became of the calls of one method, for people.
pub(crate) struct Traffic {
    pub(crate) method: &'static str,
    pub(crate) endpoint: String,
    pub(crate) recent: Duration,
    /// The last minutes.
    pub(crate) last: Summary,
    /// How many ended with which status.
    pub(crate) endings: Vec<(u16, u64)>,
}

/// The series of one ending.
struct Ended {
    count: AtomicU64,
    requests: Counter,
    errors: Option<Counter>,
    grpc: Option<(Counter, Histogram)>,
}

impl Requests {
    pub(crate) fn new(metrics: Metrics, clock: SharedClock, component: &'static str) -> Self {
        Self {
            metrics,
            clock,
            component,
            routes: Arc::default(),
        }
    }

    /// The series of a method at an endpoint.
    pub(super) fn route(&self, method: &'static str, endpoint: &str) -> Arc<Route> {
        let known = self.routes.read();
        if let Some(route) = known.get(method).and_then(|routes| routes.get(endpoint)) {
            return Arc::clone(route);
        }
        drop(known);
        let labels = [("method", method.to_owned()), ("endpoint", endpoint.to_owned())];
        let route = Arc::new(Route {
            requests: self.clone(),
            method,
            endpoint: endpoint.into(),
            seconds: self.metrics.histogram(REQUEST_SECONDS, &labels),
            recent: AtomicU64::new(0),
            last: Recent::default(),
            ended: RwLock::default(),
        });
        let mut routes = self.routes.write();
        let routes = routes.entry(method).or_default();
        Arc::clone(routes.entry(endpoint.into()).or_insert(route))
    }

    /// What became of all calls, the slowest methods first.
    pub(crate) fn traffic(&self, now: Duration) -> Vec<Traffic> {
        let routes = self.routes.read();
        let mut all: Vec<Traffic> = routes
            .values()
            .flat_map(HashMap::values)
            .map(|route| route.traffic(now))
            .collect();
        all.sort_by(|one, other| {
            other
                .recent
                .cmp(&one.recent)
                .then_with(|| one.endpoint.cmp(&other.endpoint))
        });
        all
    }

    /// A request panicked.
    pub(super) fn panicked(&self) {
        self.errors("panic").increment(1);
    }

    fn errors(&self, kind: &str) -> Counter {
        let labels = [
            ("error_type", kind.to_owned()),
            ("component", self.component.to_owned()),
        ];
        self.metrics.counter(ERRORS, &labels)
    }
}

impl Route {
    /// The head of an answer is there, after that long.
    pub(super) fn answered(&self, now: Duration, took: Duration, span: &Span) {
        self.seconds.record(took.as_secs_f64());
        self.last.answered(now, took);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.recent.load(Ordering::Relaxed);
        // Two at once may lose one of the two, which a mean of the last few can bear.
        let mean = match before {
            0 => nanoseconds,
            before => before - before / RECENT + nanoseconds / RECENT,
        };
        self.recent.store(mean, Ordering::Relaxed);
        if let Some(trace) = span.sampled_trace() {
            let labels = [("method", self.method), ("endpoint", &*self.endpoint)];
            self.requests.metrics.exemplify(
                REQUEST_SECONDS,
                &labels,
                took.as_secs_f64(),
                trace,
                self.requests.clock.now(),
            );
        }
    }

    fn traffic(&self, now: Duration) -> Traffic {
        let ended = self.ended.read();
        let endings = ended
            .iter()
            .map(|(ending, ended)| (ending.status, ended.count.load(Ordering::Relaxed)));
        Traffic {
            method: self.method,
            endpoint: self.endpoint.to_string(),
            recent: Duration::from_nanos(self.recent.load(Ordering::Relaxed)),
            last: self.last.summary(now),
            endings: endings.collect(),
        }
    }

    fn ended(&self, ending: Ending) -> Arc<Ended> {
        let known = self.ended.read();
        if let Some((_, ended)) = known.iter().find(|(known, _)| *known == ending) {
            return Arc::clone(ended);
        }
        drop(known);
        let ended = Arc::new(self.series(ending));
        let mut all = self.ended.write();
        if !all.iter().any(|(known, _)| *known == ending) {
            all.push((ending, Arc::clone(&ended)));
        }
        ended
    }

    fn series(&self, ending: Ending) -> Ended {
        let Requests { metrics, .. } = &self.requests;
        let labels = [
            ("method", self.method.to_owned()),
            ("endpoint", self.endpoint.to_string()),
            ("status_code", ending.status.to_string()),
        ];
        let grpc = ending.code.and_then(|code| {
            let (service, method) = self.endpoint.strip_prefix('/')?.split_once('/')?;
            let labels = [
                ("grpc_service", service.to_owned()),
                ("grpc_method", method.to_owned()),
                ("grpc_code", format!("{code:?}")),
            ];
            let handled = metrics.counter(GRPC_HANDLED, &labels);
            Some((handled, metrics.histogram(GRPC_HANDLING, &labels)))
        });
        Ended {
            count: AtomicU64::new(0),
            requests: metrics.counter(REQUESTS, &labels),
            errors: error_type(ending.status).map(|kind| self.requests.errors(kind)),
            grpc,
        }
    }
}

/// One request that is still to be counted.
pub(super) struct Count {
    route: Arc<Route>,
    started: Duration,
    span: Span,
}

impl Count {
    pub(super) fn new(route: Arc<Route>, started: Duration, span: Span) -> Self {
        Self { route, started, span }
    }

    /// It has ended so. Its span, if there is one: it ends with the body.
    pub(super) fn add(mut self, ending: Ending) -> Option<Span> {
        let ended = self.route.ended(ending);
        ended.requests.increment(1);
        ended.count.fetch_add(1, Ordering::Relaxed);
        if let Some(errors) = &ended.errors {
            errors.increment(1);
        }
        if ending.status >= 500 {
            self.route.last.failed(self.route.requests.clock.monotonic());
        }
        if let Some((handled, seconds)) = &ended.grpc {
            let now = self.route.requests.clock.monotonic();
            handled.increment(1);
            seconds.record(now.saturating_sub(self.started).as_secs_f64());
        }
        if self.span.is_recorded() {
            match ending.code {
                Some(code) => self.span.set("rpc.grpc.status_code", i64::from(code as i32)),
                None => self
                    .span
                    .set("http.response.status_code", i64::from(ending.status)),
            }
            // As the semantic conventions have it: a server's span fails where the server is at fault.
            if ending.status >= 500
                && let Some(kind) = error_type(ending.status)
            {
                self.span.fail(kind, "");
            }
            return Some(self.span);
        }
        None
    }
}

/// What `errors_total` calls an answer with this status, and spans do.
pub(crate) fn error_type(status: u16) -> Option<&'static str> {
    Some(match status {
        ..400 => return None,
        400 => "invalid_argument",
        401 => "unauthenticated",
        403 => "permission_denied",
        404 => "not_found",
        409 => "conflict",
        413 => "too_large",
        429 => "resource_exhausted",
        499 => "cancelled",
        501 => "unimplemented",
        503 => "unavailable",
        504 => "deadline_exceeded",
        status if status < 500 => "client_error",
        _ => "internal",
    })
}
