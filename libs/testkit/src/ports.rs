//! Ports for processes that must be told their ports before they start.
//!
//! In-process servers bind port 0. A process cannot, because its parent would not learn the port, and because a
//! process that is killed must come back on the same one. Binding port 0, noting the number and closing again was
//! rejected: the kernel gives the number to the next comer. Here a port is taken from below the kernel's
//! ephemeral range, and a lock file keeps other tests, in this process and others, away from it until this process ends:
//! those who still call a server that is gone would reach another test's.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below Linux' ephemeral range (32768 up), above the ports that services use by default.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The locks of all ports that this process has taken.
static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// The three ports of one service, held until the process ends.
#[derive(Debug)]
pub struct Ports {
    /// gRPC and HTTP.
    pub data: u16,
    /// `/health`, `/ready`, `/startup`.
    pub health: u16,
    /// `/metrics`.
    pub metrics: u16,
}

impl Ports {
    /// Takes three free ports.
    ///
    /// # Panics
    /// When the range has no three free ports, or the directory of the lock files cannot be written.
    #[must_use]
    pub fn reserve() -> Self {
        let [data, health, metrics] = std::array::from_fn(|_| reserve_one());
        Self {
            data,
            health,
            metrics,
        }
    }
}

fn reserve_one() -> u16 {
    let directory = std::env::temp_dir().join("muster-testkit-ports");
    std::fs::create_dir_all(&directory)
        .unwrap_or_else(|error| panic!("create {}: {error}", directory.display()));
    let length = u32::from(RANGE.end - RANGE.start);
    let first = std::process::id().wrapping_mul(31) % length;
    for step in 0..length {
        let offset = u16::try_from((first + step) % length).expect("the range is shorter than 65536");
        let port = RANGE.start + offset;
        let path = directory.join(port.to_string());
        let lock = File::create(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        match lock.try_lock() {
            Ok(()) if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() => {
                LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
                return port;
            }
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => panic!("lock {}: {error}", path.display()),
        }
    }
    panic!("no free port in {RANGE:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_can_be_bound() {
        let reserved = [Ports::reserve(), Ports::reserve()];
        let mut all: Vec<u16> = reserved
            .iter()
            .flat_map(|ports| [ports.data, ports.health, ports.metrics])
            .collect();
        for &port in &all {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a reserved port is free");
        }
        all.dedup();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
