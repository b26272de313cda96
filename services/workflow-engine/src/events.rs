//! Events: the log of them, those who publish and read it, and those who sleep until something comes.
//!
//! An event is durable first, then it is told. Whoever sleeps is woken by one reader that follows the log and offers each event
//! to the [`Subscriptions`]; whoever is awake reads the log from where it is. So nothing depends on being told in time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use jiff::{SignedDuration, Timestamp};
use muster_runtime::clock::SharedClock;
use muster_runtime::{Shutdown, Tasks};
use muster_workflow_dsl::cloud_event::{CloudEvent, SPECVERSION};
use muster_workflow_dsl::hearing::Interest;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::config;
use crate::error::Error;
use crate::news::{Follower, News};
use crate::off_thread::off_thread;
use crate::page::{self, List};
use crate::run::RunId;
use crate::store::events::{Added, FIRST_POSITION, Logged};
use crate::store::{self, Page, Store};
use crate::subscriptions::Subscriptions;
use crate::trail::Asked;
use muster_runtime::trace::{TRACEPARENT, TRACESTATE};

/// Events in one request at most.
pub const MOST_AT_ONCE: usize = 1_000;

/// Events read at once.
const PORTION: usize = 200;

/// How long the reader waits after the store has refused it.
const PAUSE: Duration = Duration::from_secs(1);

/// How often old events are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Which events to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only of this type.
    pub kind: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
}

impl Wanted {
    fn admits(&self, event: &CloudEvent) -> bool {
        self.source.as_ref().is_none_or(|source| source == event.source())
    }

    fn kinds(&self) -> Option<Vec<String>> {
        self.kind.clone().map(|kind| vec![kind])
    }
}

/// See the module.
pub struct Events {
    store: Arc<dyn Store>,
    clock: SharedClock,
    settings: config::Events,
    subscriptions: Mutex<Subscriptions>,
    /// Changes when the log has grown.
    news: Arc<News>,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Events {
    /// Over this store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: SharedClock,
        settings: config::Events,
        tasks: Tasks,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store,
            clock,
            settings,
            subscriptions: Mutex::default(),
            news: Arc::default(),
            tasks,
            shutdown,
        }
    }

    /// Which of its own doings the engine tells.
    pub(crate) fn lifecycle(&self) -> config::Lifecycle {
        self.settings.lifecycle
    }

    /// An event of somebody else's making: what may be left away is added, and the rest must be right.
    ///
    /// # Errors
    /// It is no event, or too large; the message names the attribute.
    pub fn complete(&self, mut event: Value) -> Result<CloudEvent, String> {
        if let Value::Object(fields) = &mut event {
            let mut complete = |name: &str, make: &dyn Fn() -> String| {
                fields.entry(name).or_insert_with(|| Value::String(make()));
            };
            complete("specversion", &|| SPECVERSION.to_owned());
            complete("id", &|| uuid::Uuid::now_v7().to_string());
        }
        self.admit(event)
    }

    /// An event that is complete, but for its time.
    ///
    /// # Errors
    /// As [`Self::complete`].
    pub fn admit(&self, mut event: Value) -> Result<CloudEvent, String> {
        if let Value::Object(fields) = &mut event {
            let now = || Value::String(muster_api::time::rfc3339(self.clock.now()));
            fields.entry("time").or_insert_with(now);
        }
        self.bound(muster_api::json::length(&event))?;
        CloudEvent::check(event).map_err(|error| error.to_string())
    }

    fn bound(&self, bytes: usize) -> Result<(), String> {
        let limit = self.settings.max_event_bytes;
        if bytes > limit {
            return Err(format!(
                "has {bytes} bytes, and at most {limit} are taken ('engine.events.max_event_bytes'); pass a reference instead"
            ));
        }
        Ok(())
    }

    /// Adds events and answers once they are durable, all or none; also when whoever published them goes away meanwhile.
    ///
    /// # Errors
    /// There are too many, one is too large, or the store refuses.
    pub async fn publish(self: &Arc<Self>, events: Vec<CloudEvent>) -> Result<Vec<Added>, Error> {
        if events.len() > MOST_AT_ONCE {
            let message = format!(
                "are {}, and at most {MOST_AT_ONCE} are taken at once",
                events.len()
            );
            return Err(Error::field("events", message));
        }
        for event in &events {
            self.bound(muster_api::json::length(event))
                .map_err(|message| Error::field("events", format!("{event} {message}")))?;
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let events = match Asked::here() {
            None => events,
            Some(here) => events.into_iter().map(|event| with_trace(event, &here)).collect(),
        };
        let (answer, added) = oneshot::channel();
        let this = Arc::clone(self);
        self.tasks.spawn("add events", async move {
            let (now, room) = (this.clock.now(), this.settings.room());
            let added = this.store.add_events(events, now, room).await;
            this.ring();
            let _ = answer.send(added);
        });
        Ok(added.await.map_err(|_| Error::ShuttingDown)??)
    }

    /// The log has grown.
    pub(crate) fn ring(&self) {
        self.news.ring();
    }

    /// Changes whenever the log has grown.
    pub(crate) fn news(&self) -> Follower {
        self.news.follow()
    }

    /// One after the last position that can be seen.
    pub(crate) async fn next_position(&self) -> Result<u64, store::Error> {
        self.store.next_position().await
    }

    /// Lists the log.
    ///
    /// # Errors
    /// The token is not one of this list's.
    pub async fn list(
        &self,
        wanted: &Wanted,
        from: u64,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Logged>, String), Error> {
        let from = List::Events.cursor::<u64>(wanted, page_token)?.unwrap_or(from);
        let limit = page::size(page_size);
        let Page { mut entries, next } = self
            .store
            .events(from.max(FIRST_POSITION), wanted.kinds().as_deref(), limit)
            .await?;
        let end = self.next_position().await?;
        entries.retain(|logged| wanted.admits(&logged.event));
        let next = next.filter(|next| *next < end);
        Ok((
            entries,
            next.map(|next| List::Events.token(wanted, &next))
                .unwrap_or_default(),
        ))
    }

    /// Follows the log from a position on, or from now on.
    ///
    /// # Errors
    /// The store refuses.
    pub async fn watch(
        self: &Arc<Self>,
        wanted: Wanted,
        from: Option<u64>,
    ) -> Result<impl Stream<Item = Result<Logged, Error>> + Send + use<>, Error> {
        // First the news, then the store: what comes between the two is seen.
        let news = self.news();
        let next = match from {
            Some(from) => from.max(FIRST_POSITION),
            None => self.next_position().await?,
        };
        let watcher = Watcher {
            events: Arc::clone(self),
            wanted,
            news,
            next,
            read: VecDeque::new(),
        };
        Ok(stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            let event = watcher.next().await;
            let rest = event.is_ok().then_some(watcher);
            Some((event, rest))
        }))
    }

    /// Events that may concern a listener, from a position on; and where to go on.
    pub(crate) async fn candidates(
        &self,
        from: u64,
        interests: &Arc<[Interest]>,
        limit: usize,
    ) -> Result<(Vec<Logged>, u64), store::Error> {
        // All events below have been visible before the log is read.
        let reached = self.subscriptions(|subscriptions| subscriptions.reached());
        let kinds: Option<BTreeSet<String>> = interests
            .iter()
            .map(|interest| interest.kind().map(str::to_owned))
            .collect();
        let kinds = kinds.map(|kinds| kinds.into_iter().collect::<Vec<_>>());
        let Page { entries, next } = self.store.events(from, kinds.as_deref(), limit).await?;
        if entries.is_empty() {
            return Ok((entries, next.unwrap_or(from).max(reached)));
        }
        let (interests, now) = (Arc::clone(interests), self.clock.now());
        let entries = off_thread(move || {
            let admitted = entries.into_iter().filter(|logged| {
                interests
                    .iter()
                    .any(|interest| interest.admits(&logged.event, now))
            });
            admitted.collect()
        })
        .await;
        Ok((entries, next.unwrap_or(from)))
    }

    /// Changes who is woken by events.
    pub(crate) fn subscriptions<T>(&self, change: impl FnOnce(&mut Subscriptions) -> T) -> T {
        change(&mut self.subscriptions.lock())
    }

    /// Follows the log and wakes those whom its events may concern, until the service stops.
    pub(crate) async fn keep_telling(self: Arc<Self>, wake: impl Fn(&RunId) + Send + 'static) {
        let mut news = self.news();
        while !self.shutdown.is_requested() {
            news.catch_up();
            match self.tell(&wake).await {
                Ok(true) => continue,
                Ok(false) => {
                    tokio::select! {
                        biased;
                        () = self.shutdown.requested() => {}
                        () = news.changed() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the log of events cannot be read; those who listen wait");
                    tokio::select! {
                        biased;
                        () = self.shutdown.requested() => {}
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Offers a portion of events; whether there were any.
    async fn tell(self: &Arc<Self>, wake: &impl Fn(&RunId)) -> Result<bool, store::Error> {
        let (from, nobody) =
            self.subscriptions(|subscriptions| (subscriptions.reached(), subscriptions.is_empty()));
        if nobody {
            // Whoever comes later looks for itself at what it has not seen.
            let next = self.next_position().await?;
            self.subscriptions(|subscriptions| {
                if subscriptions.is_empty() {
                    subscriptions.reach(next);
                }
            });
        }
        let from = if nobody {
            self.subscriptions(|subscriptions| subscriptions.reached())
        } else {
            from
        };
        let Page { entries, next } = self.store.events(from.max(FIRST_POSITION), None, PORTION).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        let (this, now) = (Arc::clone(self), self.clock.now());
        let woken =
            off_thread(move || {
                let mut woken = BTreeSet::new();
                // One after the other, so that nobody waits for all of them.
                for logged in &entries {
                    woken.append(&mut this.subscriptions(|subscriptions| {
                        subscriptions.offer(logged.position, &logged.event, now)
                    }));
                }
                if let Some(next) = next {
                    this.subscriptions(|subscriptions| subscriptions.reach(next));
                }
                woken
            })
            .await;
        woken.iter().for_each(wake);
        Ok(true)
    }

    /// Forgets old events until the service stops.
    pub(crate) async fn keep_forgetting(self: Arc<Self>) {
        let retention = Duration::from_secs(self.settings.retention_seconds);
        let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
        while !self.shutdown.is_requested() {
            let horizon = self.clock.now().checked_sub(retention).unwrap_or(Timestamp::MIN);
            match self.store.forget_events(horizon, PORTION).await {
                Ok(count) if count > 0 => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot forget old events"),
            }
            tokio::select! {
                biased;
                () = self.shutdown.requested() => {}
                () = tokio::time::sleep(SWEEP) => {}
            }
        }
    }
}

struct Watcher {
    events: Arc<Events>,
    wanted: Wanted,
    news: Follower,
    next: u64,
    read: VecDeque<Logged>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Logged, Error> {
        loop {
            if let Some(logged) = self.read.pop_front() {
                return Ok(logged);
            }
            // Marked as seen before the store is read, so that a later change wakes us.
            self.news.catch_up();
            let kinds = self.wanted.kinds();
            let page = self
                .events
                .store
                .events(self.next, kinds.as_deref(), PORTION)
                .await?;
            let was_empty = page.entries.is_empty();
            self.next = page.next.unwrap_or(self.next);
            let wanted = page
                .entries
                .into_iter()
                .filter(|logged| self.wanted.admits(&logged.event));
            self.read = wanted.collect();
            if !was_empty {
                continue;
            }
            tokio::select! {
                biased;
                () = self.events.shutdown.requested() => return Err(Error::ShuttingDown),
                () = self.news.changed() => {}
            }
        }
    }
}
/// The event with where it was published, after the extension for distributed tracing, unless it says that itself.
fn with_trace(event: CloudEvent, here: &Asked) -> CloudEvent {
    if event.get(TRACEPARENT).is_some() {
        return event;
    }
    let mut value = event.to_value();
    if let Some(attributes) = value.as_object_mut() {
        attributes.insert(TRACEPARENT.to_owned(), here.parent.clone().into());
        if let Some(state) = &here.state {
            attributes.insert(TRACESTATE.to_owned(), state.clone().into());
        }
    }
    // One with as many attributes as there may be goes as it is.
    CloudEvent::check(value).unwrap_or(event)
}
