//! A2A over HTTP and JSON: where each method is.

use muster_workflow_dsl::document::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;

/// Everything but what is unreserved in an address.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is sent where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exchange {
    /// The method of HTTP.
    pub(super) verb: reqwest::Method,
    /// The address.
    pub(super) url: Url,
    /// The body; the request as a whole for a POST.
    pub(super) body: Option<Value>,
}

/// The exchange that `request`, in ProtoJSON, is with the agent at `base`.
pub(super) fn exchange(method: Method, base: &Url, tenant: &str, request: &Value) -> Exchange {
    let text = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default();
    let encoded = |name: &str| utf8_percent_encode(text(name), SEGMENT).to_string();
    let configurations = || format!("tasks/{}/pushNotificationConfigs", encoded("taskId"));
    let (verb, path, query): (_, String, &[&str]) = match method {
        Method::SendMessage => (reqwest::Method::POST, "message:send".to_owned(), &[]),
        Method::SendStreamingMessage => (reqwest::Method::POST, "message:stream".to_owned(), &[]),
        Method::GetTask => (
            reqwest::Method::GET,
            format!("tasks/{}", encoded("id")),
            &["historyLength"],
        ),
        Method::ListTasks => (
            reqwest::Method::GET,
            "tasks".to_owned(),
            &[
                "contextId",
                "status",
                "pageSize",
                "pageToken",
                "historyLength",
                "statusTimestampAfter",
                "includeArtifacts",
            ],
        ),
        Method::CancelTask => (
            reqwest::Method::POST,
            format!("tasks/{}:cancel", encoded("id")),
            &[],
        ),
        Method::SubscribeToTask => (
            reqwest::Method::GET,
            format!("tasks/{}:subscribe", encoded("id")),
            &[],
        ),
        Method::CreateTaskPushNotificationConfig => (reqwest::Method::POST, configurations(), &[]),
        Method::ListTaskPushNotificationConfigs => {
            (reqwest::Method::GET, configurations(), &["pageSize", "pageToken"])
        }
        Method::GetTaskPushNotificationConfig => (
            reqwest::Method::GET,
            format!("{}/{}", configurations(), encoded("id")),
            &[],
        ),
        Method::DeleteTaskPushNotificationConfig => (
            reqwest::Method::DELETE,
            format!("{}/{}", configurations(), encoded("id")),
            &[],
        ),
        Method::GetExtendedAgentCard => (reqwest::Method::GET, "extendedAgentCard".to_owned(), &[]),
    };
    let mut url = base.clone();
    let before = base.path().trim_end_matches('/');
    let tenant = if tenant.is_empty() {
        String::new()
    } else {
        format!("/{}", utf8_percent_encode(tenant, SEGMENT))
    };
    url.set_path(&format!("{before}{tenant}/{path}"));
    for name in query {
        match request.get(*name) {
            None | Some(Value::Null) => {}
            Some(Value::String(value)) => {
                url.query_pairs_mut().append_pair(name, value);
            }
            Some(value) => {
                url.query_pairs_mut().append_pair(name, &value.to_string());
            }
        }
    }
    let body = (verb == reqwest::Method::POST).then(|| request.clone());
    Exchange { verb, url, body }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_method_has_its_place() {
        let base: Url = "https://a.test/base/".parse().unwrap();
        let place = |method, tenant: &str, request: Value| {
            let exchange = exchange(method, &base, tenant, &request);
            (
                exchange.verb.to_string(),
                exchange.url.to_string(),
                exchange.body.is_some(),
            )
        };
        for (method, request, verb, path, body) in [
            (Method::SendMessage, json!({}), "POST", "message:send", true),
            (
                Method::SendStreamingMessage,
                json!({}),
                "POST",
                "message:stream",
                true,
            ),
            (
                Method::GetTask,
                json!({"id": "a/b", "historyLength": 3}),
                "GET",
                "tasks/a%2Fb?historyLength=3",
                false,
            ),
            (
                Method::ListTasks,
                json!({"contextId": "c d", "includeArtifacts": true}),
                "GET",
                "tasks?contextId=c+d&includeArtifacts=true",
                false,
            ),
            (
                Method::CancelTask,
                json!({"id": "t"}),
                "POST",
                "tasks/t:cancel",
                true,
            ),
            (
                Method::SubscribeToTask,
                json!({"id": "t"}),
                "GET",
                "tasks/t:subscribe",
                false,
            ),
            (
                Method::CreateTaskPushNotificationConfig,
                json!({"taskId": "t", "url": "u"}),
                "POST",
                "tasks/t/pushNotificationConfigs",
                true,
            ),
            (
                Method::DeleteTaskPushNotificationConfig,
                json!({"taskId": "t", "id": "c"}),
                "DELETE",
                "tasks/t/pushNotificationConfigs/c",
                false,
            ),
            (
                Method::GetExtendedAgentCard,
                json!({}),
                "GET",
                "extendedAgentCard",
                false,
            ),
        ] {
            let expected = (verb.to_owned(), format!("https://a.test/base/{path}"), body);
            assert_eq!(place(method, "", request), expected);
        }
        let (_, url, _) = place(Method::GetExtendedAgentCard, "t/1", json!({}));
        assert_eq!(url, "https://a.test/base/t%2F1/extendedAgentCard");
    }
}
