//! A network of the stack's own, in which a part can be cut off from all others.
//!
//! Whoever may make one (root, with `unshare`, `ip` and `iptables`) begins again in a network namespace that has nothing but a
//! loopback, before anything starts; so no rule is ever made where others are, and none is left over. Each part runs under a group of
//! its own, by which its connections are marked from their first packet on; while it is cut off, nothing that has its mark passes, in
//! either direction, and nobody is told. Unlike a part that is frozen, it goes on working, and its time goes on.
//!
//! Rejected: a namespace for each part, in which addresses, certificates and whatever listens on a loopback would have to be others
//! than without it; proxies between the parts, whose ends acknowledge what never arrives.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::Failure;

/// Says that this process has begun again, and which network it has left.
const LEFT: &str = "MUSTER_READINESS_LEFT_NETWORK";

/// What begins again does first: all that is in a new network is a loopback that is down.
const BEGIN: &str = "ip link set lo up && exec \"$0\" \"$@\"";

/// What cutting off takes, tried in a network that goes again.
const TRY: &str = "ip link set lo up && \
    iptables --table mangle --append OUTPUT --match owner --gid-owner 1 --jump CONNMARK --set-mark 1 && \
    iptables --append INPUT --match connmark --mark 1 --jump DROP";

/// Groups that nobody has; each part gets the next one.
static NEXT_GROUP: AtomicU32 = AtomicU32::new(70_001);

/// Begins again in a network of its own; comes back where that is done already, or cannot be.
pub fn enter() {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let Some(here) = current().filter(|_| !is_own() && can_be_made()) else {
        return;
    };
    // Where it comes back, everything goes on in the network that is there.
    let _error = Command::new("unshare")
        .args(["--net", "sh", "-c", BEGIN])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(LEFT, here)
        .exec();
}

/// Whether this process is in a network of its own.
pub fn is_own() -> bool {
    let left = std::env::var_os(LEFT).map(PathBuf::from);
    left.is_some() && left != current()
}

/// A group for a part, where it can be cut off by it.
pub fn group() -> Option<u32> {
    is_own().then(|| NEXT_GROUP.fetch_add(1, Ordering::Relaxed))
}

/// Has every connection of this group's processes marked from now on.
pub async fn mark(group: u32) -> Result<(), Failure> {
    let group = group.to_string();
    let rule = [
        "OUTPUT",
        "--match",
        "owner",
        "--gid-owner",
        &group,
        "--jump",
        "CONNMARK",
        "--set-mark",
        &group,
    ];
    let of_mangle = |action: &'static str| [&["--table", "mangle", action], &rule[..]].concat();
    if iptables(&of_mangle("--check")).await.is_err() {
        iptables(&of_mangle("--append")).await?;
    }
    Ok(())
}

/// From now on nothing passes between this group's processes and others.
pub async fn cut(group: u32) -> Result<(), Failure> {
    change("--append", group).await
}

/// It passes again.
pub async fn join(group: u32) -> Result<(), Failure> {
    change("--delete", group).await
}

async fn change(action: &str, group: u32) -> Result<(), Failure> {
    let group = group.to_string();
    for chain in ["INPUT", "OUTPUT"] {
        iptables(&[
            action, chain, "--match", "connmark", "--mark", &group, "--jump", "DROP",
        ])
        .await?;
    }
    Ok(())
}

async fn iptables(arguments: &[&str]) -> Result<(), Failure> {
    let failed = |what: &str| Failure::failed(format!("iptables {}: {what}", arguments.join(" ")));
    let ended = tokio::process::Command::new("iptables")
        .arg("--wait")
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| failed(&error.to_string()))?;
    if ended.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&ended.stderr).trim()))
}

/// The network that this process is in.
fn current() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/ns/net").ok()
}

fn can_be_made() -> bool {
    let tried = Command::new("unshare")
        .args(["--net", "sh", "-c", TRY])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}
