//! A Redis Cluster of real servers.

use super::failover::{cut_off, lose_the_leader, take_the_lead};
use super::{PATIENCE, RedisServer};
use crate::wait_for;

/// Slots of a Cluster.
const SLOTS: usize = 16_384;

/// Servers of a Cluster that have slots.
const PRIMARIES: usize = 3;

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

    /// Kills the primary that holds the slot of a key, and waits until its replica has taken over. What the primary has acknowledged,
    /// its replica has.
    ///
    /// # Panics
    /// When there is no replica, or none takes over.
    pub async fn lose_primary_of(&mut self, key: &str) {
        let index = self.primary_of(key).await;
        let (primaries, replicas) = self.nodes.split_at_mut(PRIMARIES);
        lose_the_leader(&mut primaries[index], &mut replicas[index]).await;
    }

    /// Cuts the replica of the primary that holds the slot of a key off: what that primary acknowledges from now on is lost with it.
    ///
    /// # Panics
    /// When there is no replica, or it does not have what was acknowledged before.
    pub async fn cut_replica_of(&self, key: &str) {
        let index = self.primary_of(key).await;
        let (primaries, replicas) = self.nodes.split_at(PRIMARIES);
        cut_off(&primaries[index], &replicas[index]).await;
    }

    /// Kills the primary that holds the slot of a key, and waits until its replica, which was cut off, leads without what is lost.
    ///
    /// # Panics
    /// When none takes over.
    pub async fn lose_writes_of(&mut self, key: &str) {
        let index = self.primary_of(key).await;
        let (primaries, replicas) = self.nodes.split_at_mut(PRIMARIES);
        take_the_lead(&mut primaries[index], &replicas[index]).await;
    }

    /// Which of the primaries of the beginning holds the slot of a key.
    ///
    /// # Panics
    /// When no node answers.
    pub async fn primary_of(&self, key: &str) -> usize {
        let mut answer = String::new();
        for node in &self.nodes {
            answer = node.ask(&["CLUSTER", "KEYSLOT", key]).await;
            if answer.trim().parse::<usize>().is_ok() {
                break;
            }
        }
        let slot: usize = answer.trim().parse().expect("the number of a slot");
        (0..PRIMARIES)
            .find(|index| slot < SLOTS * (index + 1) / PRIMARIES)
            .expect("a slot is below their number")
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
