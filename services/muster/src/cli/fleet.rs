//! Commands about agents and their instances.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `muster agents …`
#[derive(Debug, Subcommand)]
pub enum AgentsCommand {
    /// List the agents with their skills and load.
    List {
        /// Only instances in this status; may be given several times. `offline` are those whose leases ended a short while
        /// ago, which nothing else lists.
        #[arg(long, value_enum)]
        status: Vec<InstanceState>,
        /// Only instances of this region.
        #[arg(long, default_value = "")]
        region: String,
    },
    /// Show one agent with its card and instances.
    Get {
        /// The agent's id.
        id: String,
    },
    /// Take an agent out of the choice for new work.
    Drain {
        /// The agent's id.
        id: String,
        /// One instance only.
        #[arg(long)]
        instance: Option<String>,
    },
    /// Look at agents' cards.
    #[command(subcommand)]
    Card(CardCommand),
    /// Have the registry keep an agent that knows nothing of Muster, by its card: it stays registered as long as it serves
    /// its card, until it is forgotten.
    Register(RegisterArguments),
    /// List the agents that the registry keeps by their cards, also those that are not there now.
    Kept {
        /// Whose agents.
        #[arg(long, default_value = "")]
        namespace: String,
    },
    /// Have the registry keep an agent no longer that was registered by its card.
    Forget {
        /// URL of the card, or of the agent, as it was registered.
        #[arg(long, value_name = "URL")]
        card: String,
        /// The agent's id; every agent that is kept by this card where none is given.
        #[arg(long, default_value = "")]
        id: String,
        /// Whose agent it is.
        #[arg(long, default_value = "")]
        namespace: String,
    },
}

/// `muster agents card …`
#[derive(Debug, Subcommand)]
pub enum CardCommand {
    /// Verify that a card is signed by a key that you trust.
    Verify {
        /// A file with a card, or the URL of one or of its agent.
        #[arg(value_name = "FILE|URL")]
        card: String,
        /// The keys that you trust: a JSON Web Key Set.
        #[arg(long, value_name = "FILE")]
        jwks: PathBuf,
    },
}

/// What `muster agents register` can be told.
#[derive(Debug, Args)]
pub struct RegisterArguments {
    /// URL of the agent's card, or of the agent: `/.well-known/agent-card.json` is looked for there.
    #[arg(long, value_name = "URL")]
    pub card: String,
    /// Id under which it is found; the card's name as a DNS label where none is given.
    #[arg(long)]
    pub id: Option<String>,
    /// How it is to be called; the fastest way that the card lists where none is given.
    #[arg(long, value_parser = ["GRPC", "JSONRPC", "HTTP+JSON"])]
    pub binding: Option<String>,
    /// Whose agent it is.
    #[arg(long, default_value = "")]
    pub namespace: String,
    /// Its region.
    #[arg(long, default_value = "")]
    pub region: String,
    /// Its zone within the region.
    #[arg(long, default_value = "")]
    pub zone: String,
    /// Its share of new work beside other instances of the agent, 0 to 1000.
    #[arg(long)]
    pub weight: Option<u32>,
    /// Keep it registered from here, until this command ends, where the registry may not or cannot reach the agent.
    #[arg(long)]
    pub keep: bool,
}

/// A status of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InstanceState {
    /// Takes work.
    Active,
    /// Takes work, but others are preferred.
    Busy,
    /// Finishes what it has.
    Draining,
    /// Out of service by an operator's wish.
    Maintenance,
    /// Not heard of any more.
    Offline,
}
