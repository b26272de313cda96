//! Connections that are shaking hands.
//!
//! They hold no place among the open ones until both sides know each other, and their own number is bounded: where one more comes,
//! the oldest is broken off. Who means it is done within milliseconds; who opens connections and says nothing breaks off his own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::Shutdown;
use crate::trust::audit::{TurnedAway, Why};
use crate::trust::metrics::Outcome;
use crate::trust::{Handshakes, Peer};

/// All handshakes of one port.
pub(super) struct Arrivals {
    handshakes: Handshakes,
    turned_away: Option<Arc<TurnedAway>>,
    under_way: Mutex<UnderWay>,
    /// One for each that shakes hands or waits for a place afterwards, and one more for the next.
    pub(super) room: Arc<Semaphore>,
}

#[derive(Default)]
struct UnderWay {
    next: u64,
    /// By age.
    all: BTreeMap<u64, CancellationToken>,
}

/// One of them, until it is dropped.
struct Turn<'a> {
    number: u64,
    broken_off: CancellationToken,
    arrivals: &'a Arrivals,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.arrivals.under_way.lock().all.remove(&self.number);
    }
}

impl Arrivals {
    pub(super) fn new(handshakes: Handshakes, turned_away: Option<Arc<TurnedAway>>) -> Self {
        let room = handshakes.most.saturating_add(1).min(Semaphore::MAX_PERMITS);
        Self {
            handshakes,
            turned_away,
            under_way: Mutex::default(),
            room: Arc::new(Semaphore::new(room)),
        }
    }

    fn begin(&self) -> Turn<'_> {
        let mut under_way = self.under_way.lock();
        let number = under_way.next;
        under_way.next += 1;
        let broken_off = CancellationToken::new();
        under_way.all.insert(number, broken_off.clone());
        if under_way.all.len() > self.handshakes.most
            && let Some((_, oldest)) = under_way.all.pop_first()
        {
            oldest.cancel();
        }
        Turn {
            number,
            broken_off,
            arrivals: self,
        }
    }

    /// Shakes hands; `None` where nothing comes of it.
    pub(super) async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        shutdown: &Shutdown,
    ) -> Option<(TlsStream<TcpStream>, Peer)> {
        let turn = self.begin();
        let turned_away = |why, detail: &str| {
            if let Some(turned_away) = &self.turned_away {
                turned_away.note(Some(address.ip()), why, detail);
            }
        };
        let acceptor = TlsAcceptor::from(self.handshakes.settings());
        let handshake = tokio::time::timeout(self.handshakes.timeout, acceptor.accept(stream));
        let outcome = tokio::select! {
            outcome = handshake => outcome,
            () = turn.broken_off.cancelled() => {
                self.handshakes.meters.handshake(Outcome::CrowdedOut);
                turned_away(Why::CrowdedOut, "");
                return None;
            }
            () = shutdown.requested() => return None,
        };
        match outcome {
            Ok(Ok(stream)) => {
                self.handshakes.meters.handshake(Outcome::Accepted);
                let peer = Handshakes::peer(stream.get_ref().1.peer_certificates(), address);
                Some((stream, peer))
            }
            Ok(Err(error)) => {
                self.handshakes.meters.handshake(Outcome::Refused);
                tell(&error, address);
                if let Some(why) = Why::of_handshake(&error) {
                    turned_away(why, &error.to_string());
                }
                None
            }
            Err(_) => {
                self.handshakes.meters.handshake(Outcome::Slow);
                turned_away(Why::SlowHandshake, "");
                tracing::debug!(%address, "a client did not finish the TLS handshake in time");
                None
            }
        }
    }
}

/// Who shows a certificate and is refused matters to operators; who hangs up, or speaks something else, hardly.
fn tell(error: &std::io::Error, address: SocketAddr) {
    let is_about_identity = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| {
            matches!(
                inner,
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
            )
        });
    if is_about_identity {
        tracing::warn!(%address, why = %error, "a client is refused");
    } else {
        tracing::debug!(%address, %error, "a TLS handshake failed");
    }
}
