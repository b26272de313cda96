//! Agents by URL: found by their card, called over whatever binding it offers.
//!
//! Nothing is retried here: whether the agent has taken a message in cannot be known, and the document's own `try` says
//! what may be repeated. A card is kept for a while, so that a loop of calls does not read it each time; one that leads
//! nowhere is forgotten.
//!
//! Credentials go to the host that the document names and to no other, wherever a card points.

mod card;
mod cards;
mod fault;
mod line;
mod rest;

use std::sync::Arc;
use std::time::Duration;

use a2a_pb::protojson;
use muster_api::a2a;
use muster_api::extension::STEP_KEY_METADATA;
use muster_rpc::deadline::Deadline;
use muster_runtime::clock::SharedClock;
use muster_workflow_dsl::document::{Endpoint, Method};
use muster_workflow_dsl::request::{self, A2a};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use url::Url;

use super::answer;
use super::http::within;
use super::session::Session;
use super::stream::Stream;
use super::web::{self, Web};
use super::{Call, Failure, Kind, Progress, body, message_id};
use card::Interface;
use cards::Cards;
use line::Line;

/// How long an agent may take to confirm that it stops, from the first look at its card on.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of a card.
const LARGEST_CARD: usize = 1024 * 1024;

/// Calls agents by their addresses.
pub struct Direct {
    web: Arc<Web>,
    clock: SharedClock,
    cards: Cards,
    /// Largest answer.
    most_bytes: usize,
}

impl Direct {
    /// Calls over the connections of `web`.
    #[must_use]
    pub fn new(web: Arc<Web>, clock: SharedClock, most_bytes: usize) -> Self {
        Self {
            web,
            cards: Cards::default(),
            clock,
            most_bytes,
        }
    }

    /// Makes the call and returns the answer as ProtoJSON.
    pub(super) async fn call(
        &self,
        request: &A2a,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let mut session = self.web.session(call).await?;
        let target = shown(request);
        let deadline = Deadline::after(self.clock.monotonic(), call.timeout);
        let work = self.work(request, call, &mut session, deadline, progress);
        let outcome = within(call.timeout, &target, work).await;
        session.cleaned(outcome)
    }

    async fn work(
        &self,
        request: &A2a,
        call: &Call,
        session: &mut Session,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let line = self.line(request, call, session).await?;
        let parameters = session.value(&request.parameters);
        let left = || deadline.remaining(self.clock.monotonic()).unwrap_or_default();
        let outcome = match request.method {
            Method::SendMessage => {
                progress.begin();
                let message = message(parameters, call);
                if let Some(task) = message.pointer("/message/taskId").and_then(Value::as_str) {
                    progress.learn_task(task);
                }
                let answer = line.unary(request.method, &message, left()).await;
                answer.and_then(|answer| answered(&answer))
            }
            Method::SendStreamingMessage => {
                progress.begin();
                self.follow(&line, request, &message(parameters, call), left(), progress)
                    .await
            }
            Method::SubscribeToTask => self.follow(&line, request, &parameters, left(), progress).await,
            Method::GetTask | Method::CancelTask => {
                let answer = line.unary(request.method, &parameters, left()).await?;
                let task: a2a::Task = answer::read::<protojson::Task, _>(&answer)?;
                answer::any_task(&task)
            }
            Method::ListTasks => {
                let answer = line.unary(request.method, &parameters, left()).await?;
                let list: a2a::ListTasksResponse = answer::read::<protojson::ListTasksResponse, _>(&answer)?;
                answer::list(&list)
            }
            Method::DeleteTaskPushNotificationConfig => {
                line.unary(request.method, &parameters, left()).await?;
                Ok(json!({}))
            }
            Method::CreateTaskPushNotificationConfig
            | Method::GetTaskPushNotificationConfig
            | Method::ListTaskPushNotificationConfigs
            | Method::GetExtendedAgentCard => line.unary(request.method, &parameters, left()).await,
        };
        if let Err(failure) = &outcome
            && failure.status == 503
        {
            self.cards.forget(&request.endpoint.to_string());
        }
        outcome
    }

    async fn follow(
        &self,
        line: &Line<'_>,
        request: &A2a,
        message: &Value,
        left: Duration,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let mut events = line.stream(request.method, message, left).await?;
        let mut stream = Stream::new(request.events, self.most_bytes);
        while let Some(event) = line.next(&mut events).await? {
            let event: a2a::StreamResponse = answer::read::<protojson::StreamResponse, _>(&event)?;
            stream.take(event, progress)?;
            if stream.waits_for_caller() {
                break;
            }
        }
        stream.end()
    }

    /// Asks the agent to stop its task: one that is known, or one that grew out of the message.
    pub(super) async fn stop(&self, request: &A2a, call: &Call, progress: &Progress) -> Result<(), Failure> {
        if !matches!(request.method, Method::SendMessage | Method::SendStreamingMessage) {
            return Ok(());
        }
        let work = async {
            let mut session = self.web.session(call).await?;
            let line = self.line(request, call, &mut session).await?;
            let tasks = match progress.task_id() {
                Some(task) if !call.resent => vec![task],
                _ => {
                    self.tasks_of(&line, &message_id(&request.parameters, call))
                        .await?
                }
            };
            for task in tasks {
                line.unary(Method::CancelTask, &json!({"id": task}), CANCEL_TIMEOUT)
                    .await?;
            }
            Ok(())
        };
        tokio::time::timeout(CANCEL_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| {
                let detail = format!("'{}' did not confirm in time that it stops", shown(request));
                Err(Failure::new(Kind::Timeout, 408, detail))
            })
    }

    /// The tasks that grew out of the message with this id, as far as the agent keeps their history and they are not over.
    async fn tasks_of(&self, line: &Line<'_>, message: &str) -> Result<Vec<String>, Failure> {
        let mut token = String::new();
        let mut tasks = Vec::new();
        for _ in 0..answer::MOST_PAGES {
            let asked = json!({"pageSize": 100, "pageToken": token});
            let page = line.unary(Method::ListTasks, &asked, CANCEL_TIMEOUT).await?;
            let page: a2a::ListTasksResponse = answer::read::<protojson::ListTasksResponse, _>(&page)?;
            tasks.extend(answer::grown_from(&page.tasks, message));
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
        Ok(tasks)
    }

    async fn line(&self, request: &A2a, call: &Call, session: &mut Session) -> Result<Line<'_>, Failure> {
        let Endpoint::Url(uri) = &request.endpoint else {
            let detail = format!("'{}' is not called by its address", shown(request));
            return Err(Failure::new(Kind::Runtime, 500, detail));
        };
        let uri = session.text(uri);
        let mut credentials = HeaderMap::new();
        if let Some(authentication) = &request.authentication {
            let value = self.web.authorization(authentication, session).await?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let detail = "the credentials contain characters that no header may have";
                Failure::new(Kind::Validation, 400, detail)
            })?;
            value.set_sensitive(true);
            credentials.insert(AUTHORIZATION, value);
        }
        let (interface, host) = match Interface::of_grpc(&uri) {
            Some(interface) => {
                let interface = interface?;
                let host = interface.host().to_owned();
                (interface, host)
            }
            None => {
                let url = web::address(&uri)?;
                let host = url.host_str().unwrap_or_default().to_owned();
                let key = request.endpoint.to_string();
                let now = self.clock.monotonic();
                let interface = match self.cards.find(&key, now) {
                    Some(interface) => interface,
                    None => {
                        let (interface, age) = self.discover(request, url, &credentials).await?;
                        self.cards.keep(key, interface.clone(), now, age);
                        interface
                    }
                };
                (interface, host)
            }
        };
        if !credentials.is_empty() && !interface.host().eq_ignore_ascii_case(&host) {
            let detail = format!(
                "the agent card of '{}' leads to '{}', and credentials for '{host}' are not sent to another host; name the \
                 agent's own address as 'server'",
                shown(request),
                interface.host()
            );
            return Err(Failure::new(Kind::Authorization, 403, detail));
        }
        Ok(Line {
            outbound: self.web.outbound(),
            interface,
            credentials,
            step_key: call.step_key,
            epoch: call.epoch,
            most_bytes: self.most_bytes,
            target: shown(request),
        })
    }

    /// Reads the card and picks an interface; says how long that may be kept.
    async fn discover(
        &self,
        request: &A2a,
        url: Url,
        credentials: &HeaderMap,
    ) -> Result<(Interface, Duration), Failure> {
        let place = if request.card {
            url.clone()
        } else {
            card::well_known(&url)
        };
        let outbound = self.web.outbound();
        let question = outbound
            .request(reqwest::Method::GET, place.clone())
            .headers(credentials.clone())
            .build()
            .map_err(|error| Failure::new(Kind::Validation, 400, format!("the agent card: {error}")))?;
        let answer = outbound.send(question).await?;
        let status = answer.status();
        let shown = crate::outbound::without_credentials(&place);
        if status.is_success() {
            let age = cards::age(answer.headers());
            let card = body::read(answer, LARGEST_CARD, &shown).await?;
            // A page that says all is well is no card: agents without one answer so.
            return match card::choose(&card, &place) {
                Ok(interface) => Ok((interface, age)),
                Err(_) if !request.card && serde_json::from_slice::<Value>(&card).is_err() => {
                    Ok((Interface::bare(url), age))
                }
                Err(failure) => Err(failure),
            };
        }
        if request.card || matches!(status.as_u16(), 401 | 403) || !status.is_client_error() {
            let said = body::read(answer, LARGEST_CARD, &shown).await.unwrap_or_default();
            return Err(body::refusal(&shown, status, &String::from_utf8_lossy(&said)));
        }
        Ok((Interface::bare(url), cards::DEFAULT_AGE))
    }
}

/// The agent, for people.
fn shown(request: &A2a) -> String {
    request::shown(&request.endpoint.to_string())
}

/// The request with what the engine adds: the message id and the step key.
fn message(mut parameters: Value, call: &Call) -> Value {
    let id = message_id(&parameters, call);
    if let Some(message) = parameters.get_mut("message").and_then(Value::as_object_mut) {
        message.insert("messageId".to_owned(), id.into());
    }
    if let Some(parameters) = parameters.as_object_mut() {
        let metadata = parameters.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert(STEP_KEY_METADATA.to_owned(), call.step_key.to_string().into());
        }
    }
    parameters
}

/// What the answer to a message means.
fn answered(answer: &Value) -> Result<Value, Failure> {
    let answer: a2a::SendMessageResponse = answer::read::<protojson::SendMessageResponse, _>(answer)?;
    answer::response(answer.payload)
}
