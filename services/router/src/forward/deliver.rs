//! Attempts: one call goes to one instance after the other until one answers or none may be tried any more.
//!
//! An attempt that never reached its agent always moves on. One that may have been executed moves only where that
//! does no harm (the operation only reads, the card declares the skill idempotent, or the caller says so) and the
//! retry budget allows it. Each instance is tried once per call.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderMap;
use muster_api::extension::SKILL_METADATA;
use muster_rpc::deadline;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response};

use super::choose::Chosen;
use super::failure::{Failure, verdict_on_silence};
use super::{Forwarder, Reply, Scope, Times, exceeded, expired};
use crate::call::{Call, EXTENSIONS, SUPPORTED_VERSION, VERSION};
use crate::error::Error;
use crate::fleet::Instance;
use crate::link::Flight;
use crate::measure::Verdict;
use crate::operation::{Answer as _, Operation, Tenanted as _};
use crate::target::Target;

/// How one attempt ended without an answer.
enum Ended {
    TimedOut,
    Failed(Failure),
}

impl Forwarder {
    /// Delivers a call. A single answer has ended its flight; a stream's flight goes on with it.
    pub(super) async fn deliver<O: Operation>(
        &self,
        call: &Call,
        scope: &Scope,
        request: &O::Request,
        times: Times,
    ) -> Result<(Reply<O::Answer>, Option<Flight>), Error> {
        let started = self.now();
        self.parts.budget.lock().called(started);
        let outcome = self.attempts::<O>(call, scope, request, times).await;
        self.parts
            .meters
            .answered(O::LABEL, self.now().saturating_sub(started));
        outcome
    }

    async fn attempts<O: Operation>(
        &self,
        call: &Call,
        scope: &Scope,
        request: &O::Request,
        times: Times,
    ) -> Result<(Reply<O::Answer>, Option<Flight>), Error> {
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
            tried.insert(chosen.instance.id.clone());
            self.parts.meters.sent(O::LABEL, &chosen.instance.id.agent);
            let upstream = upstream::<O>(call, scope, &chosen.instance, request, left);
            let ended = match self.attempt::<O>(&chosen, upstream, left).await {
                Ok(response) => return Ok(self.accept::<O>(chosen, response, now)),
                Err(ended) => ended,
            };
            match self.consider::<O>(call, scope, chosen, ended, left) {
                Next::Move(error) => last = error.or(last),
                Next::Stop(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::NoInstance {
            target: scope.name(),
            why: format!("{} were tried and none could be reached", tried.len()),
            cause: "unreachable",
            retry_after: Duration::from_secs(1),
        }))
    }

    async fn attempt<O: Operation>(
        &self,
        chosen: &Chosen,
        request: Request<O::Request>,
        left: Option<Duration>,
    ) -> Result<Response<O::Answer>, Ended> {
        let client =
            Grpc::new(chosen.link.channel()).max_decoding_message_size(self.parts.limits.answer_bytes);
        let call = O::Answer::fetch(client, request, O::PATH);
        // A stream without a deadline must still begin within the time of silence that it is allowed later.
        let allowed = left.unwrap_or(self.parts.limits.stream_idle);
        let lost = chosen.flight.lost();
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(allowed, call) => outcome,
            () = lost.cancelled() => return Err(Ended::Failed(Failure::lost())),
        };
        match outcome {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) if deadline::is_timer_of_tonic(&status) => Err(Ended::TimedOut),
            Ok(Err(status)) => Err(Ended::Failed(Failure::of(status))),
            Err(_) => Err(Ended::TimedOut),
        }
    }

    fn accept<O: Operation>(
        &self,
        chosen: Chosen,
        response: Response<O::Answer>,
        started: Duration,
    ) -> (Reply<O::Answer>, Option<Flight>) {
        let now = self.now();
        let flight = if O::Answer::TIMED {
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
        let instance = chosen.instance.id.clone();
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
    fn consider<O: Operation>(
        &self,
        call: &Call,
        scope: &Scope,
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
        let is_repeatable = is_repeatable::<O>(call, scope, &chosen.instance);
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
        let error = failure.into_error(id);
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

fn is_repeatable<O: Operation>(call: &Call, scope: &Scope, instance: &Instance) -> bool {
    let skill = match scope {
        Scope::Serving {
            target: Some(target), ..
        } => target.skill(),
        Scope::Serving { target: None, .. } | Scope::Owner(_) => None,
    };
    O::REPEATABLE || call.routing.idempotent || instance.is_idempotent(skill)
}

/// The request as the instance gets it: its own tenant, the skill that was asked for, the time that is left.
fn upstream<O: Operation>(
    call: &Call,
    scope: &Scope,
    instance: &Instance,
    request: &O::Request,
    left: Option<Duration>,
) -> Request<O::Request> {
    let mut message = request.clone();
    message.set_tenant(instance.tenant.clone());
    let mut upstream = Request::new(message);
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
