//! An agent of the SDK that does what the text of a message says, and the signals by which a test steers it. It does what the agents of the official
//! SDKs in `tests/interop/` do, and more.
//!
//! | text | what it does |
//! |---|---|
//! | `echo WORDS` | completes with the words as its data |
//! | `wait NAME` | works until released by that name or cancelled; speaks once more then |
//! | `count N NAME` | waits to be released, reports N steps, gives an artifact, completes |
//! | `flood N NAME` | the same with long reports and no artifact |
//! | `artifact` | gives an artifact early, completes with another |
//! | `data` | completes with the message's data |
//! | `ask` | asks back; the next message completes it |
//! | `auth` | wants credentials |
//! | `fail`, `reject` | ends FAILED, REJECTED |
//! | `release NAME` | lets those of that name go on who wait |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use muster_agent_sdk::{Agent, Artifact, Card, Extension, Failure, Reply, Request, Skill, Task};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::driver::PATIENCE;

/// What kinds of agents there are; the protocol asks different things of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Persona {
    /// Has every optional capability: streams, push notifications, an extended card.
    Whole,
    /// Has none of them.
    Plain,
    /// Requires the extension [`REQUIRED_EXTENSION`]; declares an extended card and has none.
    Strict,
}

/// Bytes of a long report.
const LONG: usize = 8 * 1024;

/// The extension that [`Persona::Strict`] requires.
pub const REQUIRED_EXTENSION: &str = "urn:example:required:v1";

impl Persona {
    pub const ALL: [Self; 3] = [Self::Whole, Self::Plain, Self::Strict];

    /// Its agent id.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Plain => "plain",
            Self::Strict => "strict",
        }
    }

    /// Its card.
    fn card(self) -> Card {
        let card = Card::new(self.id(), "Puppet", "Does what it is told", "1.0.0")
            .skill(Skill::new("act", "Act", "Acts").tags(["test"]));
        match self {
            Self::Whole => card.extended_skill(Skill::new("hide", "Hide", "Is for friends")),
            Self::Plain => card.unstreamed(),
            Self::Strict => {
                let extension = Extension::new(REQUIRED_EXTENSION, "Has to be used");
                card.extended().extension(extension.required())
            }
        }
    }
}

/// What passes between tests and handlers, by name.
#[derive(Debug, Default)]
pub struct Signals {
    reached: Mutex<HashMap<String, Arc<Semaphore>>>,
    released: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Signals {
    /// Waits until a handler has come to where it waits for this name.
    pub async fn reached(&self, name: &str) {
        let signal = of(&self.reached, name);
        tokio::time::timeout(PATIENCE, signal.acquire())
            .await
            .unwrap_or_else(|_| panic!("no handler waits for '{name}' within {PATIENCE:?}"))
            .expect("never closed")
            .forget();
    }

    /// Lets the handler that waits for this name go on, now or when it comes to it.
    pub fn release(&self, name: &str) {
        of(&self.released, name).add_permits(1);
    }

    async fn pass(&self, name: &str) {
        of(&self.reached, name).add_permits(1);
        if let Ok(permit) = of(&self.released, name).acquire().await {
            permit.forget();
        }
    }
}

fn of(signals: &Mutex<HashMap<String, Arc<Semaphore>>>, name: &str) -> Arc<Semaphore> {
    let mut signals = signals.lock().unwrap_or_else(PoisonError::into_inner);
    let signal = signals
        .entry(name.to_owned())
        .or_insert_with(|| Arc::new(Semaphore::new(0)));
    Arc::clone(signal)
}

/// The agent.
pub struct Puppet {
    pub persona: Persona,
    pub signals: Arc<Signals>,
}

impl Agent for Puppet {
    fn card(&self) -> Card {
        self.persona.card()
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        if !task.history().is_empty() {
            return Ok(Reply::completed(format!("heard {}", request.text())));
        }
        let words: Vec<&str> = request.text().split_whitespace().collect();
        match words.as_slice() {
            ["echo", words @ ..] => Ok(Reply::completed("echoed").data(json!({ "echo": words.join(" ") }))),
            ["data"] => Ok(Reply::completed("returned").data(request.data().cloned().unwrap_or_default())),
            ["wait", name] => {
                task.working("waiting").await;
                tokio::select! {
                    () = self.signals.pass(name) => Ok(Reply::completed("released")),
                    () = task.cancelled() => {
                        // Nobody hears it.
                        task.working("stopping").await;
                        Ok(Reply::completed("stopped"))
                    }
                }
            }
            ["count", steps, name] => {
                let steps: usize = steps.parse().map_err(|_| Failure::rejected("count N NAME"))?;
                self.signals.pass(name).await;
                for step in 1..=steps {
                    task.working(format!("step {step}")).await;
                }
                task.artifact(Artifact::text("log", "counted")).await;
                Ok(Reply::completed("counted"))
            }
            ["flood", steps, name] => {
                let steps: usize = steps.parse().map_err(|_| Failure::rejected("flood N NAME"))?;
                self.signals.pass(name).await;
                for step in 1..=steps {
                    task.working(format!("step {step} {}", "x".repeat(LONG))).await;
                }
                Ok(Reply::completed("flooded"))
            }
            ["artifact"] => {
                task.artifact(Artifact::text("early", "line 1")).await;
                let file = Artifact::file("picture.bin", "application/octet-stream", vec![0, 255, 7]);
                Ok(Reply::completed("drawn")
                    .data(json!({ "points": 3 }))
                    .artifact(file))
            }
            ["release", name] => {
                self.signals.release(name);
                Ok(Reply::completed("they go on"))
            }
            ["ask"] => Ok(Reply::input_required("which city?")),
            ["auth"] => Ok(Reply::auth_required("log in at the office")),
            ["fail"] => Err(Failure::failed("the instrument broke")),
            ["reject"] => Err(Failure::rejected("not with me")),
            _ => Err(Failure::rejected("no such command")),
        }
    }
}
