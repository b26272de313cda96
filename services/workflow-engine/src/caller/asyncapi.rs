//! `call: asyncapi`: a message that an AsyncAPI document describes, published over HTTP.
//!
//! Versions 3 and 2. Only servers that speak HTTP are reached; every other protocol needs a broker, and is refused by its name.

use std::collections::BTreeMap;

use muster_workflow_dsl::data;
use muster_workflow_dsl::document::{ResponseFormat, UriTemplate};
use muster_workflow_dsl::request::{AsyncApi, Destination, Http, shown};
use serde_json::{Map, Value};

use super::openapi::address::filled;
use super::openapi::{resolved, wrong};
use super::web::Web;
use super::{Call, Failure, Kind, Progress};

impl Web {
    /// Publishes a message and returns what the server answers.
    pub(super) async fn asyncapi(
        &self,
        request: &AsyncApi,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        self.described(&request.document.endpoint, call, progress, |text, _| {
            described(text, request)
        })
        .await
    }
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

/// The request that the document describes.
///
/// # Errors
/// It cannot be read, describes no such message, or none that can be published over HTTP.
pub fn described(document: &str, request: &AsyncApi) -> Result<Http, Failure> {
    let what = shown(&request.document.endpoint.uri);
    let document =
        data::read(document).map_err(|why| wrong(format!("the document '{what}' cannot be read: {why}")))?;
    let version = text(&document, "asyncapi").unwrap_or_default();
    let (channel, address, operation) =
        match (version.split('.').next(), &request.operation, &request.channel) {
            (Some("3"), Some(operation), _) => version_3(&document, operation)?,
            (Some("2"), _, Some(channel)) => version_2(&document, channel)?,
            (Some("3"), None, _) => {
                return Err(wrong(
                    "the document has version 3: name an 'operation', not a 'channel'",
                ));
            }
            (Some("2"), ..) => {
                return Err(wrong(
                    "the document has version 2: name a 'channel', not an 'operation'",
                ));
            }
            _ => {
                return Err(wrong(format!(
                    "'{what}' is not an AsyncAPI document of version 2 or 3"
                )));
            }
        };
    let base = server(&document, channel, request)?;
    let address = UriTemplate::parse(&address)
        .and_then(|template| template.expand(&Value::Object(request.variables.clone())))
        .map_err(wrong)?;
    let mut headers: BTreeMap<String, String> = request.headers.clone();
    let typed = headers
        .keys()
        .any(|name| name.eq_ignore_ascii_case("content-type"));
    if !typed && request.payload.is_some() {
        let kind = text(&document, "defaultContentType").unwrap_or("application/json");
        headers.insert("content-type".to_owned(), kind.to_owned());
    }
    let method = operation.pointer("/bindings/http/method").and_then(Value::as_str);
    Ok(Http {
        method: method.unwrap_or("POST").to_ascii_uppercase(),
        endpoint: Destination {
            uri: format!(
                "{}/{}",
                base.trim_end_matches('/'),
                address.trim_start_matches('/')
            ),
            authentication: request.authentication.clone(),
        },
        headers,
        query: BTreeMap::new(),
        body: request.payload.clone(),
        output: ResponseFormat::Content,
        redirect: false,
    })
}

/// The channel of an operation, its address, and the operation.
fn version_3<'d>(document: &'d Value, name: &str) -> Result<(&'d Value, String, &'d Value), Failure> {
    let operations = document.get("operations").and_then(Value::as_object);
    let Some(operation) = operations.and_then(|operations| operations.get(name)) else {
        let known = operations.into_iter().flatten().map(|(name, _)| name.as_str());
        let nearest = muster_api::names::suggestion(name, known);
        return Err(wrong(format!(
            "the document describes no operation '{name}'{nearest}"
        )));
    };
    let operation = resolved(document, operation);
    let channel = operation
        .get("channel")
        .map_or(&Value::Null, |channel| resolved(document, channel));
    let address = text(channel, "address").unwrap_or_default().to_owned();
    Ok((channel, address, operation))
}

fn version_2<'d>(document: &'d Value, name: &str) -> Result<(&'d Value, String, &'d Value), Failure> {
    let channels = document.get("channels").and_then(Value::as_object);
    let Some(channel) = channels.and_then(|channels| channels.get(name)) else {
        let known = channels.into_iter().flatten().map(|(name, _)| name.as_str());
        let nearest = muster_api::names::suggestion(name, known);
        return Err(wrong(format!(
            "the document describes no channel '{name}'{nearest}"
        )));
    };
    let channel = resolved(document, channel);
    let publish = channel.get("publish");
    let publish =
        publish.ok_or_else(|| wrong(format!("nothing can be published to the channel '{name}'")))?;
    Ok((channel, name.to_owned(), resolved(document, publish)))
}

/// The address of the server: the one that is named, or the first that speaks HTTP.
fn server(document: &Value, channel: &Value, request: &AsyncApi) -> Result<String, Failure> {
    let empty = Map::new();
    let servers = document
        .get("servers")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let server = match &request.server {
        Some(name) => {
            let named = servers.get(name).map(|server| resolved(document, server));
            let nearest = || muster_api::names::suggestion(name, servers.keys().map(String::as_str));
            let server = named
                .ok_or_else(|| wrong(format!("the document describes no server '{name}'{}", nearest())))?;
            let protocol = text(server, "protocol").unwrap_or_default();
            if !is_http(protocol) {
                return Err(unsupported(&format!("the server '{name}' speaks '{protocol}'")));
            }
            server
        }
        None => {
            let own = channel.get("servers").and_then(Value::as_array);
            let candidates: Vec<&Value> = match own {
                Some(own) => own
                    .iter()
                    // A reference in version 3, a name in version 2.
                    .map(|server| match server.as_str() {
                        Some(name) => servers.get(name).unwrap_or(&Value::Null),
                        None => server,
                    })
                    .map(|server| resolved(document, server))
                    .collect(),
                None => servers
                    .values()
                    .map(|server| resolved(document, server))
                    .collect(),
            };
            let fits = |server: &&&Value| {
                let protocol = text(server, "protocol").unwrap_or_default();
                is_http(protocol)
                    && request
                        .protocol
                        .as_deref()
                        .is_none_or(|wanted| wanted == protocol)
            };
            let found = candidates.iter().find(fits).copied();
            found.ok_or_else(|| {
                let protocols: Vec<&str> = candidates
                    .iter()
                    .filter_map(|server| text(server, "protocol"))
                    .collect();
                let speaks = if protocols.is_empty() {
                    "nothing".to_owned()
                } else {
                    protocols.join(", ")
                };
                unsupported(&format!("the servers of the channel speak {speaks}"))
            })?
        }
    };
    let protocol = text(server, "protocol").unwrap_or("https");
    let url = match (text(server, "url"), text(server, "host")) {
        (Some(url), _) if url.contains("://") => url.to_owned(),
        (Some(host), _) => format!("{protocol}://{host}"),
        (None, Some(host)) => format!(
            "{protocol}://{host}{}",
            text(server, "pathname").unwrap_or_default()
        ),
        (None, None) => return Err(wrong("the server in the document has neither 'host' nor 'url'")),
    };
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let declared = server
        .get("variables")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    for (name, variable) in declared {
        let default = resolved(document, variable).get("default");
        let value = request.variables.get(name).or(default);
        let value =
            value.ok_or_else(|| wrong(format!("the server needs a value for its variable '{name}'")))?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        values.insert(name.as_str(), value);
    }
    // The variables of a server may be its host and port, which are not parts of a path.
    filled(&url, |name| values.get(name).map(String::as_str))
}

fn is_http(protocol: &str) -> bool {
    matches!(protocol, "http" | "https")
}

fn unsupported(what: &str) -> Failure {
    let detail =
        format!("{what}; messages are published over 'http' and 'https' only: no broker comes with Muster");
    Failure::new(Kind::Configuration, 400, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use muster_workflow_dsl::request::Resource;
    use serde_json::json;

    use super::*;

    fn call(operation: Option<&str>, channel: Option<&str>) -> AsyncApi {
        AsyncApi {
            document: Resource {
                name: None,
                endpoint: Destination {
                    uri: "https://docs.example/asyncapi.yaml".into(),
                    authentication: None,
                },
            },
            operation: operation.map(Into::into),
            channel: channel.map(Into::into),
            server: None,
            variables: Map::new(),
            protocol: None,
            payload: Some(Arc::new(json!({"hello": "world"}))),
            headers: BTreeMap::new(),
            authentication: None,
        }
    }

    const THREE: &str = r"
asyncapi: 3.0.0
defaultContentType: application/cloudevents+json
servers:
  broker: {host: 'kafka.example', protocol: kafka}
  web: {host: '{stage}.example:{port}', pathname: /in, protocol: https, variables: {stage: {default: test}, port: {default: '8443'}}}
channels:
  greetings: {address: 'greetings/{room}', servers: [{$ref: '#/servers/broker'}, {$ref: '#/servers/web'}]}
  events: {address: events, servers: [{$ref: '#/servers/broker'}]}
operations:
  greet: {action: receive, channel: {$ref: '#/channels/greetings'}, bindings: {http: {method: PUT}}}
  emit: {action: receive, channel: {$ref: '#/channels/events'}}
";

    #[test]
    fn version_3_is_understood() {
        let mut greet = call(Some("greet"), None);
        greet.variables = serde_json::from_value(json!({"stage": "live", "room": "a b"})).unwrap();
        let http = described(THREE, &greet).unwrap();
        assert_eq!(http.endpoint.uri, "https://live.example:8443/in/greetings/a%20b");
        assert_eq!(
            (http.method.as_str(), http.headers["content-type"].as_str()),
            ("PUT", "application/cloudevents+json")
        );
        assert_eq!(http.body.as_deref(), Some(&json!({"hello": "world"})));
    }

    #[test]
    fn version_2_is_understood() {
        let document = r"
asyncapi: 2.6.0
servers: {web: {url: 'http://{host}/in', protocol: http, variables: {host: {default: a.example}}}}
channels: {news: {publish: {}}, silent: {subscribe: {}}}
";
        let http = described(document, &call(None, Some("news"))).unwrap();
        assert_eq!(
            (http.method.as_str(), http.endpoint.uri.as_str()),
            ("POST", "http://a.example/in/news")
        );
        let error = described(document, &call(None, Some("silent"))).unwrap_err();
        assert!(error.detail.contains("nothing can be published"), "{error}");
        let error = described(document, &call(None, Some("new"))).unwrap_err();
        assert!(error.detail.contains("did you mean 'news'"), "{error}");
        assert!(
            described(document, &call(Some("x"), None))
                .unwrap_err()
                .detail
                .contains("version 2")
        );
    }

    #[test]
    fn other_protocols_are_refused_by_name() {
        let error = described(THREE, &call(Some("emit"), None)).unwrap_err();
        assert!(error.detail.contains("speak kafka"), "{error}");
        let mut named = call(Some("greet"), None);
        named.server = Some("broker".into());
        let error = described(THREE, &named).unwrap_err();
        assert!(error.detail.contains("speaks 'kafka'"), "{error}");
        assert!(
            described("{}", &call(Some("x"), None))
                .unwrap_err()
                .detail
                .contains("not an AsyncAPI document")
        );
    }
}
