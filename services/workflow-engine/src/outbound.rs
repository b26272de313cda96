//! Connections to what a document names: [`muster_rpc::outbound`], with its failures as a call has them.

pub use muster_rpc::outbound::{Config, Error, Outbound, Policy, described, tls, without_credentials};

use muster_rpc::outbound::Failure as Unreached;

use crate::caller::{Failure, Kind};

/// Where the operator sets what may be connected to.
pub const SETTING: &str = "engine.outbound.allow";

impl From<Unreached> for Failure {
    fn from(failure: Unreached) -> Self {
        let (kind, status) = match &failure {
            Unreached::NoHost(_) => (Kind::Validation, 400),
            Unreached::Refused(_) => (Kind::Authorization, 403),
            Unreached::Unreachable { .. } => (Kind::Communication, 503),
            Unreached::Broken { .. } => (Kind::Communication, 502),
            Unreached::TimedOut(_) => (Kind::Timeout, 408),
        };
        Self::new(kind, status, failure.to_string())
    }
}
