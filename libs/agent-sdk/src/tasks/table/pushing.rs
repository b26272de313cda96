//! Where the updates of tasks are pushed to.

use a2a_pb::proto as pb;
use prost::Message as _;
use tonic::Status;

use super::rules::{too_many_pushes, unknown};
use super::{Body, MOST_PUSHES, Table};
use crate::tasks::record::Push;

impl Table {
    /// Where a task's updates are pushed to.
    pub(crate) fn pushes(&self, id: &str) -> Result<Vec<Push>, Box<Status>> {
        let entry = self.by_id.get(id).ok_or_else(|| unknown(id))?;
        Ok(match &entry.body {
            // Asked for with every event, so that the task itself must not be copied for it.
            Body::Live(live) => live.record.pushes.clone(),
            Body::Kept(_) => entry.record().map(|record| record.pushes).unwrap_or_default(),
        })
    }

    /// Adds or replaces an address by its id.
    pub(crate) fn put_push(
        &mut self,
        id: &str,
        config: pb::TaskPushNotificationConfig,
    ) -> Result<(), Box<Status>> {
        let grown = config.encoded_len();
        let live = self.open(id)?;
        let pushes = &mut live.record.pushes;
        let known = pushes
            .iter()
            .position(|push| push.config.as_ref().is_some_and(|known| known.id == config.id));
        let push = Push {
            config: Some(config),
            owed: false,
        };
        let full = known.is_none() && pushes.len() >= MOST_PUSHES;
        if !full {
            match known.and_then(|place| pushes.get_mut(place)) {
                Some(place) => *place = push,
                None => pushes.push(push),
            }
        }
        live.announced = true;
        self.change(id);
        self.grow(id, grown);
        self.rest(id);
        if full {
            return Err(too_many_pushes());
        }
        Ok(())
    }

    /// Removes an address; none of that id is as good.
    pub(crate) fn remove_push(&mut self, id: &str, config: &str) -> Result<(), Box<Status>> {
        self.change_pushes(id, |pushes| {
            pushes.retain(|push| push.config.as_ref().is_none_or(|known| known.id != config));
        })
    }

    /// All was delivered to an address.
    pub(crate) fn pushed(&mut self, id: &str, config: &str) {
        // A task that is forgotten meanwhile needs no note.
        let _ = self.change_pushes(id, |pushes| {
            for push in pushes {
                if push.config.as_ref().is_some_and(|known| known.id == config) {
                    push.owed = false;
                }
            }
        });
    }

    fn change_pushes(&mut self, id: &str, change: impl FnOnce(&mut Vec<Push>)) -> Result<(), Box<Status>> {
        let live = self.open(id)?;
        change(&mut live.record.pushes);
        self.change(id);
        self.rest(id);
        Ok(())
    }
}
