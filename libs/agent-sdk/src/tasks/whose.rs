//! Whose tasks somebody has: its own, or all.
//!
//! A task belongs to the caller on whose behalf it was made ([`Record::caller`](super::record::Record)), to its end. Others hear of
//! it what they would hear if there were none: by its id, in lists, in their totals, by page tokens, and by its context. An admin has
//! all, and so has whoever reaches an agent on a loopback that tells nobody apart. What was made before tasks had callers is an admin's.
//!
//! A context is its caller's, too. Callers may choose context ids, as A2A allows them, so that two may choose the same one: then those are
//! two contexts of one name, and a list of the context has the tasks of whoever asks. A handler that keeps something by the context keeps it
//! by [`Task::conversation`](crate::Task::conversation), which no two callers share.
//!
//! Rejected: refusing a context id that another caller uses. It tells that caller's from nobody's, lets whoever is first keep a name from
//! all others, and ends with the last task that is kept of it, while what a handler has kept by it stays.

use std::sync::Arc;

use a2a_pb::proto as pb;
use muster_a2a::Events;
use muster_runtime::trust::caller::ANYBODY;
use muster_runtime::trust::{Access, Caller};
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::{Tasks, Until, table};

/// Bytes of a hash that tell callers apart in keys and page tokens.
const TOLD_APART_BY: usize = 16;

/// Whose tasks are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Everybody's.
    All,
    /// Those of one caller, by its key.
    Of(Arc<str>),
}

impl Whose {
    /// What a caller has.
    pub(crate) fn seen_by(caller: &Caller) -> Self {
        if caller.sees_all() {
            Self::All
        } else {
            Self::Of(caller.key())
        }
    }

    /// Whether a task of this caller is among them.
    pub(super) fn has(&self, caller: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(key) => !caller.is_empty() && **key == *caller,
        }
    }

    /// A name of them for keys and page tokens; empty for all.
    pub(super) fn name(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Of(key) => name_of(key),
        }
    }
}

/// A caller's name for keys and page tokens, which has letters and digits alone; empty for nobody's, and for those of anybody, who has all.
pub(super) fn name_of(caller: &str) -> String {
    if caller.is_empty() || caller == ANYBODY {
        return String::new();
    }
    let hash = Sha256::digest(caller);
    hash.iter()
        .take(TOLD_APART_BY)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A name of a caller's context that no two callers share, whatever they call it.
pub(crate) fn conversation(caller: &str, context: &str) -> String {
    let hash = Sha256::new()
        .chain_update((caller.len() as u64).to_be_bytes())
        .chain_update(caller)
        .chain_update(context)
        .finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The tasks as one caller has them. All that callers ask for goes through here.
#[derive(Clone, Copy)]
pub(crate) struct Own<'t> {
    tasks: &'t Tasks,
    access: &'t Access,
}

impl Tasks {
    /// The tasks as a caller has them.
    pub(crate) const fn seen_by<'t>(&'t self, access: &'t Access) -> Own<'t> {
        Own { tasks: self, access }
    }
}

impl Own<'_> {
    fn sees(&self, id: &str, caller: &str) -> bool {
        self.access
            .sees(Some(caller).filter(|caller| !caller.is_empty()), id)
    }

    /// Refuses another caller's task as one that is not there. Whose a task is never changes, so that what follows need not ask again.
    async fn check(&self, id: &str) -> Result<(), Status> {
        if self.access.sees_all() {
            return Ok(());
        }
        match self.tasks.caller_of(id).await? {
            Some(caller) if self.sees(id, &caller) => Ok(()),
            Some(_) | None => Err(*table::unknown(id)),
        }
    }

    /// The task as it is now.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<pb::Task>, Status> {
        let found = self.tasks.find(id).await?;
        Ok(found
            .filter(|record| self.sees(id, &record.caller))
            .and_then(|record| record.task))
    }

    /// A page of tasks.
    pub(crate) async fn list(&self, request: &pb::ListTasksRequest) -> Result<pb::ListTasksResponse, Status> {
        self.tasks
            .list(request, Whose::seen_by(self.access.caller()))
            .await
    }

    /// The context of a task that takes a message now, and its size in bytes.
    pub(crate) async fn check_message(&self, id: &str, context: &str) -> Result<(String, usize), Status> {
        self.check(id).await?;
        self.tasks.check_message(id, context).await
    }

    /// Cancels a task; also whether it was not before.
    pub(crate) async fn cancel(
        &self,
        id: &str,
        event: impl FnOnce(&pb::Task) -> pb::StreamResponse,
    ) -> Result<(pb::Task, bool), Status> {
        self.check(id).await?;
        self.tasks.cancel(id, event).await
    }

    /// A task as it is now, and what happens to it from here on.
    pub(crate) async fn follow(&self, id: &str, until: Until) -> Result<Events, Status> {
        self.check(id).await?;
        self.tasks.follow(id, until).await
    }

    /// Where a task's updates are pushed to.
    pub(crate) async fn pushes(&self, id: &str) -> Result<Vec<pb::TaskPushNotificationConfig>, Status> {
        self.check(id).await?;
        self.tasks.pushes(id).await
    }

    /// Adds or replaces an address; it is durable when this returns.
    pub(crate) async fn put_push(
        &self,
        id: &str,
        config: pb::TaskPushNotificationConfig,
    ) -> Result<(), Status> {
        self.check(id).await?;
        self.tasks.put_push(id, config).await
    }

    /// Removes an address; it is durable when this returns.
    pub(crate) async fn remove_push(&self, id: &str, config: &str) -> Result<(), Status> {
        self.check(id).await?;
        self.tasks.remove_push(id, config).await
    }
}

#[cfg(test)]
mod tests {
    use muster_runtime::trust::{Grants, Kind, Role};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_admin_has_all_and_others_have_their_own() {
        let of = |subject, role| {
            let roles = [role].into_iter().collect();
            Whose::seen_by(&Caller::new(
                Kind::EndUser,
                Some("us"),
                subject,
                roles,
                Grants::default(),
            ))
        };
        let (ada, root) = (of("ada", Role::AgentWriter), of("root", Role::Admin));
        for (caller, is_adas) in [("user:us:ada", true), ("user:us:eve", false), ("", false)] {
            assert_eq!(ada.has(caller), is_adas, "{caller}");
            assert!(root.has(caller), "{caller}");
        }
        assert_eq!(ada.name(), name_of("user:us:ada"));
        assert_eq!(root.name(), name_of(""));
        assert_eq!(Whose::seen_by(&Caller::anybody()), Whose::All);
    }

    proptest! {
        #[test]
        fn no_two_callers_share_a_name_or_a_conversation(
            one in "[a-z:]{1,6}", other in "[a-z:]{1,6}", context in "[a-z:]{0,4}", another in "[a-z:]{0,4}",
        ) {
            prop_assert_eq!(one == other, name_of(&one) == name_of(&other));
            let same = (&one, &context) == (&other, &another);
            prop_assert_eq!(same, conversation(&one, &context) == conversation(&other, &another));
        }
    }
}
