//! `call`: which function, and its arguments. Each function has a file of its own.

mod a2a;
mod asyncapi;
mod function;
mod grpc;
mod http;
mod mcp;
mod openapi;

use super::Reader;
use super::cursor::Fields;
use crate::document::{Call, Kind};

/// The functions of the language.
const FUNCTIONS: [&str; 6] = ["a2a", "asyncapi", "grpc", "http", "mcp", "openapi"];

impl Reader {
    pub(super) fn call(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let function = self.require(fields, "call")?;
        let name = self.text(&function)?;
        if !FUNCTIONS.contains(&name) {
            return self.own_function(&function, name, fields).map(Kind::Call);
        }
        let with = self.require(fields, "with")?;
        let call = match name {
            "a2a" => self.a2a(&with).map(Box::new).map(Call::A2a),
            "asyncapi" => self.asyncapi(&with).map(Call::AsyncApi),
            "openapi" => self.openapi(&with).map(Call::OpenApi),
            "grpc" => self.grpc(&with).map(Box::new).map(Call::Grpc),
            "mcp" => self.mcp(&with).map(Box::new).map(Call::Mcp),
            _ => self.http(&with).map(Call::Http),
        };
        call.map(Kind::Call)
    }
}

/// Whether a function of the language has this name.
pub(super) fn is_of_the_language(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}
