//! One operator at a time: a Lease in the namespace that whoever changes it holds.
//!
//! Clocks of machines differ, so nobody compares another's time with its own: a lease counts as given up when nobody has renewed it
//! while one watched it for as long as it holds. A command that was killed therefore keeps the next one waiting for [`HOLDS`].
//! Who has lost it, stops: another one works.

use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::cluster::{Cluster, Error, Resource};
use crate::failure::{Exit, Failure};
use crate::output::Output;

const NAME: &str = "muster-deploy";
/// How long it holds without being renewed.
pub const HOLDS: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(500);
/// Attempts that lose to another that begins in the same moment.
const ATTEMPTS: usize = 8;

fn leases() -> Resource {
    Resource::namespaced::<k8s_openapi::api::coordination::v1::Lease>()
}

/// The right to change what is deployed.
pub struct Lease {
    cluster: Cluster,
    namespace: String,
    holder: String,
}

impl Lease {
    /// Takes it, or says who has it.
    pub async fn take(cluster: &Cluster, namespace: &str, output: &Output) -> Result<Self, Failure> {
        let lease = Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            holder: holder(),
        };
        for _ in 0..ATTEMPTS {
            let Some(found) = lease.found().await? else {
                match cluster.create(&leases(), &lease.held(None)).await {
                    Ok(_) => return Ok(lease),
                    Err(error) if error.code() == Some(409) => continue,
                    Err(error) => return Err(error.into()),
                }
            };
            let other = holder_of(&found);
            if !other.is_empty() && other != lease.holder {
                lease.wait_until_given_up(&found, output).await?;
            }
            match cluster.replace(&leases(), &lease.held(Some(&found))).await {
                Ok(_) => return Ok(lease),
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused("somebody else, who has just begun"))
    }

    async fn found(&self) -> Result<Option<Value>, Error> {
        self.cluster.get(&leases(), Some(&self.namespace), NAME).await
    }

    async fn wait_until_given_up(&self, found: &Value, output: &Output) -> Result<(), Failure> {
        let clock = SystemClock::default();
        output.aside(&format!(
            "{} holds the lease; looking for {} s whether it still works",
            holder_of(found),
            HOLDS.as_secs()
        ));
        while clock.monotonic() < HOLDS {
            tokio::time::sleep(LOOK).await;
            match self.found().await? {
                None => return Ok(()),
                Some(now) if holder_of(&now).is_empty() => return Ok(()),
                Some(now) if now["spec"] != found["spec"] => return Err(refused(holder_of(&now))),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn held(&self, before: Option<&Value>) -> Value {
        self.written(before, &self.holder)
    }

    fn written(&self, before: Option<&Value>, holder: &str) -> Value {
        let version = before.and_then(|before| before.pointer("/metadata/resourceVersion").cloned());
        let now: Timestamp = SystemClock::default().now();
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": HOLDS.as_secs(),
                "renewTime": format!("{now:.6}"),
            },
        });
        if let Some(version) = version {
            lease["metadata"]["resourceVersion"] = version;
        }
        lease
    }

    /// Renews it until it is lost, and then says so; never ends otherwise.
    pub async fn lost(&self) -> Failure {
        let clock = SystemClock::default();
        let mut renewed = clock.monotonic();
        loop {
            tokio::time::sleep(RENEW).await;
            let outcome = match self.found().await {
                Ok(Some(found)) if holder_of(&found) == self.holder => {
                    self.cluster.replace(&leases(), &self.held(Some(&found))).await
                }
                Ok(Some(found)) => return refused(holder_of(&found)),
                Ok(None) => return refused("nobody: it was deleted"),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(_) => renewed = clock.monotonic(),
                Err(_) if clock.monotonic().saturating_sub(renewed) < HOLDS => {}
                Err(error) => {
                    let failure = Failure::from(error);
                    return Failure {
                        message: format!("the lease could not be renewed: {}", failure.message),
                        ..failure
                    };
                }
            }
        }
    }

    /// Gives it back. Where that fails, the next one waits until it has run out.
    pub async fn release(self) {
        if let Ok(Some(found)) = self.found().await
            && holder_of(&found) == self.holder
        {
            let given_back = self.written(Some(&found), "");
            let _runs_out_otherwise = self.cluster.replace(&leases(), &given_back).await;
        }
    }

    /// Deletes it, with everything else.
    pub async fn remove(self) -> Result<(), Error> {
        let _was_there = self
            .cluster
            .delete(&leases(), Some(&self.namespace), NAME)
            .await?;
        Ok(())
    }
}

fn holder_of(lease: &Value) -> &str {
    lease
        .pointer("/spec/holderIdentity")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Who we are: the machine, the process, and what no other has.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown".to_owned());
    format!("{}-{}-{}", host.trim(), std::process::id(), uuid::Uuid::now_v7())
}

fn refused(holder: &str) -> Failure {
    let mut failure = Failure::failed(format!("another `muster deploy` is at work here: {holder}"))
        .with_remedy("wait until it has ended, and look at `muster deploy status`");
    failure.exit = Exit::Refused;
    failure
}
