//! Payloads of runs: a hash beside the journal of each, in its partition's slot.
//!
//! Steps bring them along in their own script ([`super::steps`]), and a run's go with the run. What is forgotten earlier is
//! forgotten by a script that checks the fence: an engine that has lost the partition takes nothing away that the next one needs.

use async_trait::async_trait;
use futures::future::try_join_all;
use muster_store::redis::{Script, cmd};

use super::Redis;
use super::keys::{self, Partition};
use crate::store::Error;
use crate::store::payloads::{Digest, Payload, Payloads, Room};

static PUT: Script = Script::new(include_str!("payloads_put.lua"));
static FORGET: Script = Script::new(include_str!("payloads_forget.lua"));

/// Payloads that are forgotten with one call.
const PORTION: usize = 1_000;

impl Redis {
    /// Those that are not there.
    pub(super) async fn missing(&self, room: &Room, payloads: Vec<Payload>) -> Result<Vec<Payload>, Error> {
        let key = self.payloads_of(room);
        let there = payloads.iter().map(|payload| {
            let mut command = cmd("HEXISTS");
            command
                .arg(&key)
                .arg(keys::payload(room.span, payload.digest.as_str()));
            async move { self.run::<bool>(&command).await }
        });
        let there = try_join_all(there).await?;
        let missing = payloads.into_iter().zip(there).filter(|(_, there)| !there);
        Ok(missing.map(|(payload, _)| payload).collect())
    }

    fn payloads_of(&self, room: &Room) -> Vec<u8> {
        Partition::new(self.prefix(), self.partition_of(&room.run)).payloads(&room.run)
    }
}

#[async_trait]
impl Payloads for Redis {
    async fn put_payloads(&self, room: &Room, payloads: &[Payload]) -> Result<(), Error> {
        let partition = self.partition_of(&room.run);
        let keys = Partition::new(self.prefix(), partition);
        let mut call = PUT
            .call()
            .key(keys.lease())
            .key(keys.payloads(&room.run))
            .arg(self.fence_of(partition)?);
        for Payload { digest, text } in payloads {
            call.push(keys::payload(room.span, digest.as_str()));
            call.push(text.as_bytes());
        }
        self.check_size(&call)?;
        let outcome: i64 = self.call(&call).await?;
        self.judge(outcome, partition, format!("a payload of run '{}'", room.run))
    }

    async fn payload(&self, room: &Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let mut command = cmd("HGET");
        command
            .arg(self.payloads_of(room))
            .arg(keys::payload(room.span, digest.as_str()));
        self.run(&command).await
    }

    async fn forget_payloads(&self, room: &Room, except: &[Digest]) -> Result<(), Error> {
        let partition = self.partition_of(&room.run);
        let keys = Partition::new(self.prefix(), partition);
        let fields: Vec<String> = self.run(cmd("HKEYS").arg(keys.payloads(&room.run))).await?;
        let gone: Vec<String> = fields
            .into_iter()
            .filter(|field| {
                let parts = keys::payload_parts(field);
                parts.is_some_and(|(span, digest)| !room.spares(span, digest, except))
            })
            .collect();
        for portion in gone.chunks(PORTION) {
            let mut call = FORGET
                .call()
                .key(keys.lease())
                .key(keys.payloads(&room.run))
                .arg(self.fence_of(partition)?);
            for field in portion {
                call.push(field.as_bytes());
            }
            let outcome: i64 = self.call(&call).await?;
            self.judge(outcome, partition, format!("a payload of run '{}'", room.run))?;
        }
        Ok(())
    }

    fn payload_place(&self, room: &Room, digest: &Digest) -> String {
        let key = self.payloads_of(room);
        let field = keys::payload(room.span, digest.as_str());
        format!(
            "Redis at {}: key {}, field {field}",
            self.address(),
            String::from_utf8_lossy(&key)
        )
    }
}
