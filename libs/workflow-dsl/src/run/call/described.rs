//! `call: openapi` and `call: asyncapi`: what a document elsewhere describes.

use crate::document::{AsyncApiCall, AsyncApiTarget, OpenApiCall};
use crate::request;
use crate::run::current::{Current, Fault};

impl Current<'_> {
    pub(super) fn openapi(&self, call: &OpenApiCall) -> Result<request::OpenApi, Fault> {
        let input = &self.activation.input;
        let parameters = self.mapping(call.parameters.as_ref(), "the parameters")?;
        let authentication = call.authentication.as_ref();
        Ok(request::OpenApi {
            document: self.view.resource(&call.document, input)?,
            operation: call.operation.clone(),
            parameters: parameters.into_iter().collect(),
            authentication: authentication
                .map(|authentication| self.view.authentication(authentication, input))
                .transpose()?,
            output: call.output,
            redirect: call.redirect,
        })
    }

    pub(super) fn asyncapi(&self, call: &AsyncApiCall) -> Result<request::AsyncApi, Fault> {
        let input = &self.activation.input;
        let payload = call.payload.as_ref();
        let authentication = call.authentication.as_ref();
        let (operation, channel) = match &call.target {
            AsyncApiTarget::Operation(name) => (Some(name.clone()), None),
            AsyncApiTarget::Channel(name) => (None, Some(name.clone())),
        };
        Ok(request::AsyncApi {
            document: self.view.resource(&call.document, input)?,
            operation,
            channel,
            server: call.server.clone(),
            variables: self.mapping(call.variables.as_ref(), "the variables of the server")?,
            protocol: call.protocol.clone(),
            payload: payload
                .map(|payload| self.view.shared(payload, input, "the payload"))
                .transpose()?,
            headers: self.headers(call.headers.as_ref())?,
            authentication: authentication
                .map(|authentication| self.view.authentication(authentication, input))
                .transpose()?,
        })
    }
}
