//! Encryption of what instances share in Redis, where the operator has given keys: records of tasks with where they are pushed to,
//! their events, and what instances ask of each other. Tokens and credentials of push notifications are among them, as callers
//! have sent them.
//!
//! What is encrypted belongs to its kind and its task ([`Keys`]): it cannot be read in another place. Ids, states, contexts and times
//! stay plain, because Redis searches by them. What is plain is read as it is, so that keys may come later.

use std::collections::BTreeMap;

use muster_api::error::Error;
use muster_store::Keys;
use muster_store::redis::{Connection, OpenError, cmd};

use super::redis::damaged;

/// Where the operator names the file of keys.
pub(crate) const SETTING: &str = "agent.encryption_key_file";

/// What is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All of a task.
    Record,
    /// Something that has happened to it.
    Event,
    /// What an instance asks of another.
    Wish,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Event => "event",
            Self::Wish => "wish",
        }
    }
}

/// The keys, and what all that is encrypted with them belongs to: the agent.
pub(super) struct Sealing {
    keys: Option<Keys>,
    base: Vec<u8>,
}

impl Sealing {
    pub(super) const fn new(keys: Option<Keys>, base: Vec<u8>) -> Self {
        Self { keys, base }
    }

    fn place(&self, id: &str) -> Vec<u8> {
        [self.base.as_slice(), id.as_bytes()].concat()
    }

    /// As it is stored.
    pub(super) fn seal(&self, kind: Kind, id: &str, value: Vec<u8>) -> Vec<u8> {
        match &self.keys {
            Some(keys) => keys.seal(kind.name(), &self.place(id), &value),
            None => value,
        }
    }

    /// What was stored.
    pub(super) fn open(&self, kind: Kind, id: &str, stored: Vec<u8>) -> Result<Vec<u8>, Error> {
        let opened = match &self.keys {
            Some(keys) => keys.open(kind.name(), &self.place(id), &stored),
            None if Keys::have_sealed(&stored) => Err(format!("it is encrypted; set {SETTING}")),
            None => Ok(None),
        };
        let opened = opened.map_err(|what| damaged(id, &what))?;
        Ok(opened.unwrap_or(stored))
    }

    /// Finds out whether these are the keys that the store needs, which is written at `needs`, and writes down the one that writes.
    ///
    /// # Errors
    /// Redis cannot be used, or a key is missing or another one.
    pub(super) async fn check(&self, connection: &Connection, needs: &[u8]) -> Result<(), OpenError> {
        let needed: BTreeMap<String, Vec<u8>> = connection.run(cmd("HGETALL").arg(needs)).await?;
        for (id, known) in &needed {
            let is_known = self
                .keys
                .as_ref()
                .is_some_and(|keys| keys.knows(id.as_bytes(), known));
            if !is_known {
                return Err(OpenError::Damaged(format!(
                    "Redis at {} holds tasks that are encrypted with key '{id}', which {SETTING} does not give; add it there, \
                     or choose another `agent.redis.key_prefix`",
                    connection.address()
                )));
            }
        }
        if let Some(keys) = &self.keys {
            let mut mark = cmd("HSETNX");
            mark.arg(needs).arg(keys.writing()).arg(keys.known());
            connection.run::<i64>(&mark).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing(keys: &[(&str, char)]) -> Sealing {
        let lines = keys
            .iter()
            .map(|(id, letter)| format!("{id} {}A=\n", letter.to_string().repeat(42)));
        let keys = (!keys.is_empty()).then(|| Keys::parse(&lines.collect::<String>()).unwrap());
        Sealing::new(keys, b"agent:".to_vec())
    }

    #[test]
    fn what_is_sealed_is_read_in_its_place_with_its_key_alone() {
        let (plain, one) = (sealing(&[]), sealing(&[("1", 'a')]));
        let both = sealing(&[("2", 'b'), ("1", 'a')]);
        let stored = one.seal(Kind::Record, "t", b"secret".to_vec());
        assert!(!stored.windows(6).any(|part| part == b"secret"));
        for keys in [&one, &both] {
            assert_eq!(keys.open(Kind::Record, "t", stored.clone()).unwrap(), b"secret");
            assert_eq!(keys.open(Kind::Record, "t", b"plain".to_vec()).unwrap(), b"plain");
        }
        assert!(one.open(Kind::Record, "u", stored.clone()).is_err());
        assert!(one.open(Kind::Event, "t", stored.clone()).is_err());
        assert!(
            sealing(&[("2", 'b')])
                .open(Kind::Record, "t", stored.clone())
                .is_err()
        );
        let error = plain.open(Kind::Record, "t", stored).unwrap_err();
        assert!(error.message.contains(SETTING), "{error}");
        assert_eq!(plain.seal(Kind::Wish, "t", b"x".to_vec()), b"x");
    }
}
