//! Snapshots of runs: where a run stood after some entry of its journal, so that whoever takes it up reads that and what came
//! after it.
//!
//! A run's *latest* snapshot is written in the step of its last entry, once the entries since the one before are worth it: so
//! the cost of snapshots is a fraction of that of the journal, and what is read to take a run up is bounded by a multiple of
//! what the run holds. One that is stale, damaged or of another format is no loss: the journal is folded.
//!
//! A journal that grows beyond the bound of its history is *cut*: the snapshot of that moment is kept as the run's *base*, and
//! the entries before the base before it are forgotten. What is left is a history of at least one bound and at most two, the
//! chain of digests at its beginning, and a state from which the rest can be folded and checked.

use muster_workflow_dsl::journal::chain::Chain;
use serde::{Deserialize, Serialize};

use crate::run::Mark;

/// A snapshot is written once the entries since the last one have so many times its bytes.
pub(crate) const TIMES_ITS_SIZE: usize = 2;

/// The largest snapshot, and the largest step that has one: a store takes a step as a whole.
pub(crate) const MOST_BYTES: usize = 24 << 20;

/// A snapshot of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// After which entry, and the chain there.
    pub(crate) mark: Mark,
    /// How often the run had been retried: one that was retried since may have gone back to before it.
    pub(crate) retries: u32,
    /// See [`muster_workflow_dsl::run::Run::snapshot`].
    pub(crate) state: Vec<u8>,
}

/// The first line of a stored snapshot.
#[derive(Serialize, Deserialize)]
struct Head {
    index: u64,
    chain: Chain,
    retries: u32,
    /// Of all of it.
    digest: String,
}

impl Snapshot {
    pub(crate) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let head = Head {
            index: self.mark.index,
            chain: self.mark.chain,
            retries: self.retries,
            digest: self.digest(),
        };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend(&self.state);
        Ok(bytes)
    }

    /// The snapshot, or what is wrong with the bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let head: Head =
            serde_json::from_slice(lines.next().unwrap_or_default()).map_err(|error| error.to_string())?;
        let snapshot = Self {
            mark: Mark {
                index: head.index,
                chain: head.chain,
            },
            retries: head.retries,
            state: lines.next().unwrap_or_default().to_vec(),
        };
        if snapshot.digest() != head.digest {
            return Err("it is not what was written".to_owned());
        }
        Ok(snapshot)
    }

    fn digest(&self) -> String {
        let Mark { index, chain } = self.mark;
        let state = String::from_utf8_lossy(&self.state);
        muster_workflow_dsl::digest(&format!("{index} {chain} {}\n{state}", self.retries))
    }
}

/// What was written of a run since its last snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Growth {
    pub(crate) entries: u64,
    pub(crate) bytes: usize,
    /// Of the last snapshot.
    pub(crate) last: usize,
}

impl Growth {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
    }

    /// Whether it is worth a snapshot, where `fewest` entries are folded rather than saved.
    pub(crate) fn is_due(&self, fewest: u64) -> bool {
        self.entries >= fewest && self.bytes >= TIMES_ITS_SIZE * self.last
    }

    /// There is a snapshot of this size.
    pub(crate) fn saved(bytes: usize) -> Self {
        Self {
            entries: 0,
            bytes: 0,
            last: bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            mark: Mark {
                index: 7,
                chain: Chain::begin(&[]),
            },
            retries: 2,
            state: b"{\"format\":1}\n{}".to_vec(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_any_other_byte_is_noticed() {
        let bytes = snapshot().to_bytes().unwrap();
        assert_eq!(Snapshot::read(&bytes), Ok(snapshot()));
        for position in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[position] ^= 1;
            Snapshot::read(&altered).unwrap_err();
        }
        for end in 0..bytes.len() {
            Snapshot::read(&bytes[..end]).unwrap_err();
        }
    }

    #[test]
    fn snapshots_cost_a_fraction_of_the_journal() {
        let mut growth = Growth::default();
        let (mut entries, mut snapshots) = (0, 0);
        for _ in 0..100_000 {
            growth.add(300);
            entries += 300;
            if growth.is_due(256) {
                growth = Growth::saved(40_000);
                snapshots += 40_000;
            }
        }
        assert!(
            snapshots > 0 && snapshots * TIMES_ITS_SIZE <= entries,
            "{snapshots} of {entries}"
        );
    }
}
