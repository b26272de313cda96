//! What the engine needs of a store to keep answers of idempotent calls. They are no truth about any run.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use super::Error;

/// At most so many answers are kept; of more, those that end first are forgotten.
pub const MOST_ANSWERS: usize = 10_000;

/// Answers that may stand for others for a while.
#[async_trait]
pub trait Answers {
    /// The answer under this key, if it still stands.
    async fn answer(&self, key: &str, now: Timestamp) -> Result<Option<Value>, Error>;

    /// Keeps an answer in place of the one before.
    async fn keep_answer(&self, key: &str, answer: &Value, until: Timestamp) -> Result<(), Error>;

    /// Forgets answers that stand no longer, and those beyond `most`; at most `limit` of them. Says how many.
    async fn forget_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<usize, Error>;
}
