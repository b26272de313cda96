//! How far a follower has come in a registry's stream of changes: plain data.
//!
//! A stream begins with a snapshot, in pieces, or where the last one ended, as long as the registry still knows what was
//! missed. From then on every change has the revision after the one before; what does not is a gap, and the follower starts
//! over with a snapshot. Routers follow their registry so, and registries those of other regions; what they make of the
//! instances is their own.

use muster_api::registry::watch_agents_response::{Change, Snapshot};
use muster_api::registry::{WatchAgentsRequest, WatchAgentsResponse};

/// Most instances of a snapshot: as many as a registry may be set to hold.
const MAX_INSTANCES: usize = 1_000_000;

/// Why a stream cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// A change was lost on the way, or came twice.
    #[error("revision {expected} was expected and {seen} came")]
    Revision {
        /// The revision that should have come.
        expected: u64,
        /// The one that came.
        seen: u64,
    },
    /// A piece of a snapshot is missing, or a change came between two.
    #[error("a snapshot broke off")]
    Piece,
    /// A snapshot goes on and on.
    #[error("a snapshot has more than {MAX_INSTANCES} instances")]
    TooLarge,
    /// The registry goes on after a revision that nobody asked for.
    #[error("the registry resumes after revision {0}, which is not where this view ends")]
    Resumption(u64),
}

/// What an answer of the registry comes to.
#[derive(Debug)]
pub enum Step<I> {
    /// A piece of a snapshot that is not whole: nothing to do yet.
    Piece,
    /// These are all live instances.
    Snapshot {
        /// The instances, as they were read.
        instances: Vec<I>,
        /// Whether the same life of the registry has told this follower a snapshot before. Then who is missing is gone; a
        /// registry that was started anew may only not have heard of everybody yet.
        is_same_life: bool,
    },
    /// The stream goes on where the last one ended.
    Resumed,
    /// Something has changed. A kind of change that a newer registry sends and that is not known here is nothing.
    Changed(Option<Box<Change>>),
}

/// See the module. `I` is an instance as the follower reads it.
#[derive(Debug)]
pub struct Position<I> {
    incarnation: String,
    /// The revision up to which the follower knows everything; `None` before the first snapshot is whole.
    revision: Option<u64>,
    /// A snapshot that is not whole.
    pieces: Option<Pieces<I>>,
}

#[derive(Debug)]
struct Pieces<I> {
    incarnation: String,
    revision: u64,
    instances: Vec<I>,
}

impl<I> Default for Position<I> {
    fn default() -> Self {
        Self {
            incarnation: String::new(),
            revision: None,
            pieces: None,
        }
    }
}

impl<I> Position<I> {
    /// What to ask the registry for: what comes after the place that was reached, or a snapshot.
    #[must_use]
    pub fn request(&self) -> WatchAgentsRequest {
        WatchAgentsRequest {
            since_revision: self.revision.unwrap_or_default(),
            incarnation: self.incarnation.clone(),
            incremental: true,
            own_only: false,
        }
    }

    /// A stream has ended: what was not whole is worth nothing.
    pub fn broke(&mut self) {
        self.pieces = None;
    }

    /// The next request asks for a snapshot.
    pub fn start_over(&mut self) {
        self.pieces = None;
        self.revision = None;
    }

    /// Takes an answer in; `read` adds the instances of a piece that can be used.
    ///
    /// # Errors
    /// When something is missing before it. The next request then asks for a snapshot.
    pub fn take(
        &mut self,
        response: WatchAgentsResponse,
        read: impl FnOnce(Snapshot, &mut Vec<I>),
    ) -> Result<Step<I>, Gap> {
        let taken = self.taken(response, read);
        if taken.is_err() {
            self.start_over();
        }
        taken
    }

    fn taken(
        &mut self,
        response: WatchAgentsResponse,
        read: impl FnOnce(Snapshot, &mut Vec<I>),
    ) -> Result<Step<I>, Gap> {
        match response.change {
            Some(Change::Snapshot(snapshot)) => {
                self.piece(response.incarnation, response.revision, snapshot, read)
            }
            _ if self.pieces.is_some() => Err(Gap::Piece),
            Some(Change::Resumed(_)) => {
                if self.revision != Some(response.revision) || self.incarnation != response.incarnation {
                    return Err(Gap::Resumption(response.revision));
                }
                Ok(Step::Resumed)
            }
            change => {
                let expected = self.revision.map_or(0, |revision| revision.saturating_add(1));
                if response.revision != expected {
                    return Err(Gap::Revision {
                        expected,
                        seen: response.revision,
                    });
                }
                self.revision = Some(expected);
                Ok(Step::Changed(change.map(Box::new)))
            }
        }
    }

    fn piece(
        &mut self,
        incarnation: String,
        revision: u64,
        snapshot: Snapshot,
        read: impl FnOnce(Snapshot, &mut Vec<I>),
    ) -> Result<Step<I>, Gap> {
        let (continues, more) = (snapshot.continues, snapshot.more);
        let mut pieces = match (self.pieces.take(), continues) {
            (Some(before), true) if before.revision == revision => before,
            (None, false) => Pieces {
                incarnation,
                revision,
                instances: Vec::new(),
            },
            _ => return Err(Gap::Piece),
        };
        read(snapshot, &mut pieces.instances);
        if pieces.instances.len() > MAX_INSTANCES {
            return Err(Gap::TooLarge);
        }
        if more {
            self.pieces = Some(pieces);
            return Ok(Step::Piece);
        }
        let is_same_life = self.incarnation == pieces.incarnation;
        self.incarnation = pieces.incarnation;
        self.revision = Some(revision);
        Ok(Step::Snapshot {
            instances: pieces.instances,
            is_same_life,
        })
    }
}
