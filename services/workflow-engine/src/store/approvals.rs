//! What the engine needs of a store for approvals. They are written by [`super::Store::append`], in the step that changes them.

use async_trait::async_trait;

use super::{Error, Page};
use crate::approval::{Approval, ApprovalId, Filter, Position};

/// An index of what people are asked. Forgotten with the runs.
#[async_trait]
pub trait Approvals {
    /// Reads an approval.
    async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, Error>;

    /// Lists approvals from after `after`: if only open ones are asked for, in the order in which they were opened, else the
    /// newest first.
    async fn approvals(
        &self,
        filter: &Filter,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Approval, Position>, Error>;
}
