//! A handler's voice while it works: progress, early artifacts, cancellation, and what was said before.

use a2a::{Message, Part};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Artifact;

/// What a handler says before its reply.
#[derive(Debug)]
pub(crate) enum Update {
    Working(String),
    Artifact(Artifact),
    /// A piece of an artifact; the first makes it.
    Piece {
        artifact: a2a::Artifact,
        is_first: bool,
        is_last: bool,
    },
}

/// An artifact that is given piece by piece, with [`Task::open`]. Followers get each piece when it is sent; in the task the pieces are the
/// artifact's parts, in their order. One that is dropped without [`finish`](Self::finish) ends with the task.
#[derive(Debug)]
pub struct OpenArtifact<'t> {
    task: &'t Task,
    artifact: a2a::Artifact,
}

impl OpenArtifact<'_> {
    /// Sends one more piece.
    pub async fn append(&mut self, piece: Part) {
        self.send(piece, false, false).await;
    }

    /// Sends the last piece.
    pub async fn finish(mut self, piece: Part) {
        self.send(piece, false, true).await;
    }

    async fn send(&mut self, piece: Part, is_first: bool, is_last: bool) {
        let artifact = a2a::Artifact {
            parts: vec![piece],
            ..self.artifact.clone()
        };
        let piece = Update::Piece {
            artifact,
            is_first,
            is_last,
        };
        self.task.send(piece).await;
    }
}

/// The task that a handler works on.
///
/// Updates go through a short channel: a handler that reports faster than subscribers take it waits. What is sent
/// after the task has ended, for instance because it was cancelled, is dropped.
#[derive(Debug)]
pub struct Task {
    pub(crate) id: String,
    pub(crate) context_id: String,
    pub(crate) conversation: String,
    pub(crate) history: Vec<Message>,
    pub(crate) cancellation: CancellationToken,
    pub(crate) updates: mpsc::Sender<Update>,
}

impl Task {
    /// The task's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id that groups tasks of one conversation, as the caller knows it. Callers may choose it, so that two may choose the same.
    #[must_use]
    pub fn context_id(&self) -> &str {
        &self.context_id
    }

    /// The conversation's name for what a handler keeps by it: the same for all tasks of one caller in one context, and for
    /// nobody else's.
    #[must_use]
    pub fn conversation(&self) -> &str {
        &self.conversation
    }

    /// What was said on this task before the present message, oldest first: the caller's messages and the agent's
    /// questions. Empty for a new task.
    #[must_use]
    pub fn history(&self) -> &[Message] {
        &self.history
    }

    /// Tells subscribers how far the work is.
    pub async fn working(&self, progress: impl Into<String> + Send) {
        self.send(Update::Working(progress.into())).await;
    }

    /// Gives subscribers an artifact before the end. It stands behind the result in the finished task.
    pub async fn artifact(&self, artifact: Artifact) {
        self.send(Update::Artifact(artifact)).await;
    }

    /// Begins an artifact that comes in pieces, for instance the words of a model; what it is made of is the first of them. It stands
    /// behind the result in the finished task.
    pub async fn open(&self, artifact: Artifact) -> OpenArtifact<'_> {
        let mut artifact = artifact.into_a2a();
        let first = artifact.parts.pop();
        let mut open = OpenArtifact { task: self, artifact };
        if let Some(first) = first {
            open.send(first, true, false).await;
        }
        open
    }

    /// Whether the caller has cancelled the task.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Resolves when the caller cancels the task.
    pub async fn cancelled(&self) {
        self.cancellation.cancelled().await;
    }

    async fn send(&self, update: Update) {
        // The receiver is gone only when the task has ended; then nobody can be told anything more.
        let _ = self.updates.send(update).await;
    }
}
