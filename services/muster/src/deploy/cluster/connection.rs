//! Requests to the API, and what to do when they fail.
//!
//! What an overloaded or restarting API server answers (429, 500, 502, 503, 504, a broken connection) is tried again, a bounded number
//! of times. Everything that is sent may be sent again: changes are server-side applies and deletions; the one thing that is created
//! otherwise is the lease, which notices. The policy of the crate `kube` is switched off: it knows only 429, 503 and 504, and no broken
//! connection (`client::retry`).
//!
//! A client of `kube` is made when it is first needed, and again when a program has to say anew who we are.

use std::time::Duration;

use kube::Client;
use tokio::sync::Mutex;

use super::Error;
use super::access::Access;
use super::program::{self, Said};

/// How long one attempt may take.
const ANSWER: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The connection to one API server.
pub struct Connection {
    access: Access,
    /// Its address, for people.
    server: String,
    /// What is sent by, with what the program said when it was made.
    made: Mutex<Option<(Client, Said)>>,
}

impl Connection {
    /// Nothing is sent yet.
    pub fn new(access: Access) -> Self {
        // Another part of the process may have been first, with the same one.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let server = access.config.cluster_url.to_string();
        Self {
            access,
            server: server.trim_end_matches('/').to_owned(),
            made: Mutex::default(),
        }
    }

    /// Where it leads.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What requests are sent by. `anew`: what a program said before was refused.
    async fn client(&self, anew: bool) -> Result<Client, Error> {
        let mut made = self.made.lock().await;
        if let Some((client, said)) = made.as_ref()
            && !anew
            && said.is_fresh()
        {
            return Ok(client.clone());
        }
        let mut config = self.access.config.clone();
        let mut said = Said::default();
        if let Some(program) = &self.access.program {
            said = program::ask(program).await?;
            said.tell(&mut config.auth_info);
        }
        let client = Client::try_from(config).map_err(|error| Error::Kubeconfig(error.to_string()))?;
        *made = Some((client.clone(), said));
        Ok(client)
    }

    /// Asks something, and again where that may help.
    pub async fn ask<T, F>(&self, what: &str, question: impl Fn(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 0;
        let mut was_refused = false;
        let mut client = self.client(false).await?;
        loop {
            attempt += 1;
            let error = match tokio::time::timeout(ANSWER, question(client.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Error::of(what, &self.server, error),
                Err(_) => Error::Unreachable {
                    server: self.server.clone(),
                    cause: format!("nothing within {} s", ANSWER.as_secs()),
                },
            };
            let wait = match (&error, error.code()) {
                (Error::Unreachable { .. }, _) => Duration::ZERO,
                (_, Some(401)) if !was_refused && self.access.program.is_some() => {
                    was_refused = true;
                    client = self.client(true).await?;
                    continue;
                }
                (_, Some(429 | 500 | 502..=504)) => error.retry_after(),
                _ => return Err(error),
            };
            if attempt >= ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(pause.max(wait).min(LONGEST_PAUSE)).await;
            pause *= 2;
        }
    }
}
