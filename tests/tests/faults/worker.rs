//! An agent of the SDK whose work lasts as long as a test wants: this executable, started again with [`ROLE`] set.
//!
//! | text | what it does |
//! |---|---|
//! | `echo WORDS` | completes with the words |
//! | `flood COUNT` | sends so many artifacts of 256 KiB, and completes with [`FLOOD`] |
//! | `hold PATH` | adds its port to the file `PATH.at`, and works until there is a file `PATH` or it is cancelled |

use std::io::Write as _;
use std::path::PathBuf;

use muster_agent_sdk::{Agent, Artifact, Card, Config, Failure, NoSettings, Reply, Request, Skill, Task};
use muster_runtime::{Listeners, Shutdown, config};
use muster_testkit::wait_for;
use muster_tests::PATIENCE;

/// The environment variable that makes this executable an agent, and names it.
pub const ROLE: &str = "FAULTS_AGENT";

/// The test that becomes the agent.
pub const TEST: &str = "worker::becomes_an_agent_where_it_is_told_to";

/// A skill that may be done twice, and one that may not.
pub const LOOK: &str = "look";
const CHANGE: &str = "change";

/// What it says at the end of a flood.
pub const FLOOD: &str = "that was the flood";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn becomes_an_agent_where_it_is_told_to() {
    let Ok(id) = std::env::var(ROLE) else { return };
    let config = config::load(Config::<NoSettings>::default(), None, std::env::vars(), &[]);
    let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let listeners = Listeners::bind(&config.server).unwrap();
    let port = listeners.data_address().port();
    let build = move |_: &NoSettings| Ok(Worker { id, port });
    muster_agent_sdk::run(config, listeners, Shutdown::new(), build)
        .await
        .unwrap();
}

struct Worker {
    id: String,
    port: u16,
}

impl Agent for Worker {
    fn card(&self) -> Card {
        Card::new(
            self.id.as_str(),
            "Worker",
            "Works as long as it is told to",
            "1.0.0",
        )
        .skill(
            Skill::new(LOOK, "Look", "Changes nothing")
                .tags(["test"])
                .idempotent(),
        )
        .skill(Skill::new(CHANGE, "Change", "Changes something").tags(["test"]))
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        match request.text().split_once(' ') {
            Some(("echo", words)) => Ok(Reply::completed(words)),
            Some(("flood", count)) => {
                for number in 0..count.parse::<u32>().unwrap_or_default() {
                    let name = format!("piece {number}");
                    task.artifact(Artifact::text(name, "x".repeat(256 << 10))).await;
                }
                Ok(Reply::completed(FLOOD))
            }
            Some(("hold", path)) => {
                task.working("holding").await;
                let gate = Gate::at(path.into());
                gate.sign(self.port)
                    .map_err(|error| Failure::failed(error.to_string()))?;
                tokio::select! {
                    () = gate.opened() => Ok(Reply::completed("released")),
                    () = task.cancelled() => Ok(Reply::completed("stopped")),
                }
            }
            _ => Err(Failure::rejected(
                "expected `echo WORDS`, `flood COUNT` or `hold PATH`",
            )),
        }
    }
}

/// What a worker waits for: a file that a test creates.
#[derive(Debug, Clone)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// A gate at this path; closed while there is nothing.
    pub const fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The text of a message that waits here.
    pub fn hold(&self) -> String {
        format!("hold {}", self.path.display())
    }

    /// Waits until so many have come here; the ports of all, in order of arrival.
    pub async fn reached(&self, count: usize) -> Vec<u16> {
        wait_for("workers to come to the gate", PATIENCE, async || {
            let ports = self.ports();
            if ports.len() >= count {
                Ok(ports)
            } else {
                Err(format!("{ports:?}"))
            }
        })
        .await
    }

    /// The ports of those who have come here.
    pub fn ports(&self) -> Vec<u16> {
        let text = std::fs::read_to_string(self.list()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Lets all go who come here.
    pub fn open(&self) {
        std::fs::write(&self.path, "").expect("a temporary directory takes a file");
    }

    fn list(&self) -> PathBuf {
        self.path.with_extension("at")
    }

    fn sign(&self, port: u16) -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut list = options.create(true).append(true).open(self.list())?;
        list.write_all(format!("{port}\n").as_bytes())
    }

    async fn opened(&self) {
        let path = self.path.clone();
        let exists = move || {
            let path = path.clone();
            async move { path.exists() }
        };
        // Longer than any test waits: its process ends before.
        wait_for("the gate to open", PATIENCE * 10, exists).await;
    }
}
