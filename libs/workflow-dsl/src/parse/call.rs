//! `call`: which function, and its arguments. Each function has a file of its own.

mod a2a;
mod asyncapi;
mod function;
mod http;
mod openapi;

use super::Reader;
use super::cursor::Fields;
use crate::document::{Call, Kind};

/// The functions of the language.
const FUNCTIONS: [&str; 4] = ["a2a", "asyncapi", "http", "openapi"];

/// Functions of the language that are not supported yet.
const LATER: [&str; 2] = ["grpc", "mcp"];

impl Reader {
    pub(super) fn call(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let function = self.require(fields, "call")?;
        let name = self.text(&function)?;
        if !FUNCTIONS.contains(&name) {
            return self.own_function(&function, name, fields).map(Kind::Call);
        }
        let with = self.require(fields, "with")?;
        let call = match name {
            "a2a" => self.a2a(&with).map(Call::A2a),
            "asyncapi" => self.asyncapi(&with).map(Call::AsyncApi),
            "openapi" => self.openapi(&with).map(Call::OpenApi),
            _ => self.http(&with).map(Call::Http),
        };
        call.map(Kind::Call)
    }
}

/// Whether a function of the language has this name.
pub(super) fn is_of_the_language(name: &str) -> bool {
    FUNCTIONS.contains(&name) || LATER.contains(&name)
}
