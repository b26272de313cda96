//! Payloads of runs, with their runs.

use async_trait::async_trait;

use super::{Kept, Memory};
use crate::store::Error;
use crate::store::payloads::{Digest, Payload, Payloads, Room};

impl Kept {
    pub(super) fn put(&mut self, room: &Room, payloads: impl IntoIterator<Item = Payload>) {
        let payloads = payloads.into_iter();
        let keyed = payloads.map(|Payload { digest, text }| ((room.span, digest), text));
        self.payloads.extend(keyed);
    }
}

#[async_trait]
impl Payloads for Memory {
    async fn put_payloads(&self, room: &Room, payloads: &[Payload]) -> Result<(), Error> {
        self.with(|state| {
            let run = state.runs.get_mut(&room.run);
            let run = run.ok_or_else(|| Error::Conflict(format!("run '{}'", room.run)))?;
            run.put(room, payloads.iter().cloned());
            Ok(())
        })
    }

    async fn payload(&self, room: &Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.with(|state| {
            let run = state.runs.get(&room.run)?;
            let text = run.payloads.get(&(room.span, digest.clone()))?;
            Some(text.clone().into_bytes())
        }))
    }

    async fn forget_payloads(&self, room: &Room, except: &[Digest]) -> Result<(), Error> {
        self.with(|state| {
            if let Some(run) = state.runs.get_mut(&room.run) {
                run.payloads
                    .retain(|(span, digest), _| room.spares(*span, digest.as_str(), except));
            }
            Ok(())
        })
    }

    fn payload_place(&self, room: &Room, digest: &Digest) -> String {
        format!("in memory, span {} of run '{}', {digest}", room.span, room.run)
    }
}
