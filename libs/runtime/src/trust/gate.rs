//! The gate of the data port: who calls, whether that is so, and whether the method is for such a caller.
//!
//! In this order, and with a line in the audit log for each refusal:
//!
//! 1. What the path needs ([`policy`]). Where that is nothing, nobody is asked anything.
//! 2. Who calls: the bearer token, else the workload at the other end of the connection, else, on a loopback without `required`,
//!    anybody. A token that is refused refuses the request, whoever holds the connection.
//! 3. On whose behalf: [`ON_BEHALF_OF`] counts from our own services alone: a caller with the role `service`, or whoever is
//!    anybody on a loopback. From others, agents too, it is an attempt to be somebody else, and refused: an agent that was taken over
//!    would be whoever it likes.
//! 4. Whether the method is for such a caller.
//!
//! The request goes on with an [`Access`], and with the header as the gate has understood it.
//!
//! Rejected: a library of policies with a language of its own (one table of thirty lines is read in a minute, and checked by a test);
//! sessions (every request says who makes it).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, header};
use muster_api::error::{Error, Reason};
use parking_lot::Mutex;
use tonic::Status;

use super::access::{Access, Context};
use super::audit::{Event, Limited, Log, TurnedAway};
use super::caller::{Caller, Kind, ON_BEHALF_OF, Role};
use super::declared::Declared;
use super::grants::Grants;
use super::metrics::Meters;
use super::peer::Peer;
use super::policy::{self, Need, Rule};
use super::refusals::Refusals;
use super::spiffe::SpiffeId;
use super::token::{Familiar, Remembered, Unverified, Verifier};
use super::{Config, Mode, Trust, Workload};
use crate::clock::SharedClock;
use crate::server;
use crate::transcode::refused;

/// When to come again while the audit log cannot be written.
pub(super) const AUDIT_RETRY: Duration = Duration::from_secs(5);

/// How often the audit log is written and synchronized.
const FLUSHED: Duration = Duration::from_millis(200);
const FLUSHES_PER_SYNC: u32 = 5;

/// Over which time refused tokens are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses of which refused tokens are counted.
const ADDRESSES: usize = 10_000;

/// What a request wants.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'r> {
    /// What is needed for it.
    pub(crate) rule: Rule,
    /// What it is called, for the log.
    pub(crate) action: &'r str,
    /// What it is about, for the log.
    pub(crate) object: &'r str,
}

/// Where a request comes from.
#[derive(Clone, Copy)]
struct Origin<'r> {
    peer: Option<&'r Peer>,
    /// What was shown before on the same connection.
    familiar: Option<&'r Familiar>,
}

/// See the module.
pub(crate) struct Gate {
    /// Whether nobody needs to say who he is.
    is_open: bool,
    /// What callers have to show, if anything.
    declared: Declared,
    /// Whether callers are to come through the router.
    is_behind_router: AtomicBool,
    verifier: Option<Verifier>,
    /// Which workload an id is of.
    trust: Trust,
    /// What workloads may reach, by their ids.
    grants: HashMap<String, Grants>,
    failures: Failures,
    audit: Option<Arc<Log>>,
    turned_away: Arc<TurnedAway>,
    limited: Option<Arc<Limited>>,
    records_reads: bool,
    refusals: Refusals,
    clock: SharedClock,
}

impl Gate {
    /// The gate of the service `name`.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub(crate) fn new(
        config: &Config,
        server: &server::Config,
        trust: &Trust,
        name: &str,
        clock: SharedClock,
        meters: Meters,
    ) -> Result<Self, crate::Error> {
        let other = crate::Error::Other;
        let audit = config.audit.directory.as_ref().map(|directory| {
            Log::open(directory, name, config.audit.rotate_bytes, Arc::clone(&clock))
                .map_err(|what| other(format!("trust.audit.directory: {what}")))
        });
        let audit = audit.transpose()?.map(Arc::new);
        let refusals = Refusals::new(Arc::clone(&clock));
        let turned_away = TurnedAway::new(audit.as_ref(), Arc::clone(&clock), meters, refusals.clone());
        let limited = audit
            .as_ref()
            .map(|log| Arc::new(Limited::new(Arc::clone(log), Arc::clone(&clock))));
        Ok(Self {
            is_open: config.mode(server) == Mode::Loopback && !config.tokens.required,
            declared: Declared::of(config, server, Workload::of_service(name)),
            is_behind_router: AtomicBool::new(false),
            trust: trust.clone(),
            verifier: Verifier::new(&config.tokens, Arc::clone(&clock)).map_err(other)?,
            grants: workloads_grants(config),
            failures: Failures::new(config.tokens.max_failures_per_minute),
            audit,
            turned_away: Arc::new(turned_away),
            limited,
            records_reads: config.audit.reads,
            refusals,
            clock,
        })
    }

    /// Whether callers are to come through the router, which tells them apart.
    pub(crate) fn set_behind_router(&self, is_behind_router: bool) {
        self.is_behind_router.store(is_behind_router, Ordering::Relaxed);
    }

    /// What callers have to show, for cards.
    pub(crate) const fn declared(&self) -> Declared {
        self.declared
    }

    pub(crate) fn audit(&self) -> Option<&Arc<Log>> {
        self.audit.as_ref()
    }

    /// Who was refused.
    pub(crate) const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Where those are counted and written down who do not get as far as a request.
    pub(crate) const fn turned_away(&self) -> &Arc<TurnedAway> {
        &self.turned_away
    }

    /// Where callers are written down who make more requests than they may; nowhere without an audit log.
    pub(super) fn limited(&self) -> Option<&Limited> {
        self.limited.as_deref()
    }

    pub(super) const fn records_reads(&self) -> bool {
        self.records_reads
    }

    /// Writes the audit log now and then.
    pub(crate) fn upkeep(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let log = Arc::clone(self.audit.as_ref()?);
        let (turned_away, limited) = (Arc::clone(&self.turned_away), self.limited.clone());
        Some(async move {
            let mut interval = tokio::time::interval(FLUSHED);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for round in 0_u32.. {
                interval.tick().await;
                turned_away.sweep();
                if let Some(limited) = &limited {
                    limited.sweep();
                }
                let log = Arc::clone(&log);
                let written = tokio::task::spawn_blocking(move || {
                    if round % FLUSHES_PER_SYNC == 0 {
                        log.sync();
                    } else {
                        log.flush();
                    }
                });
                if let Err(error) = written.await {
                    tracing::error!(%error, "the audit log could not be written");
                }
            }
        })
    }

    /// Whether there is an audit log.
    pub(crate) const fn is_audited(&self) -> bool {
        self.audit.is_some()
    }

    /// Lets a request through, or answers it.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        mut request: Request,
        asked: Asked<'_>,
        grpc: bool,
    ) -> Result<Request, Box<Response>> {
        let extensions = request.extensions();
        let from = Origin {
            peer: extensions.get::<Peer>(),
            familiar: extensions.get::<Arc<Familiar>>().map(|familiar| &**familiar),
        };
        match self.access(request.headers(), from, asked).await {
            Ok(access) => {
                let headers = request.headers_mut();
                match access.caller().to_header() {
                    Some(value) if asked.rule.need != Need::Nothing => {
                        headers.insert(ON_BEHALF_OF, value);
                    }
                    _ => {
                        headers.remove(ON_BEHALF_OF);
                    }
                }
                request.extensions_mut().insert(access);
                Ok(request)
            }
            Err(error) if grpc => Err(Box::new(Status::from(*error).into_http())),
            Err(error) => {
                let is_unknown = error.reason == Reason::Unauthenticated;
                let mut response = refused((*error).into(), None);
                if is_unknown {
                    response
                        .headers_mut()
                        .insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
                }
                Err(Box::new(response))
            }
        }
    }

    async fn access(
        self: &Arc<Self>,
        headers: &HeaderMap,
        from: Origin<'_>,
        asked: Asked<'_>,
    ) -> Result<Access, Box<Error>> {
        let address = from
            .peer
            .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.address().ip());
        let mut context = Context {
            gate: Arc::clone(self),
            actor: None,
            address,
            // Only the log says it.
            trace: if self.is_audited() {
                trace_id(headers)
            } else {
                String::new()
            },
            action: asked.action.to_owned(),
            object: asked.object.to_owned(),
        };
        let Asked { rule, action, .. } = asked;
        if rule.need == Need::Nothing {
            return Ok(Access::new(Caller::unknown(), context));
        }
        let actor = self.actor(headers, from, &context).await?;
        let caller = match headers.get(ON_BEHALF_OF) {
            None => actor,
            Some(value) => {
                let is_ours = actor.roles.has(Role::Service) || actor.is_anybody();
                if !is_ours {
                    let why = "only our own services speak for others";
                    context.note(Event::ImpersonationRefused, &actor, "", why);
                    let message = format!("'{}' may not call on behalf of others: {why}", actor.subject);
                    return Err(Box::new(Error::new(Reason::PermissionDenied, message)));
                }
                let text = value.to_str().unwrap_or_default();
                let caller = Caller::from_text(text).map_err(|what| {
                    context.note(Event::ImpersonationRefused, &actor, "", what);
                    Box::new(Error::invalid_field(ON_BEHALF_OF.as_str(), what))
                })?;
                context.actor = Some(actor);
                caller
            }
        };
        if self.is_behind_router.load(Ordering::Relaxed) && !comes_through_router(&caller, &context) {
            let why = "agents are called through the router, which tells callers apart";
            context.note(Event::AccessRefused, &caller, "", why);
            let message = format!("'{}' may not call this agent directly: {why}", caller.subject);
            return Err(Box::new(Error::new(Reason::PermissionDenied, message)));
        }
        self.allow(&caller, context, rule, action).await
    }

    /// The decision, off the threads of the runtime where the log is written before it is made.
    async fn allow(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        context: Context,
        rule: Rule,
        action: &str,
    ) -> Result<Access, Box<Error>> {
        let writes = self.audit.is_some() && rule.record == policy::Record::Change;
        let context = if writes {
            let (gate, caller, action) = (Arc::clone(self), Arc::clone(caller), action.to_owned());
            let decided = tokio::task::spawn_blocking(move || {
                let decision = gate.decide(&caller, &context, rule, &action);
                (context, decision)
            });
            let (context, decision) = decided.await.map_err(|error| {
                Box::new(Error::new(
                    Reason::Internal,
                    format!("the decision was broken off: {error}"),
                ))
            })?;
            decision?;
            context
        } else {
            self.decide(caller, &context, rule, action)?;
            context
        };
        Ok(Access::new(Arc::clone(caller), context))
    }

    /// Who calls.
    async fn actor(
        &self,
        headers: &HeaderMap,
        from: Origin<'_>,
        context: &Context,
    ) -> Result<Arc<Caller>, Box<Error>> {
        if let Some(verifier) = &self.verifier
            && let Some(value) = headers.get(header::AUTHORIZATION)
        {
            let familiar = from.familiar;
            let caller =
                familiar.and_then(|familiar| familiar.caller(value.as_bytes(), self.clock.monotonic()));
            if let Some(caller) = caller {
                return Ok(caller);
            }
            let text = value.to_str().unwrap_or_default();
            let token = text
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim());
            let Some(token) = token else {
                return Err(self.unknown(context, "the authorization is no bearer token"));
            };
            let known = self.bearer(verifier, token, context).await?;
            let caller = Arc::clone(&known.caller);
            if let Some(familiar) = familiar {
                familiar.keep(value.as_bytes(), known);
            }
            return Ok(caller);
        }
        if let Some(Peer::Workload { id, .. }) = from.peer {
            return Ok(self.workload(id));
        }
        if self.is_open {
            return Ok(Caller::anybody());
        }
        Err(self.unknown(context, "the request has neither a token nor a certificate"))
    }

    async fn bearer(
        &self,
        verifier: &Verifier,
        token: &str,
        context: &Context,
    ) -> Result<Remembered, Box<Error>> {
        if let Some(known) = verifier.remembered(token) {
            return Ok(known);
        }
        let now = self.clock.monotonic();
        match self.failures.look(context.address, now) {
            Standing::Open => {}
            Standing::Limited { left, is_new } => {
                if is_new {
                    let why = "too many tokens from this address were refused; for a minute no new one is looked at";
                    context.note(Event::LoginLimited, &Caller::unknown(), "", why);
                }
                let message = "too many tokens from this address were refused".to_owned();
                return Err(Box::new(
                    Error::new(Reason::LoginLimited, message).with_retry_after(left),
                ));
            }
        }
        match verifier.verify(token).await {
            Ok(known) => Ok(known),
            Err(Unverified::NoKeys(what)) => {
                tracing::error!(what, "no token can be verified");
                context.note(Event::LoginRefused, &Caller::unknown(), "", "no_keys");
                Err(Box::new(
                    Error::new(
                        Reason::DependencyUnavailable,
                        "tokens cannot be verified now: the keys of their issuer are not known",
                    )
                    .with_retry_after(AUDIT_RETRY),
                ))
            }
            Err(unverified) => {
                self.failures.add(context.address, now);
                let why = format!("{}: {unverified}", unverified.name());
                context.note(Event::LoginRefused, &Caller::unknown(), "", &why);
                Err(Box::new(Error::new(
                    Reason::Unauthenticated,
                    unverified.to_string(),
                )))
            }
        }
    }

    fn unknown(&self, context: &Context, why: &'static str) -> Box<Error> {
        context.note(Event::LoginRefused, &Caller::unknown(), "", why);
        Box::new(Error::new(Reason::Unauthenticated, why))
    }

    /// A workload as a caller, with the role of what it is; a stranger has none.
    fn workload(&self, id: &SpiffeId) -> Arc<Caller> {
        let roles = self.trust.workload_of(id).map(Workload::role);
        let roles = roles.into_iter().collect();
        let grants = self.grants.get(id.as_str()).cloned().unwrap_or_default();
        Caller::new(Kind::Service, None, id.as_str(), roles, grants)
    }
}

/// The grants whose subjects are workloads.
fn workloads_grants(config: &Config) -> HashMap<String, Grants> {
    let all = config.tokens.grants.iter();
    let workloads = all.filter(|(subject, _)| SpiffeId::parse(subject).is_ok());
    workloads
        .map(|(subject, grants)| (subject.clone(), grants.clone()))
        .collect()
}

fn comes_through_router(caller: &Caller, context: &Context) -> bool {
    context.actor.is_some() || caller.kind == Kind::Service || caller.sees_all()
}

/// The trace's id, of a `traceparent` that is one.
fn trace_id(headers: &HeaderMap) -> String {
    let header = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let id = header.and_then(|text| text.split('-').nth(1)).unwrap_or_default();
    let is_one = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_one { id.to_owned() } else { String::new() }
}

/// Refused tokens by address; those that were counted first are forgotten first.
struct Failures {
    most: u32,
    table: Mutex<lru::Table>,
}

/// Whether an address may show new tokens.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// Not for this long; `is_new` the first time that it is asked.
    Limited {
        left: Duration,
        is_new: bool,
    },
}

impl Failures {
    fn new(most: u32) -> Self {
        Self {
            most,
            table: Mutex::default(),
        }
    }

    fn look(&self, address: IpAddr, now: Duration) -> Standing {
        let mut table = self.table.lock();
        let Some(count) = table.get(network(address), now) else {
            return Standing::Open;
        };
        if count.failures < self.most {
            return Standing::Open;
        }
        let is_new = !std::mem::replace(&mut count.told, true);
        let left = (count.since + WINDOW).saturating_sub(now);
        Standing::Limited { left, is_new }
    }

    fn add(&self, address: IpAddr, now: Duration) {
        self.table.lock().count(network(address), now);
    }
}

/// Whoever has an address of IPv6 has 2^64 of them.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

mod lru {
    //! The bounded table.

    use std::collections::{HashMap, VecDeque};
    use std::net::IpAddr;
    use std::time::Duration;

    use super::{ADDRESSES, WINDOW};

    #[derive(Debug, Default)]
    pub(super) struct Table {
        counts: HashMap<IpAddr, Count>,
        order: VecDeque<IpAddr>,
    }

    #[derive(Debug)]
    pub(super) struct Count {
        pub(super) failures: u32,
        pub(super) since: Duration,
        pub(super) told: bool,
    }

    impl Table {
        /// The count of an address, while it holds.
        pub(super) fn get(&mut self, address: IpAddr, now: Duration) -> Option<&mut Count> {
            let count = self.counts.get_mut(&address)?;
            (now.saturating_sub(count.since) < WINDOW).then_some(count)
        }

        pub(super) fn count(&mut self, address: IpAddr, now: Duration) {
            if let Some(count) = self.get(address, now) {
                count.failures = count.failures.saturating_add(1);
                return;
            }
            let count = Count {
                failures: 1,
                since: now,
                told: false,
            };
            if self.counts.insert(address, count).is_none() {
                self.order.push_back(address);
            }
            if self.order.len() > ADDRESSES
                && let Some(oldest) = self.order.pop_front()
            {
                self.counts.remove(&oldest);
            }
        }

        #[cfg(test)]
        pub(super) fn len(&self) -> (usize, usize) {
            (self.counts.len(), self.order.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn refused_tokens_are_counted_by_address_for_a_minute() {
        let failures = Failures::new(2);
        let [one, other, near] =
            ["2001:db8::1", "10.0.0.1", "2001:db8::9"].map(|text| text.parse::<IpAddr>().unwrap());
        failures.add(one, at(0));
        assert_eq!(failures.look(one, at(1)), Standing::Open);
        failures.add(near, at(1));
        let limited = |left, is_new| Standing::Limited {
            left: at(left),
            is_new,
        };
        assert_eq!(failures.look(one, at(10)), limited(50, true));
        assert_eq!(failures.look(near, at(11)), limited(49, false));
        assert_eq!(failures.look(other, at(11)), Standing::Open);
        assert_eq!(failures.look(one, at(60)), Standing::Open);
        for number in 0..u32::try_from(ADDRESSES).unwrap() + 10 {
            failures.add(IpAddr::V4(number.into()), at(61));
        }
        assert_eq!(failures.table.lock().len(), (ADDRESSES, ADDRESSES));
    }

    #[test]
    fn only_a_trace_id_is_taken_for_one() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", http::HeaderValue::from_static(text));
            trace_id(&headers)
        };
        assert_eq!(
            of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").len(),
            32
        );
        assert_eq!(of("00-nonsense-b7ad6b7169203331-01"), "");
    }
}
