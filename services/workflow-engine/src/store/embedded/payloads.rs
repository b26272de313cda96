//! See [`crate::store::payloads`].
//!
//! Within the store a payload is forgotten in the same order as its run: nothing of an earlier run with the same id is left when
//! the next one is accepted. So keys name the run alone, and not when it was accepted.

use std::ops::Bound;

use async_trait::async_trait;
use muster_store::Batch;

use super::keys::{Journal, Payloads as Keys};
use super::{Embedded, damaged};
use crate::run::RunId;
use crate::store::Error;
use crate::store::payloads::{Digest, Payload, Payloads, Room};

/// So many are forgotten at once. They are read on the way, so that it is fewer than of other things.
const AT_ONCE: usize = 100;

impl Embedded {
    /// Puts payloads into the batch that are not there.
    pub(super) async fn put_missing(
        &self,
        batch: &mut Batch,
        room: &Room,
        payloads: Vec<Payload>,
    ) -> Result<(), Error> {
        if payloads.is_empty() {
            return Ok(());
        }
        let (run, span) = (room.run.clone(), room.span);
        let missing = self.read(move |store| {
            let mut missing = Vec::new();
            for Payload { digest, text } in payloads {
                let key = Keys::at(&run, span, digest.as_str());
                if store.payloads.get(&key).map_err(damaged)?.is_none() {
                    missing.push((key, text));
                }
            }
            Ok(missing)
        });
        for (key, text) in missing.await? {
            batch.put(&self.payloads, key, text);
        }
        Ok(())
    }

    pub(super) async fn forget_all_payloads(&self, id: &RunId) -> Result<(), Error> {
        self.forget_in(id, u64::MAX, Vec::new()).await
    }

    /// Forgets payloads of spans before this one; of the first one, these stay.
    async fn forget_in(&self, id: &RunId, before: u64, except: Vec<Digest>) -> Result<(), Error> {
        let room = Room {
            run: id.clone(),
            created_micros: 0,
            span: before,
        };
        let mut start = Bound::Included(Keys::span(id, 0));
        loop {
            let (room, except, from) = (room.clone(), except.clone(), start.clone());
            let keys = self
                .read(move |store| store.payload_keys(&room, &except, from))
                .await?;
            let Some(last) = keys.last().map(|(key, _)| key.clone()) else {
                return Ok(());
            };
            let mut batch = Batch::new();
            for (key, spared) in keys {
                if !spared {
                    batch.remove(&self.payloads, key);
                }
            }
            self.commit(batch, &format!("run '{id}'")).await?;
            start = Bound::Excluded(last);
        }
    }

    /// Some keys of payloads before the room's span, and whether each is to stay.
    fn payload_keys(
        &self,
        room: &Room,
        except: &[Digest],
        start: Bound<Vec<u8>>,
    ) -> Result<Vec<(Vec<u8>, bool)>, Error> {
        let end = if room.span == u64::MAX {
            Journal::end(&room.run)
        } else {
            Keys::span(&room.run, room.span)
        };
        let entries = self.payloads.range((start, Bound::Excluded(end)));
        let keys = entries.take(AT_ONCE).map(|entry| {
            let (key, _) = entry.map_err(damaged)?;
            let spared =
                Keys::parts(&room.run, &key).is_some_and(|(span, digest)| room.spares(span, digest, except));
            Ok((key, spared))
        });
        keys.collect()
    }
}

#[async_trait]
impl Payloads for Embedded {
    async fn put_payloads(&self, room: &Room, payloads: &[Payload]) -> Result<(), Error> {
        let mut batch = Batch::new();
        self.put_missing(&mut batch, room, payloads.to_vec()).await?;
        self.commit(batch, &format!("run '{}'", room.run)).await
    }

    async fn payload(&self, room: &Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let key = Keys::at(&room.run, room.span, digest.as_str());
        self.read(move |store| store.payloads.get(key).map_err(damaged))
            .await
    }

    async fn forget_payloads(&self, room: &Room, except: &[Digest]) -> Result<(), Error> {
        self.forget_in(&room.run, room.span, except.to_vec()).await
    }

    fn payload_place(&self, room: &Room, digest: &Digest) -> String {
        let path = self.path().display();
        format!(
            "{path}: keyspace payloads, run '{}', span {}, {digest}",
            room.run, room.span
        )
    }
}
