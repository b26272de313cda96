//! Rules as the contract writes them, checked against the messages that they speak of.

use http::{Method, Uri};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value};

use super::template::Template;

/// The option's full name.
const OPTION: &str = "google.api.http";

/// One way to reach one RPC.
pub(super) struct Rule {
    pub(super) method: Method,
    pub(super) template: Template,
    pub(super) body: BodyIs,
    /// Where gRPC reaches it.
    pub(super) grpc_path: Uri,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    pub(super) streams: bool,
}

/// What the request's body is.
pub(super) enum BodyIs {
    /// There is none.
    Nothing,
    /// The whole message.
    Message,
    /// One field, a message.
    Field(FieldDescriptor),
}

/// The rules of an RPC; none where it has no option. The error names the RPC.
pub(super) fn of(method: &MethodDescriptor) -> Result<Vec<Rule>, String> {
    let Some(option) = method.parent_pool().get_extension_by_name(OPTION) else {
        return Ok(Vec::new());
    };
    let options = method.options();
    if !options.has_extension(&option) {
        return Ok(Vec::new());
    }
    let value = options.get_extension(&option);
    let Some(first) = value.as_message() else {
        return Ok(Vec::new());
    };
    let more = first.get_field_by_name("additional_bindings");
    let more = more.as_deref().and_then(Value::as_list).unwrap_or_default();
    std::iter::once(first)
        .chain(more.iter().filter_map(Value::as_message))
        .map(|rule| read(method, rule).map_err(|why| format!("{OPTION} of {}: {why}", method.full_name())))
        .collect()
}

fn read(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<Rule, String> {
    if method.is_client_streaming() {
        return Err("a client stream has no form in plain HTTP; leave the option out".to_owned());
    }
    if !text(rule, "response_body").is_empty() {
        return Err("response_body is not served; the answer is the whole message".to_owned());
    }
    let (http_method, path) = pattern(rule)?;
    let template = Template::parse(&path)?;
    let (input, output) = (method.input(), method.output());
    for variable in template.variables() {
        let field = field(&input, variable)?;
        if field.is_list() || field.is_map() || matches!(field.kind(), Kind::Message(_)) {
            return Err(format!("the path's variable '{variable}' is no single value"));
        }
    }
    let body = match text(rule, "body").as_str() {
        "" => BodyIs::Nothing,
        "*" => BodyIs::Message,
        name => {
            let field = field(&input, name)?;
            if field.is_list() || field.is_map() || !matches!(field.kind(), Kind::Message(_)) {
                return Err(format!("body '{name}' is no single message"));
            }
            BodyIs::Field(field)
        }
    };
    if method.is_server_streaming() && output.get_field_by_json_name("error").is_some() {
        return Err(
            "a stream's last object may be {\"error\": …}; its message cannot have that field".to_owned(),
        );
    }
    let grpc_path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    Ok(Rule {
        method: http_method,
        template,
        body,
        grpc_path: grpc_path
            .parse()
            .map_err(|error| format!("{grpc_path}: {error}"))?,
        input,
        output,
        streams: method.is_server_streaming(),
    })
}

fn pattern(rule: &DynamicMessage) -> Result<(Method, String), String> {
    for (name, method) in [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ] {
        let path = text(rule, name);
        if !path.is_empty() {
            return Ok((method, path));
        }
    }
    Err("it has none of get, put, post, delete and patch".to_owned())
}

fn text(message: &DynamicMessage, name: &str) -> String {
    message
        .get_field_by_name(name)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The field at a path of names joined by dots, in the contract's spelling or JSON's. The error names what is there.
pub(super) fn field(message: &MessageDescriptor, path: &str) -> Result<FieldDescriptor, String> {
    let mut message = message.clone();
    let mut names = path.split('.').peekable();
    loop {
        let name = names.next().unwrap_or_default();
        let found = message
            .get_field_by_name(name)
            .or_else(|| message.get_field_by_json_name(name));
        let Some(found) = found else {
            return Err(unknown(&message, path, name));
        };
        if names.peek().is_none() {
            return Ok(found);
        }
        match found.kind() {
            Kind::Message(inner) if !found.is_list() && !found.is_map() => message = inner,
            _ => return Err(format!("'{path}': '{name}' has no fields")),
        }
    }
}

/// Says that a message has no such field, with the nearest and all names.
pub(super) fn unknown(message: &MessageDescriptor, path: &str, name: &str) -> String {
    let known: Vec<String> = message
        .fields()
        .map(|field| field.json_name().to_owned())
        .collect();
    let nearest = muster_api::names::suggestion(name, known.iter().map(String::as_str));
    if known.is_empty() {
        return format!("'{path}' is unknown: there are no fields");
    }
    format!(
        "'{path}' is unknown{nearest}{} known are {}",
        if nearest.is_empty() { ";" } else { "" },
        known.join(", ")
    )
}
