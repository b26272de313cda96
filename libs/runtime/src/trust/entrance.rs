//! What every request goes through before anything reads who sends it: the header in which proxies name clients is taken out, and
//! in mesh mode the peer is who the local proxy says, if that may call.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use muster_api::error::{Error, Reason};
use tonic::Status;

use super::audit::{TurnedAway, Why};
use super::{Peer, State as TrustState, Trust, mesh};
use crate::transcode::refused;

/// Decides about requests. Clones share it.
#[derive(Clone)]
pub(crate) struct Entrance {
    state: Arc<TrustState>,
    turned_away: Arc<TurnedAway>,
}

impl Entrance {
    pub(crate) fn new(trust: &Trust, turned_away: Arc<TurnedAway>) -> Self {
        Self {
            state: Arc::clone(&trust.state),
            turned_away,
        }
    }

    /// Lets a request in, or answers it.
    pub(crate) fn admit(&self, mut request: Request, grpc: bool) -> Result<Request, Box<Response>> {
        let header = mesh::take(request.headers_mut());
        if let TrustState::Mesh { .. } = &*self.state {
            match self.peer(&request, header.as_deref()) {
                Ok(peer) => {
                    request.extensions_mut().insert(peer);
                }
                Err(error) => {
                    tracing::warn!(
                        why = error.message,
                        path = request.uri().path(),
                        "a peer is refused"
                    );
                    let peer = request.extensions().get::<Peer>();
                    let address = peer.map(|peer| peer.address().ip());
                    let why = if error.reason == Reason::PeerRefused {
                        Why::NotAdmitted
                    } else {
                        Why::Unidentified
                    };
                    self.turned_away.note(address, why, &error.message);
                    return Err(Box::new(if grpc {
                        Status::from(error).into_http()
                    } else {
                        refused(error.into(), None)
                    }));
                }
            }
        }
        Ok(request)
    }

    fn peer(&self, request: &Request, header: Option<&str>) -> Result<Peer, Error> {
        let TrustState::Mesh {
            roster,
            proxies,
            demanded,
        } = &*self.state
        else {
            return Err(Error::new(Reason::Internal, "only a mesh has proxies"));
        };
        let unidentified = |what: String| Error::new(Reason::PeerUnidentified, what);
        let connected = request
            .extensions()
            .get::<Peer>()
            .ok_or_else(|| unidentified("nobody knows where this request comes from".to_owned()))?;
        let peer = mesh::identify(proxies, connected, header).map_err(|error| {
            unidentified(format!(
                "what the proxy says in {} names nobody: {error}",
                mesh::HEADER
            ))
        })?;
        match peer.id() {
            Some(id) => roster
                .admit(id)
                .map_err(|what| Error::new(Reason::PeerRefused, what))?,
            None if *demanded => {
                return Err(unidentified(
                    "no local proxy names the service that calls; in a mesh, calls come through the sidecar"
                        .to_owned(),
                ));
            }
            None => {}
        }
        Ok(peer)
    }
}
