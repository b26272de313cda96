//! Requests as HTTP+JSON has them: a method, a path, a query or a body.
//!
//! The tenant of a request stands in front of its path, and ids are written so that no `/`, `:` or `%` of theirs is read as
//! structure. Subscribing is POST, which every server of 1.0 takes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Map, Value};
use url::Url;

use super::{Exchange, Failure, fields};
use crate::service::Request;

/// What stays as it is in a segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

pub(super) fn exchange(base: &Url, request: &Request) -> Result<Exchange, Failure> {
    let mut fields = match fields(request)? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => utf8_percent_encode(&text, SEGMENT).to_string(),
        _ => String::new(),
    };
    let tenant = take("tenant");
    let (method, path) = match request {
        Request::SendMessage(_) => (Method::POST, "message:send".to_owned()),
        Request::SendStreamingMessage(_) => (Method::POST, "message:stream".to_owned()),
        Request::GetTask(_) => (Method::GET, format!("tasks/{}", take("id"))),
        Request::ListTasks(_) => (Method::GET, "tasks".to_owned()),
        Request::CancelTask(_) => (Method::POST, format!("tasks/{}:cancel", take("id"))),
        Request::SubscribeToTask(_) => (Method::POST, format!("tasks/{}:subscribe", take("id"))),
        Request::CreatePushConfig(_) => (
            Method::POST,
            format!("tasks/{}/pushNotificationConfigs", take("taskId")),
        ),
        Request::ListPushConfigs(_) => (
            Method::GET,
            format!("tasks/{}/pushNotificationConfigs", take("taskId")),
        ),
        Request::GetPushConfig(_) => (
            Method::GET,
            format!("tasks/{}/pushNotificationConfigs/{}", take("taskId"), take("id")),
        ),
        Request::DeletePushConfig(_) => (
            Method::DELETE,
            format!("tasks/{}/pushNotificationConfigs/{}", take("taskId"), take("id")),
        ),
        Request::GetExtendedAgentCard(_) => (Method::GET, "extendedAgentCard".to_owned()),
    };
    let mut url = base.clone();
    let root = base.path().trim_end_matches('/');
    let place = if tenant.is_empty() {
        format!("{root}/{path}")
    } else {
        format!("{root}/{tenant}/{path}")
    };
    url.set_path(&place);
    if method == Method::POST {
        return Ok(Exchange {
            method,
            url,
            body: Some(Value::Object(fields)),
        });
    }
    for (name, value) in &fields {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        url.query_pairs_mut().append_pair(name, &text);
    }
    Ok(Exchange {
        method,
        url,
        body: None,
    })
}

#[cfg(test)]
mod tests {
    use muster_api::a2a as pb;

    use super::*;
    use crate::rest::{Place, Resource};

    #[test]
    fn what_is_written_is_what_our_own_binding_reads() {
        let base: Url = "http://agent.example/a2a/".parse().unwrap();
        let get = |id: &str, tenant: &str| {
            Request::GetTask(pb::GetTaskRequest {
                tenant: tenant.to_owned(),
                id: id.to_owned(),
                history_length: Some(3),
            })
        };
        for id in ["t1", "a:cancel", "a/b c%"] {
            let exchange = exchange(&base, &get(id, "ten ant")).unwrap();
            let path = exchange.url.path().strip_prefix("/a2a").unwrap().to_owned();
            let place = Place::read(&path).unwrap();
            assert_eq!(place.tenant.as_deref(), Some("ten ant"));
            assert_eq!(place.resource, Resource::Task(id.to_owned()), "{path}");
            assert_eq!(exchange.url.query(), Some("historyLength=3"));
        }
    }
}
