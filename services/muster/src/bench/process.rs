//! The processes that are measured, and what the system says of them.
//!
//! What they cost is read from `/proc`, which counts processor time in hundredths of a second: over a measurement of seconds
//! that is exact enough, and it costs the processes nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::part::{Addresses, Part};
use crate::connect;
use crate::failure::Failure;

/// How long the processes may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a process that is not ready is asked again.
pub const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Linux counts processor time in this unit for programs, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is killed.
    Killed,
    /// It ends with its standard input, after it has ended what it started. What it started is what is measured.
    WithInput,
}

/// A program as a process of its own. It ends with this value.
pub struct Process {
    name: &'static str,
    end: End,
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

    /// What it has used together with another one.
    pub fn and(self, other: Self) -> Self {
        Self {
            processor: self.processor.saturating_add(other.processor),
            written: self.written.saturating_add(other.written),
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

impl Memory {
    /// What it holds together with another one.
    fn and(self, other: Self) -> Self {
        Self {
            resident: self.resident.saturating_add(other.resident),
            anonymous: self.anonymous.saturating_add(other.anonymous),
        }
    }
}

impl Process {
    /// Starts a service with these settings.
    pub async fn service(part: Part, settings: &[(&str, String)]) -> Result<Self, Failure> {
        Self::service_called(part.name(), part, settings).await
    }

    /// The same under another name.
    pub async fn service_called(
        name: &'static str,
        part: Part,
        settings: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let mut arguments = ["part", part.name(), "--set", "telemetry.log_level=WARN"]
            .map(str::to_owned)
            .to_vec();
        for (key, value) in settings {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        Self::start(name, &arguments, End::Killed).await
    }

    /// Starts `muster bench` with these arguments, and waits until it says where it listens.
    pub async fn start(name: &'static str, arguments: &[String], end: End) -> Result<Self, Failure> {
        let failed = |what: &str| Failure::failed(format!("the {name} does not start: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(&error.to_string()))?;
        let mut child = Command::new(program)
            .arg("bench")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(end == End::Killed)
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await;
        read.map_err(|_| failed("it says nothing"))?
            .map_err(|error| failed(&error.to_string()))?;
        let addresses = serde_json::from_str(&line).map_err(|_| failed("it has ended"))?;
        Ok(Self {
            name,
            end,
            child,
            addresses,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The system's number of it.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.data)
    }

    /// Where it says how it is.
    pub fn health(&self) -> &str {
        &self.addresses.health
    }

    /// Waits until it says of itself that it can do its work.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let url = self.url();
        let name = self.name;
        let waiting = async {
            while !connect::is_serving(&url).await {
                self.is_running()?;
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Ok(())
        };
        within(waiting, name).await?
    }

    /// Fails where it has ended.
    pub fn is_running(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Failure::failed(format!("the {} has ended: {status}", self.name))),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// What it has used so far.
    pub fn used(&self) -> Used {
        match self.end {
            End::Killed => used(&self.id().to_string()),
            End::WithInput => used_below(self.id()),
        }
    }

    /// What it holds.
    pub fn memory(&self) -> Memory {
        match self.end {
            End::Killed => memory(&self.id().to_string()),
            End::WithInput => {
                let held = started_by(self.id()).into_iter();
                held.map(|id| memory(&id.to_string()))
                    .fold(Memory::default(), Memory::and)
            }
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

    /// Ends it, without waiting for what it is at.
    pub async fn stop(mut self) {
        // One that has ended already is what is wanted.
        match self.end {
            End::Killed => {
                let _ended = self.child.kill().await;
            }
            End::WithInput => {
                drop(self.child.stdin.take());
                let _ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
            }
        }
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
    let ticks: u64 = fields(id)
        .iter()
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

/// What a process holds.
fn memory(id: &str) -> Memory {
    let status = proc(id, "status");
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

/// What the processes have used that this one has started, and those that they have.
fn used_below(id: u32) -> Used {
    started_by(id)
        .iter()
        .map(|id| used(&id.to_string()))
        .fold(Used::default(), Used::and)
}

/// The processes that this one has started, and those that they have.
fn started_by(id: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, fields(&id.to_string()).get(1)?.parse().ok()?)))
        .collect();
    below(id, &parents)
}

/// Who descends from `ancestor`, of pairs of a process and its parent.
fn below(ancestor: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, known)| *known == parent);
        let new: Vec<_> = children
            .map(|(child, _)| *child)
            .filter(|child| !found.contains(child))
            .collect();
        found.extend(new);
        next += 1;
    }
    found.remove(0);
    found
}

/// The fields of a process's `stat` from the third on: the name in the second may have blanks, and ends with the last
/// parenthesis.
fn fields(id: &str) -> Vec<String> {
    let stat = proc(id, "stat");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

fn proc(id: &str, file: &str) -> String {
    std::fs::read_to_string(Path::new("/proc").join(id).join(file)).unwrap_or_default()
}

/// What the figures depend on.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    json!({
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "processor": model,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").split(' ').next().unwrap_or_default().parse::<f64>().unwrap_or(0.0),
    })
}

/// Waits for something to come up, but not for ever.
pub async fn within<T>(work: impl Future<Output = T>, what: &str) -> Result<T, Failure> {
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

    #[test]
    fn all_descendants_are_found_and_nobody_else() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (6, 5), (7, 7)];
        assert_eq!(below(2, &parents), [3, 4]);
        assert_eq!(below(1, &parents), [2, 5, 3, 6, 4]);
        assert_eq!(below(7, &parents), [0_u32; 0]);
    }
}
