//! Making room: what is forgotten, and when nothing more is taken.

use std::time::Duration;

use muster_api::error::{Error, Reason};
use tonic::Status;

use super::{Body, Table};

impl Table {
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(entry) = self.by_id.remove(id) {
            self.bytes -= entry.size;
            self.by_age.remove(&entry.key);
            self.untouched.remove(&entry.tick);
        }
    }

    /// Takes a task back that could not be made durable before anybody knew of it.
    pub(crate) fn withdraw(&mut self, id: &str) {
        self.forget(id);
        if self.is_shared {
            self.withdrawn.insert(id.to_owned());
        }
    }

    /// Ids to be forgotten on disk, too.
    pub(crate) fn forgotten(&mut self) -> Vec<String> {
        std::mem::take(&mut self.forgotten)
    }

    pub(super) fn make_room(&mut self, size: usize, now: Duration) -> Result<(), Box<Status>> {
        while let Some((id, touched)) = self.longest_untouched() {
            let expired = now.saturating_sub(touched) >= self.bounds.retention;
            if !expired && self.fits(size) {
                break;
            }
            self.forget(&id);
            if !self.is_shared {
                self.forgotten.push(id);
            }
        }
        if self.fits(size) {
            return Ok(());
        }
        let error = Error::new(
            Reason::AgentBusy,
            format!(
                "{} tasks in work fill the task store ({} tasks, {} bytes)",
                self.by_id.len(),
                self.bounds.tasks,
                self.bounds.bytes
            ),
        );
        Err(Box::new(error.with_retry_after(Duration::from_secs(1)).into()))
    }

    /// The kept task that was touched first. Skips the live ones, which are few.
    fn longest_untouched(&self) -> Option<(String, Duration)> {
        self.untouched
            .values()
            .filter_map(|id| Some((id, self.by_id.get(id)?)))
            .find(|(_, entry)| {
                // What a shared store may not have yet must not be forgotten.
                matches!(entry.body, Body::Kept(_)) && !(self.is_shared && entry.is_held)
            })
            .map(|(id, entry)| (id.clone(), entry.touched))
    }

    fn fits(&self, size: usize) -> bool {
        self.by_id.len() < self.bounds.tasks && self.bytes.saturating_add(size) <= self.bounds.bytes
    }
}
