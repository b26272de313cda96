//! The way to each instance: its cached connections, and what was measured on them.
//!
//! A connection is served by one task, which at some rate keeps one processor busy while others wait. So a link may have
//! several ([`Links::with_connections`]); the second is opened only when many calls are under way, because fewer
//! connections put more calls into one packet. Each thread that serves connections ([`muster_runtime::workers`]) has connections of its
//! own to an instance, so that a call stays on one thread.
//!
//! A link lives as long as the registration that it belongs to. A new registration of the same instance, or a new
//! endpoint, gets a new link with a closed breaker: whatever was wrong with the old process says nothing about the
//! new one. Calls under way keep the old link alive until they end.
//!
//! An instance whose lease ended without a goodbye is lost: calls that are with it are broken off there and then,
//! because a machine that vanished never closes its connections, and they would hang until TCP gives those up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Uri;
use muster_a2a::client::Client;
use muster_rpc::breaker::{self, Ticket};
use muster_rpc::channel::security::Fixed;
use muster_rpc::channel::{self, Direct, Security};
use muster_rpc::endpoint::Endpoint;
use muster_rpc::outbound::Outbound;
use muster_runtime::trust::Trust;
use muster_runtime::workers;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::balance::Candidate;
use crate::credentials::Certificates;
use crate::fleet::instance::Availability;
use crate::fleet::{Instance, Key};
use crate::flow::Flow;
use crate::flow::limit::Limit;
use crate::flow::lines::Pace;
use crate::measure::{Measured, Verdict};
use crate::tuning::WHOLE;

/// Calls under way for which one more connection is used.
const CALLS_PER_CONNECTION: usize = 16;

/// The way to one instance.
#[derive(Debug)]
pub struct Link {
    endpoint: Endpoint,
    epoch: u64,
    /// For an agent that speaks a JSON binding.
    bridge: Option<Client>,
    ways: Ways,
    /// What calls are addressed to.
    origin: Uri,
    /// Which of them is next.
    turn: AtomicUsize,
    /// All calls that are with it, and the messages among them.
    in_flight: AtomicU32,
    messages: AtomicU32,
    /// Messages that it may have, as `learned` says.
    places: AtomicU32,
    /// The part of its weight that it gets, in thousandths.
    share: AtomicU32,
    /// Whether somebody found all places taken since that was last asked.
    was_full: AtomicBool,
    learned: Mutex<Learned>,
    lost: CancellationToken,
}

/// The connections to one instance: some for each thread that serves connections, and for all other threads together.
#[derive(Debug)]
struct Ways {
    channel: channel::Config,
    security: Security,
    /// How many each has, at least one.
    most: usize,
    /// Those of the other threads come first.
    threads: Box<[OnceLock<Box<[Direct]>>]>,
}

impl Ways {
    fn new(channel: &channel::Config, security: Security, most: usize, workers: usize) -> Self {
        Self {
            channel: channel.clone(),
            security,
            most,
            threads: (0..=workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Those of this thread.
    fn here(&self) -> &[Direct] {
        let last = self.threads.len() - 1;
        let number = workers::current().map_or(0, |number| number + 1).min(last);
        self.threads[number].get_or_init(|| {
            (0..self.most)
                .map(|_| channel::direct(&self.channel, &self.security))
                .collect()
        })
    }
}

/// What was learned of an instance.
#[derive(Debug)]
struct Learned {
    measured: Measured,
    limit: Limit,
    /// Load that it told with an answer, and when.
    told: Option<(f64, Duration)>,
    /// Since when it is used: when the link was made, or the breaker closed again.
    since: Duration,
}

impl Learned {
    /// A call has ended. Returns whether that opened the breaker. An instance whose breaker closes again begins anew, slowly.
    fn report(&mut self, ticket: Ticket, verdict: Verdict, now: Duration) -> bool {
        let was_closed = self.measured.breaker(now) == breaker::State::Closed;
        let has_opened = self.measured.report(ticket, verdict, now);
        if !was_closed && self.measured.breaker(now) == breaker::State::Closed {
            self.since = now;
        }
        has_opened
    }
}

impl Learned {
    /// The load that the instance said last, with an answer or a heartbeat.
    fn load(&self, instance: &Instance) -> f64 {
        match self.told {
            Some((load, at)) if at >= instance.reported_at => load,
            _ => instance.load,
        }
    }
}

impl Link {
    /// The way to an agent that speaks no gRPC.
    #[must_use]
    pub const fn bridge(&self) -> Option<&Client> {
        self.bridge.as_ref()
    }

    /// A connection for the next call, which connects when it is first used; and what the call is addressed to.
    #[must_use]
    pub fn way(&self) -> (&Direct, &Uri) {
        let calls = self.in_flight() as usize;
        let channels = self.ways.here();
        let used = (1 + calls / CALLS_PER_CONNECTION).min(channels.len());
        let turn = if used > 1 {
            self.turn.fetch_add(1, Ordering::Relaxed) % used
        } else {
            0
        };
        (&channels[turn], &self.origin)
    }

    /// How many calls are with the instance now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How many messages it may have at once, and how many it has.
    #[must_use]
    pub fn places(&self) -> (u32, u32) {
        (
            self.places.load(Ordering::SeqCst),
            self.messages.load(Ordering::SeqCst),
        )
    }

    /// Whether it may have one more message.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let (places, taken) = self.places();
        taken < places
    }

    /// How fast it answers with all places taken, once that is known.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        self.learned.lock().limit.pace()
    }

    /// What was measured so far.
    #[must_use]
    pub fn measured(&self) -> Measured {
        self.learned.lock().measured.clone()
    }

    /// How long until the breaker lets a call through; zero when it does now.
    #[must_use]
    pub fn next_chance(&self, now: Duration) -> Duration {
        self.learned.lock().measured.next_chance(now)
    }

    /// The part of its weight that it gets, in thousandths.
    #[must_use]
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// It gets this part of its weight from now on.
    pub fn set_share(&self, share: u32) {
        self.share.store(share.min(WHOLE), Ordering::Relaxed);
    }

    /// It may have no more messages than this at once from now on; none: as many as its card says.
    fn set_ceiling(&self, ceiling: Option<u32>) {
        let mut learned = self.learned.lock();
        let company = self.messages.load(Ordering::SeqCst);
        learned.limit.set_ceiling(ceiling, company);
        self.places.store(learned.limit.places(), Ordering::SeqCst);
    }

    /// Seconds of an answer without company, as far as they are known.
    #[must_use]
    pub fn alone(&self) -> Option<f64> {
        self.learned.lock().limit.base()
    }

    /// Whether somebody found all places taken since this was last asked.
    #[must_use]
    pub fn take_was_full(&self) -> bool {
        self.was_full.swap(false, Ordering::Relaxed)
    }

    /// The instance told its load with an answer.
    pub fn told(&self, load: f64, now: Duration) {
        self.learned.lock().told = Some((load, now));
    }

    /// The load that it said last, with an answer or a heartbeat.
    #[must_use]
    pub fn load(&self, instance: &Instance) -> f64 {
        self.learned.lock().load(instance)
    }

    /// The instance as the balancer sees it, whose region is so far.
    #[must_use]
    pub fn candidate<'i>(&self, instance: &'i Instance, distance: u32, now: Duration) -> Candidate<'i> {
        let learned = self.learned.lock();
        Candidate {
            in_flight: self.in_flight(),
            load: learned.load(instance),
            latency: learned.measured.latency(),
            success: learned.measured.success(),
            distance,
            busy: instance.availability == Availability::Busy,
            weight: instance.weight,
            tuned: self.share(),
            version: &instance.version,
            age: now.saturating_sub(learned.since),
        }
    }

    /// Starts a call that is no message, unless the breaker is open.
    #[must_use]
    pub fn start(self: &Arc<Self>, now: Duration) -> Option<Flight> {
        let ticket = self.learned.lock().measured.enter(now)?;
        Some(self.flight(ticket, now, None))
    }

    /// Starts a message, unless all places are taken or the breaker is open. Only [`Flow`] does, which counts all.
    pub(crate) fn start_message(
        self: &Arc<Self>,
        flow: &Arc<Flow>,
        instance: &Arc<Instance>,
        now: Duration,
    ) -> Option<Flight> {
        let places = self.places.load(Ordering::SeqCst);
        let free = |taken: u32| (taken < places).then_some(taken + 1);
        let taken = self
            .messages
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, free);
        if taken.is_err() {
            self.was_full.store(true, Ordering::Relaxed);
            return None;
        }
        let entered = self.learned.lock().measured.enter(now);
        let Some(ticket) = entered else {
            self.messages.fetch_sub(1, Ordering::SeqCst);
            return None;
        };
        Some(self.flight(ticket, now, Some((flow, instance))))
    }

    /// Starts a message whatever places are taken, unless the breaker is open.
    pub(crate) fn start_moved(
        self: &Arc<Self>,
        flow: &Arc<Flow>,
        instance: &Arc<Instance>,
        now: Duration,
    ) -> Option<Flight> {
        let ticket = self.learned.lock().measured.enter(now)?;
        self.messages.fetch_add(1, Ordering::SeqCst);
        Some(self.flight(ticket, now, Some((flow, instance))))
    }

    fn flight(
        self: &Arc<Self>,
        ticket: Ticket,
        now: Duration,
        of: Option<(&Arc<Flow>, &Arc<Instance>)>,
    ) -> Flight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight {
            link: Arc::clone(self),
            ticket,
            started: now,
            reported: false,
            place: of.map(|(flow, instance)| (Arc::clone(flow), Arc::clone(instance))),
        }
    }
}

/// A call that is with an instance. Dropped without a report, it counts as abandoned. A message's place passes on when it
/// is dropped.
#[derive(Debug)]
pub struct Flight {
    link: Arc<Link>,
    ticket: Ticket,
    started: Duration,
    reported: bool,
    /// Of a message: where its place came from.
    place: Option<(Arc<Flow>, Arc<Instance>)>,
}

impl Flight {
    /// Resolves when the instance is lost.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.link.lost.clone()
    }

    /// How long it has been there.
    #[must_use]
    pub fn taken(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started)
    }

    /// Ends the call with a verdict on the instance. Returns whether that opened its breaker.
    pub fn end(mut self, verdict: Verdict, now: Duration) -> bool {
        self.report(verdict, now)
    }

    /// Ends a stream that came to its end. The time says nothing about the instance beside others, whose streams may be about
    /// other things, but something about how many it has at once.
    pub fn finished(mut self, now: Duration) {
        let taken = self.taken(now);
        self.report(Verdict::Answered(None), now);
        let mut learned = self.link.learned.lock();
        self.learn(&mut learned, |limit, company| limit.answered(taken, company, now));
    }

    /// Ends a message that has not gone out, and whose place nobody is to have.
    pub(crate) fn cancel(mut self) {
        if self.place.take().is_some() {
            self.link.messages.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn report(&mut self, verdict: Verdict, now: Duration) -> bool {
        self.reported = true;
        let mut learned = self.link.learned.lock();
        let has_opened = learned.report(self.ticket, verdict, now);
        match verdict {
            Verdict::Answered(Some(taken)) => {
                self.learn(&mut learned, |limit, company| limit.answered(taken, company, now));
            }
            Verdict::Refused => self.learn(&mut learned, |limit, company| limit.refused(company, now)),
            Verdict::Answered(None)
            | Verdict::Erred
            | Verdict::Failed
            | Verdict::Silent(_)
            | Verdict::Unknown => {}
        }
        has_opened
    }

    fn learn(&self, learned: &mut Learned, from: impl FnOnce(&mut Limit, u32)) {
        if self.place.is_none() {
            return;
        }
        let company = self.link.messages.load(Ordering::SeqCst);
        from(&mut learned.limit, company);
        self.link.places.store(learned.limit.places(), Ordering::SeqCst);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.link.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.reported {
            // The time does not matter to a call without a verdict.
            self.link
                .learned
                .lock()
                .measured
                .report(self.ticket, Verdict::Unknown, Duration::ZERO);
        }
        if let Some((flow, instance)) = self.place.take() {
            self.link.messages.fetch_sub(1, Ordering::SeqCst);
            flow.ended(&instance, &self.link);
        }
    }
}

/// The links to all instances.
#[derive(Debug)]
pub struct Links {
    breaker: breaker::Config,
    channel: channel::Config,
    /// How agents are called that have proven to the registry who they are.
    trust: Trust,
    /// Most connections to one instance, for each thread.
    connections: usize,
    /// Threads that serve connections.
    workers: usize,
    /// Connections to agents of JSON bindings, and the largest answer that one may give, in bytes.
    outbound: Option<(Outbound, usize)>,
    /// What agents are shown that ask for mutual TLS.
    certificates: Option<Certificates>,
    table: RwLock<HashMap<Key, Arc<Link>>>,
    /// Places of each instance of an agent, where fewer than its card says.
    ceilings: RwLock<HashMap<String, u32>>,
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new(breaker: breaker::Config) -> Self {
        Self {
            breaker,
            channel: channel::Config::agent(),
            trust: Trust::loopback(),
            connections: 1,
            workers: 0,
            outbound: None,
            certificates: None,
            table: RwLock::default(),
            ceilings: RwLock::default(),
        }
    }

    /// The same by which agents are called that have proven who they are.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// The same with at most so many connections to each instance, and at least one.
    #[must_use]
    pub fn with_connections(self, most: usize) -> Self {
        let connections = most.max(1);
        Self { connections, ..self }
    }

    /// The same where so many threads serve connections.
    #[must_use]
    pub fn with_workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// The same with connections to agents of JSON bindings, whose answers may have so many bytes.
    #[must_use]
    pub fn with_outbound(self, outbound: Outbound, answer_bytes: usize) -> Self {
        Self {
            outbound: Some((outbound, answer_bytes)),
            ..self
        }
    }

    /// The same with certificates for agents that ask for mutual TLS.
    #[must_use]
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self {
            certificates: Some(certificates),
            ..self
        }
    }

    /// The way out to an instance: the common one, or its own where it is shown a certificate.
    fn outbound(&self, instance: &Instance) -> Option<(Outbound, usize)> {
        let (outbound, most) = self.outbound.as_ref()?;
        let present = self.certificates.as_ref();
        let Some(present) = present.and_then(|certificates| certificates.for_instance(instance)) else {
            return Some((outbound.clone(), *most));
        };
        let presenting = outbound.presenting(present).inspect_err(|error| {
            tracing::error!(agent = instance.id.agent, %error, "no certificate can be shown to an agent");
        });
        Some((presenting.unwrap_or_else(|_| outbound.clone()), *most))
    }

    /// How an instance is called: one that has proven who it is, as that one; others as their scheme says, and then they have to be
    /// who their host's name says to authorities of the world.
    fn security(&self, instance: &Instance, outbound: Option<&Outbound>) -> Security {
        match (&instance.identity, outbound) {
            (Some(id), _) => self.trust.to_workload(id),
            (None, Some(outbound)) if instance.endpoint.is_tls() => {
                Security::by_scheme_with(Arc::new(Fixed::http2(outbound.tls())))
            }
            (None, _) => Security::by_scheme(),
        }
    }

    /// The link to an instance, made when it is first asked for.
    #[must_use]
    pub fn to(&self, instance: &Instance, now: Duration) -> Arc<Link> {
        let fits = |link: &&Arc<Link>| link.epoch == instance.epoch && link.endpoint == instance.endpoint;
        if let Some(link) = self.table.read().get(&*instance.id).filter(fits) {
            return Arc::clone(link);
        }
        let mut table = self.table.write();
        // Another call may have made it in the meantime.
        if let Some(link) = table.get(&*instance.id).filter(fits) {
            return Arc::clone(link);
        }
        let outbound = self.outbound(instance);
        let bridge = match (&instance.place, &outbound) {
            (Some(place), Some((outbound, most))) => {
                Some(Client::new(outbound.clone(), place.clone(), *most))
            }
            _ => None,
        };
        let mut limit = Limit::new(instance.max_concurrency);
        limit.set_ceiling(self.ceilings.read().get(&instance.id.agent).copied(), 0);
        let security = self.security(instance, outbound.as_ref().map(|(outbound, _)| outbound));
        let link = Arc::new(Link {
            endpoint: instance.endpoint.clone(),
            epoch: instance.epoch,
            bridge,
            ways: Ways::new(&self.channel, security, self.connections, self.workers),
            origin: instance.endpoint.uri(),
            turn: AtomicUsize::new(0),
            in_flight: AtomicU32::new(0),
            messages: AtomicU32::new(0),
            places: AtomicU32::new(limit.places()),
            share: AtomicU32::new(WHOLE),
            was_full: AtomicBool::new(false),
            learned: Mutex::new(Learned {
                measured: Measured::new(self.breaker),
                limit,
                told: None,
                since: now,
            }),
            lost: CancellationToken::new(),
        });
        table.insert(instance.key(), Arc::clone(&link));
        link
    }

    /// No instance of an agent gets more messages at once than this from now on, those that come later neither; none: as many as its
    /// card says.
    pub fn set_ceiling(&self, agent: &str, ceiling: Option<u32>) {
        let mut ceilings = self.ceilings.write();
        let before = match ceiling {
            Some(ceiling) => ceilings.insert(agent.to_owned(), ceiling),
            None => ceilings.remove(agent),
        };
        drop(ceilings);
        if before.is_none() && ceiling.is_none() {
            return;
        }
        for (_, link) in self.table.read().iter().filter(|(key, _)| key.agent == agent) {
            link.set_ceiling(ceiling);
        }
    }

    /// The agents whose instances get fewer than their cards say.
    #[must_use]
    pub fn ceilings(&self) -> Vec<String> {
        self.ceilings.read().keys().cloned().collect()
    }

    /// Breaks off the calls that are with an instance, and drops its link.
    pub fn lose(&self, key: &Key) {
        if let Some(link) = self.table.write().remove(key) {
            link.lost.cancel();
        }
    }

    /// Drops the link to an instance that has left; calls under way go on.
    pub fn forget(&self, key: &Key) {
        self.table.write().remove(key);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.read().len()
    }

    /// Drops the links to instances that are gone; calls under way go on.
    pub fn prune(&self, is_alive: impl Fn(&Key) -> bool) {
        self.table.write().retain(|key, _| is_alive(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_registration_gets_a_new_link_and_the_same_one_keeps_it() {
        let links = Links::new(breaker::Config::default());
        let mut instance = Instance::example("weather", "w1", &["s"]);
        let first = links.to(&instance, Duration::ZERO);
        assert!(Arc::ptr_eq(&first, &links.to(&instance, Duration::ZERO)));
        instance.epoch += 1;
        assert!(!Arc::ptr_eq(&first, &links.to(&instance, Duration::ZERO)));
        links.prune(|_| false);
        assert!(links.table.read().is_empty());
    }

    #[tokio::test]
    async fn calls_to_a_lost_instance_hear_of_it() {
        let links = Links::new(breaker::Config::default());
        let instance = Instance::example("weather", "w1", &["s"]);
        let flight = links.to(&instance, Duration::ZERO).start(Duration::ZERO).unwrap();
        links.lose(&instance.key());
        assert!(flight.lost().is_cancelled());
        let again = links.to(&instance, Duration::ZERO).start(Duration::ZERO).unwrap();
        assert!(
            !again.lost().is_cancelled(),
            "should it come back, it is a new link"
        );
    }

    #[tokio::test]
    async fn an_instance_that_was_left_alone_begins_anew() {
        let links = Links::new(breaker::Config::default());
        let instance = Instance::example("weather", "w1", &["s"]);
        let link = links.to(&instance, Duration::ZERO);
        let age = |now| link.candidate(&instance, 0, now).age;
        for _ in 0..5 {
            link.start(Duration::ZERO)
                .unwrap()
                .end(Verdict::Failed, Duration::ZERO);
        }
        let minute = Duration::from_secs(60);
        assert_eq!(age(minute), minute);
        while link.measured().breaker(minute) != breaker::State::Closed {
            link.start(minute).unwrap().end(Verdict::Answered(None), minute);
        }
        assert_eq!(age(minute + Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn more_connections_are_used_only_for_many_calls() {
        let links = Links::new(breaker::Config::default()).with_connections(3);
        let link = links.to(&Instance::example("weather", "w1", &["s"]), Duration::ZERO);
        let turns = || {
            let before = link.turn.load(Ordering::Relaxed);
            let _way = link.way();
            link.turn.load(Ordering::Relaxed) - before
        };
        let mut flights: Vec<_> = (1..CALLS_PER_CONNECTION)
            .map(|_| link.start(Duration::ZERO).unwrap())
            .collect();
        assert_eq!(turns(), 0, "the first is used alone");
        flights.push(link.start(Duration::ZERO).unwrap());
        assert_eq!(turns(), 1, "they take turns");
    }

    #[tokio::test]
    async fn calls_in_flight_are_counted_however_they_end() {
        let link = Links::new(breaker::Config::default())
            .to(&Instance::example("weather", "w1", &["s"]), Duration::ZERO);
        let answered = link.start(Duration::ZERO).unwrap();
        let abandoned = link.start(Duration::ZERO).unwrap();
        assert_eq!(link.in_flight(), 2);
        answered.end(Verdict::Answered(None), Duration::ZERO);
        drop(abandoned);
        assert_eq!(link.in_flight(), 0);
        assert_eq!(
            (link.measured().total().succeeded, link.measured().total().failed),
            (1, 0)
        );
    }
}
