//! Real Redis servers, each on a port and in a directory of its own: standalone, as a Cluster, and watched by Sentinels.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Process, Program};
use crate::wait_for;

/// How long a server may take to answer, and a Cluster or Sentinels to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// Slots of a Cluster.
const SLOTS: usize = 16_384;

/// Servers of a Cluster that have slots.
const PRIMARIES: usize = 3;

/// How Sentinels call what they watch.
const PRIMARY: &str = "main";

/// A Redis server. It writes every command to disk before it answers, unless told otherwise. Dropping it kills it.
#[derive(Debug)]
pub struct RedisServer {
    program: Program,
    process: Option<Process>,
    _directory: TempDir,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Panics
    /// When the program is missing, or does not answer.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with settings, as in `redis.conf`; they may be repeated there.
    ///
    /// # Panics
    /// When the program is missing, or does not answer.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::to_be_started(settings);
        server.restart().await;
        server
    }

    /// One that does not run yet: [`restart`](Self::restart) starts it.
    ///
    /// # Panics
    /// When the program is missing.
    #[must_use]
    pub fn to_be_started(settings: &[(&str, &str)]) -> Self {
        let directory = directory();
        let mut program = Program::at(installed("redis-server"));
        let path = directory.path().display().to_string();
        let (port, bus) = (
            program.ports().data.to_string(),
            program.ports().health.to_string(),
        );
        let all = [
            ("port", port.as_str()),
            ("bind", "127.0.0.1"),
            ("cluster-port", bus.as_str()),
            ("dir", path.as_str()),
            ("save", ""),
            ("appendonly", "yes"),
            ("appendfsync", "always"),
        ];
        for (name, value) in all.iter().chain(settings) {
            program = program.arg(format!("--{name}")).arg(*value);
        }
        Self {
            program,
            process: None,
            _directory: directory,
        }
    }

    /// Starts one that speaks TLS only, with a certificate for 127.0.0.1 of an authority of its own; and where the
    /// authority's certificate is.
    ///
    /// # Panics
    /// When a program is missing, or does not answer.
    pub async fn start_tls() -> (Self, PathBuf) {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let (authority, certificate, key) = (at("ca.pem"), at("server.pem"), at("server.key"));
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test \
               -addext keyUsage=keyCertSign -keyout {ca_key} -out {authority} && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=redis -keyout {key} -out {request} && \
             printf 'subjectAltName=IP:127.0.0.1' > {extensions} && \
             openssl x509 -req -in {request} -CA {authority} -CAkey {ca_key} -CAcreateserial -days 2 \
               -extfile {extensions} -out {certificate}",
            ca_key = at("ca.key"),
            request = at("request.pem"),
            extensions = at("extensions"),
        );
        let made = Command::new("sh").arg("-c").arg(script).output().await;
        let made = made.unwrap_or_else(|error| panic!("sh: {error}"));
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(
            made.status.success(),
            "openssl (Debian: apt-get install openssl): {said}"
        );
        let program = Program::at(installed("redis-server"));
        let port = program.ports().data.to_string();
        let settings = [
            ("port", "0"),
            ("tls-port", port.as_str()),
            ("bind", "127.0.0.1"),
            ("dir", &directory.path().display().to_string()),
            ("save", ""),
            ("appendonly", "yes"),
            ("tls-cert-file", &certificate),
            ("tls-key-file", &key),
            ("tls-ca-cert-file", &authority),
            ("tls-auth-clients", "no"),
        ];
        let program = settings.iter().fold(program, |program, (name, value)| {
            program.arg(format!("--{name}")).arg(*value)
        });
        let process = program.start();
        let server = Self {
            program,
            process: Some(process),
            _directory: directory,
        };
        (server, authority.into())
    }

    async fn of(program: Program, directory: TempDir) -> Self {
        let mut server = Self {
            program,
            process: None,
            _directory: directory,
        };
        server.restart().await;
        server
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.program.ports().data
    }

    /// Where it is, as clients want it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Kills it as a power cut would.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it again, on the same port and directory, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self) {
        self.kill().await;
        let mut process = self.program.start();
        let port = self.port();
        wait_for("Redis to answer", PATIENCE, async || {
            if process.has_ended() {
                panic!("redis-server ended: {}{}", process.stdout(), process.stderr());
            }
            match ask(port, &["PING"]).await {
                answer if answer.trim() == "PONG" => Ok(()),
                answer => Err(answer),
            }
        })
        .await;
        self.process = Some(process);
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server runs");
        process.signal(signal).await;
    }

    /// What it answers to a command, in the words of `redis-cli`.
    ///
    /// # Panics
    /// When the program is missing.
    pub async fn ask(&self, command: &[&str]) -> String {
        ask(self.port(), command).await
    }
}

/// Three servers that are a Cluster, with or without a replica of each.
#[derive(Debug)]
pub struct RedisCluster {
    /// Its nodes.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts one without replicas and waits until it takes writes.
    ///
    /// # Panics
    /// When a program is missing, or the nodes do not agree.
    pub async fn start() -> Self {
        Self::start_nodes(PRIMARIES, "5000").await
    }

    /// Starts one with a replica of each primary, which takes over two seconds after the primary was heard last.
    ///
    /// # Panics
    /// When a program is missing, or the nodes do not agree.
    pub async fn start_with_replicas() -> Self {
        let cluster = Self::start_nodes(2 * PRIMARIES, "2000").await;
        let (primaries, replicas) = cluster.nodes.split_at(PRIMARIES);
        for (primary, replica) in primaries.iter().zip(replicas) {
            let id = primary.ask(&["CLUSTER", "MYID"]).await;
            let answer = replica.ask(&["CLUSTER", "REPLICATE", id.trim()]).await;
            assert_eq!(answer.trim(), "OK", "CLUSTER REPLICATE");
        }
        for replica in replicas {
            wait_for("the replica to follow", PATIENCE, async || {
                let information = replica.ask(&["INFO", "replication"]).await;
                information.contains("master_link_status:up")
            })
            .await;
        }
        cluster
    }

    async fn start_nodes(count: usize, timeout: &str) -> Self {
        const NODES: usize = PRIMARIES;
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(
                RedisServer::start_with(&[("cluster-enabled", "yes"), ("cluster-node-timeout", timeout)])
                    .await,
            );
        }
        for (index, node) in nodes.iter().take(NODES).enumerate() {
            let (first, end) = (SLOTS * index / NODES, SLOTS * (index + 1) / NODES);
            let epoch = (index + 1).to_string();
            let (first, last) = (first.to_string(), (end - 1).to_string());
            let commands: [&[&str]; 2] = [
                &["CLUSTER", "SET-CONFIG-EPOCH", &epoch],
                &["CLUSTER", "ADDSLOTSRANGE", &first, &last],
            ];
            for command in commands {
                let answer = node.ask(command).await;
                assert_eq!(answer.trim(), "OK", "{command:?}");
            }
        }
        if let Some((first, others)) = nodes.split_first() {
            for other in others {
                let (port, bus) = (other.port().to_string(), other.program.ports().health.to_string());
                let answer = first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
                assert_eq!(answer.trim(), "OK", "CLUSTER MEET");
            }
        }
        let cluster = Self { nodes };
        cluster.agreed().await;
        cluster
    }

    /// Waits until all nodes know each other and serve.
    pub async fn agreed(&self) {
        for node in &self.nodes {
            wait_for("the Cluster to agree", PATIENCE, async || {
                let information = node.ask(&["CLUSTER", "INFO"]).await;
                let known = format!("cluster_known_nodes:{}", self.nodes.len());
                if information.contains("cluster_state:ok") && information.contains(&known) {
                    Ok(())
                } else {
                    Err(information)
                }
            })
            .await;
        }
    }

    /// Where it is, as clients want it.
    #[must_use]
    pub fn url(&self) -> String {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", nodes.join(","))
    }
}

/// A primary, a replica, and three Sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The one that is primary at first.
    pub primary: RedisServer,
    /// The one that is its replica at first.
    pub replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts them and waits until the Sentinels know each other and the replica.
    ///
    /// # Panics
    /// When a program is missing, or they do not come to know each other.
    pub async fn start() -> Self {
        const SENTINELS: usize = 3;
        let primary = RedisServer::start().await;
        let of = format!("127.0.0.1 {}", primary.port());
        let replica = RedisServer::start_with(&[("replicaof", &of), ("repl-diskless-sync-delay", "0")]).await;
        wait_for("the replica to follow", PATIENCE, async || {
            let information = replica.ask(&["INFO", "replication"]).await;
            information.contains("master_link_status:up")
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            sentinels.push(sentinel(primary.port()).await);
        }
        for sentinel in &sentinels {
            wait_for("the Sentinels to know each other", PATIENCE, async || {
                let known = sentinel.ask(&["SENTINEL", "MASTER", PRIMARY]).await;
                let words: Vec<&str> = known.split_whitespace().collect();
                let is = |name: &str, value: &str| words.windows(2).any(|pair| pair == [name, value]);
                is("num-other-sentinels", "2") && is("num-slaves", "1")
            })
            .await;
        }
        Self {
            primary,
            replica,
            sentinels,
        }
    }

    /// Tells the Sentinels to make the replica the primary.
    ///
    /// # Panics
    /// When they will not.
    pub async fn fail_over(&self) {
        if let Some(sentinel) = self.sentinels.first() {
            // One that has just failed over wants a pause.
            wait_for("the Sentinels to fail over", PATIENCE, async || {
                let answer = sentinel.ask(&["SENTINEL", "FAILOVER", PRIMARY]).await;
                if answer.trim() == "OK" {
                    Ok(())
                } else {
                    Err(answer)
                }
            })
            .await;
        }
    }

    /// Where they are, as clients want it.
    #[must_use]
    pub fn url(&self) -> String {
        let sentinels = self.sentinels.iter();
        let sentinels: Vec<String> = sentinels.map(|one| format!("127.0.0.1:{}", one.port())).collect();
        format!("redis+sentinel://{}/{PRIMARY}", sentinels.join(","))
    }
}

async fn sentinel(primary: u16) -> RedisServer {
    let directory = directory();
    let file = directory.path().join("sentinel.conf");
    let program = Program::at(installed("redis-sentinel"));
    let mut text = format!("port {}\nbind 127.0.0.1\n", program.ports().data);
    let _ = writeln!(text, "dir {}", directory.path().display());
    let _ = writeln!(text, "sentinel monitor {PRIMARY} 127.0.0.1 {primary} 2");
    let _ = writeln!(text, "sentinel down-after-milliseconds {PRIMARY} 1000");
    let _ = writeln!(text, "sentinel failover-timeout {PRIMARY} 5000");
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    RedisServer::of(program.arg(file.display().to_string()), directory).await
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary directory: {error}"))
}

async fn ask(port: u16, command: &[&str]) -> String {
    let output = Command::new(installed("redis-cli"))
        .arg("-p")
        .arg(port.to_string())
        .args(command)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("redis-cli: {error}"));
    let status: ExitStatus = output.status;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if status.success() {
        text
    } else {
        format!("{text}{}", String::from_utf8_lossy(&output.stderr))
    }
}

/// Where a program of Redis is.
fn installed(program: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{program} is not installed, and the tests of the Redis store need it: \
             apt-get install redis-server redis-sentinel redis-tools"
        )
    })
}
