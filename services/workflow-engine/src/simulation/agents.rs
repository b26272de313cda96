//! Those who are called, and the network between them and the engine.
//!
//! What an agent answers follows from the message id, which is what idempotency asks of it; how long it takes follows from the
//! life too, so that no two lives are alike. A lost answer, a duplicate and a slow network are all the same to the engine: the
//! answer comes late, or not before the life ends.
//!
//! What lies between the engine and an agent is a [`Fleet`](super::fleet::Fleet). As where the engine calls through the router, a
//! call that certainly reached nobody is sent again here for a while, under the same message id.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_runtime::clock::Clock;
use muster_workflow_dsl::request::Request;
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::chance::decided;
use super::clock::Virtual;
use super::fleet::{Delivery, SinceTheBeginning, Undelivered};
use super::life::settings;
use super::sabotage::Sabotage;
use super::shared::Seat;
use super::witness::{InFlight, Standing};
use super::world::World;
use crate::caller::emit::Emitter;
use crate::caller::{Call, Caller, Failure, Kind, Progress};
use crate::events::Events;
use crate::run::RunId;

/// The shortest and the longest wait before a call is sent again that reached nobody.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The agents as one life meets them.
pub(crate) struct Agents {
    world: Arc<World>,
    clock: Virtual,
    life: usize,
    /// How the engine that calls reaches what is outside of it, where it shares a store.
    seat: Option<Arc<Seat>>,
    emitter: Emitter,
    /// The last message that was answered.
    answered: Mutex<Option<Uuid>>,
}

impl Agents {
    pub(crate) fn new(
        world: Arc<World>,
        clock: Virtual,
        life: usize,
        seat: Option<Arc<Seat>>,
        events: Arc<Events>,
    ) -> Self {
        Self {
            world,
            clock,
            life,
            seat,
            emitter: Emitter::new(events),
            answered: Mutex::default(),
        }
    }

    fn decided(&self, what: &str, message: Uuid) -> u64 {
        decided(self.world.plan.seed, &[&what, &message])
    }

    /// Carries the call to the agent; one that reached nobody again and again, while patience lasts.
    async fn answer(&self, agent: &str, message: Uuid, call: &Call) -> Result<Value, Failure> {
        let clock = Arc::new(SinceTheBeginning(self.clock));
        let begin = clock.monotonic();
        let delivery = Delivery {
            message,
            agent,
            deadline: begin + call.timeout,
            clock: Arc::clone(&clock) as _,
            worker: Worker {
                agents: self,
                agent,
                message,
                resent: call.resent,
            },
        };
        let patience = begin + settings(&self.world).agent_wait().min(call.timeout);
        let work = async {
            loop {
                let undelivered = match self.world.fleet.deliver(&delivery).await {
                    Ok(answer) => return Ok(answer),
                    Err(undelivered) => undelivered,
                };
                let (retry_after, detail) = match undelivered {
                    Undelivered::Answered(failure) => return Err(failure),
                    Undelivered::NeverReached { retry_after, detail } => (retry_after, detail),
                    Undelivered::BrokeOff { detail } => {
                        return Err(Failure::new(Kind::Communication, 502, detail));
                    }
                    Undelivered::Late => return Err(late()),
                };
                let wait = retry_after.clamp(WAITS.0, WAITS.1);
                if clock.monotonic() + wait >= patience {
                    return Err(Failure::new(Kind::Communication, 503, detail));
                }
                tokio::time::sleep(wait).await;
            }
        };
        tokio::time::timeout(call.timeout, work)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> Failure {
    Failure::new(Kind::Timeout, 408, "no answer in time")
}

/// An agent at its work on one call.
pub(crate) struct Worker<'a> {
    agents: &'a Agents,
    agent: &'a str,
    message: Uuid,
    resent: bool,
}

impl Worker<'_> {
    pub(crate) async fn work(&self) -> Result<Value, Failure> {
        let Self {
            agents,
            agent,
            message,
            resent,
        } = *self;
        if agent == "silent" {
            return std::future::pending().await;
        }
        let world = &agents.world;
        let chosen = decided(world.plan.seed, &[&"latency", &agents.life, &message]);
        // One of eight is slow, or is lost on its way and sent again.
        let latency = if chosen.is_multiple_of(8) {
            5_000 + chosen / 8 % 10_000
        } else {
            1 + chosen / 8 % 800
        };
        tokio::time::sleep(Duration::from_millis(latency)).await;
        let mut number = agents.decided("answer", message);
        if world.is_sabotaged(Sabotage::AnswersAnew) && resent {
            number = number.wrapping_add(1);
        }
        if agent == "flaky" && number % 5 < 2 {
            let (kind, status) = if number.is_multiple_of(2) {
                (Kind::Communication, 503)
            } else {
                (Kind::Runtime, 500)
            };
            return Err(Failure::new(kind, status, "as it happens"));
        }
        Ok(json!({"n": number % 7}))
    }
}

impl Agents {
    fn called(&self, message: Uuid, target: &str, epoch: Option<u64>) -> InFlight {
        let standing = |run: &RunId| match &self.seat {
            Some(seat) => match (seat.standing(run), epoch.cmp(&seat.epoch(run))) {
                // Whoever is called can tell it from one of the new owner's.
                (Standing::Stray, Ordering::Less) => Standing::Stray,
                (Standing::Owner, Ordering::Equal) => Standing::Owner,
                _ => Standing::Nobody,
            },
            None => Standing::Owner,
        };
        let witness = &self.world.witness;
        witness.called(self.clock.now(), self.life, message, target, standing)
    }

    async fn pass(&self) {
        if let Some(seat) = &self.seat {
            seat.gate.pass().await;
        }
    }
}

#[async_trait]
impl Caller for Agents {
    async fn call(&self, call: &Call, progress: &Progress) -> Result<Value, Failure> {
        if let Some(seat) = &self.seat {
            seat.call().await;
        }
        let mut message = call.message_id;
        if self.world.is_sabotaged(Sabotage::RaisesAttempt) && call.resent {
            message = Uuid::new_v5(&message, b"another attempt");
        }
        let target = call.request.target();
        if self.world.is_sabotaged(Sabotage::RepeatsRecorded)
            && let Some(before) = self.answered.lock().take()
        {
            let _again = self.called(before, &target, call.epoch);
        }
        let _in_flight = self.called(message, &target, call.epoch);
        if self.world.is_sabotaged(Sabotage::CallsTwice) {
            let _again = self.called(message, &target, call.epoch);
        }
        let answer = match &*call.request {
            Request::A2a(request) => {
                let agent = request.endpoint.to_string();
                let agent = agent.trim_start_matches("agent://");
                self.answer(agent, message, call).await
            }
            Request::Emit(request) => self.emitter.call(request, progress).await,
            _ => Err(Failure::new(Kind::Configuration, 501, "nobody simulates that")),
        };
        self.pass().await;
        *self.answered.lock() = Some(message);
        answer
    }

    async fn stop(&self, _call: &Call, _progress: &Progress) -> Result<(), Failure> {
        Ok(())
    }
}
