//! Who may: certificates and tokens, and the logs of what was decided.

pub mod audit;
pub mod certs;
pub mod token;
