//! Follows the registry's stream and keeps the view up to date, for as long as the router lives.

use std::sync::Arc;
use std::time::Duration;

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::watch_agents_response::Change;
use muster_api::registry::{self, RemovalReason, WatchAgentsRequest, WatchAgentsResponse};
use muster_rpc::backoff::Backoff;
use muster_runtime::clock::SharedClock;
use parking_lot::RwLock;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Instance, Key, View};

/// Waits between attempts to reach the registry.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5));

/// Largest change that is taken: a snapshot holds every card of the fleet.
const MAX_CHANGE_BYTES: usize = 64 << 20;

/// How often the view is swept.
const SWEEP: Duration = Duration::from_secs(1);

/// Follows the registry until it is dropped. `changed` is called after each change and each sweep, with the instances
/// that were lost by it: those that are gone without having said goodbye.
pub async fn follow(
    view: Arc<RwLock<View>>,
    registry: Channel,
    clock: SharedClock,
    changed: impl Fn(&[Key]),
) {
    let mut client = RegistryServiceClient::new(registry).max_decoding_message_size(MAX_CHANGE_BYTES);
    let mut failures = 0;
    loop {
        let before = failures;
        let ended = match client.watch_agents(WatchAgentsRequest {}).await {
            Ok(stream) => read(&view, &mut stream.into_inner(), &clock, &changed, &mut failures).await,
            Err(status) => status,
        };
        if before > 0 && failures == 0 {
            tracing::info!("the registry had come back");
        }
        view.write().disconnected();
        changed(&[]);
        if failures == 0 {
            tracing::warn!(error = %ended.message(), "the registry is away; routing goes on from the last view");
        }
        tokio::time::sleep(BACKOFF.delay(failures, rand::random())).await;
        let lost = view.write().sweep(clock.monotonic());
        changed(&lost);
        failures = failures.saturating_add(1);
    }
}

/// Reads the stream to its end and returns why it ended.
async fn read(
    view: &RwLock<View>,
    stream: &mut Streaming<WatchAgentsResponse>,
    clock: &SharedClock,
    changed: &impl Fn(&[Key]),
    failures: &mut u32,
) -> Status {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = sweep.tick() => {
                let lost = view.write().sweep(clock.monotonic());
                changed(&lost);
                continue;
            }
        };
        match message {
            Ok(Some(WatchAgentsResponse {
                change: Some(change), ..
            })) => {
                *failures = 0;
                let lost = apply(&mut view.write(), change, clock.monotonic());
                changed(lost.as_slice());
            }
            // A kind of change that a newer registry sends and this router does not know.
            Ok(Some(WatchAgentsResponse { change: None, .. })) => {}
            Ok(None) => return Status::unavailable("the stream ended"),
            Err(status) => return status,
        }
    }
}

/// Takes one change of the registry over into the view. Returns the instance that is lost by it.
pub fn apply(view: &mut View, change: Change, now: Duration) -> Option<Key> {
    match change {
        Change::Snapshot(snapshot) => {
            let usable = snapshot.instances.into_iter().filter_map(usable).collect();
            view.snapshot(usable, now);
        }
        Change::Upserted(instance) => {
            if let Some(instance) = usable(instance) {
                view.upsert(instance, now);
            }
        }
        Change::Removed(removal) => {
            let said_goodbye = removal.reason() == RemovalReason::Deregistered;
            let key = Key {
                agent: removal.agent_id,
                instance: removal.instance_id,
            };
            view.remove(&removal.namespace, &key, now);
            return (!said_goodbye && view.instance(&key).is_none()).then_some(key);
        }
    }
    None
}

fn usable(instance: registry::Instance) -> Option<Instance> {
    let (agent, id) = (instance.agent_id.clone(), instance.instance_id.clone());
    match Instance::try_from(instance) {
        Ok(instance) => Some(instance),
        Err(error) => {
            tracing::warn!(agent, instance = id, %error, "the registry lists an instance that cannot be called");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_api::registry::watch_agents_response::Removal;

    use super::*;

    fn removal(reason: RemovalReason) -> Change {
        Change::Removed(Removal {
            namespace: "default".to_owned(),
            agent_id: "weather".to_owned(),
            instance_id: "w1".to_owned(),
            reason: reason.into(),
        })
    }

    #[test]
    fn an_instance_is_lost_when_its_lease_ended_and_not_when_it_said_goodbye() {
        for (reason, is_lost) in [
            (RemovalReason::Expired, true),
            (RemovalReason::Deregistered, false),
        ] {
            let mut view = View::new("default", Duration::ZERO);
            view.snapshot(vec![Instance::example("weather", "w1", &["s"])], Duration::ZERO);
            assert_eq!(
                apply(&mut view, removal(reason), Duration::ZERO).is_some(),
                is_lost
            );
            assert_eq!(view.instances().count(), 0);
        }
    }
}
