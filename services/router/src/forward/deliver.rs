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
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response, Status};

use super::choose::Chosen;
use super::failure::{Failure, verdict_on_silence};
use super::{Forwarder, Reply, Scope, Times, exceeded, expired};
use crate::bridge::{Inbound, Unanswered};
use crate::call::{Call, EXTENSIONS, SUPPORTED_VERSION, VERSION};
use crate::codec::Pieces;
use crate::error::Error;
use crate::fleet::Instance;
use crate::link::Flight;
use crate::measure::Verdict;
use crate::operation::{Answer, Method};
use crate::peek::{Encoded, Held};
use crate::target::Target;

/// How one attempt ended without an answer.
pub(super) enum Ended {
    TimedOut,
    Failed(Failure),
}

impl Ended {
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

/// A call and where it may go.
pub(super) struct Delivery<'d> {
    pub(super) method: &'static Method,
    pub(super) call: &'d Call,
    pub(super) scope: &'d Scope,
    pub(super) request: &'d Encoded,
    pub(super) times: Times,
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

impl Forwarder {
    /// Delivers a call that has one answer.
    pub(super) async fn deliver_single(
        &self,
        method: &'static Method,
        call: &Call,
        scope: &Scope,
        request: &Encoded,
        times: Times,
    ) -> Result<(Reply<Bytes>, Held), Error> {
        let delivery = Delivery {
            method,
            call,
            scope,
            request,
            times,
        };
        let (reply, held, _) = self.deliver::<Bytes>(&delivery).await?;
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
    ) -> Result<(Reply<Inbound>, Option<Flight>), Error> {
        let delivery = Delivery {
            method,
            call,
            scope,
            request,
            times,
        };
        let (reply, (), flight) = self.deliver::<Inbound>(&delivery).await?;
        Ok((reply, flight))
    }

    async fn deliver<A: Taken>(
        &self,
        delivery: &Delivery<'_>,
    ) -> Result<(Reply<A>, A::Read, Option<Flight>), Error> {
        let started = self.now();
        self.parts.budget.lock().called(started);
        let outcome = self.attempts::<A>(delivery).await;
        self.parts
            .meters
            .answered(delivery.method, self.now().saturating_sub(started));
        outcome
    }

    async fn attempts<A: Taken>(
        &self,
        delivery: &Delivery<'_>,
    ) -> Result<(Reply<A>, A::Read, Option<Flight>), Error> {
        let Delivery {
            method,
            call,
            scope,
            times,
            ..
        } = delivery;
        let mut tried = BTreeSet::new();
        let mut last = None;
        for _ in 0..self.parts.limits.attempts.max(1) {
            let now = self.now();
            if times.expiry.is_some_and(|expiry| expiry.remaining(now).is_none()) {
                return Err(expired(call, "before it reached an agent"));
            }
            let chosen = match self.choose(call, scope, &tried) {
                Ok(chosen) => chosen,
                Err(nobody) => return Err(last.unwrap_or(nobody)),
            };
            let left = match times.deadline.map(|deadline| deadline.remaining(now)) {
                Some(None) => return Err(exceeded(&format!("the call to '{}'", scope.name()))),
                Some(Some(left)) => Some(left),
                None => None,
            };
            self.parts.meters.sent(method, &chosen.instance.id.agent);
            let upstream = upstream(delivery, &chosen.instance, left);
            let ended = match self.attempt::<A>(method, &chosen, upstream, left).await {
                Ok((response, read)) => {
                    let (reply, flight) = self.accept(chosen, response, now);
                    return Ok((reply, read, flight));
                }
                Err(ended) => ended,
            };
            let instance = Arc::clone(&chosen.instance);
            match self.consider(delivery, chosen, ended, left) {
                Next::Move(error) => last = error.or(last),
                Next::Stop(error) => return Err(error),
            }
            tried.insert(instance.key());
        }
        Err(last.unwrap_or_else(|| Error::NoInstance {
            target: scope.name(),
            why: format!("{} were tried and none could be reached", tried.len()),
            cause: "unreachable",
            retry_after: Duration::from_secs(1),
        }))
    }

    pub(super) async fn attempt<A: Taken>(
        &self,
        method: &'static Method,
        chosen: &Chosen,
        request: Request<Pieces>,
        left: Option<Duration>,
    ) -> Result<(Response<A>, A::Read), Ended> {
        let call = async {
            match chosen.link.bridge() {
                Some(client) => A::bridge(client, request, method, left)
                    .await
                    .map_err(Ended::from),
                None => {
                    let client = Grpc::new(chosen.link.channel())
                        .max_decoding_message_size(self.parts.limits.answer_bytes);
                    A::fetch(client, request, method).await.map_err(Ended::of)
                }
            }
        };
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

    fn accept<A: Taken>(
        &self,
        chosen: Chosen,
        response: Response<A>,
        started: Duration,
    ) -> (Reply<A>, Option<Flight>) {
        let now = self.now();
        let flight = if A::TIMED {
            chosen
                .flight
                .end(Verdict::Answered(Some(now.saturating_sub(started))), now);
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
        let failure = match ended {
            Ended::Failed(failure) => failure,
            Ended::TimedOut => {
                self.end(chosen.flight, verdict_on_silence(left), &id.agent);
                return Next::Stop(exceeded(&format!("agent '{}'", id.agent)));
            }
        };
        self.end(chosen.flight, failure.verdict(), &id.agent);
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
