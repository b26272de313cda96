//! Heartbeats travel together: those that come while a call is under way make the next one.
//!
//! So there is no timer that delays a lone heartbeat, and no limit on how many come a second but the scripts' own speed. There is
//! one call at a time, so that no heartbeat overtakes a later one of the same lease. Rejected: a call for each, which costs Redis
//! ten times as much; several calls at a time, which gain nothing: Redis does one after the other.

use muster_store::redis::Call;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{Made, Redis, milliseconds, not_understood, scripts, wire};
use crate::instance::Report;
use crate::lease::Renewal;
use crate::store::Error;

/// Most heartbeats of one call.
const TOGETHER: usize = 256;
/// Most heartbeats that wait for a call.
pub(super) const WAITING: usize = 8_192;

/// A heartbeat that waits for its answer.
pub(super) struct Beat {
    lease: Uuid,
    report: Report,
    answer: oneshot::Sender<Result<Renewed, Error>>,
}

/// What was last changed when it was renewed, and the renewal unless the lease has ended.
type Renewed = (Made, Option<Renewal>);

impl Redis {
    /// Renews a lease with the next call.
    pub(super) async fn beat(&self, lease: Uuid, report: Report) -> Result<Renewed, Error> {
        let (answer, answered) = oneshot::channel();
        let beat = Beat {
            lease,
            report,
            answer,
        };
        self.shared.beats.try_send(beat).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Unavailable(format!(
                "{WAITING} heartbeats wait for Redis already; check that it answers quickly"
            )),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Carries heartbeats to Redis for as long as there is a store.
    pub(super) async fn carry(&self, mut waiting: mpsc::Receiver<Beat>) {
        let mut beats = Vec::with_capacity(TOGETHER);
        while waiting.recv_many(&mut beats, TOGETHER).await > 0 {
            match self.renew_all(&beats).await {
                Ok((made, renewals)) => {
                    for (beat, renewal) in beats.drain(..).zip(renewals) {
                        // Whoever has gone does not want to know.
                        let _gone = beat.answer.send(Ok((made, renewal)));
                    }
                }
                Err(error) => {
                    // All who came meanwhile have waited as long; the next try is for those who come from now on.
                    while let Ok(beat) = waiting.try_recv() {
                        beats.push(beat);
                    }
                    for beat in beats.drain(..) {
                        let _gone = beat.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn renew_all(&self, beats: &[Beat]) -> Result<(Made, Vec<Option<Renewal>>), Error> {
        let time_to_live = milliseconds(self.shared.options.terms.time_to_live);
        let begun: Call = self.writing(&scripts::RENEW).number(time_to_live);
        let call = beats.iter().fold(begun, |call, beat| {
            call.arg(beat.lease.to_string())
                .arg(wire::status(beat.report.status))
                .arg(wire::report(&beat.report))
        });
        let mut answer = self.ask(&call).await?;
        let made = answer.made()?;
        let renewals: Vec<Option<Renewal>> = answer.0.map(|word| renewal(&word)).collect::<Result<_, _>>()?;
        if renewals.len() != beats.len() {
            return Err(not_understood("an answer for other heartbeats"));
        }
        Ok((made, renewals))
    }
}

fn renewal(word: &str) -> Result<Option<Renewal>, Error> {
    if word.is_empty() {
        return Ok(None);
    }
    let parts = word.split_once(' ');
    let renewal = parts.and_then(|(epoch, drain)| {
        Some(Renewal {
            epoch: epoch.parse().ok()?,
            drain_requested: drain == "1",
        })
    });
    renewal.map(Some).ok_or_else(|| not_understood(word))
}

fn stopping() -> Error {
    Error::Unavailable("this registry is shutting down; another one takes heartbeats".to_owned())
}
