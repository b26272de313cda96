//! `call: http`: a request over HTTP, and what its answer means to a workflow.

use std::future::Future;
use std::time::Duration;

use muster_workflow_dsl::document::{ResponseFormat, Scheme};
use muster_workflow_dsl::request::{Http as Request, shown};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::session::Session;
use super::web::{Incoming, Outgoing, Web, address, content, header};
use super::{Call, Failure, Kind, Progress};

/// Tells a service that a request is the same as one before (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Most of an answer that is repeated in an error, in characters.
const LONGEST_EXCERPT: usize = 500;

impl Web {
    /// Makes a call over HTTP and returns its output.
    pub(super) async fn http(
        &self,
        request: &Request,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        within(call.timeout, &shown(&request.endpoint.uri), async {
            let mut session = self.session(call).await?;
            let outcome = self.http_in(request, call, progress, &mut session).await;
            outcome.map_err(|failure| session.redaction().failure(failure))
        })
        .await
    }

    /// As [`Self::http`], within a session.
    pub(super) async fn http_in(
        &self,
        request: &Request,
        call: &Call,
        progress: &Progress,
        session: &mut Session,
    ) -> Result<Value, Failure> {
        let authentication = request.endpoint.authentication.as_ref();
        if authentication.is_some_and(|given| matches!(given.scheme, Scheme::Oauth2 | Scheme::Oidc)) {
            progress.set_note(Some("obtains a token first".to_owned()));
        }
        let finish = |session: &Session| {
            progress.set_note(None);
            outgoing(request, call, session)
        };
        let answer = self.send(authentication, session, finish).await?;
        output(request, call, &answer, session)
    }
}

/// Bounds what is done for a call in time.
pub(super) async fn within<T>(
    limit: Duration,
    target: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs_f64();
        let detail = format!("'{target}' did not answer within {seconds:.3} s");
        Err(Failure::new(Kind::Timeout, 408, detail))
    })
}

/// What puts secrets in the place of their markers, or leaves the markers.
trait Fill {
    fn address(&self, text: &str) -> String;
    fn text(&self, text: &str) -> String;
    fn value(&self, value: &Value) -> Value;
}

impl Fill for Session {
    fn address(&self, text: &str) -> String {
        Self::address(self, text)
    }

    fn text(&self, text: &str) -> String {
        Self::text(self, text)
    }

    fn value(&self, value: &Value) -> Value {
        Self::value(self, value)
    }
}

/// Leaves the markers where they are.
struct Marked;

impl Fill for Marked {
    fn address(&self, text: &str) -> String {
        muster_workflow_dsl::secret::plain(text)
    }

    fn text(&self, text: &str) -> String {
        text.to_owned()
    }

    fn value(&self, value: &Value) -> Value {
        value.clone()
    }
}

/// The request as it is sent, without its authentication.
fn outgoing(request: &Request, call: &Call, session: &impl Fill) -> Result<Outgoing, Failure> {
    let mut url = address(&session.address(&request.endpoint.uri))?;
    if !request.query.is_empty() {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in &request.query {
            for value in content::plain(name, &session.value(value))? {
                pairs.append_pair(name, &value);
            }
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let (name, mut value) = header(name, &session.text(value))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    let method: Method = request.method.parse().map_err(|_| {
        Failure::new(
            Kind::Validation,
            400,
            format!("there is no method '{}'", request.method),
        )
    })?;
    if !method.is_safe() && !headers.contains_key(&IDEMPOTENCY_KEY) {
        let (name, value) = header(IDEMPOTENCY_KEY.as_str(), &call.message_id.to_string())?;
        headers.insert(name, value);
    }
    let body = match &request.body {
        None => None,
        Some(body) => Some(content::encode(&session.value(body), &mut headers)?),
    };
    Ok(Outgoing {
        method,
        url,
        headers,
        body,
    })
}

/// What the answer is to the workflow.
fn output(request: &Request, call: &Call, answer: &Incoming, session: &Session) -> Result<Value, Failure> {
    let redaction = session.redaction();
    let accepted = answer.status.is_success() || request.redirect && answer.status.is_redirection();
    if !accepted {
        return Err(refusal(request, answer, session));
    }
    match request.output {
        ResponseFormat::Raw => Ok(content::raw(&answer.body, redaction).into()),
        ResponseFormat::Content => content::decode(&answer.body, &answer.headers, redaction),
        ResponseFormat::Response => Ok(json!({
            "request": asked(request, call, session),
            "statusCode": answer.status.as_u16(),
            "headers": redaction.value(headers(&answer.headers)),
            "content": content::decode(&answer.body, &answer.headers, redaction)?,
        })),
    }
}

/// The request as it was sent, with markers where secrets stand. Headers of the document keep their names as written.
fn asked(request: &Request, call: &Call, session: &Session) -> Value {
    let mut sent: Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let mut add = |name: &str, value: Value| {
        if !sent.keys().any(|known| known.eq_ignore_ascii_case(name)) {
            sent.insert(name.to_owned(), value);
        }
    };
    // A digest answers what the service asks for, and is made anew each time.
    let authentication = request.endpoint.authentication.as_ref();
    if let Some(scheme) = authentication.map(|given| given.scheme)
        && scheme != Scheme::Digest
    {
        let value = format!("{} {}", scheme.in_header(), session.authorization());
        add(AUTHORIZATION.as_str(), value.into());
    }
    // An address that is a secret as a whole is none before it is known.
    let mut uri = request.endpoint.uri.clone();
    if let Ok(outgoing) = outgoing(request, call, &Marked) {
        if let Value::Object(headers) = headers(&outgoing.headers) {
            for (name, value) in headers {
                add(&name, value);
            }
        }
        let mut url = outgoing.url;
        url.set_fragment(None);
        // What is no part of the address that is sent; fails for addresses that cannot have any.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        // The tilde may stand for itself everywhere, and does in markers, which are known by it.
        uri = url.to_string().replace("%7E", "~");
    }
    json!({
        "method": request.method.to_ascii_lowercase(),
        "uri": uri,
        "headers": sent,
    })
}

/// Headers by name; those that come several times are joined, as HTTP has it.
fn headers(headers: &HeaderMap) -> Value {
    let named = headers.keys().map(|name| {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (name.as_str().to_owned(), Value::from(values.join(", ")))
    });
    Value::Object(named.collect::<Map<_, _>>())
}

/// The failure that a status means.
fn refusal(request: &Request, answer: &Incoming, session: &Session) -> Failure {
    let kind = match answer.status {
        StatusCode::UNAUTHORIZED => Kind::Authentication,
        StatusCode::FORBIDDEN => Kind::Authorization,
        _ => Kind::Communication,
    };
    let body = session.redaction().bytes(&answer.body);
    let said = String::from_utf8_lossy(&body);
    let is_text = said
        .chars()
        .all(|character| !character.is_control() || character.is_whitespace());
    let mut detail = format!(
        "{} {} answered {}",
        request.method,
        shown(&request.endpoint.uri),
        answer.status
    );
    if is_text && !said.trim().is_empty() {
        let excerpt: String = said.trim().chars().take(LONGEST_EXCERPT).collect();
        detail.push_str(&format!(": {excerpt}"));
    }
    if answer.status.is_redirection() {
        detail.push_str("; redirects are not followed: write the address that it leads to, or set 'redirect: true' to get this answer");
    }
    Failure::new(kind, answer.status.as_u16(), detail)
}
