//! What is worth knowing of a task at a glance: a line or two below its name.

use crate::document::{AsyncApiTarget, Call, Kind, Launched, Period, Program, Server, Task, Template, Uri};
use crate::expression::Expression;

/// The lines below the name of a task.
pub(super) fn note(task: &Task) -> Vec<String> {
    let mut lines = vec![what(task)];
    if let Some(condition) = &task.condition {
        lines.push(format!("if {}", condition.source()));
    }
    if let Some(timeout) = &task.timeout {
        lines.push(format!("at most {}", period(timeout)));
    }
    lines
}

fn what(task: &Task) -> String {
    match &task.kind {
        Kind::Set(value) => match value {
            Template::Object(fields) => {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                format!("set {}", names.join(", "))
            }
            Template::Literal(serde_json::Value::Object(fields)) => {
                let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                format!("set {}", names.join(", "))
            }
            _ => "set".to_owned(),
        },
        Kind::Call(call) => calls(call),
        Kind::Wait(pause) => format!("wait {}", period(pause)),
        Kind::For(each) => {
            let mut line = format!("for each {} in {}", each.each, each.items.source());
            if let Some(condition) = &each.condition {
                line.push_str(&format!(" while {}", condition.source()));
            }
            line
        }
        Kind::Fork(fork) if fork.compete => "fork: the first to complete wins".to_owned(),
        Kind::Raise(error) => format!("raise {} {}", error.status, uri(&error.kind)),
        Kind::Try(attempt) => match &attempt.catch.retry {
            None => "try".to_owned(),
            Some(retry) => match retry.limit.attempts {
                Some(count) => format!("try, again up to {count} times"),
                None => "try, again and again".to_owned(),
            },
        },
        Kind::Run(launch) => format!("run {}", launched(&launch.what)),
        kind => kind.name().to_owned(),
    }
}

fn calls(call: &Call) -> String {
    match call {
        Call::A2a(call) => {
            let server = match &call.server {
                Server::Fixed(endpoint) => endpoint.to_string(),
                Server::Template(address) => address.to_string(),
                Server::Computed(expression) => braced(expression),
            };
            format!("a2a {} {server}", call.method.name())
        }
        Call::Grpc(call) => format!("grpc {}/{}", call.service, call.method),
        Call::Mcp(call) => format!("mcp {}", call.method),
        Call::Http(call) => format!("http {} {}", call.method, uri(&call.endpoint.uri)),
        Call::OpenApi(call) => format!("openapi {}", call.operation),
        Call::AsyncApi(call) => {
            let (AsyncApiTarget::Operation(name) | AsyncApiTarget::Channel(name)) = &call.target;
            format!("asyncapi {name}")
        }
        Call::Function(call) => call.function.clone(),
    }
}

fn launched(what: &Launched) -> String {
    match what {
        Launched::Workflow(subflow) => {
            format!("{}/{}", template(&subflow.namespace), template(&subflow.name))
        }
        Launched::Process(process) => match &process.program {
            Program::Shell { .. } => "a shell command".to_owned(),
            Program::Script { .. } => "a script".to_owned(),
            Program::Container { image, .. } => format!("container {}", template(image)),
        },
    }
}

fn uri(uri: &Uri) -> String {
    match uri {
        Uri::Template(address) => address.to_string(),
        Uri::Computed(address) => template(address),
    }
}

fn braced(expression: &Expression) -> String {
    format!("${{ {} }}", expression.source())
}

fn template(template: &Template) -> String {
    match template {
        Template::Literal(serde_json::Value::String(text)) => text.clone(),
        Template::Expression(expression) => braced(expression),
        _ => String::new(),
    }
}

fn period(period: &Period) -> String {
    match period {
        Period::Fixed(duration) => crate::duration::spoken(*duration),
        Period::Computed(Template::Expression(expression)) => braced(expression),
        Period::Computed(_) => "a computed time".to_owned(),
    }
}
