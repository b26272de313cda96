//! The processes that are measured, and what the system says of them.
//!
//! What they cost is read from `/proc`, which counts processor time in hundredths of a second: over a measurement of seconds
//! that is exact enough, and it costs the processes nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use muster_api::router::GetStatusRequest;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::bench::part::{Addresses, Part};
use crate::connect::{self, Endpoints};
use crate::failure::Failure;

/// How long the processes may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a process that is not ready is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Linux counts processor time in this unit for programs, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// How many runs the processes must be able to hold.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Clients at once.
    pub clients: u32,
    /// Runs that are parked.
    pub parked: u32,
}

/// Where the engine keeps its store.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// In its data directory.
    Embedded,
    /// In Redis.
    Redis {
        /// Where that is.
        url: String,
        /// What all keys start with.
        prefix: String,
    },
}

/// A service as a process of its own. It ends with this value.
pub struct Process {
    part: Part,
    child: Child,
    addresses: Addresses,
}

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Time on a processor.
    pub processor: Duration,
    /// Bytes it had written to files.
    pub written: u64,
}

impl Used {
    /// What it has used since then.
    pub fn since(self, before: Self) -> Self {
        Self {
            processor: self.processor.saturating_sub(before.processor),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// Memory that a process holds now, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// All of it.
    pub resident: u64,
    /// Without pages of files, such as the program itself.
    pub anonymous: u64,
}

impl Process {
    async fn start(part: Part, settings: &[(&str, String)]) -> Result<Self, Failure> {
        let failed = |what: &str| Failure::failed(format!("the {} does not start: {what}", part.name()));
        let program = std::env::current_exe().map_err(|error| failed(&error.to_string()))?;
        let mut command = Command::new(program);
        command.args(["bench", "part", part.name(), "--set", "telemetry.log_level=WARN"]);
        for (key, value) in settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await;
        read.map_err(|_| failed("it says nothing"))?
            .map_err(|error| failed(&error.to_string()))?;
        let addresses = serde_json::from_str(&line).map_err(|_| failed("it has ended"))?;
        Ok(Self {
            part,
            child,
            addresses,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.part.name()
    }

    /// The system's number of it.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    fn url(&self) -> String {
        format!("http://{}", self.addresses.data)
    }

    /// Where it says how it is.
    pub fn health(&self) -> &str {
        &self.addresses.health
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let url = self.url();
        let waiting = async {
            while !connect::is_serving(&url).await {
                if let Ok(Some(status)) = self.child.try_wait() {
                    return Err(Failure::failed(format!(
                        "the {} has ended: {status}",
                        self.part.name()
                    )));
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Ok(())
        };
        within(waiting, self.part.name()).await?
    }

    /// What it has used so far.
    pub fn used(&self) -> Used {
        used(&self.id().to_string())
    }

    /// What it holds.
    pub fn memory(&self) -> Memory {
        let status = proc(&self.id().to_string(), "status");
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u64>().ok())
                .map_or(0, |kibibytes| kibibytes * 1024)
        };
        Memory {
            resident: bytes("VmRSS"),
            anonymous: bytes("RssAnon"),
        }
    }

    /// The sum of a counter over all its labels.
    pub async fn counter(&self, name: &str) -> Result<u64, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("metrics of the {}: {error}", self.name()));
        let mut stream = TcpStream::connect(&self.addresses.metrics)
            .await
            .map_err(failed)?;
        // HTTP/1.0: the answer ends with the connection.
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        stream.write_all(request).await.map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(failed)?;
        Ok(sum(&text, name))
    }
}

/// The sum of a counter over all its labels, in the text format of Prometheus.
fn sum(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<u64>().ok()
    });
    values.sum()
}

/// What a process has used; `self` is this one.
pub fn used(id: &str) -> Used {
    // The name in the second field may have blanks; it ends with the last parenthesis.
    let stat = proc(id, "stat");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let io = proc(id, "io");
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Used {
        processor: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        written: written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
    }
}

fn proc(id: &str, file: &str) -> String {
    std::fs::read_to_string(Path::new("/proc").join(id).join(file)).unwrap_or_default()
}

/// Registry, router, engine and one agent.
pub struct Processes {
    /// The engine.
    pub engine: Process,
    /// The router.
    pub router: Process,
    /// The agent.
    pub agent: Process,
    registry: Process,
}

impl Processes {
    /// Starts all and waits until the router knows the agent. `directory` is for what they keep.
    pub async fn start(
        directory: &Path,
        store: &Keeping,
        more: &[(String, String)],
        room: Room,
    ) -> Result<Self, Failure> {
        let keep = |name: &str| directory.join(name).display().to_string();
        let tasks = 1000.max(2 * room.clients).to_string();
        let mut registry = Process::start(Part::Registry, &[]).await?;
        let mut router = Process::start(
            Part::Router,
            &[
                ("router.registry_url", registry.url()),
                ("router.data_directory", keep("router")),
            ],
        )
        .await?;
        let mut agent = Process::start(
            Part::Agent,
            &[
                ("agent.registry_url", registry.url()),
                ("agent.max_concurrent_tasks", tasks),
                ("agent.data_directory", keep("agents")),
            ],
        )
        .await?;
        let mut settings = vec![
            ("engine.router_url", router.url()),
            ("engine.data_directory", keep("engine")),
            (
                "engine.max_concurrent_workflows",
                100.max(room.clients).to_string(),
            ),
            ("engine.max_queued_runs", (room.parked + 10_000).to_string()),
            ("engine.workflow_timeout_seconds", (24 * 3600).to_string()),
            ("engine.outbound.allow", r#"["127.0.0.0/8"]"#.to_owned()),
        ];
        if let Keeping::Redis { url, prefix } = store {
            settings.push(("engine.redis_cluster_endpoint", url.clone()));
            settings.push(("engine.redis.key_prefix", prefix.clone()));
        }
        settings.extend(more.iter().map(|(key, value)| (key.as_str(), value.clone())));
        let mut engine = Process::start(Part::Engine, &settings).await?;
        for process in [&mut registry, &mut router, &mut agent, &mut engine] {
            process.ready().await?;
        }
        let processes = Self {
            engine,
            router,
            agent,
            registry,
        };
        let knows = async {
            let mut client = processes.endpoints().router()?;
            loop {
                let status = client.get_status(GetStatusRequest {}).await;
                if status.is_ok_and(|status| !status.into_inner().instances.is_empty()) {
                    return Ok(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        within(knows, "the agent's registration").await??;
        Ok(processes)
    }

    /// Where they answer.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            registry: self.registry.url(),
            router: self.router.url(),
            engine: self.engine.url(),
        }
    }

    /// Ends all, without waiting for what they are at.
    pub async fn stop(self) {
        for process in [self.engine, self.router, self.agent, self.registry] {
            let mut child = process.child;
            // One that has ended already is what is wanted.
            let _ended = child.kill().await;
        }
    }
}

async fn within<T>(work: impl Future<Output = T>, what: &str) -> Result<T, Failure> {
    let seconds = PATIENCE.as_secs();
    tokio::time::timeout(PATIENCE, work)
        .await
        .map_err(|_| Failure::unavailable(format!("{what} did not come up within {seconds} s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let text = "# HELP calls_total x\ncalls_total{outcome=\"ok\"} 7\ncalls_total{outcome=\"bad\"} 2\ncalls_total_more 9\nother 1\n";
        assert_eq!(sum(text, "calls_total"), 9);
        assert_eq!(sum("plain 4\n", "plain"), 4);
    }

    #[test]
    fn this_process_has_used_something() {
        let status = used("self");
        assert!(status.processor < Duration::from_secs(24 * 3600));
    }
}
