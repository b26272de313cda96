//! `call: grpc`.

use crate::document::{GrpcCall, Template};
use crate::node::Content;
use crate::parse::cursor::Cursor;
use crate::parse::{Reader, catch::given, embedded};
use crate::request::Grpc;

impl Reader {
    pub(super) fn grpc(&mut self, at: &Cursor<'_>) -> Option<GrpcCall> {
        let fields = self.fields(at, &["proto", "service", "method", "arguments"])?;
        let proto = fields.get("proto").map(|proto| self.resource(&proto));
        let service = self
            .require(&fields, "service")
            .and_then(|service| self.fields(&service, &["name", "host", "port", "authentication"]));
        let method = self
            .require(&fields, "method")
            .and_then(|method| self.name_of_method(&method));
        let arguments = fields
            .get("arguments")
            .map(|arguments| self.object_or_expression(&arguments));
        let service = service?;
        let name = self
            .require(&service, "name")
            .and_then(|name| self.name_of_service(&name));
        let port = service
            .get("port")
            .map(|port| self.integer(&port, 1, u64::from(u16::MAX)))
            .map(|port| port.and_then(|port| u16::try_from(port).ok()));
        let host = self
            .require(&service, "host")
            .and_then(|host| self.host(&host, port.flatten()));
        let authentication = service
            .get("authentication")
            .map(|authentication| self.authentication(&authentication));
        Some(GrpcCall {
            proto: given(proto)?,
            service: name?,
            host: host?,
            port: given(port)?,
            authentication: given(authentication)?,
            method: method?,
            arguments: given(arguments)?,
        })
    }

    /// An object, or an expression that yields one.
    pub(super) fn object_or_expression(&mut self, at: &Cursor<'_>) -> Option<Template> {
        match &at.node.content {
            Content::Text(text) if embedded(text).is_some() => {}
            _ => {
                self.object(at)?;
            }
        }
        self.template(at)
    }

    fn host(&mut self, at: &Cursor<'_>, port: Option<u16>) -> Option<Template> {
        let text = self.text(at)?;
        if embedded(text).is_none()
            && let Err(message) = Grpc::place(text, port)
        {
            self.wrong(at, message);
            return None;
        }
        self.template(at)
    }

    /// `package.Service`.
    fn name_of_service(&mut self, at: &Cursor<'_>) -> Option<String> {
        let text = self.text(at)?;
        if text.split('.').all(is_identifier) {
            return Some(text.to_owned());
        }
        self.wrong(
            at,
            "the name of a service is written with its package, such as 'shop.v1.Orders'",
        );
        None
    }

    fn name_of_method(&mut self, at: &Cursor<'_>) -> Option<String> {
        let text = self.text(at)?;
        if is_identifier(text) {
            return Some(text.to_owned());
        }
        self.wrong(at, "a method is written without its service, such as 'GetOrder'");
        None
    }
}

fn is_identifier(text: &str) -> bool {
    const LONGEST: usize = 256;
    let shape = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty()
        && text.len() <= LONGEST
        && text.bytes().all(shape)
        && !text.starts_with(|first: char| first.is_ascii_digit())
}
