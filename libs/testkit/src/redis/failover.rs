//! The loss of a primary, as a test can repeat it.

use super::{PATIENCE, RedisServer};
use crate::wait_for;

/// Kills whichever of two leads, and waits until the other leads in its place.
///
/// Replication is asynchronous, so that a primary that just dies takes with it what it has acknowledged in its last moment. Here it
/// takes no writes from some moment on, as if it answered slowly, and dies when its replica has everything from before: whatever
/// anybody has heard an answer to is still there, each time.
pub(super) async fn lose_the_leader(first: &mut RedisServer, second: &mut RedisServer) {
    let (leader, replica) = if first.leads().await {
        (first, second)
    } else {
        (second, first)
    };
    let answer = leader.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    assert_eq!(answer.trim(), "OK", "CLIENT PAUSE");
    has_everything(leader, replica).await;
    take_the_lead(leader, replica).await;
}

/// From now on the replica hears nothing of what its leader acknowledges; it has everything from before.
pub(super) async fn cut_off(leader: &RedisServer, replica: &RedisServer) {
    has_everything(leader, replica).await;
    let settings = [
        // With these it is not let in again.
        ["masteruser", "stranger"],
        ["masterauth", "wrong"],
        // However long that lasts, it may lead.
        ["cluster-replica-validity-factor", "0"],
    ];
    for [name, value] in settings {
        let answer = replica.ask(&["CONFIG", "SET", name, value]).await;
        assert_eq!(answer.trim(), "OK", "CONFIG SET {name}");
    }
    leader.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    wait_for("the replica to be cut off", PATIENCE, async || {
        let information = replica.ask(&["INFO", "replication"]).await;
        information
            .contains("master_link_status:down")
            .then_some(())
            .ok_or(information)
    })
    .await;
}

/// Kills the leader, and waits until its replica leads.
pub(super) async fn take_the_lead(leader: &mut RedisServer, replica: &RedisServer) {
    leader.kill().await;
    wait_for("the replica to lead", PATIENCE, async || replica.leads().await).await;
}

/// Waits until the replica has what its leader has by now.
async fn has_everything(leader: &RedisServer, replica: &RedisServer) {
    let wanted = leader.ask(&["INFO", "replication"]).await;
    wait_for("the replica to have everything", PATIENCE, async || {
        let had = replica.ask(&["INFO", "replication"]).await;
        match (
            number(&wanted, "master_repl_offset"),
            number(&had, "slave_repl_offset"),
        ) {
            (Some(wanted), Some(had)) if had >= wanted => Ok(()),
            _ => Err(format!("{wanted}{had}")),
        }
    })
    .await;
}

/// A number in what `INFO` says.
fn number(information: &str, name: &str) -> Option<u64> {
    let mut lines = information.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}
