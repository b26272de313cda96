//! `call: openapi`: an operation that an OpenAPI document describes, as a request over HTTP.
//!
//! Versions 3.x and 2.0 (Swagger), in JSON or YAML. A parameter of the call is found by its name among those of the operation; the
//! body is the parameter `body` or, where the operation has a body, an object of all parameters that it does not declare.

pub(super) mod address;
mod place;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use muster_workflow_dsl::data;
use muster_workflow_dsl::request::{Destination, Http, OpenApi, shown};
use serde_json::{Map, Value};
use url::Url;

use super::http::within;
use super::web::Web;
use super::{Call, Failure, Kind, Progress};
use address::filled;
use place::{Kind as Place, Parameter};

/// How often a reference may lead to another one.
const MOST_REFERENCES: usize = 16;

impl Web {
    /// Makes a call of an operation and returns its output.
    pub(super) async fn openapi(
        &self,
        request: &OpenApi,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        self.described(&request.document.endpoint, call, progress, |text, address| {
            described(text, address, request)
        })
        .await
    }

    /// Makes the request that a document says, and returns what is answered.
    pub(super) async fn described(
        &self,
        document: &Destination,
        call: &Call,
        progress: &Progress,
        describe: impl FnOnce(&str, &str) -> Result<Http, Failure>,
    ) -> Result<Value, Failure> {
        within(call.timeout, &shown(&document.uri), async {
            let mut session = self.session(call).await?;
            let outcome = async {
                progress.set_note(Some("reads the document that describes the service".to_owned()));
                let text = self.document(document, &mut session).await?;
                progress.set_note(None);
                let request = describe(&text, &session.address(&document.uri))?;
                self.http_in(&request, call, progress, &mut session).await
            };
            let outcome = outcome.await;
            outcome.map_err(|failure| session.redaction().failure(failure))
        })
        .await
    }
}

pub(super) fn wrong(detail: impl Into<String>) -> Failure {
    Failure::new(Kind::Validation, 400, detail)
}

/// The request that the document describes.
///
/// # Errors
/// It cannot be read, describes no such operation, or one that needs what the call does not give.
pub fn described(text: &str, address: &str, request: &OpenApi) -> Result<Http, Failure> {
    let what = shown(address);
    let document =
        data::read(text).map_err(|why| wrong(format!("the document '{what}' cannot be read: {why}")))?;
    let (path, method, item, operation) =
        find(&document, &request.operation).ok_or_else(|| unknown(&document, &what, &request.operation))?;
    let parameters = parameters(&document, item, operation);
    let base = base(&document, item, operation, address)?;
    build(&document, request, operation, &parameters, &base, path, method)
}

/// The value, or what its reference leads to.
pub(super) fn resolved<'d>(document: &'d Value, mut value: &'d Value) -> &'d Value {
    for _ in 0..MOST_REFERENCES {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
            return value;
        };
        match reference
            .strip_prefix('#')
            .and_then(|pointer| document.pointer(pointer))
        {
            Some(target) => value = target,
            None => return &Value::Null,
        }
    }
    &Value::Null
}

const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// Every operation: its path, method, path item and definition.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value, &Value)> {
    let paths = document
        .get("paths")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    paths.flat_map(move |(path, item)| {
        let item = resolved(document, item);
        let methods = METHODS.iter().copied();
        methods.filter_map(move |method| Some((path.as_str(), method, item, item.get(method)?)))
    })
}

fn id(operation: &Value) -> Option<&str> {
    operation.get("operationId").and_then(Value::as_str)
}

fn find<'d>(document: &'d Value, wanted: &str) -> Option<(&'d str, &'d str, &'d Value, &'d Value)> {
    operations(document).find(|(_, _, _, operation)| id(operation) == Some(wanted))
}

fn unknown(document: &Value, what: &str, wanted: &str) -> Failure {
    let ids: Vec<&str> = operations(document)
        .filter_map(|(.., operation)| id(operation))
        .collect();
    let nearest = muster_api::names::suggestion(wanted, ids.iter().copied());
    let known = if ids.is_empty() {
        "; it describes none".to_owned()
    } else {
        String::new()
    };
    wrong(format!(
        "the document '{what}' describes no operation '{wanted}'{known}{nearest}"
    ))
}

/// The parameters of an operation; its own hide those of its path.
fn parameters(document: &Value, item: &Value, operation: &Value) -> Vec<Parameter> {
    let mut found: Vec<Parameter> = Vec::new();
    let mut known = HashSet::new();
    for owner in [operation, item] {
        let list = owner
            .get("parameters")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for parameter in list.filter_map(|parameter| Parameter::read(resolved(document, parameter))) {
            if known.insert((parameter.name.clone(), parameter.place)) {
                found.push(parameter);
            }
        }
    }
    found
}

/// Where the service is.
fn base(document: &Value, item: &Value, operation: &Value, address: &str) -> Result<String, Failure> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let own = Url::parse(address)
        .ok()
        .filter(|url| url.has_host() && url.scheme() != "file");
    let absolute = |url: String| -> Result<String, Failure> {
        if url.contains("://") {
            return Ok(url);
        }
        let own = own
            .as_ref()
            .ok_or_else(|| wrong("the document does not say on which host the service is"))?;
        let joined = own.join(&url);
        joined
            .map(String::from)
            .map_err(|error| wrong(format!("the document's server '{url}' is no address: {error}")))
    };
    if document.get("swagger").is_some() {
        let scheme = text(document.pointer("/schemes/0"))
            .or_else(|| own.as_ref().map(|url| url.scheme().to_owned()))
            .unwrap_or_else(|| "https".to_owned());
        let path = text(document.get("basePath")).unwrap_or_default();
        return match text(document.get("host")) {
            Some(host) => Ok(format!("{scheme}://{host}{path}")),
            None => absolute(if path.is_empty() { "/".to_owned() } else { path }),
        };
    }
    let servers = [operation, item, document]
        .into_iter()
        .find_map(|owner| owner.pointer("/servers/0"));
    let Some(server) = servers else {
        return absolute("/".to_owned());
    };
    let variable = |name: &str| {
        let variable = server.get("variables")?.get(name)?;
        Some(
            variable
                .get("default")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )
    };
    let url = server.get("url").and_then(Value::as_str).unwrap_or("/");
    absolute(filled(url, variable)?)
}

fn build(
    document: &Value,
    request: &OpenApi,
    operation: &Value,
    parameters: &[Parameter],
    base: &str,
    path: &str,
    method: &str,
) -> Result<Http, Failure> {
    let mut http = Http {
        method: method.to_ascii_uppercase(),
        endpoint: Destination {
            uri: String::new(),
            authentication: request.authentication.clone(),
        },
        headers: BTreeMap::from([("accept".to_owned(), "application/json, */*;q=0.5".to_owned())]),
        query: BTreeMap::new(),
        body: None,
        output: request.output,
        redirect: request.redirect,
    };
    let mut in_path: BTreeMap<&str, String> = BTreeMap::new();
    let mut rest: BTreeMap<&str, &Value> = request
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let mut form = Map::new();
    for parameter in parameters {
        let given = rest
            .remove(parameter.name.as_str())
            .filter(|value| !value.is_null());
        let Some(value) = given.cloned().or_else(|| parameter.default.clone()) else {
            if parameter.required {
                let (operation, name, place) = (&request.operation, &parameter.name, parameter.place.name());
                return Err(wrong(format!(
                    "the operation '{operation}' needs the parameter '{name}' ({place})"
                )));
            }
            continue;
        };
        match parameter.place {
            Place::Path => drop(in_path.insert(&parameter.name, parameter.in_path(&value)?)),
            Place::Query => http.query.extend(parameter.in_query(value)?),
            Place::Header => drop(
                http.headers
                    .insert(parameter.name.to_ascii_lowercase(), parameter.joined(&value)?),
            ),
            Place::Cookie => {
                let cookie = format!("{}={}", parameter.name, parameter.joined(&value)?);
                let cookies = http.headers.entry("cookie".to_owned()).or_default();
                if !cookies.is_empty() {
                    cookies.push_str("; ");
                }
                cookies.push_str(&cookie);
            }
            Place::Body => http.body = Some(Arc::new(value)),
            Place::Form => drop(form.insert(parameter.name.clone(), value)),
        }
    }
    if !form.is_empty() {
        http.body = Some(Arc::new(Value::Object(form)));
        http.headers.insert(
            "content-type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        );
    } else if http.body.is_some() {
        let kind = operation
            .pointer("/consumes/0")
            .or_else(|| document.pointer("/consumes/0"));
        let kind = kind.and_then(Value::as_str).unwrap_or("application/json");
        http.headers.insert("content-type".to_owned(), kind.to_owned());
    }
    if let Some(described) = operation.get("requestBody") {
        body(
            &mut http,
            &mut rest,
            resolved(document, described),
            &request.operation,
        )?;
    }
    if let Some(stranger) = rest.keys().next() {
        let known = parameters.iter().map(|parameter| parameter.name.as_str());
        let nearest = muster_api::names::suggestion(stranger, known);
        return Err(wrong(format!(
            "the operation '{}' has no parameter '{stranger}'{nearest}",
            request.operation
        )));
    }
    let path = filled(path, |name| in_path.get(name).map(String::as_str))?;
    http.endpoint.uri = format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'));
    Ok(http)
}

/// The body of version 3.
fn body(
    http: &mut Http,
    rest: &mut BTreeMap<&str, &Value>,
    described: &Value,
    operation: &str,
) -> Result<(), Failure> {
    let value = match rest.remove("body") {
        Some(value) => Some(value.clone()),
        None if rest.is_empty() => None,
        None => {
            let fields = std::mem::take(rest).into_iter();
            let fields = fields.map(|(name, value)| (name.to_owned(), value.clone()));
            Some(Value::Object(fields.collect()))
        }
    };
    let Some(value) = value else {
        if described.get("required") == Some(&Value::Bool(true)) {
            return Err(wrong(format!(
                "the operation '{operation}' needs a body: give the parameter 'body'"
            )));
        }
        return Ok(());
    };
    let kinds: Vec<&str> = described
        .get("content")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(kind, _)| kind.as_str())
        .collect();
    let preferred = |wanted: &str| kinds.iter().find(|kind| kind.starts_with(wanted)).copied();
    let kind = preferred("application/json")
        .or_else(|| kinds.iter().find(|kind| kind.contains("+json")).copied())
        .or_else(|| preferred("application/x-www-form-urlencoded"))
        .or_else(|| kinds.first().copied())
        .filter(|kind| !kind.contains('*'))
        .unwrap_or("application/json");
    http.headers.insert("content-type".to_owned(), kind.to_owned());
    http.body = Some(Arc::new(value));
    Ok(())
}

#[cfg(test)]
mod tests;
