//! Approvals in the embedded store.
//!
//! Keys: `a` run NUL number → the approval; `o` time run NUL number: those that are open; `t` time run NUL number: all.

use std::ops::Bound;

use async_trait::async_trait;
use muster_store::Batch;

use super::keys::{sortable, unsortable};
use super::{Embedded, damaged, encode};
use crate::approval::{Approval, ApprovalId, Filter, Position, State};
use crate::run::RunId;
use crate::store::approvals::Approvals;
use crate::store::{Error, Page};

const APPROVAL: u8 = b'a';
const OPEN: u8 = b'o';
const TIME: u8 = b't';

/// A page looks at no more than so many, so that a filter that admits few cannot hold the store up.
const MOST_EXAMINED: usize = 5_000;

impl Embedded {
    /// Writes the approvals that a step changes.
    pub(super) fn put_approvals(&self, batch: &mut Batch, approvals: &[Approval]) -> Result<(), Error> {
        for approval in approvals {
            let position = approval.position();
            batch.put(&self.approvals, key(&approval.id), encode(approval)?);
            batch.put(&self.approvals, at(TIME, &position), []);
            let open = at(OPEN, &position);
            match approval.state {
                State::Open => batch.put(&self.approvals, open, []),
                _ => batch.remove(&self.approvals, open),
            }
        }
        Ok(())
    }

    /// Some of the approvals of a run, to be forgotten; whether there are any.
    pub(super) fn forget_approvals(
        &self,
        batch: &mut Batch,
        run: &RunId,
        most: usize,
    ) -> Result<bool, Error> {
        let mut any = false;
        for entry in self.approvals.prefix(of(run)).take(most) {
            let (key, bytes) = entry.map_err(damaged)?;
            let approval: Approval = self.decode("an approval", &bytes)?;
            let position = approval.position();
            batch.remove(&self.approvals, key);
            batch.remove(&self.approvals, at(TIME, &position));
            batch.remove(&self.approvals, at(OPEN, &position));
            any = true;
        }
        Ok(any)
    }

    fn approvals_now(
        &self,
        filter: &Filter,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Approval, Position>, Error> {
        let kind = if filter.open_only() { OPEN } else { TIME };
        let after = after.map(|position| at(kind, position));
        let (first, last) = (Bound::Included(vec![kind]), Bound::Excluded(vec![kind + 1]));
        let entries: Box<dyn Iterator<Item = _>> = if kind == OPEN {
            let start = after.map_or(first, Bound::Excluded);
            Box::new(self.approvals.range((start, last)))
        } else {
            let end = after.map_or(last, Bound::Excluded);
            Box::new(self.approvals.range((first, end)).rev())
        };
        let mut page = Page {
            entries: Vec::new(),
            next: None,
        };
        let mut reached = None;
        for (examined, entry) in entries.enumerate() {
            let (bytes, _) = entry.map_err(damaged)?;
            if page.entries.len() >= limit || examined >= MOST_EXAMINED {
                page.next = reached;
                break;
            }
            let position = position(&bytes).ok_or_else(|| {
                let key = bytes.escape_ascii();
                Error::Damaged(format!(
                    "{}: no approval is named by key {key}",
                    self.path().display()
                ))
            })?;
            // Absent where it was forgotten since the range was taken.
            let approval: Option<Approval> = self.get(&self.approvals, key(&position.id), || {
                format!("approval '{}'", position.id)
            })?;
            page.entries
                .extend(approval.filter(|approval| filter.admits(approval)));
            reached = Some(position);
        }
        Ok(page)
    }
}

#[async_trait]
impl Approvals for Embedded {
    async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, Error> {
        let id = id.clone();
        self.read(move |store| store.get(&store.approvals, key(&id), || format!("approval '{id}'")))
            .await
    }

    async fn approvals(
        &self,
        filter: &Filter,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Approval, Position>, Error> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read(move |store| store.approvals_now(&filter, after.as_ref(), limit))
            .await
    }
}

/// What the keys of a run's approvals start with.
fn of(run: &RunId) -> Vec<u8> {
    let mut bytes = vec![APPROVAL];
    bytes.extend(run.as_str().as_bytes());
    bytes.push(0);
    bytes
}

fn key(id: &ApprovalId) -> Vec<u8> {
    let mut bytes = of(&id.run);
    bytes.extend(id.number.to_be_bytes());
    bytes
}

fn at(kind: u8, position: &Position) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(sortable(position.opened_micros).to_be_bytes());
    bytes.extend(position.id.run.as_str().as_bytes());
    bytes.push(0);
    bytes.extend(position.id.number.to_be_bytes());
    bytes
}

fn position(key: &[u8]) -> Option<Position> {
    let (time, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    let (run, number) = rest.split_last_chunk::<8>()?;
    let run = std::str::from_utf8(run.strip_suffix(&[0])?).ok()?;
    Some(Position {
        opened_micros: unsortable(u64::from_be_bytes(*time)),
        id: ApprovalId {
            run: run.parse().ok()?,
            number: u64::from_be_bytes(*number),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_from_their_keys_and_sort_like_them() {
        let position = |micros, run: &str, number| Position {
            opened_micros: micros,
            id: ApprovalId {
                run: run.parse().unwrap(),
                number,
            },
        };
        let sorted = [
            position(-5, "z", 9),
            position(7, "a", 1),
            position(7, "a", 256),
            position(7, "b", 1),
            position(8, "a", 1),
        ];
        let keys: Vec<Vec<u8>> = sorted.iter().map(|place| at(TIME, place)).collect();
        assert!(keys.is_sorted());
        for (place, key) in sorted.iter().zip(&keys) {
            assert_eq!(super::position(key).as_ref(), Some(place));
        }
    }
}
