//! `muster`: the operator's binary. See [`cli`] for the commands; each has a module of its own.

mod agents;
mod approval;
mod audit;
mod backup;
mod bench;
mod certs;
mod cli;
mod connect;
mod demo;
mod dev;
mod event;
mod examples;
mod failure;
mod fleet;
mod inbox;
mod listing;
mod log_level;
#[cfg(test)]
mod metrics_table;
mod optimize;
mod output;
mod read;
mod schedule;
mod send;
mod sim;
mod status;
mod task;
mod token;
mod workflow;

fn main() -> std::process::ExitCode {
    cli::main()
}
