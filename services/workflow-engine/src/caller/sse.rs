//! Server-sent events out of an HTTP answer.

use std::collections::VecDeque;

use muster_rpc::sse::Parser;

use super::{Failure, Kind};

/// The events of one answer.
pub(super) struct Events {
    answer: reqwest::Response,
    parser: Parser,
    ready: VecDeque<String>,
    /// For errors.
    target: String,
}

impl Events {
    /// The events of `answer`, each of at most so many bytes.
    pub(super) fn new(answer: reqwest::Response, most_bytes: usize, target: &str) -> Self {
        Self {
            answer,
            parser: Parser::new(most_bytes),
            ready: VecDeque::new(),
            target: target.to_owned(),
        }
    }

    /// The data of the next event; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.answer.chunk().await.map_err(|error| {
                let what = crate::outbound::described(&error);
                Failure::new(
                    Kind::Communication,
                    502,
                    format!("'{}' broke its answer off: {what}", self.target),
                )
            })?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.parser.take(&chunk, &mut self.ready).map_err(|too_long| {
                let bytes = too_long.limit;
                Failure::new(
                    Kind::Runtime,
                    413,
                    format!(
                        "an event of '{}' is over the limit of {bytes} bytes; ask for less, or raise \
                         'engine.max_payload_bytes'",
                        self.target
                    ),
                )
            })?;
        }
    }
}
