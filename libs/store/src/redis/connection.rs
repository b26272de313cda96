//! A connection that is made again when it breaks, and calls that are sent again until somebody loses patience.
//!
//! One caller connects for all who wait; who finds that a connection could not be made while it waited shares that answer,
//! so that a thousand callers of an absent Redis make one try, not a thousand.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Value};

use super::address::Address;
use super::backoff::Backoff;
use super::error::{Error, Failure};
use super::link::{Link, Request};
use super::script::Call;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A connection to be made.
    pub connect_within: Duration,
    /// One command to be answered; then the connection counts as broken.
    pub answer_within: Duration,
    /// A call with all its tries.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(2),
            answer_within: Duration::from_secs(5),
            patience: Duration::from_secs(10),
        }
    }
}

/// A connection to Redis. Clones share it.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    name: String,
    options: Options,
    /// The link that is used, and how many there have been.
    current: Mutex<(u64, Option<Link>)>,
    /// Whoever holds it connects: how many tries there were, and how the last one failed.
    connecting: tokio::sync::Mutex<(u64, Option<Error>)>,
    /// How the last command failed, if it did, and whether only a write can tell that it has passed.
    failing: Mutex<Option<(String, bool)>>,
}

impl Connection {
    /// Of this Redis. Nothing is sent yet.
    #[must_use]
    pub fn new(address: Address, options: Options) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: address.to_string(),
                address,
                options,
                current: Mutex::default(),
                connecting: tokio::sync::Mutex::default(),
                failing: Mutex::default(),
            }),
        }
    }

    /// Another connection to the same Redis, with other limits of time.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        Self::new(self.shared.address.clone(), options)
    }

    /// Where it leads, without password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared.name
    }

    /// Its limits of time.
    #[must_use]
    pub fn options(&self) -> Options {
        self.shared.options
    }

    /// Whether the last command succeeded, else why not. Where a write was refused, it takes a write to know better.
    ///
    /// # Errors
    /// What the last failed try said.
    pub fn health(&self) -> Result<(), String> {
        let failing = self.shared.failing.lock();
        failing.as_ref().map_or(Ok(()), |(what, _)| Err(what.clone()))
    }

    fn is_well(&self, request: Request<'_>) {
        let mut failing = self.shared.failing.lock();
        // A full Redis still answers questions.
        if request.grows() || failing.as_ref().is_some_and(|(_, needs_write)| !needs_write) {
            *failing = None;
        }
    }

    fn is_ill(&self, request: Request<'_>, error: &Error) {
        let needs_write = request.grows() && matches!(error, Error::Refused { .. });
        let mut failing = self.shared.failing.lock();
        if needs_write || failing.as_ref().is_none_or(|(_, needs_write)| !needs_write) {
            *failing = Some((error.to_string(), needs_write));
        }
    }

    /// Asks the Sentinels whether the server that is used is still the primary, and uses it no more if it is not. A former primary
    /// that is alive takes writes until somebody tells it, and loses them then: so whoever writes through Sentinels asks often.
    pub async fn confirm(&self) {
        let (number, used) = {
            let current = self.shared.current.lock();
            let node = current.1.as_ref().and_then(Link::node);
            (current.0, node.map(str::to_owned))
        };
        let Some(used) = used else { return };
        let primary = Link::primary(&self.shared.address, self.shared.options.connect_within).await;
        if let Some(primary) = primary.filter(|primary| *primary != used) {
            tracing::warn!(
                address = self.shared.name,
                former = used,
                primary,
                "another server is the primary now"
            );
            self.give_up(number);
        }
    }

    /// Sends a command that may be sent twice.
    ///
    /// # Errors
    /// See [`Error`]; what passes by itself is only told when patience has ended.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.perform(Request::Command(command)).await
    }

    /// Calls a script that may be called twice.
    ///
    /// # Errors
    /// See [`Error`]; what passes by itself is only told when patience has ended.
    pub async fn call<T: FromRedisValue>(&self, call: &Call) -> Result<T, Error> {
        self.perform(Request::Script(call)).await
    }

    async fn perform<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, Error> {
        let patience = self.shared.options.patience;
        let mut last = None;
        let answer = tokio::time::timeout(patience, self.persist(request, &mut last)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.out_of_patience(request, last)))?;
        T::from_redis_value(answer).map_err(|error| Error::Unexpected {
            address: self.shared.name.clone(),
            what: error.to_string(),
        })
    }

    /// Tries until it is answered, or somebody has to do something.
    async fn persist(&self, request: Request<'_>, last: &mut Option<Error>) -> Result<Value, Error> {
        let mut backoff = Backoff::default();
        loop {
            let failure = match self.attempt(request).await {
                Ok(answer) => {
                    self.is_well(request);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.is_ill(request, &failure.error);
            if !failure.passes {
                return Err(failure.error);
            }
            // Once it may have been done, a later refusal does not make it undone.
            if !matches!(last, Some(Error::Unknown { .. })) || matches!(failure.error, Error::Unknown { .. })
            {
                *last = Some(failure.error);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn out_of_patience(&self, request: Request<'_>, last: Option<Error>) -> Error {
        let error = last.unwrap_or_else(|| Error::Unknown {
            address: self.shared.name.clone(),
            what: format!(
                "nothing came within {} s",
                self.shared.options.patience.as_secs_f64()
            ),
        });
        self.is_ill(request, &error);
        error
    }

    async fn attempt(&self, request: Request<'_>) -> Result<Value, Failure> {
        let (number, mut link) = self.link().await?;
        match link.send(request).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let failure = Failure::sending(&self.shared.name, &error);
                if link.is_replaceable(&failure) {
                    self.give_up(number);
                }
                Err(failure)
            }
        }
    }

    /// The link that is used, made if there is none.
    async fn link(&self) -> Result<(u64, Link), Failure> {
        let shared = &*self.shared;
        if let (number, Some(link)) = &*shared.current.lock() {
            return Ok((*number, link.clone()));
        }
        let waited = match shared.connecting.try_lock() {
            Ok(guard) => (guard, false),
            Err(_) => (shared.connecting.lock().await, true),
        };
        let (mut connecting, has_waited) = waited;
        if let (number, Some(link)) = &*shared.current.lock() {
            return Ok((*number, link.clone()));
        }
        // Somebody has tried while we waited; one answer is enough for all who did.
        if has_waited && let Some(error) = connecting.1.clone() {
            return Err(Failure {
                error,
                passes: true,
                breaks: true,
            });
        }
        connecting.0 += 1;
        let made = Link::connect(
            &shared.address,
            shared.options.connect_within,
            shared.options.answer_within,
        )
        .await;
        match made {
            Ok(link) => {
                connecting.1 = None;
                let number = connecting.0;
                *shared.current.lock() = (number, Some(link.clone()));
                if number > 1 {
                    tracing::info!(address = shared.name, "connected to Redis again");
                }
                Ok((number, link))
            }
            Err(failure) => {
                if connecting.1.is_none() {
                    tracing::warn!(address = shared.name, error = %failure.error, "Redis cannot be reached; trying again");
                }
                connecting.1 = Some(failure.error.clone());
                Err(failure)
            }
        }
    }

    /// Uses the link no more, unless it was replaced already.
    fn give_up(&self, number: u64) {
        let mut current = self.shared.current.lock();
        if current.0 == number {
            current.1 = None;
        }
    }
}
