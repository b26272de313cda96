//! A2A's HTTP+JSON binding: an operation is a method and a path, streams are server-sent events.
//!
//! Paths are read here and not by the HTTP framework's patterns, which cannot end a variable before a `:`. A raw `:` in a
//! task's segment begins the verb (`cancel`, `subscribe`); in a task's id it is written `%3A`, or stands as it is where no verb
//! follows. `GET` has its fields in the query, in camelCase as ProtoJSON has them or as the contract spells them.
//!
//! Subscribing is `GET` in the contract and `POST` in the specification's text; both are served.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use muster_api::error::{Error, Reason};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tonic::Status;

use crate::codec::{self, decode};
use crate::error;
use crate::service::{Answer, Head, Reply, Request, Service};
use crate::sse;

/// What the binding's bodies are.
pub(crate) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/a2a+json");

const SEND: &str = "message:send";
const STREAM: &str = "message:stream";
const TASKS: &str = "tasks";
const PUSH_CONFIGS: &str = "pushNotificationConfigs";
const EXTENDED_CARD: &str = "extendedAgentCard";

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    Send,
    Stream,
    Tasks,
    Task(String),
    Cancel(String),
    Subscribe(String),
    PushConfigs(String),
    PushConfig(String, String),
    ExtendedCard,
}

/// A path with the tenant in front of it, if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tenant: Option<String>,
    pub(crate) resource: Resource,
}

impl Place {
    /// Reads a raw path; nothing where it is none of the binding's.
    pub(crate) fn read(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        if let Some(resource) = Resource::read(&segments) {
            return Some(Self {
                tenant: None,
                resource,
            });
        }
        let (tenant, rest) = segments.split_first()?;
        Some(Self {
            tenant: Some(decoded(tenant)?),
            resource: Resource::read(rest)?,
        })
    }
}

impl Resource {
    fn read(segments: &[&str]) -> Option<Self> {
        match *segments {
            [SEND] => Some(Self::Send),
            [STREAM] => Some(Self::Stream),
            [TASKS] => Some(Self::Tasks),
            [EXTENDED_CARD] => Some(Self::ExtendedCard),
            [TASKS, task] => match task.rsplit_once(':') {
                Some((task, "cancel")) => decoded(task).map(Self::Cancel),
                Some((task, "subscribe")) => decoded(task).map(Self::Subscribe),
                _ => decoded(task).map(Self::Task),
            },
            [TASKS, task, PUSH_CONFIGS] => decoded(task).map(Self::PushConfigs),
            [TASKS, task, PUSH_CONFIGS, config] => Some(Self::PushConfig(decoded(task)?, decoded(config)?)),
            _ => None,
        }
    }

    /// The methods that it has.
    const fn allowed(&self) -> &'static str {
        match self {
            Self::Send | Self::Stream | Self::Cancel(_) => "POST",
            Self::Tasks | Self::Task(_) | Self::ExtendedCard => "GET, HEAD",
            Self::Subscribe(_) | Self::PushConfigs(_) => "GET, HEAD, POST",
            Self::PushConfig(..) => "DELETE, GET, HEAD",
        }
    }
}

/// A segment's text; an empty one names nothing.
fn decoded(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?.into_owned();
    (!text.is_empty()).then_some(text)
}

/// Answers one request.
pub(crate) async fn answer<S: Service>(
    service: &S,
    head: Head,
    method: &Method,
    place: Place,
    query: Option<&str>,
    body: &[u8],
) -> Response {
    let request = match request(&head, method, place.resource, query, body) {
        Ok(request) => request,
        Err(Unread::Method(allowed)) => {
            let error = Error::new(Reason::MethodNotAllowed, format!("this path has no {method}"));
            let mut response = failed(&Status::from(error));
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        Err(Unread::Fields(status)) => {
            service.unreadable(head.binding, &status);
            return failed(&status);
        }
    };
    match service.answer(head, request).await {
        Ok(Reply {
            answer: Answer::Events(events),
            headers,
        }) => match sse::opened(events).await {
            Ok(events) => {
                let events = sse::respond(events, |event| match event {
                    Ok(event) => event,
                    Err(status) => error::http_json(&status).1,
                });
                (headers, events).into_response()
            }
            Err(status) => failed(&status),
        },
        Ok(Reply { answer, headers }) => match body_of(&answer) {
            Ok(body) => {
                let json = [(header::CONTENT_TYPE, MEDIA_TYPE)];
                (headers, json, body.to_string()).into_response()
            }
            Err(status) => failed(&status),
        },
        Err(status) => failed(&status),
    }
}

fn body_of(answer: &Answer) -> Result<Value, Box<Status>> {
    match answer {
        Answer::Done => Ok(json!({})),
        other => codec::single(other),
    }
}

/// Why there is no request.
enum Unread {
    /// The path has other methods.
    Method(&'static str),
    Fields(Box<Status>),
}

impl From<Box<Status>> for Unread {
    fn from(status: Box<Status>) -> Self {
        Self::Fields(status)
    }
}

fn request(
    head: &Head,
    method: &Method,
    resource: Resource,
    query: Option<&str>,
    body: &[u8],
) -> Result<Request, Unread> {
    let allowed = resource.allowed();
    let is_get = *method == Method::GET || *method == Method::HEAD;
    let fields = |place: &[(&str, &str)]| -> Result<Value, Box<Status>> {
        let mut fields = if is_get || *method == Method::DELETE {
            of_query(query)?
        } else {
            of_body(head, body)?
        };
        for (name, value) in place {
            named(&mut fields, name, value)?;
        }
        if let Some(tenant) = &head.tenant {
            named(&mut fields, "tenant", tenant)?;
        }
        Ok(Value::Object(fields))
    };
    let is_post = *method == Method::POST;
    Ok(match resource {
        Resource::Send if is_post => Request::SendMessage(decode::<a2a::SendMessageRequest>(fields(&[])?)?),
        Resource::Stream if is_post => {
            Request::SendStreamingMessage(decode::<a2a::SendMessageRequest>(fields(&[])?)?)
        }
        Resource::Tasks if is_get => Request::ListTasks(decode::<a2a::ListTasksRequest>(fields(&[])?)?),
        Resource::Task(task) if is_get => {
            Request::GetTask(decode::<a2a::GetTaskRequest>(fields(&[("id", &task)])?)?)
        }
        Resource::Cancel(task) if is_post => {
            Request::CancelTask(decode::<a2a::CancelTaskRequest>(fields(&[("id", &task)])?)?)
        }
        Resource::Subscribe(task) if is_get || is_post => {
            Request::SubscribeToTask(decode::<a2a::SubscribeToTaskRequest>(fields(&[("id", &task)])?)?)
        }
        Resource::PushConfigs(task) if is_post => {
            Request::CreatePushConfig(decode::<a2a::TaskPushNotificationConfig>(fields(&[(
                "taskId", &task,
            )])?)?)
        }
        Resource::PushConfigs(task) if is_get => {
            Request::ListPushConfigs(decode::<a2a::ListTaskPushNotificationConfigsRequest>(fields(
                &[("taskId", &task)],
            )?)?)
        }
        Resource::PushConfig(task, config) if is_get => {
            Request::GetPushConfig(decode::<a2a::GetTaskPushNotificationConfigRequest>(fields(&[
                ("taskId", &task),
                ("id", &config),
            ])?)?)
        }
        Resource::PushConfig(task, config) if *method == Method::DELETE => {
            Request::DeletePushConfig(decode::<a2a::DeleteTaskPushNotificationConfigRequest>(fields(
                &[("taskId", &task), ("id", &config)],
            )?)?)
        }
        Resource::ExtendedCard if is_get => {
            Request::GetExtendedAgentCard(decode::<a2a::GetExtendedAgentCardRequest>(fields(&[])?)?)
        }
        _ => return Err(Unread::Method(allowed)),
    })
}

/// Sets a field that the path says; the body or the query may repeat it, not contradict.
fn named(fields: &mut Map<String, Value>, name: &str, value: &str) -> Result<(), Box<Status>> {
    match fields.get(name).and_then(Value::as_str) {
        Some(said) if !said.is_empty() && said != value => Err(invalid(
            name,
            &format!("is '{said}', but the path says '{value}'; say it once"),
        )),
        _ => {
            fields.insert(name.to_owned(), json!(value));
            Ok(())
        }
    }
}

/// The fields in a query. ProtoJSON reads numbers, times and enums from text; truth it does not.
fn of_query(query: Option<&str>) -> Result<Map<String, Value>, Box<Status>> {
    let mut fields = Map::new();
    for (name, value) in pairs(query) {
        if name.eq_ignore_ascii_case("a2a-version") {
            continue;
        }
        let value = match (name.as_str(), value.as_str()) {
            ("includeArtifacts" | "include_artifacts", "true" | "1") => json!(true),
            ("includeArtifacts" | "include_artifacts", "false" | "0" | "") => json!(false),
            ("includeArtifacts" | "include_artifacts", other) => {
                return Err(invalid(
                    &name,
                    &format!("is '{other}'; true and false are allowed"),
                ));
            }
            // What is left empty is not said.
            (_, "") => continue,
            (_, text) => json!(text),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(invalid(&name, "is there more than once and takes one value"));
        }
    }
    Ok(fields)
}

/// The parameters of a query in their order; `+` is a blank.
pub(crate) fn pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |text: &str| {
                percent_decode_str(&text.replace('+', " "))
                    .decode_utf8_lossy()
                    .into_owned()
            };
            (text(name), text(value))
        })
}

/// The fields of a body; an empty body has none.
fn of_body(head: &Head, body: &[u8]) -> Result<Map<String, Value>, Box<Status>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    codec::check_media_type(head)?;
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(invalid("body", "must be a JSON object")),
        Err(error) => Err(invalid("body", &format!("is no JSON: {error}"))),
    }
}

fn invalid(field: &str, message: &str) -> Box<Status> {
    Box::new(Error::invalid_field(field, message).into())
}

/// A status as this binding has it.
pub(crate) fn failed(status: &Status) -> Response {
    let (http, body) = error::http_json(status);
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (http, json, body.to_string()).into_response();
    if let Some(seconds) = error::retry_after(status) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The same with another HTTP status.
pub(crate) fn failed_with(status: &Status, http: StatusCode) -> Response {
    let mut response = failed(status);
    *response.status_mut() = http;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_binding_is_read_with_and_without_a_tenant() {
        let task = || "t1".to_owned();
        let places = [
            ("/message:send", Resource::Send),
            ("/message:stream", Resource::Stream),
            ("/tasks", Resource::Tasks),
            ("/tasks/t1", Resource::Task(task())),
            ("/tasks/t1:cancel", Resource::Cancel(task())),
            ("/tasks/t1:subscribe", Resource::Subscribe(task())),
            ("/tasks/t1/pushNotificationConfigs", Resource::PushConfigs(task())),
            (
                "/tasks/t1/pushNotificationConfigs/c1",
                Resource::PushConfig(task(), "c1".to_owned()),
            ),
            ("/extendedAgentCard", Resource::ExtendedCard),
        ];
        for (path, resource) in places {
            for (tenant, path) in [
                (None, path.to_owned()),
                (Some("skill:x".to_owned()), format!("/skill:x{path}")),
            ] {
                let expected = Place {
                    tenant,
                    resource: resource.clone(),
                };
                assert_eq!(Place::read(&path), Some(expected), "{path}");
            }
        }
        for other in [
            "/",
            "/weather",
            "/weather/",
            "/tasks/",
            "/a/b/tasks",
            "/tasks/t/x",
            "message:send",
        ] {
            assert_eq!(Place::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_colon_in_a_tasks_id_is_no_verb() {
        for (path, id) in [
            ("/tasks/a:b", "a:b"),
            ("/tasks/a%3Acancel", "a:cancel"),
            ("/tasks/a%2Fb", "a/b"),
        ] {
            assert_eq!(Place::read(path).unwrap().resource, Resource::Task(id.to_owned()));
        }
        assert_eq!(
            Place::read("/tasks/a:b:cancel").unwrap().resource,
            Resource::Cancel("a:b".to_owned())
        );
    }

    #[test]
    fn a_query_is_read_by_the_types_of_its_fields() {
        let fields = of_query(Some(
            "pageSize=5&includeArtifacts=true&contextId=a%20b+c&A2A-Version=1.0&pageToken=",
        ))
        .unwrap();
        let read = decode::<a2a::ListTasksRequest>(Value::Object(fields)).unwrap();
        assert_eq!((read.page_size, read.include_artifacts), (Some(5), Some(true)));
        assert_eq!(read.context_id, "a b c");
        assert!(of_query(Some("pageSize=1&pageSize=2")).is_err());
        assert!(of_query(Some("includeArtifacts=maybe")).is_err());
    }
}
