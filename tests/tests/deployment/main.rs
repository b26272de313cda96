//! `muster deploy` as an operator uses it: the real command, the real overlays, a kubeconfig, and an API server that says what Kubernetes
//! promises.
//!
//! ```text
//! api_server.rs   the API server
//! operator.rs     somebody with a kubeconfig who gives commands
//! entering.rs     certificates, and programs that say who one is
//! bringing.rs     from nothing; again; another version, in order; what is no longer wanted
//! failing.rs      what does not get well, and what becomes of it; killed, interrupted, two at once, a server that is away
//! returning.rs    rollback and destroy
//! checking.rs     render, diff, preflight
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api_server;
mod bringing;
mod checking;
mod entering;
mod failing;
mod operator;
mod returning;
