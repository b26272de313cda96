//! Attempts: one call goes to one instance after the other until one answers or none may be tried any more.
//!
//! An attempt that never reached its agent always moves on. One that may have been executed moves only where that
//! does no harm (the operation only reads, the card declares the skill idempotent, or the caller says so) and the
//! retry budget allows it. Each instance is tried once per call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use muster_api::extension::SKILL_METADATA;
use muster_rpc::deadline;
use parking_lot::Mutex;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response, Status};

use super::choose::{Chosen, IsSpent};
use super::failure::Failure;
use super::{Forwarder, Reply, Scope, Times, exceeded, expired, traced};
use crate::bridge::{Inbound, Unanswered};
use crate::call::{Call, EXTENSIONS, SUPPORTED_VERSION, VERSION};
use crate::codec::Pieces;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::fleet::{Instance, Key};
use crate::frame::Peer;
use crate::link::Flight;
use crate::load;
use crate::measure::Verdict;
use crate::operation::{About, Answer, Method};
use crate::peek::{Encoded, Held};
use crate::quota::{Spent, Whose};
use crate::target::Target;

/// How one attempt ended without an answer.
pub(super) enum Ended {
    TimedOut,
    Failed(Failure),
}

impl Ended {
    /// What it says about the instance, where so much time was left.
    fn verdict(&self, left: Option<Duration>) -> Verdict {
        match self {
            Self::TimedOut => Verdict::Silent(left),
            Self::Failed(failure) => failure.verdict(),
        }
    }

    /// Whether the instance may be at it still, or may have done it, with nothing to show for it.
    fn leaves_open(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Failed(failure) => failure.leaves_open(),
        }
    }

    fn of(status: Status) -> Self {
        if deadline::is_timer_of_tonic(&status) {
            Self::TimedOut
        } else {
            Self::Failed(Failure::of(status))
        }
    }
}

impl From<Unanswered> for Ended {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::TimedOut => Self::TimedOut,
            Unanswered::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// Who was asked, and what came of it.
type Run<A> = (Chosen, Result<(Response<A>, <A as Taken>::Read), Ended>);

/// A call and where it may go.
pub(super) struct Delivery<'d> {
    pub(super) method: &'static Method,
    pub(super) call: &'d Call,
    pub(super) scope: &'d Scope,
    pub(super) request: &'d Encoded,
    pub(super) times: Times,
    /// Who has it, while nobody knows what became of it.
    pub(super) unsettled: Mutex<Option<Arc<Key>>>,
}

impl<'d> Delivery<'d> {
    pub(super) const fn new(
        method: &'static Method,
        call: &'d Call,
        scope: &'d Scope,
        request: &'d Encoded,
        times: Times,
    ) -> Self {
        Self {
            method,
            call,
            scope,
            request,
            times,
            unsettled: Mutex::new(None),
        }
    }
}

/// An answer as the core takes it from an agent.
pub(super) trait Taken: Answer {
    /// What was found out about it.
    type Read: Send;

    /// Looks into it, before anybody is told that the agent answered well.
    fn look(&self, method: &Method) -> Result<Self::Read, Failure>;
}

impl Taken for Bytes {
    type Read = Held;

    fn look(&self, method: &Method) -> Result<Held, Failure> {
        Held::read(method, self).map_err(|defect| Failure::NotA2a(defect.to_string()))
    }
}

/// Its events are looked into as they come.
impl Taken for Inbound {
    type Read = ();

    fn look(&self, _: &Method) -> Result<(), Failure> {
        Ok(())
    }
}

/// The same, with why the last of those who were tried could not be reached.
fn because(nobody: Error, unreached: Option<String>) -> Error {
    match (nobody, unreached) {
        (
            Error::NoInstance {
                target,
                why,
                cause,
                retry_after,
            },
            Some(detail),
        ) => Error::NoInstance {
            target,
            why: format!("{why}: {detail}"),
            cause,
            retry_after,
        },
        (nobody, _) => nobody,
    }
}

impl Forwarder {
    /// Delivers a call that has one answer.
    pub(super) async fn deliver_single(
        &self,
        delivery: &Delivery<'_>,
        first: Option<Chosen>,
    ) -> Result<(Reply<Bytes>, Held), Error> {
        let (reply, held, _) = self.deliver::<Bytes>(delivery, first).await?;
        Ok((reply, held))
    }

    /// Delivers a call that has a stream of answers, whose flight goes on with it.
    pub(super) async fn deliver_stream(
        &self,
        method: &'static Method,
        call: &Call,
        scope: &Scope,
        request: &Encoded,
        times: Times,
        first: Option<Chosen>,
    ) -> Result<(Reply<Inbound>, Option<Flight>), Error> {
        let delivery = Delivery::new(method, call, scope, request, times);
        let (reply, (), flight) = self.deliver::<Inbound>(&delivery, first).await?;
        Ok((reply, flight))
    }

    async fn deliver<A: Taken>(
        &self,
        delivery: &Delivery<'_>,
        first: Option<Chosen>,
    ) -> Result<(Reply<A>, A::Read, Option<Flight>), Error> {
        let started = self.now();
        self.parts.budget.lock().called(started);
        // On the heap: it holds all attempts, and lies in the futures of all callers.
        let outcome = Box::pin(self.attempts::<A>(delivery, first)).await;
        self.parts
            .meters
            .answered(delivery.method, self.now().saturating_sub(started));
        outcome.inspect_err(|error| self.count_spent(error))
    }

    async fn attempts<A: Taken>(
        &self,
        delivery: &Delivery<'_>,
        mut first: Option<Chosen>,
    ) -> Result<(Reply<A>, A::Read, Option<Flight>), Error> {
        let Delivery {
            call, scope, times, ..
        } = delivery;
        let mut tried = BTreeSet::new();
        let mut paid = BTreeSet::new();
        let mut last = None;
        let mut unreached = None;
        for _ in 0..self.parts.limits.attempts.max(1) {
            let now = self.now();
            if times.expiry.is_some_and(|expiry| expiry.remaining(now).is_none()) {
                return Err(expired(call, "before it reached an agent"));
            }
            let chosen = match first.take() {
                Some(chosen) => chosen,
                None => match self.next(delivery, &tried) {
                    Ok(chosen) => chosen,
                    Err(nobody) => return Err(last.unwrap_or_else(|| because(nobody, unreached))),
                },
            };
            let left = match times.deadline.map(|deadline| deadline.remaining(now)) {
                Some(None) => return Err(exceeded(&format!("the call to '{}'", scope.name()))),
                Some(Some(left)) => Some(left),
                None => None,
            };
            if let Err(spent) = self.pay(delivery, &chosen.instance, &mut paid).await {
                // Its place passes on. From now on the agent is passed over.
                last = Some(Error::QuotaExceeded(spent));
                continue;
            }
            let (chosen, outcome) = match self.hedge_after::<A>(delivery, &chosen) {
                None => self.run::<A>(delivery, chosen, left, tried.len()).await,
                Some(after) => {
                    let race = self.race::<A>(delivery, chosen, left, after, (&mut tried, &mut paid));
                    Box::pin(race).await
                }
            };
            let ended = match outcome {
                Ok((response, read)) => {
                    let (reply, flight) = self.accept(chosen, response);
                    return Ok((reply, read, flight));
                }
                Err(ended) => ended,
            };
            let instance = Arc::clone(&chosen.instance);
            if let Ended::Failed(Failure::NeverReached(detail)) = &ended {
                unreached = Some(detail.clone());
            }
            match self.consider(delivery, chosen, ended, left) {
                Next::Move(error) => last = error.or(last),
                Next::Stop(error) => return Err(error),
            }
            tried.insert(instance.key());
        }
        Err(last.unwrap_or_else(|| {
            let nobody = Error::NoInstance {
                target: scope.name(),
                why: format!("{} were tried and none could be reached", tried.len()),
                cause: "unreachable",
                retry_after: Duration::from_secs(1),
            };
            because(nobody, unreached)
        }))
    }

    /// Who gets the next attempt. A message waits for its first place only.
    fn next(&self, delivery: &Delivery<'_>, tried: &BTreeSet<Key>) -> Result<Chosen, Error> {
        let call = delivery.call;
        let region = call.routing.region.as_deref();
        match delivery.method.about {
            About::Message => {
                let spent = |instance: &Instance| self.parts.quotas.spent(instance, &call.caller);
                let chooser = self.chooser(delivery.method, region, "", None, Some(&spent));
                chooser.move_on(&self.parts.flow, delivery.scope, tried)
            }
            About::Task { .. } | About::Target => {
                let chooser = self.chooser(delivery.method, region, "", None, None);
                chooser.choose(delivery.scope, tried)
            }
        }
    }

    /// A message costs its agent's quota, once for each agent that it goes to.
    async fn pay(
        &self,
        delivery: &Delivery<'_>,
        instance: &Instance,
        paid: &mut BTreeSet<String>,
    ) -> Result<(), Spent> {
        let quotas = &self.parts.quotas;
        let is_free = delivery.method.about != About::Message || !quotas.costs(instance);
        if is_free || paid.contains(&instance.id.agent) {
            return Ok(());
        }
        quotas.pay(instance, &delivery.call.caller).await?;
        paid.insert(instance.id.agent.clone());
        Ok(())
    }

    /// Counts a refusal for an agent's quota.
    pub(super) fn count_spent(&self, error: &Error) {
        if let Error::QuotaExceeded(spent) = error {
            self.parts.meters.limited(match spent.whose {
                Whose::All => "agent",
                Whose::Callers => "agent_caller",
            });
        }
    }

    pub(super) async fn attempt<A: Taken>(
        &self,
        method: &'static Method,
        chosen: &Chosen,
        request: Request<Pieces>,
        left: Option<Duration>,
    ) -> Result<(Response<A>, A::Read), Ended> {
        let call = self.authorized::<A>(method, chosen, request, left);
        // A stream without a deadline must still begin within the time of silence that it is allowed later.
        let allowed = left.unwrap_or(self.parts.limits.stream_idle);
        let lost = chosen.flight.lost();
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(allowed, call) => outcome,
            () = lost.cancelled() => return Err(Ended::Failed(Failure::lost())),
        };
        match outcome {
            Ok(Ok(response)) => match response.get_ref().look(method) {
                Ok(read) => Ok((response, read)),
                Err(failure) => Err(Ended::Failed(failure)),
            },
            Ok(Err(ended)) => Err(ended),
            Err(_) => Err(Ended::TimedOut),
        }
    }

    /// Makes a call with what the agent's card asks for. Where the agent refuses a token that was kept, the call is made once
    /// more with another one: what was refused was not done.
    async fn authorized<A: Taken>(
        &self,
        method: &'static Method,
        chosen: &Chosen,
        mut request: Request<Pieces>,
        left: Option<Duration>,
    ) -> Result<Response<A>, Ended> {
        if !Credentials::are_asked_for(&chosen.instance.card) {
            return self.carry::<A>(method, chosen, request, left).await;
        }
        let credentials = &self.parts.credentials;
        let missing = |missing| Ended::Failed(Failure::Unauthorized(missing));
        let skill = request.metadata().get(SKILL_METADATA);
        let skill = skill.and_then(|skill| skill.to_str().ok()).map(str::to_owned);
        let (instance, skill) = (&chosen.instance, skill.as_deref());
        let given = credentials.attach(instance, skill, &mut request).await;
        let given = given.map_err(missing)?;
        if !Credentials::may_have_ended(&given) {
            return self.carry::<A>(method, chosen, request, left).await;
        }
        let mut again = Request::new(request.get_ref().clone());
        *again.metadata_mut() = request.metadata().clone();
        match self.carry::<A>(method, chosen, request, left).await {
            Err(Ended::Failed(Failure::Answered(status))) if credentials.renounce(&given, status.code()) => {
                let given = credentials.attach(instance, skill, &mut again).await;
                given.map_err(missing)?;
                self.carry::<A>(method, chosen, again, left).await
            }
            outcome => outcome,
        }
    }

    /// Makes a call over whatever the agent speaks.
    async fn carry<A: Taken>(
        &self,
        method: &'static Method,
        chosen: &Chosen,
        request: Request<Pieces>,
        left: Option<Duration>,
    ) -> Result<Response<A>, Ended> {
        match chosen.link.bridge() {
            Some(client) => A::bridge(client, request, method, left)
                .await
                .map_err(Ended::from),
            None => {
                let peer = Peer::new(chosen.link.way(), self.parts.limits.answer_bytes);
                A::fetch(peer, request, method).await.map_err(Ended::of)
            }
        }
    }

    /// Counts an attempt that goes to an instance.
    pub(super) fn sent(&self, delivery: &Delivery<'_>, instance: &Instance) {
        let super::Parts { meters, limits, .. } = &self.parts;
        meters.sent(delivery.method, &instance.id.agent);
        meters.sent_to(&instance.region, limits.regions.is_elsewhere(&instance.region));
    }

    /// One attempt, after so many others.
    async fn run<A: Taken>(
        &self,
        delivery: &Delivery<'_>,
        chosen: Chosen,
        left: Option<Duration>,
        others: usize,
    ) -> Run<A> {
        self.sent(delivery, &chosen.instance);
        let mut upstream = upstream(delivery, &chosen.instance, left);
        let mut span = self.span(delivery, &chosen.instance, others);
        traced::tell(delivery, &chosen.instance, &span, &mut upstream);
        let (before, id) = (self.now(), &chosen.instance.id);
        tracing::debug!(
            agent = id.agent,
            instance = id.instance,
            others,
            "an attempt is made"
        );
        let outcome = self.attempt::<A>(delivery.method, &chosen, upstream, left).await;
        let (now, agent) = (self.now(), &chosen.instance.id.agent);
        let meters = &self.parts.meters;
        meters.attempted(agent, now, now.saturating_sub(before), outcome.is_ok());
        if span.is_recorded() {
            match &outcome {
                Ok(_) => {}
                Err(Ended::TimedOut) => span.fail("timeout", "no answer in time"),
                Err(Ended::Failed(failure)) => span.fail(failure.error_type(), ""),
            }
        }
        (chosen, outcome)
    }

    /// After how long without an answer a call is sent to a second instance as well: one that may be done twice, and whose
    /// answer is one.
    fn hedge_after<A: Taken>(&self, delivery: &Delivery<'_>, chosen: &Chosen) -> Option<Duration> {
        let after = self.parts.limits.hedge_after?;
        (A::TIMED && is_repeatable(delivery, &chosen.instance)).then_some(after)
    }

    /// An attempt that gets company when it takes long; the first answer counts, and the other call is given up. Who has failed
    /// while the other is still at it is heard of by its link alone.
    async fn race<A: Taken>(
        &self,
        delivery: &Delivery<'_>,
        chosen: Chosen,
        left: Option<Duration>,
        after: Duration,
        (tried, paid): (&mut BTreeSet<Key>, &mut BTreeSet<String>),
    ) -> Run<A> {
        let first = chosen.instance.key();
        let mut alone = std::pin::pin!(self.run::<A>(delivery, chosen, left, tried.len()));
        if let Ok(run) = tokio::time::timeout(after, &mut alone).await {
            return run;
        }
        tried.insert(first);
        let Some(second) = self.second(delivery, tried) else {
            return alone.await;
        };
        if self.pay(delivery, &second.instance, paid).await.is_err() {
            return alone.await;
        }
        tried.insert(second.instance.key());
        self.parts.meters.hedged();
        let left = left.map(|left| left.saturating_sub(after));
        let mut company = std::pin::pin!(self.run::<A>(delivery, second, left, tried.len() - 1));
        let ((chosen, outcome), is_first) = tokio::select! {
            run = &mut alone => (run, true),
            run = &mut company => (run, false),
        };
        let Err(ended) = outcome else {
            return (chosen, outcome);
        };
        self.end(chosen.flight, ended.verdict(left), &chosen.instance.id.agent);
        if is_first { company.await } else { alone.await }
    }

    /// A second instance that has room, if the budget affords it.
    fn second(&self, delivery: &Delivery<'_>, tried: &BTreeSet<Key>) -> Option<Chosen> {
        let call = delivery.call;
        let is_message = delivery.method.about == About::Message;
        let spent = |instance: &Instance| self.parts.quotas.spent(instance, &call.caller);
        let spent: Option<&IsSpent<'_>> = if is_message { Some(&spent) } else { None };
        let region = call.routing.region.as_deref();
        let chooser = self.chooser(delivery.method, region, "", None, spent);
        let second = match delivery.method.about {
            About::Message => {
                let able = chooser.able(delivery.scope, tried).ok()?;
                chooser.with_room(&self.parts.flow, &able)
            }
            About::Task { .. } | About::Target => chooser.choose(delivery.scope, tried).ok(),
        };
        // What one agent may do twice, another one that has the skill may not do in its company. And only a call that there is a
        // place for takes from the budget.
        let second = second.filter(|second| is_repeatable(delivery, &second.instance));
        second.filter(|_| self.parts.budget.lock().withdraw(self.now()))
    }

    fn accept<A: Taken>(&self, chosen: Chosen, response: Response<A>) -> (Reply<A>, Option<Flight>) {
        let now = self.now();
        if let Some(load) = load::told(response.metadata()) {
            chosen.link.told(load, now);
        }
        let flight = if A::TIMED {
            let taken = chosen.flight.taken(now);
            chosen.flight.end(Verdict::Answered(Some(taken)), now);
            None
        } else {
            Some(chosen.flight)
        };
        let (metadata, message, _) = response.into_parts();
        let mut extensions = HeaderMap::new();
        for value in metadata.into_headers().get_all(&EXTENSIONS) {
            extensions.append(EXTENSIONS, value.clone());
        }
        let instance = Arc::clone(&chosen.instance.id);
        (
            Reply {
                message,
                instance,
                extensions,
            },
            flight,
        )
    }

    /// Ends a failed attempt and decides what comes next.
    fn consider(
        &self,
        delivery: &Delivery<'_>,
        chosen: Chosen,
        ended: Ended,
        left: Option<Duration>,
    ) -> Next {
        let id = &chosen.instance.id;
        self.end(chosen.flight, ended.verdict(left), &id.agent);
        if ended.leaves_open() {
            *delivery.unsettled.lock() = Some(Arc::clone(id));
        }
        let failure = match ended {
            Ended::Failed(failure) => failure,
            Ended::TimedOut => return Next::Stop(exceeded(&format!("agent '{}'", id.agent))),
        };
        let is_repeatable = is_repeatable(delivery, &chosen.instance);
        let pay = || self.parts.budget.lock().withdraw(self.now());
        let may_move = failure.may_move(is_repeatable, pay);
        if may_move {
            self.parts.meters.moved();
        }
        if let Failure::NeverReached(detail) = &failure {
            tracing::debug!(
                agent = id.agent,
                instance = id.instance,
                detail,
                "not reached; moving on"
            );
            return Next::Move(None);
        }
        let error = failure.into_error(id, is_repeatable);
        if may_move {
            Next::Move(Some(error))
        } else {
            Next::Stop(error)
        }
    }

    /// Ends a flight and counts an opened breaker.
    pub(super) fn end(&self, flight: Flight, verdict: Verdict, agent: &str) {
        if flight.end(verdict, self.now()) {
            tracing::warn!(
                agent,
                "an instance failed too often and is left alone for a while"
            );
            self.parts.meters.ejected(agent);
        }
    }
}

enum Next {
    /// Try another instance; should there be none, this is why, unless the attempt never reached anybody.
    Move(Option<Error>),
    Stop(Error),
}

fn is_repeatable(delivery: &Delivery<'_>, instance: &Instance) -> bool {
    let skill = match delivery.scope {
        Scope::Serving {
            target: Some(target), ..
        } => target.skill(),
        Scope::Serving { target: None, .. } | Scope::Owner(_) => None,
    };
    delivery.method.is_repeatable || delivery.call.routing.idempotent || instance.is_idempotent(skill)
}

/// The request as the instance gets it: its own tenant, the skill that was asked for, the time that is left.
pub(super) fn upstream(
    delivery: &Delivery<'_>,
    instance: &Instance,
    left: Option<Duration>,
) -> Request<Pieces> {
    let Delivery { call, scope, .. } = delivery;
    let mut upstream = Request::new(delivery.request.with_tenant(&instance.tenant));
    let mut headers = call.passed_on.clone();
    headers.insert(VERSION, http::HeaderValue::from_static(SUPPORTED_VERSION));
    *upstream.metadata_mut() = MetadataMap::from_headers(headers);
    let skill = match scope {
        Scope::Serving { target, .. } => target.as_ref().and_then(Target::skill),
        Scope::Owner(_) => call.target.as_ref().and_then(Target::skill),
    };
    // A skill that is no ASCII cannot travel as metadata; the agent then reads it from the message, if at all.
    if let Some(value) = skill.and_then(|skill| AsciiMetadataValue::try_from(skill).ok()) {
        upstream.metadata_mut().insert(SKILL_METADATA, value);
    }
    if let Some(left) = left
        && let Ok(value) = AsciiMetadataValue::try_from(deadline::format(left))
    {
        upstream.metadata_mut().insert(deadline::HEADER, value);
    }
    upstream
}
