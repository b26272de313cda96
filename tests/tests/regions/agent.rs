//! The agent of a region: this executable, started again with [`ROLE`] set. It answers at once, and writes down each message that it
//! was sent, so that what was sent twice can be counted after its region is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use muster_agent_sdk::{Agent, Card, Config, Failure, NoSettings, Reply, Request, Skill, Task};
use muster_runtime::{Listeners, Shutdown, config};

/// The environment variable that makes this executable the agent, and says where it writes.
pub const ROLE: &str = "REGIONS_AGENT";

/// The test that becomes the agent.
pub const TEST: &str = "agent::becomes_the_agent_where_it_is_told_to";

/// Its id, and the name in its certificate.
pub const ID: &str = "worker";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn becomes_the_agent_where_it_is_told_to() {
    let Some(ledger) = std::env::var_os(ROLE) else {
        return;
    };
    let config = config::load(Config::<NoSettings>::default(), None, std::env::vars(), &[]);
    let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let listeners = Listeners::bind(&config.server).unwrap();
    let ledger = PathBuf::from(ledger);
    let build = move |_: &NoSettings| Ok(Worker { ledger });
    muster_agent_sdk::run(config, listeners, Shutdown::new(), build)
        .await
        .unwrap();
}

struct Worker {
    ledger: PathBuf,
}

impl Agent for Worker {
    fn card(&self) -> Card {
        Card::new(ID, "Worker", "Says what it was told", "1.0.0").skill(
            Skill::new("repeat", "Repeat", "Changes nothing")
                .tags(["test"])
                .idempotent(),
        )
    }

    async fn handle(&self, request: Request, _task: Task) -> Result<Reply, Failure> {
        let text = request.text().to_owned();
        let line = format!("{}\t{text}\n", request.message.message_id);
        let mut options = std::fs::OpenOptions::new();
        options
            .create(true)
            .append(true)
            .open(&self.ledger)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Reply::completed(text))
    }
}

/// For each text that the agents were sent, under which message ids, and how often.
pub fn sent(ledgers: &[PathBuf]) -> BTreeMap<String, (BTreeSet<String>, usize)> {
    let mut all: BTreeMap<String, (BTreeSet<String>, usize)> = BTreeMap::new();
    for line in ledgers.iter().flat_map(|path| lines(path)) {
        let Some((id, text)) = line.split_once('\t') else {
            continue; // its writer was killed
        };
        let entry = all.entry(text.to_owned()).or_default();
        entry.0.insert(id.to_owned());
        entry.1 += 1;
    }
    all
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
