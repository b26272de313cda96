//! Changing activations, and keeping what is derived from them true: who has something to decide, and what is due.

use super::Run;
use super::state::{Activation, Body, Branch, Cursor, Fork};

impl Run {
    /// Changes the cursor, or the branches, of `owner`.
    pub(in crate::run) fn change_owner(
        &mut self,
        owner: Option<u64>,
        cursor: impl FnOnce(&mut Cursor),
        branches: impl FnOnce(&mut Vec<Branch>),
    ) {
        match owner {
            None => {
                cursor(&mut self.root);
                if self.root.is_running() {
                    self.ready.remove(&None);
                } else {
                    self.ready.insert(None);
                }
            }
            Some(id) => self.change(id, |activation| match &mut activation.body {
                Body::Fork(Fork::Running(running)) => branches(running),
                body => {
                    if let Some(current) = body.cursor_mut() {
                        cursor(current);
                    }
                    // An attempt that has begun is no longer waited for.
                    if let Body::Try(attempt) = body {
                        attempt.resume = None;
                    }
                }
            }),
        }
    }

    /// Changes an activation, and keeps `ready` and `timers` true.
    pub(in crate::run) fn change(&mut self, id: u64, change: impl FnOnce(&mut Activation)) {
        self.untrack(id);
        if let Some(activation) = self.activations.get_mut(&id) {
            change(activation);
        }
        self.track(id);
    }

    pub(in crate::run) fn track(&mut self, id: u64) {
        if let Some(activation) = self.activations.get(&id) {
            self.timers.extend(activation.timers(id));
            if activation.is_ready() {
                self.ready.insert(Some(id));
            }
            self.asking += usize::from(activation.is_asked());
        }
    }

    pub(in crate::run) fn untrack(&mut self, id: u64) {
        if let Some(activation) = self.activations.get(&id) {
            for timer in activation.timers(id) {
                self.timers.remove(&timer);
            }
            self.ready.remove(&Some(id));
            self.asking = self.asking.saturating_sub(usize::from(activation.is_asked()));
        }
    }

    /// Forgets an activation and all below it; returns what it was.
    pub(in crate::run) fn remove(&mut self, id: u64) -> Option<Activation> {
        self.untrack(id);
        let removed = self.forget(id)?;
        let mut doomed = removed.children();
        while let Some(id) = doomed.pop() {
            self.untrack(id);
            if let Some(activation) = self.forget(id) {
                doomed.extend(activation.children());
            }
        }
        Some(removed)
    }
}
