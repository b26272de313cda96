//! Evaluating the arguments of calls. Each function has a file of its own.

mod a2a;
mod described;
mod grpc;
mod http;
mod mcp;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::current::{Current, Fault};
use crate::document::{Call, FunctionCall};
use crate::journal::{EventKind, Problem, Standard};
use crate::request::Request;

impl Current<'_> {
    pub(super) fn call(&self, call: &Call) -> Result<EventKind, Fault> {
        let request = match call {
            Call::Function(call) => return self.function(call),
            Call::A2a(call) => Request::A2a(self.a2a(call)?),
            Call::AsyncApi(call) => Request::AsyncApi(self.asyncapi(call)?),
            Call::Http(call) => Request::Http(self.http(call)?),
            Call::OpenApi(call) => Request::OpenApi(self.openapi(call)?),
            Call::Grpc(call) => Request::Grpc(self.grpc(call)?),
            Call::Mcp(call) => Request::Mcp(self.mcp(call)?),
        };
        Ok(EventKind::CallStarted {
            task: self.pointer(),
            activation: self.id,
            request,
        })
    }

    fn function(&self, call: &FunctionCall) -> Result<EventKind, Fault> {
        if self
            .view
            .run
            .definition
            .workflow
            .function(&call.function)
            .is_none()
        {
            let detail = format!("the function '{}' has not been obtained", call.function);
            return Err(Problem::standard(Standard::Configuration, detail));
        }
        let input = match &call.arguments {
            Some(arguments) => self
                .view
                .shared(arguments, &self.activation.input, "the arguments")?,
            None => Arc::new(Value::Object(Map::new())),
        };
        Ok(EventKind::FunctionStarted {
            task: self.pointer(),
            activation: self.id,
            function: call.function.clone(),
            input,
        })
    }
}
