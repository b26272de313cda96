//! A world of its own: networks of three regions that reach each other over a bridge, and that can be cut off.
//!
//! A test starts itself again where nobody else's networks are, so that nothing is left over, however it ends. The test itself
//! stands on the bridge, as callers from outside of all regions do. Needs root, `ip` and `iptables`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use muster_testkit::Program;
use tokio::process::Command;

/// Tells this executable that it is in its own world.
const INSIDE: &str = "REGIONS_WORLD";

/// The bridge, and the place for the names of networks.
const PREPARE: &str = "mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && \
    ip link add between type bridge && ip addr add 10.77.0.1/16 dev between && ip link set between up";

/// The network of a region.
const NETWORK: &str = "ip netns add $1 && ip link add $1 type veth peer name eth0 netns $1 && ip -n $1 link set lo up && \
    ip -n $1 addr add $2/16 dev eth0 && ip -n $1 link set eth0 up && ip link set $1 master between up";

/// Runs the scenario of the test with this name, in a world of its own.
pub async fn in_a_world_of_its_own(test: &str, scenario: impl AsyncFnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        shell(PREPARE, &[]).await;
        return scenario().await;
    }
    let ended = Command::new("unshare")
        .args(["--net", "--mount", "--fork", "--kill-child=KILL"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "yes")
        .kill_on_drop(true)
        .status()
        .await;
    let ended = ended.expect("unshare is installed; `tests/run` does it");
    assert!(ended.success(), "{test}: {ended}; needs root");
}

/// The network of a region.
pub struct Network {
    name: &'static str,
    address: Ipv4Addr,
}

impl Network {
    /// The network with this number, from 1 on.
    pub async fn make(name: &'static str, number: u8) -> Self {
        let address = Self::address_of(number);
        shell(NETWORK, &[name, &address.to_string()]).await;
        Self { name, address }
    }

    /// The address of everything in the network with this number.
    pub const fn address_of(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, number, 1)
    }

    /// The address of everything in it.
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A port of it.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// A program that is to run in it.
    pub fn program(&self, path: &Path) -> Program {
        Program::at("ip")
            .arg("netns")
            .arg("exec")
            .arg(self.name)
            .arg(path.display().to_string())
    }

    /// Runs a command in it to its end: how it ended, what it said, and what it complained about.
    pub async fn run(&self, environment: &[(String, String)], command: &[&str]) -> (bool, String, String) {
        let output = Command::new("ip")
            .args(["netns", "exec", self.name])
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// From now on nothing passes between it and the others, in either direction, and nobody is told.
    pub async fn cut_off(&self) {
        self.firewall("--append").await;
    }

    /// It reaches the others again.
    pub async fn join(&self) {
        self.firewall("--delete").await;
    }

    async fn firewall(&self, change: &str) {
        for (chain, side) in [("OUTPUT", "--out-interface"), ("INPUT", "--in-interface")] {
            let command = ["iptables", change, chain, side, "eth0", "--jump", "DROP"];
            let (done, _, said) = self.run(&[], &command).await;
            assert!(done, "{command:?}: {said}");
        }
    }
}

async fn shell(script: &str, arguments: &[&str]) {
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}
