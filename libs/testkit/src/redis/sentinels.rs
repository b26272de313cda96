//! A primary and a replica of Redis under real Sentinels.

use std::fmt::Write as _;

use super::failover::lose_the_leader;
use super::{PATIENCE, RedisServer, directory, installed};
use crate::process::Program;
use crate::wait_for;

/// How Sentinels call what they watch.
const PRIMARY: &str = "main";

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

    /// Kills the primary, and waits until the Sentinels have made its replica the primary. What it has acknowledged, the other has.
    ///
    /// # Panics
    /// When they do not.
    pub async fn lose_primary(&mut self) {
        lose_the_leader(&mut self.primary, &mut self.replica).await;
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
