//! MCP over streamable HTTP: each message is a POST; an answer is JSON or a stream of events.

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::conversation::{ASKED, Link};
use crate::caller::sse::Events;
use crate::caller::{Failure, Kind, Progress, body, json_rpc};
use crate::outbound::Outbound;

/// Header with the id of a session.
const SESSION: &str = "mcp-session-id";

/// Header with the version that was agreed on.
const VERSION: &str = "mcp-protocol-version";

/// Most bytes of what comes with a refusal.
const REFUSAL: usize = 64 * 1024;

/// A conversation over HTTP.
pub(super) struct Streamable<'a> {
    outbound: &'a Outbound,
    url: Url,
    headers: HeaderMap,
    most_bytes: usize,
    target: String,
    session: Option<HeaderValue>,
    answer: Option<Answer>,
    progress: &'a Progress,
}

enum Answer {
    Whole(Value),
    Events(Box<Events>),
}

impl<'a> Streamable<'a> {
    pub(super) fn new(
        outbound: &'a Outbound,
        url: Url,
        headers: HeaderMap,
        most_bytes: usize,
        target: String,
        progress: &'a Progress,
    ) -> Self {
        Self {
            outbound,
            url,
            headers,
            most_bytes,
            target,
            session: None,
            answer: None,
            progress,
        }
    }

    async fn post(&mut self, message: &Value) -> Result<Response, Failure> {
        let request = self
            .outbound
            .request(Method::POST, self.url.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(message.to_string());
        let answer = self.outbound.send(built(request, &self.target)?).await?;
        if let Some(session) = answer.headers().get(SESSION)
            && self.session.is_none()
        {
            self.session = Some(session.clone());
            self.headers.insert(SESSION, session.clone());
            if let Ok(session) = session.to_str() {
                self.progress.learn_session(session);
                self.progress.begin();
            }
        }
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = body::read(answer, REFUSAL, &self.target)
            .await
            .unwrap_or_default();
        Err(body::refusal(&self.target, status, &said_in(&said)))
    }

    /// Ends the session, as a client should that needs it no more. That it fails harms nobody.
    pub(super) async fn end(self) {
        if self.session.is_none() {
            return;
        }
        let request = self
            .outbound
            .request(Method::DELETE, self.url.clone())
            .headers(self.headers);
        let Ok(request) = built(request, &self.target) else {
            return;
        };
        if let Err(failure) = self.outbound.send(request).await {
            tracing::debug!(%failure, "a session of MCP was not ended");
        }
    }
}

/// Tells the server that nobody waits for the answer any more, and ends the session.
pub(super) async fn cancel(mut http: Streamable<'_>, session: &str) -> Result<(), Failure> {
    let Ok(session) = HeaderValue::from_str(session) else {
        return Ok(());
    };
    http.headers.insert(SESSION, session.clone());
    http.session = Some(session);
    let params = json!({"requestId": ASKED, "reason": "the workflow does not wait for it any more"});
    let told = http
        .post(&json_rpc::notification("notifications/cancelled", params))
        .await
        .map(drop);
    http.end().await;
    told
}

#[async_trait]
impl Link for Streamable<'_> {
    async fn tell(&mut self, message: &Value) -> Result<(), Failure> {
        self.post(message).await.map(drop)
    }

    async fn ask(&mut self, message: &Value) -> Result<(), Failure> {
        let answer = self.post(message).await?;
        let kind = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_ascii_lowercase();
        self.answer = if kind.starts_with("text/event-stream") {
            Some(Answer::Events(Box::new(Events::new(
                answer,
                self.most_bytes,
                &self.target,
            ))))
        } else if kind.starts_with("application/json") {
            let bytes = body::read(answer, self.most_bytes, &self.target).await?;
            Some(Answer::Whole(parsed(&bytes, &self.target)?))
        } else {
            let status = answer.status();
            let what = if status == StatusCode::ACCEPTED {
                "nothing"
            } else {
                &kind
            };
            let detail = format!(
                "'{}' answered a request with {what}, not with JSON or events",
                self.target
            );
            return Err(Failure::new(Kind::Communication, 502, detail));
        };
        Ok(())
    }

    async fn hear(&mut self) -> Result<Option<Value>, Failure> {
        match self.answer.take() {
            None => Ok(None),
            Some(Answer::Whole(value)) => Ok(Some(value)),
            Some(Answer::Events(mut events)) => {
                let heard = events.next().await?;
                let value = heard
                    .map(|event| parsed(event.as_bytes(), &self.target))
                    .transpose()?;
                if value.is_some() {
                    self.answer = Some(Answer::Events(events));
                }
                Ok(value)
            }
        }
    }

    fn agree(&mut self, version: &str) {
        if let Ok(version) = HeaderValue::from_str(version) {
            self.headers.insert(VERSION, version);
        }
    }
}

fn built(request: reqwest::RequestBuilder, target: &str) -> Result<reqwest::Request, Failure> {
    request.build().map_err(|error| {
        let detail = format!("no request to '{target}' can be made: {error}");
        Failure::new(Kind::Validation, 400, detail)
    })
}

fn parsed(bytes: &[u8], target: &str) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("'{target}' sent what is no JSON: {error}");
        Failure::new(Kind::Communication, 502, detail)
    })
}

/// What a refusal says: the message of a JSON-RPC error, or the text as it is.
fn said_in(body: &[u8]) -> String {
    let error = serde_json::from_slice(body).ok().and_then(json_rpc::read);
    match error {
        Some(json_rpc::Incoming::Reply(_, json_rpc::Reply::Error(error))) => error.said(),
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}
