//! Lists over all partitions: their sorted sets merged, in bounded portions.
//!
//! Each partition is asked for the next few places at once with all others; more are asked for only of those that are used
//! up, and twice as many each time. So a page of a store with even partitions costs one round trip, and a filter that
//! admits few does not cost one per place. What changes meanwhile is seen or not; places keep their order, so no cursor is
//! ever off.

use std::collections::VecDeque;
use std::ops::Bound;

use futures::future::try_join_all;
use muster_store::redis::cmd;

use super::Redis;
use super::keys::{Index, Partition};
use crate::store::Error;

const FIRST_PORTION: usize = 4;
const LARGEST_PORTION: usize = 512;

/// The rest of a list.
pub(super) struct Merge<'a> {
    store: &'a Redis,
    index: Index,
    newest_first: bool,
    parts: Vec<Part>,
}

struct Part {
    partition: u16,
    key: Vec<u8>,
    places: VecDeque<String>,
    /// What is left beyond the places that were read.
    start: Bound<String>,
    end: Bound<String>,
    portion: usize,
    at_end: bool,
}

impl<'a> Merge<'a> {
    /// Places from `start` to `end`, of these partitions.
    pub(super) fn new(
        store: &'a Redis,
        index: Index,
        (start, end): (Bound<String>, Bound<String>),
        newest_first: bool,
        partitions: Vec<u16>,
        wanted: usize,
    ) -> Self {
        let expected = 2 * wanted / partitions.len().max(1);
        let parts = partitions.into_iter().map(|partition| Part {
            partition,
            key: Partition::new(store.prefix(), partition).index(index),
            places: VecDeque::new(),
            start: start.clone(),
            end: end.clone(),
            portion: expected.clamp(FIRST_PORTION, LARGEST_PORTION),
            at_end: false,
        });
        Self {
            store,
            index,
            newest_first,
            parts: parts.collect(),
        }
    }

    /// The next places with their partitions; fewer than wanted only at the end.
    pub(super) async fn next(&mut self, wanted: usize) -> Result<Vec<(u16, String)>, Error> {
        let mut found = Vec::new();
        while found.len() < wanted {
            self.fill().await?;
            let newest_first = self.newest_first;
            let heads = self.parts.iter_mut().filter(|part| !part.places.is_empty());
            let best = heads.min_by(|a, b| {
                let order = a.places.front().cmp(&b.places.front());
                if newest_first { order.reverse() } else { order }
            });
            let Some(part) = best else { break };
            found.extend(part.places.pop_front().map(|place| (part.partition, place)));
        }
        Ok(found)
    }

    /// Reads on where nothing is left.
    async fn fill(&mut self) -> Result<(), Error> {
        let empty = |part: &&mut Part| part.places.is_empty() && !part.at_end;
        if !self.parts.iter_mut().any(|part| empty(&part)) {
            return Ok(());
        }
        let (store, newest_first, index) = (self.store, self.newest_first, self.index);
        let reads = self.parts.iter_mut().filter(empty).map(|part| async move {
            let (low, high) = (bound(&part.start, "-"), bound(&part.end, "+"));
            let mut command = cmd("ZRANGE");
            command.arg(&part.key);
            if newest_first {
                command.arg(high).arg(low).arg("BYLEX").arg("REV");
            } else {
                command.arg(low).arg(high).arg("BYLEX");
            }
            command.arg("LIMIT").arg(0).arg(part.portion);
            let places: Vec<String> = store.run(&command).await?;
            part.at_end = places.len() < part.portion;
            part.portion = (2 * part.portion).min(LARGEST_PORTION);
            if let Some(last) = places.last() {
                let rest = Bound::Excluded(last.clone());
                if newest_first {
                    part.end = rest;
                } else {
                    part.start = rest;
                }
            }
            part.places = places.into();
            Ok(())
        });
        try_join_all(reads).await.map_err(|error: Error| match error {
            Error::Damaged(what) => Error::Damaged(format!("the index {index:?}: {what}")),
            error => error,
        })?;
        Ok(())
    }
}

fn bound(bound: &Bound<String>, unbounded: &str) -> String {
    match bound {
        Bound::Included(place) => format!("[{place}"),
        Bound::Excluded(place) => format!("({place}"),
        Bound::Unbounded => unbounded.to_owned(),
    }
}
