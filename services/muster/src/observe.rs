//! How the services are, what is slow, and what they log.

pub mod log_level;
#[cfg(test)]
mod metrics_table;
pub mod optimize;
pub mod status;
