//! What a step is made of, measured alone: a sync of the disk, and a call of the agent through the router. One client's step
//! can be held against their sum.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use muster_api::a2a::{Message, Part, Role, SendMessageRequest, part};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::bench::latency::{Latencies, add, latencies};
use crate::bench::part::AGENT;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;

/// How often each is done.
const TIMES: usize = 200;

/// What is appended before each sync: about what a step writes.
const BLOCK: usize = 4096;

/// How long it takes to append a block to a file in this directory and have it on disk.
pub async fn disk(directory: &Path) -> Result<Latencies, Failure> {
    let path = directory.join("sync");
    let measure = move || {
        let clock = SystemClock::default();
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let mut durations = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let start = clock.monotonic();
            file.write_all(&[1; BLOCK])?;
            file.sync_data()?;
            durations.push(clock.monotonic().saturating_sub(start));
        }
        std::fs::remove_file(&path)?;
        Ok::<_, std::io::Error>(durations)
    };
    let measured = tokio::task::spawn_blocking(measure).await;
    let measured = measured.map_err(|error| Failure::failed(error.to_string()))?;
    let measured = measured.map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))?;
    let mut syncs = latencies()?;
    for duration in measured {
        add(&mut syncs, duration);
    }
    Ok(syncs)
}

/// How long a call of the agent takes through the router, without an engine: one after the other.
pub async fn call(endpoints: &Endpoints, input: &Value) -> Result<Latencies, Failure> {
    let clock = SystemClock::default();
    let mut client = endpoints.agents()?;
    let mut calls = latencies()?;
    for number in 0..2 * TIMES {
        let data = part::Content::Data(a2a_pb::pbconv::json_value_to_proto_value(input));
        let request = SendMessageRequest {
            tenant: AGENT.to_owned(),
            message: Some(Message {
                message_id: uuid::Uuid::now_v7().to_string(),
                role: Role::User.into(),
                parts: vec![Part {
                    content: Some(data),
                    ..Part::default()
                }],
                ..Message::default()
            }),
            ..SendMessageRequest::default()
        };
        let start = clock.monotonic();
        let answer = client.send_message(request).await;
        answer.map_err(|status| endpoints.failure(Service::Router, &status))?;
        // The first half warms up.
        if number >= TIMES {
            add(&mut calls, clock.monotonic().saturating_sub(start));
        }
    }
    Ok(calls)
}
