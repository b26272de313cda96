//! What can be done to a part: it is killed, started again, frozen, thawed, cut off, and joined again.
//!
//! Parts of one's own stack are processes, which get signals, in a [network](super::network) of their own. Of something that runs, only its operator knows how (`docker kill`,
//! `kubectl delete pod`): a program of the operator's does it, and is told what and to which part.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::process::Command;

use super::{Kind, Target};
use crate::connect::Endpoints;
use crate::failure::Failure;

/// How long a deed may take, until the part is ready again where it was started.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// `kill -9`.
    Kill,
    /// It starts where it was, and is ready afterwards.
    Start,
    /// It gets no processor any more: nobody hears of it, and when it wakes it does not know that time has passed.
    Freeze,
    /// It goes on.
    Thaw,
    /// The network passes nothing to it and from it any more, and tells nobody; it goes on working.
    Cut,
    /// It reaches the others again.
    Join,
}

impl Deed {
    /// As the operator's program is told.
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Cut => "cut",
            Self::Join => "join",
        }
    }
}

/// Kinds of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// A registry.
    Registry,
    /// One of several routers.
    Router,
    /// One of several engines.
    Engine,
    /// An agent's instance.
    Agent,
    /// What is durable.
    Redis,
}

/// A part that may be harmed: `KIND=NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harmed {
    role: Role,
    name: String,
}

impl std::str::FromStr for Harmed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (role, name) = text.split_once('=').ok_or("is not KIND=NAME")?;
        let role = Role::from_str(role, false)
            .map_err(|_| format!("'{role}' is no kind: registry, router, engine, agent or redis"))?;
        if name.is_empty() {
            return Err("names no part".to_owned());
        }
        Ok(Self {
            role,
            name: name.to_owned(),
        })
    }
}

/// The operator's hands.
#[derive(Debug, Default)]
pub struct Hands {
    /// Called with `kill`, `start`, `freeze`, `thaw`, `cut` or `join`, and the part's name.
    pub program: Option<PathBuf>,
    /// What may be harmed.
    pub parts: Vec<Harmed>,
}

impl Target {
    /// The part of this kind that may be harmed, and can be.
    pub fn harmed(&self, role: Role) -> Option<String> {
        match &self.kind {
            Kind::Local(stack) => match role {
                Role::Registry => Some("registry".to_owned()),
                Role::Agent => Some("weather".to_owned()),
                Role::Router if stack.has_redis() => Some("router-1".to_owned()),
                Role::Engine if stack.has_redis() => Some("engine-1".to_owned()),
                Role::Redis if stack.has_redis() => Some("redis".to_owned()),
                Role::Router | Role::Engine | Role::Redis => None,
            },
            Kind::Running(running) => {
                let hands = &running.hands;
                let part = hands.parts.iter().find(|part| part.role == role);
                part.filter(|_| self.has_leave && hands.program.is_some())
                    .map(|part| part.name.clone())
            }
        }
    }

    /// Where callers go on while the part of this kind is away: to another one, or to what stands before all of them.
    pub fn other(&self) -> Result<Endpoints, Failure> {
        let Kind::Local(stack) = &self.kind else {
            return Ok(self.endpoints.clone());
        };
        if !stack.has_redis() {
            return Ok(self.endpoints.clone());
        }
        Ok(Endpoints {
            router: stack.member("router-2")?.url(),
            engine: stack.member("engine-2")?.url(),
            ..self.endpoints.clone()
        })
    }

    /// Does it.
    pub async fn act(&mut self, deed: Deed, part: &str) -> Result<(), Failure> {
        let done = async {
            match &mut self.kind {
                Kind::Local(stack) => stack.act(deed, part).await,
                Kind::Running(running) => by_operator(&running.hands, deed, part).await,
            }
        };
        let late = || {
            Failure::failed(format!(
                "{part}: {} takes more than {} s",
                deed.name(),
                PATIENCE.as_secs()
            ))
        };
        tokio::time::timeout(PATIENCE, done).await.map_err(|_| late())?
    }
}

async fn by_operator(hands: &Hands, deed: Deed, part: &str) -> Result<(), Failure> {
    let program = hands.program.as_ref();
    let program = program.ok_or_else(|| Failure::usage("--operate-with is missing"))?;
    let failed =
        |what: String| Failure::failed(format!("{} {} {part}: {what}", program.display(), deed.name()));
    let ended = Command::new(program)
        .args([deed.name(), part])
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "{}: {}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_kind_and_a_name() {
        let part: Harmed = "router=router-1".parse().unwrap();
        assert_eq!(part.role, Role::Router);
        assert_eq!(part.name, "router-1");
        for wrong in ["router", "nothing=x", "engine="] {
            assert!(wrong.parse::<Harmed>().is_err(), "{wrong}");
        }
    }
}
