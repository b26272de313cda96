//! What the router knows and does, for operators.

use muster_api::router::{GetStatusResponse, InstanceStatistics};

use crate::forward::Parts;

/// Reads the view, the queue of messages and what was measured. Operations on tasks queue apart; metrics show both.
#[must_use]
pub fn read(parts: &Parts, queue_capacity: usize) -> GetStatusResponse {
    let now = parts.clock.monotonic();
    let view = parts.view.read();
    let instances = view
        .instances()
        .map(|instance| {
            let link = parts.links.to(instance, now);
            let measured = link.measured();
            InstanceStatistics {
                agent_id: instance.id.agent.clone(),
                instance_id: instance.id.instance.clone(),
                endpoint: instance.endpoint.to_string(),
                in_flight: u64::from(link.in_flight()),
                reported_load: link.load(instance),
                succeeded_total: measured.succeeded_total(),
                failed_total: measured.failed_total(),
                latency_seconds: measured.latency().unwrap_or(0.0),
                breaker: measured.breaker(now).name().to_owned(),
            }
        })
        .collect();
    GetStatusResponse {
        queue_depth: parts.flow.waiting() as u64,
        queue_capacity: queue_capacity as u64,
        in_flight: (parts.flow.in_flight() + parts.operations.in_flight()) as u64,
        succeeded_total: parts.meters.succeeded_total(),
        failed_total: parts.meters.failed_total(),
        view_stale: view.is_stale(),
        view_age_seconds: view.age(now).unwrap_or_default().as_secs_f64(),
        instances,
    }
}
