//! `muster`: the operator's binary. See [`cli`] for the commands; each has a module of its own.
#![cfg_attr(not(feature = "fleet"), allow(dead_code))] // what only the fleet reaches

mod agents;
mod approval;
mod backup;
mod bench;
mod cli;
mod connect;
mod demo;
mod deploy;
mod dev;
mod event;
mod failure;
mod fleet;
mod inbox;
mod observe;
mod output;
mod read;
mod readiness;
mod schedule;
mod send;
mod sim;
mod task;
mod trust;
mod workflow;

fn main() -> std::process::ExitCode {
    cli::main()
}
