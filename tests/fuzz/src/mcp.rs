//! What servers of MCP say: whatever comes, a call has a result or a reason, without a panic; the engine says no more than it must, and
//! all of it is JSON-RPC.
//!
//! Each line of the input is a message of the server.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::executor::block_on;
use muster_workflow_dsl::request::Request;
use muster_workflow_dsl::request::mcp::{Client, DEFAULT_VERSION, Mcp, Transport};
use muster_workflow_engine::caller::mcp::conversation::{Link, converse};
use muster_workflow_engine::caller::{Call, Failure, Progress};
use muster_workflow_engine::secrets::Grant;
use serde_json::{Value, json};
use uuid::Uuid;

/// Says what it was given to say.
struct Script {
    heard: VecDeque<Value>,
    said: Vec<Value>,
}

#[async_trait]
impl Link for Script {
    async fn tell(&mut self, message: &Value) -> Result<(), Failure> {
        self.said.push(message.clone());
        Ok(())
    }

    async fn ask(&mut self, message: &Value) -> Result<(), Failure> {
        self.tell(message).await
    }

    async fn hear(&mut self) -> Result<Option<Value>, Failure> {
        Ok(self.heard.pop_front())
    }

    fn agree(&mut self, version: &str) {
        assert!(version.is_ascii());
    }
}

/// See the module.
pub fn run(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let heard: VecDeque<Value> = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let messages = heard.len();
    let request = Mcp {
        method: "tools/call".to_owned(),
        parameters: Arc::new(json!({"name": "tool", "arguments": {}})),
        protocol_version: DEFAULT_VERSION.to_owned(),
        timeout_milliseconds: None,
        transport: Transport::Stdio {
            command: "server".to_owned(),
            arguments: Vec::new(),
            environment: std::collections::BTreeMap::new(),
        },
        client: Client {
            name: "muster".to_owned(),
            version: "1".to_owned(),
        },
    };
    let call = Call {
        request: Arc::new(Request::Mcp(request.clone())),
        task: "/do/0/a".into(),
        message_id: Uuid::nil(),
        step_key: Uuid::nil(),
        epoch: None,
        timeout: Duration::from_secs(1),
        resent: false,
        grant: Grant::default(),
        kept: None,
        behalf: None,
    };
    let progress = Progress::default();
    let mut script = Script {
        heard,
        said: Vec::new(),
    };
    let outcome = block_on(converse(&mut script, &request, &call, "server", &progress));
    if let Err(failure) = outcome {
        assert!(
            !failure.detail.is_empty() && (400..600).contains(&failure.status),
            "{failure:?}"
        );
    }
    // It introduces itself, says so, asks, and answers at most what it was asked.
    assert!(script.said.len() <= 3 + messages);
    assert!(script.said.iter().all(|message| message["jsonrpc"] == "2.0"));
}
