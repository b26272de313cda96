//! JSON Web Keys, and what is signed with them: agent cards (`muster-a2a`) and the tokens of callers ([`token`]).
//!
//! Pure: no files but those of keys, no network, no clock. Who fetches key sets and caches them is
//! `muster_runtime::trust`.
//!
//! The cryptography is *ring*, which TLS brings along. Rejected: `jsonwebtoken`, which has no *ring* any more and would bring a
//! second library of cryptography (with `rsa`, whose timing is known to leak), picks the algorithm from the token and
//! has the caller compare it, and has no signatures apart from their payload, which cards need.

pub mod forged;
pub mod key;
pub mod token;

pub use key::{Private, Public};
