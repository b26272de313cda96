//! The router from outside: a real one and a real registry on free ports, and agents that are strangers to both.

mod cards;
mod choice;
mod credentials;
mod delivery;
mod durable;
mod flow;
mod harness;
mod http_json;
mod inbox;
mod jsonrpc;
mod limits;
mod lists;
mod mutual_tls;
mod once;
mod operations;
mod outages;
mod rates;
mod refusals;
mod streams;
mod tasks;
mod trust;
mod tuning;
