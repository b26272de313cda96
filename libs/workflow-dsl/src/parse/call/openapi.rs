//! `call: openapi`.

use crate::document::OpenApiCall;
use crate::parse::Reader;
use crate::parse::catch::given;
use crate::parse::cursor::Cursor;

impl Reader {
    pub(super) fn openapi(&mut self, at: &Cursor<'_>) -> Option<OpenApiCall> {
        const ALLOWED: &[&str] = &[
            "document",
            "operationId",
            "parameters",
            "authentication",
            "output",
            "redirect",
        ];
        let fields = self.fields(at, ALLOWED)?;
        let document = self
            .require(&fields, "document")
            .and_then(|document| self.resource(&document));
        let operation = self
            .require(&fields, "operationId")
            .and_then(|operation| self.text(&operation).map(str::to_owned));
        let parameters = fields
            .get("parameters")
            .map(|parameters| self.mapping(&parameters));
        let authentication = fields
            .get("authentication")
            .map(|authentication| self.authentication(&authentication));
        let (output, redirect) = self.response_format(&fields)?;
        Some(OpenApiCall {
            document: document?,
            operation: operation?,
            parameters: given(parameters)?,
            authentication: given(authentication)?,
            output,
            redirect,
        })
    }
}
