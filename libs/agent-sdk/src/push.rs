//! Push notifications: a task's events, sent to addresses that its callers named.
//!
//! Each address of a task is a *line*: its events go out one after the other, in order, and the next only when the one before
//! has arrived. What does not arrive is tried again with growing waits. An answer that no repetition changes (a refusal, an
//! address that is not allowed) ends the tries of that event alone: who cannot read a large artifact may well read the status
//! after it. A receiver that has not been reached for all tries is told the newest status next, and not everything in between. A task's
//! end is on the line's disk note before it is sent
//! ([`Push::owed`](crate::tasks::record::Push)), so that a restarted agent sends where the task stands; a receiver may
//! hear of an event twice and never misses the end while it can be reached.
//!
//! Who hangs holds up its own host alone: a host has a few of the places for deliveries, and waits for them before it takes one of
//! those of all.
//!
//! The addresses come from whoever may send a message, so they are reached through [`Outbound`] alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use a2a_pb::proto::TaskPushNotificationConfig;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use muster_rpc::backoff::Backoff;
use muster_rpc::outbound::{Failure, Outbound};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::metrics::{Delivery, Meters};
use crate::tasks::table::Event;

/// Header with the token that the receiver gave, so that it knows its own.
const TOKEN: HeaderName = HeaderName::from_static("x-a2a-notification-token");

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often one event is tried: over some five minutes.
const MOST_ATTEMPTS: u32 = 10;
/// Waits between attempts.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(60));
/// Events that wait on one line; beyond that the oldest goes, because the newest says where the task stands.
const MOST_WAITING: usize = 64;
/// Deliveries under way at once.
const AT_ONCE: usize = 64;
/// Those of them that go to one host.
const AT_ONCE_TO_A_HOST: usize = 4;
/// Hosts that are remembered before those are forgotten that nothing is sent to.
const HOSTS: usize = 256;
/// Longest text of an address, a token or credentials.
const MAX_TEXT: usize = 2_048;

/// All lines of an agent. Clones share them.
#[derive(Clone)]
pub(crate) struct Pushes {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` where the operator allows no address.
    outbound: Option<Outbound>,
    lines: Mutex<HashMap<Key, Line>>,
    places: Semaphore,
    /// The places of each host that something was sent to.
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
    meters: Meters,
    closing: CancellationToken,
    /// Number of the next line: one that was forgotten and made again is another.
    next_line: AtomicU64,
}

/// A task and the id of one of its configurations.
type Key = (String, String);

struct Line {
    number: u64,
    config: TaskPushNotificationConfig,
    waiting: VecDeque<Event>,
    /// Strikes the note that something is owed, when nothing waits any more.
    settle: Option<Settle>,
}

/// What is done when all that a line owes was delivered, or given up.
pub(crate) type Settle = Box<dyn FnOnce() + Send>;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrived,
    /// The receiver wants this one not, or no address of it may be used.
    Refused,
    /// The receiver was not reached.
    Exhausted,
}

/// How one attempt ended.
enum Attempt {
    Arrived,
    /// Again later.
    Failed(String),
    /// Never.
    Refused(String),
}

impl Pushes {
    /// Pushes over these connections; none where there are no connections.
    pub(crate) fn new(outbound: Option<Outbound>, meters: Meters) -> Self {
        Self {
            inner: Arc::new(Inner {
                outbound,
                lines: Mutex::default(),
                places: Semaphore::new(AT_ONCE),
                hosts: Mutex::default(),
                meters,
                closing: CancellationToken::new(),
                next_line: AtomicU64::new(0),
            }),
        }
    }

    /// Whether anything may be pushed.
    pub(crate) fn are_allowed(&self) -> bool {
        self.inner.outbound.is_some()
    }

    /// What is wrong with a configuration: the field, and what is allowed.
    pub(crate) fn check(&self, config: &TaskPushNotificationConfig) -> Result<(), (&'static str, String)> {
        let url: Url = config
            .url
            .parse()
            .map_err(|error| ("url", format!("is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err((
                "url",
                format!("has the scheme '{}'; http and https are spoken", url.scheme()),
            ));
        }
        let authentication = config.authentication.as_ref();
        let texts = [
            ("url", config.url.as_str()),
            ("id", config.id.as_str()),
            ("token", config.token.as_str()),
            (
                "authentication.scheme",
                authentication.map_or("", |it| it.scheme.as_str()),
            ),
            (
                "authentication.credentials",
                authentication.map_or("", |it| it.credentials.as_str()),
            ),
        ];
        for (field, text) in texts {
            if text.len() > MAX_TEXT {
                return Err((
                    field,
                    format!("has {} bytes; at most {MAX_TEXT} are allowed", text.len()),
                ));
            }
            if HeaderValue::from_str(text).is_err() {
                return Err((field, "holds characters that no HTTP header can carry".to_owned()));
            }
        }
        match &self.inner.outbound {
            Some(outbound) => outbound
                .check(&url)
                .map_err(|failure| ("url", failure.to_string())),
            None => Err(("url", "nothing may be pushed".to_owned())),
        }
    }

    /// Sends events to an address, after those that were given before. `settle` is called when none of the line waits any more; what
    /// comes later and owes nothing leaves it as it is.
    pub(crate) fn deliver(
        &self,
        task: &str,
        config: &TaskPushNotificationConfig,
        events: &[Event],
        settle: Option<Settle>,
    ) {
        let key = (task.to_owned(), config.id.clone());
        let mut lines = self.inner.lines.lock();
        if let Some(line) = lines.get_mut(&key) {
            line.config = config.clone();
            line.waiting.extend(events.iter().cloned());
            if settle.is_some() {
                line.settle = settle;
            }
            // The first is under way.
            while line.waiting.len() > MOST_WAITING {
                line.waiting.remove(1);
            }
            return;
        }
        let number = self.inner.next_line.fetch_add(1, Ordering::Relaxed);
        let line = Line {
            number,
            config: config.clone(),
            waiting: events.iter().cloned().collect(),
            settle,
        };
        lines.insert(key.clone(), line);
        drop(lines);
        // There is none where a process that ends lets go of its tasks; the disk knows then what is owed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Arc::clone(&self.inner).work(key, number));
        }
    }

    /// Whether something is being sent to an address.
    pub(crate) fn are_under_way(&self, task: &str, config: &str) -> bool {
        let key = (task.to_owned(), config.to_owned());
        self.inner.lines.lock().contains_key(&key)
    }

    /// Sends nothing more to an address.
    pub(crate) fn forget(&self, task: &str, config: &str) {
        self.inner
            .lines
            .lock()
            .remove(&(task.to_owned(), config.to_owned()));
    }

    /// Sends nothing more of a task.
    pub(crate) fn forget_all(&self, task: &str) {
        self.inner.lines.lock().retain(|(known, _), _| known != task);
    }

    /// Stops; what is not delivered is in the store.
    pub(crate) fn close(&self) {
        self.inner.closing.cancel();
    }
}

impl Inner {
    /// Delivers what waits on a line until nothing does.
    async fn work(self: Arc<Self>, key: Key, number: u64) {
        while let Some((config, event)) = self.next(&key, number) {
            let fate = tokio::select! {
                fate = self.insist(&key, &config, &event) => fate,
                () = self.closing.cancelled() => return,
            };
            let mut lines = self.lines.lock();
            let Some(line) = lines.get_mut(&key).filter(|line| line.number == number) else {
                return;
            };
            line.waiting.pop_front();
            if fate == Fate::Exhausted {
                line.skip_to_newest_status();
            }
            if line.waiting.is_empty()
                && let Some(line) = lines.remove(&key)
            {
                drop(lines);
                // Given up counts as done: the next start would not fare better.
                if let Some(settle) = line.settle {
                    settle();
                }
                return;
            }
        }
    }

    fn next(&self, key: &Key, number: u64) -> Option<(TaskPushNotificationConfig, Event)> {
        let lines = self.lines.lock();
        let line = lines.get(key).filter(|line| line.number == number)?;
        Some((line.config.clone(), Arc::clone(line.waiting.front()?)))
    }

    /// Tries until the event arrives, or never will.
    async fn insist(&self, key: &Key, config: &TaskPushNotificationConfig, event: &Event) -> Fate {
        let (task, id) = key;
        let host = config
            .url
            .parse::<Url>()
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_default();
        for attempt in 0..MOST_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(BACKOFF.delay(attempt - 1, rand::random())).await;
            }
            let places = self.places_of(&host);
            // Semaphores that are never closed.
            let _place_of_host = places.acquire().await;
            let _place = self.places.acquire().await;
            match self.attempt(config, event).await {
                Attempt::Arrived => {
                    self.meters.pushed(Delivery::Arrived);
                    return Fate::Arrived;
                }
                Attempt::Failed(why) => {
                    self.meters.pushed(Delivery::Failed);
                    tracing::debug!(task_id = task, config = id, why, "a push has not arrived");
                }
                Attempt::Refused(why) => {
                    self.meters.pushed(Delivery::GivenUp);
                    tracing::warn!(task_id = task, config = id, why, "a push is refused and given up");
                    return Fate::Refused;
                }
            }
        }
        self.meters.pushed(Delivery::GivenUp);
        tracing::warn!(
            task_id = task,
            config = id,
            "a push does not arrive and is given up"
        );
        Fate::Exhausted
    }

    fn places_of(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        if let Some(places) = hosts.get(host) {
            return Arc::clone(places);
        }
        if hosts.len() >= HOSTS {
            hosts.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = Arc::new(Semaphore::new(AT_ONCE_TO_A_HOST));
        hosts.insert(host.to_owned(), Arc::clone(&places));
        places
    }

    async fn attempt(&self, config: &TaskPushNotificationConfig, event: &Event) -> Attempt {
        let body = match muster_a2a::event_json(event) {
            Ok(body) => body.to_string(),
            Err(status) => return Attempt::Refused(status.message().to_owned()),
        };
        let (Some(outbound), Ok(url)) = (&self.outbound, config.url.parse::<Url>()) else {
            return Attempt::Refused("the address cannot be used".to_owned());
        };
        let mut request = outbound
            .request(Method::POST, url)
            .timeout(TIMEOUT)
            .header(header::CONTENT_TYPE, "application/a2a+json")
            .header("a2a-version", muster_a2a::SUPPORTED_VERSION)
            .body(body);
        if !config.token.is_empty() {
            request = request.header(TOKEN, &config.token);
        }
        if let Some(authentication) = &config.authentication
            && !authentication.credentials.is_empty()
        {
            let value = format!("{} {}", authentication.scheme, authentication.credentials);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = match request.build() {
            Ok(request) => request,
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        match outbound.send(request).await {
            Ok(response) => verdict(response.status()),
            Err(failure @ (Failure::Refused(_) | Failure::NoHost(_))) => {
                Attempt::Refused(failure.to_string())
            }
            Err(failure) => Attempt::Failed(failure.to_string()),
        }
    }
}

impl Line {
    /// Leaves the newest event that says where the task stands, where there is one.
    fn skip_to_newest_status(&mut self) {
        use a2a_pb::proto::stream_response::Payload;
        let says_status =
            |event: &Event| matches!(event.payload, Some(Payload::StatusUpdate(_) | Payload::Task(_)));
        let newest = self.waiting.iter().rposition(says_status);
        let newest = newest.and_then(|place| self.waiting.get(place).cloned());
        self.waiting.clear();
        self.waiting.extend(newest);
    }
}

/// What a status says about trying again.
fn verdict(status: StatusCode) -> Attempt {
    let said = format!("the receiver answered {status}");
    let later = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if status.is_success() {
        Attempt::Arrived
    } else if status.is_client_error() && !later.contains(&status) {
        Attempt::Refused(said)
    } else {
        Attempt::Failed(said)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use a2a_pb::proto::{self as pb, stream_response::Payload};
    use muster_runtime::clock::SystemClock;
    use muster_runtime::metrics::Metrics;

    use super::*;
    use crate::metrics::DEFINITIONS;
    use crate::running::Running;

    fn event(payload: Payload) -> Event {
        Arc::new(pb::StreamResponse {
            payload: Some(payload),
        })
    }

    fn status() -> Event {
        event(Payload::StatusUpdate(pb::TaskStatusUpdateEvent::default()))
    }

    fn artifact() -> Event {
        event(Payload::ArtifactUpdate(pb::TaskArtifactUpdateEvent::default()))
    }

    #[tokio::test]
    async fn what_owes_nothing_leaves_the_note_of_what_does() {
        let clock = Arc::new(SystemClock::default());
        let running = Running::new("puppet", 1, clock.clone());
        let pushes = Pushes::new(
            None,
            Meters::new(Metrics::new(DEFINITIONS).unwrap(), clock, running),
        );
        let config = TaskPushNotificationConfig::default();
        let (sender, settled) = tokio::sync::oneshot::channel();
        let settle: Settle = Box::new(move || sender.send(()).unwrap());
        pushes.deliver("t", &config, &[status()], Some(settle));
        pushes.deliver("t", &config, &[status()], None);
        settled.await.unwrap();
        assert!(!pushes.are_under_way("t", ""));
    }

    #[test]
    fn who_was_not_reached_is_told_the_newest_status() {
        let newest = status();
        let mut line = Line {
            number: 0,
            config: TaskPushNotificationConfig::default(),
            waiting: VecDeque::from([status(), artifact(), Arc::clone(&newest), artifact()]),
            settle: None,
        };
        line.skip_to_newest_status();
        assert!(line.waiting.len() == 1 && Arc::ptr_eq(&line.waiting[0], &newest));
        line.waiting = VecDeque::from([artifact()]);
        line.skip_to_newest_status();
        assert!(line.waiting.is_empty());
    }
}
