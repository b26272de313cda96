//! Writing runs: every step is one call of one script in the partition of its run.
//!
//! The script checks the head of the journal, the fence, and whether it has done the same before: each step carries a random
//! token, kept beside the head. So a step that is sent again because nobody knows what became of it is one step, and its
//! writer never meets itself as a stranger.

use jiff::Timestamp;
use muster_store::redis::{Call, Script};

use super::keys::{self, Index, Partition};
use super::{Redis, encode, events};
use crate::approval::State;
use crate::run::Record;
use crate::store::payloads::{Payload, Room};
use crate::store::{Error, Step};

static STEP: Script = Script::new(include_str!("step.lua"));

/// What a run may have used on a day, so that sums of it stay numbers of Redis.
const MOST_SPENT: u64 = 1_000_000_000_000_000;

/// The kinds of steps.
pub(super) enum Kind<'a> {
    Create(&'a Record),
    Append,
    /// Of a run that had ended then.
    Reopen(Timestamp),
}

impl Redis {
    /// Writes a step. `what` is told where somebody else has written.
    pub(super) async fn write(&self, kind: Kind<'_>, mut step: Step, what: String) -> Result<(), Error> {
        let id = step.summary.id.clone();
        // What is there goes only with the run or its span; then the step is not written either.
        let payloads = std::mem::take(&mut step.payloads);
        step.payloads = self.missing(&Room::of(&step.summary), payloads).await?;
        let partition = self.partition_of(&id);
        let tells = !step.events.is_empty();
        let call = self.step(&kind, step, partition)?;
        self.check_size(&call)?;
        let outcome: i64 = self.call(&call).await?;
        self.judge(outcome, partition, what)?;
        if tells {
            // The step is durable; its events reach the log now, or later by whoever tries next.
            self.relay_soon(partition).await;
        }
        Ok(())
    }

    pub(super) fn step(&self, kind: &Kind<'_>, step: Step, partition: u16) -> Result<Call, Error> {
        let Step {
            summary,
            first_index,
            entries,
            output,
            approvals,
            spent,
            events,
            snapshot,
            payloads,
        } = step;
        let id = &summary.id;
        let keys = Partition::new(self.prefix(), partition);
        let (word, record, former_end) = match kind {
            Kind::Create(record) => ("create", encode(record)?, String::new()),
            Kind::Append => ("append", Vec::new(), String::new()),
            Kind::Reopen(ended_at) => ("reopen", Vec::new(), keys::ended(*ended_at, id)),
        };
        let output = output.as_ref().map(encode).transpose()?.unwrap_or_default();
        let end = summary
            .ended_at
            .map(|time| keys::ended(time, id))
            .unwrap_or_default();
        let mut call = STEP
            .call()
            .key(keys.lease())
            .key(keys.run(id))
            .key(keys.journal(id))
            .key(keys.index(Index::Created))
            .key(keys.index(Index::Unfinished))
            .key(keys.index(Index::Ended))
            .key(keys.approvals(id))
            .key(keys.index(Index::ApprovalsOpen))
            .key(keys.index(Index::ApprovalsAll))
            .key(keys.outbox())
            .key(keys.spent())
            .key(keys.spent_order())
            .key(keys.spent_total(&summary.namespace))
            .key(keys.payloads(id))
            .arg(self.fence_of(partition)?)
            .arg(token())
            .arg(word)
            .number(first_index)
            .number(first_index.saturating_add(entries.len() as u64))
            .arg(keys::created(&summary.position()))
            .arg(encode(&summary)?)
            .arg(record)
            .arg(output)
            .arg(former_end)
            .arg(end);
        match spent {
            Some(spent) => {
                call.push(keys::spent(spent.day, &summary.namespace, id));
                call.push_number(spent.usage.tokens.min(MOST_SPENT));
                call.push_number(spent.usage.cost_micros.min(MOST_SPENT));
                call.push_number(spent.day);
            }
            None => (0..4).for_each(|_| call.push("")),
        }
        let (state, is_base) = snapshot.map_or((Vec::new(), false), |saved| (saved.bytes, saved.is_base));
        call.push(state);
        call.push_number(u64::from(is_base));
        call.push_number(entries.len() as u64);
        for entry in entries {
            call.push(entry);
        }
        call.push_number(approvals.len() as u64);
        for approval in approvals {
            call.push_number(approval.id.number);
            call.push(keys::opened(&approval.position()));
            call.push(if approval.state == State::Open { "1" } else { "0" });
            call.push(encode(&approval)?);
        }
        let now = events.iter().find_map(|event| event.text("time").parse().ok());
        events::push(&mut call, &events, now.unwrap_or(summary.created_at))?;
        let span = Room::of(&summary).span;
        call.push_number(payloads.len() as u64);
        for Payload { digest, text } in payloads {
            call.push(keys::payload(span, digest.as_str()));
            call.push(text);
        }
        Ok(call)
    }

    /// What a script that writes to a partition answers.
    pub(super) fn judge(&self, outcome: i64, partition: u16, what: String) -> Result<(), Error> {
        match outcome {
            0 => Err(Error::Conflict(what)),
            -1 => Err(Error::NotOwner { partition }),
            _ => Ok(()),
        }
    }
}

/// Tells one call from every other.
pub(super) fn token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
