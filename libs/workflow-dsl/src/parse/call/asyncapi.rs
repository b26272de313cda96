//! `call: asyncapi`.

use crate::document::{AsyncApiCall, AsyncApiTarget};
use crate::parse::Reader;
use crate::parse::catch::given;
use crate::parse::cursor::{Cursor, Fields};
use crate::problem::{listed, quoted};

/// Protocols that need no broker.
const PROTOCOLS: [&str; 2] = ["http", "https"];

/// Protocols of the language that need a broker.
const BROKERS: [&str; 17] = [
    "amqp",
    "amqp1",
    "anypointmq",
    "googlepubsub",
    "ibmmq",
    "jms",
    "kafka",
    "mercure",
    "mqtt",
    "mqtt5",
    "nats",
    "pulsar",
    "redis",
    "sns",
    "solace",
    "sqs",
    "stomp",
];

impl Reader {
    pub(super) fn asyncapi(&mut self, at: &Cursor<'_>) -> Option<AsyncApiCall> {
        const ALLOWED: &[&str] = &[
            "document",
            "operation",
            "channel",
            "server",
            "protocol",
            "message",
            "subscription",
            "authentication",
        ];
        let fields = self.fields(at, ALLOWED)?;
        if let Some(subscription) = fields.get("subscription") {
            let message = "subscriptions by 'asyncapi' are not supported: no broker comes with Muster; let events come in as CloudEvents \
                           over HTTP";
            self.wrong_name(&subscription, message);
            return None;
        }
        let document = self
            .require(&fields, "document")
            .and_then(|document| self.resource(&document));
        let target = self.asyncapi_target(&fields);
        let (server, variables) = match fields.get("server") {
            None => (None, None),
            Some(server) => {
                let server = self.fields(&server, &["name", "variables"])?;
                let name = self.require(&server, "name")?;
                let name = self.text(&name)?.to_owned();
                let variables = server.get("variables").map(|variables| self.mapping(&variables));
                (Some(name), given(variables)?)
            }
        };
        let protocol = match fields.get("protocol") {
            None => None,
            Some(protocol) => Some(self.protocol(&protocol)?),
        };
        let message = self.require(&fields, "message")?;
        let message = self.fields(&message, &["payload", "headers"])?;
        let payload = message.get("payload").map(|payload| self.template(&payload));
        let headers = message.get("headers").map(|headers| self.headers(&headers));
        let authentication = fields
            .get("authentication")
            .map(|authentication| self.authentication(&authentication));
        Some(AsyncApiCall {
            document: document?,
            target: target?,
            server,
            variables,
            protocol,
            payload: given(payload)?,
            headers: given(headers)?,
            authentication: given(authentication)?,
        })
    }

    fn asyncapi_target(&mut self, fields: &Fields<'_>) -> Option<AsyncApiTarget> {
        match (fields.get("operation"), fields.get("channel")) {
            (Some(operation), None) => {
                let name = self.text(&operation)?.to_owned();
                Some(AsyncApiTarget::Operation(name))
            }
            (None, Some(channel)) => {
                let name = self.text(&channel)?.to_owned();
                Some(AsyncApiTarget::Channel(name))
            }
            _ => {
                let message =
                    "give either 'operation' (of an AsyncAPI document of version 3) or 'channel' (version 2)";
                self.wrong_name(&fields.at, message);
                None
            }
        }
    }

    fn protocol(&mut self, at: &Cursor<'_>) -> Option<String> {
        let name = self.text(at)?;
        if PROTOCOLS.contains(&name) {
            return Some(name.to_owned());
        }
        let message = if BROKERS.contains(&name) || name == "ws" {
            format!(
                "messages over {} are not supported: no broker comes with Muster; there are {}",
                quoted(name),
                listed(PROTOCOLS)
            )
        } else {
            let nearest = muster_api::names::suggestion(name, PROTOCOLS);
            format!(
                "no such protocol {}; there are {}{nearest}",
                quoted(name),
                listed(PROTOCOLS)
            )
        };
        self.wrong(at, message);
        None
    }
}
