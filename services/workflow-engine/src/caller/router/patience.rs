//! Sends a call again, with the same message id, where nobody has answered it:
//!
//! - It certainly reached no agent: the router says so with one of our reasons (no instance, full queue, agent not known yet, going
//!   down), there was no connection, or the connection said goodbye before the call was on it, as that of a router does which is
//!   stopped in order. Then it is sent again for at most [`Engine::agent_wait_seconds`](crate::config::Engine), so that a fleet
//!   that starts again is given the time to register.
//! - The connection broke while the call was with the router. An agent may have got the message, and may get it a second time, as
//!   after a crash of the engine: it is told by the message id that it is the same. What was under way had found its router, so
//!   patience is counted anew from the break; [`MOST_BREAKS`] bound how often.
//!
//! A stream is repeated only before it has begun. Everything else goes to the document's own `try`, which knows what may be
//! repeated. Rejected: to leave calls that broke off to the document as well. Every run that calls would need a `try` for the one
//! fault that a rolling update of routers makes each time, and what it repeats is sent under another message id, which an agent
//! cannot tell from new work.

use std::time::Duration;

use muster_rpc::backoff::Backoff;
use muster_rpc::deadline::Deadline;
use tonic::Status;

use super::Router;
use crate::caller::Progress;
use crate::caller::judgement::{Repeat, obstacle, repeat};

/// Waits between repetitions, where the router names none.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(2));

/// The shortest wait, whatever chance says: a refusal must not be answered with a burst.
const LEAST_WAIT: Duration = Duration::from_millis(20);

/// The longest wait the router can ask for.
const MOST_WAIT: Duration = Duration::from_secs(5);

/// How often a call may break off under way before that is its end. A message that breaks whoever gets it must not go round for ever.
const MOST_BREAKS: u32 = 5;

impl Router {
    /// Sends, and sends again while nobody has answered and patience lasts.
    pub(super) async fn patiently<T, F>(
        &self,
        progress: &Progress,
        deadline: Deadline,
        mut send: impl FnMut() -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let patience = || Deadline::after(self.clock.monotonic(), self.patience).earlier(deadline);
        let mut until = patience();
        let (mut attempt, mut breaks) = (0_u32, 0);
        loop {
            let status = match send().await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let asked = match repeat(&status) {
                None => return Err(status),
                Some(Repeat::Unreached(asked)) => asked,
                Some(Repeat::BrokeOff) if breaks == MOST_BREAKS => return Err(status),
                Some(Repeat::BrokeOff) => {
                    breaks += 1;
                    (until, attempt) = (patience(), 0);
                    None
                }
            };
            let wait = asked.unwrap_or_else(|| BACKOFF.delay(attempt, rand::random()));
            let wait = wait.clamp(LEAST_WAIT, MOST_WAIT);
            match until.remaining(self.clock.monotonic()) {
                Some(left) if left > wait => {}
                _ => return Err(status),
            }
            progress.set_obstacle(obstacle(&status, wait));
            tokio::time::sleep(wait).await;
            attempt = attempt.saturating_add(1);
        }
    }
}
