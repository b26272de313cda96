//! What the router knows and does, for operators.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_api::router::{
    CallStatistics, GetStatusResponse, InboxStatistics, InboxTarget, InstanceStatistics, RegionStatistics,
};

use crate::fleet::View;
use crate::forward::Parts;
use crate::inbox::Inbox;

/// How long the inbox's store may take; an operator who asks what is the matter must not wait for what is the matter.
const PATIENCE: Duration = Duration::from_secs(1);

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
                region: instance.region.clone(),
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
        received_total: parts.meters.received_total(),
        sent_total: parts.meters.sent_total(),
        calls: calls(parts),
        region: parts.limits.regions.own.clone(),
        regions: regions(parts, &view),
        ..GetStatusResponse::default()
    }
}

fn regions(parts: &Parts, view: &View) -> Vec<RegionStatistics> {
    let mut rows: BTreeMap<String, RegionStatistics> = BTreeMap::new();
    let row = |region: &str| RegionStatistics {
        region: region.to_owned(),
        ..RegionStatistics::default()
    };
    for instance in view.instances() {
        if let Some(known) = rows.get_mut(&instance.region) {
            known.instances += 1;
            continue;
        }
        let mut first = row(&instance.region);
        first.instances = 1;
        rows.insert(instance.region.clone(), first);
    }
    for (region, sent) in parts.meters.regions() {
        let known = rows.entry(region.clone()).or_insert_with(|| row(&region));
        known.sent_total = sent;
    }
    rows.into_values().collect()
}

fn calls(parts: &Parts) -> Vec<CallStatistics> {
    let rows = parts.meters.calls().rows().into_iter();
    rows.map(|(agent_id, binding, counted)| CallStatistics {
        agent_id,
        binding: binding.label().to_owned(),
        received_total: counted.succeeded + counted.failed,
        succeeded_total: counted.succeeded,
        failed_total: counted.failed,
    })
    .collect()
}

/// Adds what the inbox holds and has done.
pub async fn add_inbox(status: &mut GetStatusResponse, inbox: &Inbox) {
    let totals = inbox.totals();
    status.broadcast_total = totals.broadcasts.load(Ordering::Relaxed);
    status.matched_total = totals.matched.load(Ordering::Relaxed);
    let Ok(Ok(counts)) = tokio::time::timeout(PATIENCE, inbox.counts()).await else {
        return;
    };
    let [pending, delivering, done, dead] = counts.by_status.map(|count| count as u64);
    let targets = counts.targets.into_iter();
    status.inbox = Some(InboxStatistics {
        pending,
        delivering,
        done,
        dead,
        capacity: inbox.limits().total as u64,
        oldest_pending_seconds: counts.oldest.as_secs_f64(),
        enqueued_total: totals.enqueued.load(Ordering::Relaxed),
        delivered_total: totals.delivered.load(Ordering::Relaxed),
        dead_total: totals.dead.load(Ordering::Relaxed),
        targets: targets
            .map(|(target, size)| InboxTarget {
                target,
                size: size as u64,
            })
            .collect(),
    });
}
