//! Calls of MCP servers.
//!
//! Each call is a conversation of its own: introduce, ask, hear the answer, leave. A session that is kept open between
//! the calls of a run would tie the run to one replica and to one life of the engine, and buys a round trip.
//!
//! The conversation is ours rather than the official client's: what is sent and what comes back passes unchanged as JSON,
//! through the guarded connections and under the engine's bounds, and nothing runs on after the call.

pub mod conversation;
mod stdio;
mod streamable;

use std::sync::Arc;
use std::time::Duration;

use muster_api::json;
use muster_workflow_dsl::request::{self, mcp::Transport};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::http::within;
use super::session::Session;
use super::web::{self, Web};
use super::{Call, Failure, Kind, Progress};
use stdio::Program;
use streamable::Streamable;

/// How long a server may take to hear that nobody waits.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long leaving may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Calls MCP servers.
pub struct Mcp {
    web: Arc<Web>,
    /// Programs that may be started.
    programs: Vec<String>,
    /// Largest answer.
    most_bytes: usize,
}

impl Mcp {
    /// Calls over the connections of `web`, or by starting one of `programs`.
    #[must_use]
    pub fn new(web: Arc<Web>, programs: Vec<String>, most_bytes: usize) -> Self {
        Self {
            web,
            programs,
            most_bytes,
        }
    }

    /// Makes the call and returns the result as the server gives it.
    pub(super) async fn call(
        &self,
        request: &request::Mcp,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let mut session = self.web.session(call).await?;
        let asked = request.timeout_milliseconds.map(Duration::from_millis);
        let timeout = asked.unwrap_or(call.timeout).min(call.timeout);
        let work = self.work(request, call, &mut session, progress);
        let outcome = within(timeout, &request.target(), work).await;
        session.cleaned(outcome)
    }

    async fn work(
        &self,
        request: &request::Mcp,
        call: &Call,
        session: &mut Session,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let mut sent = request.clone();
        sent.parameters = Arc::new(session.value(&request.parameters));
        let target = request.target();
        let result = match &request.transport {
            Transport::Http { .. } => {
                let mut http = self.http(request, session, progress).await?;
                let result = conversation::converse(&mut http, &sent, call, &target, progress).await;
                // An answer or a refusal leaves nothing behind; the session is over. Anything else is not known to.
                if result.is_ok() {
                    let _ = tokio::time::timeout(FAREWELL, http.end()).await;
                }
                result?
            }
            Transport::Stdio {
                command,
                arguments,
                environment,
            } => {
                let arguments: Vec<String> = arguments.iter().map(|text| session.text(text)).collect();
                let environment = environment
                    .iter()
                    .map(|(name, value)| (name.clone(), session.text(value)))
                    .collect();
                let mut program =
                    Program::start(command, &arguments, &environment, &self.programs, self.most_bytes)?;
                let result = conversation::converse(&mut program, &sent, call, &target, progress).await;
                program.end().await;
                result?
            }
        };
        let bytes = json::length(&result);
        if bytes > self.most_bytes {
            let limit = self.most_bytes;
            let detail = format!(
                "the answer of '{target}' with {bytes} bytes is over the limit of {limit}; ask for less, or raise \
                 'engine.max_payload_bytes'"
            );
            return Err(Failure::new(Kind::Runtime, 413, detail));
        }
        Ok(result)
    }

    /// Tells the server that nobody waits for the answer any more. A program has been killed by then.
    pub(super) async fn stop(
        &self,
        request: &request::Mcp,
        call: &Call,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let (Transport::Http { .. }, Some(known)) = (&request.transport, progress.session()) else {
            return Ok(());
        };
        let work = async {
            let mut session = self.web.session(call).await?;
            let http = self.http(request, &mut session, progress).await?;
            streamable::cancel(http, &known).await
        };
        tokio::time::timeout(CANCEL_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| {
                let detail = format!("'{}' did not hear in time that nobody waits", request.target());
                Err(Failure::new(Kind::Timeout, 408, detail))
            })
    }

    async fn http<'a>(
        &'a self,
        request: &request::Mcp,
        session: &mut Session,
        progress: &'a Progress,
    ) -> Result<Streamable<'a>, Failure> {
        let Transport::Http { endpoint, headers } = &request.transport else {
            return Err(Failure::new(
                Kind::Runtime,
                500,
                "the server is not reached over HTTP",
            ));
        };
        let url = web::address(&session.address(&endpoint.uri))?;
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            let (name, value) = web::header(name, &session.text(value))?;
            sent.insert(name, value);
        }
        if let Some(authentication) = &endpoint.authentication {
            let value = self.web.authorization(authentication, session).await?;
            let (name, mut value) = web::header("authorization", &value)?;
            value.set_sensitive(true);
            sent.insert(name, value);
        }
        Ok(Streamable::new(
            self.web.outbound(),
            url,
            sent,
            self.most_bytes,
            request.target(),
            progress,
        ))
    }
}
