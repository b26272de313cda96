//! `call: grpc`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::document::GrpcCall;
use crate::journal::{Problem, Standard};
use crate::request;
use crate::run::current::{Current, Fault};

impl Current<'_> {
    pub(super) fn grpc(&self, call: &GrpcCall) -> Result<request::Grpc, Fault> {
        let input = &self.activation.input;
        let host = match self.view.template(&call.host, input)? {
            Value::String(host) => host,
            other => {
                let detail = format!("the host must be text, and is {other}");
                return Err(Problem::standard(Standard::Expression, detail));
            }
        };
        let (host, port, tls) = request::Grpc::place(&host, call.port)
            .map_err(|detail| Problem::standard(Standard::Validation, detail))?;
        let proto = call.proto.as_ref().map(|proto| self.view.resource(proto, input));
        let authentication = call.authentication.as_ref();
        let authentication =
            authentication.map(|authentication| self.view.authentication(authentication, input));
        let arguments = match &call.arguments {
            Some(arguments) => self.view.shared(arguments, input, "the arguments")?,
            None => Arc::new(json!({})),
        };
        if !arguments.is_object() {
            return Err(Problem::standard(
                Standard::Expression,
                "the arguments must be an object",
            ));
        }
        Ok(request::Grpc {
            proto: proto.transpose()?,
            service: call.service.clone(),
            host,
            port,
            tls,
            authentication: authentication.transpose()?,
            method: call.method.clone(),
            arguments,
        })
    }
}
