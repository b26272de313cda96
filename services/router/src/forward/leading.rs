//! A message with one answer whose caller may leave.
//!
//! Once a message is with an agent, a caller who hangs up does not take it back: agents go on with what they have begun. So the
//! call goes on as well, in the worker, and whoever sends the same message again gets its answer. A message that waits for its
//! place has reached nobody, and ends with its caller.
//!
//! A deadline does end the call, for it is the agent's, too. Which instance had the message then is remembered, and so it is
//! where the connection broke: the same message goes there first when it is sent again, where an agent that knows its messages
//! goes on in place of beginning anew ([`crate::deduplication`]). Rejected: to refuse it until the window forgets it (an agent that
//! hangs would hold its callers' messages for minutes).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{Forwarder, Reply, Scope, Times};
use crate::call::Call;
use crate::deduplication;
use crate::durable::Durable;
use crate::error::Error;
use crate::fleet::Key;
use crate::operation::{Operation as _, SendMessage};
use crate::peek::Sent;
use muster_rpc::deadline::Deadline;

type Outcome = Result<Reply<Bytes>, Error>;
type Lead = deduplication::Lead<Reply<Bytes>>;

/// Where a message has been.
#[derive(Debug, Default)]
pub(super) struct Way {
    before: Option<Arc<Key>>,
    unsettled: Mutex<Option<Arc<Key>>>,
}

impl Way {
    /// The way of a message as far as it is known to who leads.
    pub(super) fn of(lead: &Lead) -> Self {
        Self {
            before: lead.before().cloned(),
            unsettled: Mutex::default(),
        }
    }

    /// The instance that had it in an earlier call.
    pub(super) const fn before(&self) -> Option<&Arc<Key>> {
        self.before.as_ref()
    }

    /// Who has it now, as far as nobody knows what became of it.
    pub(super) fn has_gone(&self, unsettled: Option<Arc<Key>>) {
        *self.unsettled.lock() = unsettled;
    }
}

impl Forwarder {
    /// Sends a message for all who send the same one.
    pub(super) async fn lead(
        self: &Arc<Self>,
        call: Call,
        scope: Scope,
        request: Sent,
        deadline: Deadline,
        lead: Lead,
    ) -> Outcome {
        let way = Way::of(&lead);
        let times = Times::of_message(&call, deadline);
        let method = SendMessage::METHOD;
        let admitted = self.admit(method, &call, &scope, request.context(), way.before(), times);
        let first = match admitted.await {
            Ok(first) => first,
            Err(error) => {
                let outcome = Err(error);
                self.conclude(lead, &way, &outcome);
                return outcome;
            }
        };
        let forwarder = Arc::clone(self);
        let work = async move {
            let sending = forwarder.send_to(&call, &scope, &request, times, first, &way);
            let outcome = sending.await;
            forwarder.conclude(lead, &way, &outcome);
            outcome
        };
        Leading {
            work: Some(Box::pin(work)),
            durable: &self.parts.durable,
        }
        .await
    }

    /// Tells those who wait what came of the message, and those who come later where it is.
    pub(super) fn conclude(&self, lead: Lead, way: &Way, outcome: &Outcome) {
        let now = self.now();
        if outcome.is_err()
            && let Some(instance) = way.unsettled.lock().take()
        {
            return lead.lose(instance, now);
        }
        // The leader's own haste says nothing to those who wait longer: they take over.
        if !matches!(
            outcome,
            Err(Error::DeadlineExceeded { .. } | Error::Expired { .. })
        ) {
            let bytes = outcome.as_ref().map_or(0, |reply| reply.message.len());
            let kept = outcome.clone().map(|reply| Arc::new(reply.map(own)));
            lead.report(kept, bytes, now);
        }
    }
}

/// A copy that holds no more than itself. What came over the network lies in a larger buffer, and what is kept in the
/// window would keep that, too, while only the answer is counted.
fn own(answer: Bytes) -> Bytes {
    Bytes::copy_from_slice(&answer)
}

/// Work that goes on in the worker when nobody waits for it any more.
struct Leading<'f> {
    work: Option<BoxFuture<'static, Outcome>>,
    durable: &'f Durable,
}

impl Future for Leading<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let outcome = std::task::ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.durable.take_over(async move {
                let _nobody_waits = work.await;
            });
        }
    }
}
