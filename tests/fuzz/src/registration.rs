//! What agents and callers send to a registry: any message that can be decoded is taken or refused with the name of a field, without a
//! panic.
//!
//! The first byte of the input says which request it is.

use muster_api::registry::{DiscoverRequest, HeartbeatRequest, RegisterRequest};
use muster_registry::discovery::Query;
use muster_registry::instance::wire;
use prost::Message as _;
use uuid::Uuid;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let refused = match which % 3 {
        0 => {
            let instance = RegisterRequest::decode(rest)
                .ok()
                .and_then(|request| request.instance);
            let Some(instance) = instance else { return };
            wire::registration(instance, Uuid::nil()).err()
        }
        1 => {
            let Ok(request) = HeartbeatRequest::decode(rest) else {
                return;
            };
            wire::report(&request).err()
        }
        _ => {
            let Ok(request) = DiscoverRequest::decode(rest) else {
                return;
            };
            Query::try_from(request).err()
        }
    };
    if let Some(error) = refused {
        assert!(!error.field.is_empty(), "{error}");
    }
}
