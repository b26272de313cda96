//! What the router knows and does, for operators. Callers with grants see the rows of those agents and targets that they may reach, as
//! at the registry; sums are of all.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::router::{
    AgentStatistics, CallStatistics, GetStatusResponse, GetTuningResponse, InboxStatistics, InboxTarget,
    InstanceStatistics, Line, RegionStatistics, TuningChange,
};
use muster_rpc::breaker;
use muster_runtime::trust::Access;

use crate::fleet::View;
use crate::forward::Parts;
use crate::inbox::Inbox;
use crate::tuning::ledger::{Change, Place};
use crate::tuning::service::Report;
use crate::tuning::{Step, WHOLE};

/// How long the inbox's store may take; an operator who asks what is the matter must not wait for what is the matter.
const PATIENCE: Duration = Duration::from_secs(1);

/// Agents and lines that are told at most.
const MOST_AGENTS: usize = 200;
const MOST_LINES: usize = 100;

/// What there is for whoever asks.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    access: &'a Access,
    is_within: bool,
}

impl<'a> Sight<'a> {
    /// What whoever makes a request sees of this router.
    #[must_use]
    pub fn of(parts: &Parts, access: &'a Access) -> Self {
        Self {
            access,
            is_within: access.reaches_namespace(parts.view.read().namespace()),
        }
    }

    /// Whether an agent or a target is for its eyes.
    fn sees(self, target: &str) -> bool {
        self.is_within && self.access.reaches_target(target)
    }
}

/// Reads the view, the queue of messages and what was measured. Operations on tasks queue apart; metrics show both.
#[must_use]
pub fn read(parts: &Parts, queue_capacity: usize, sight: Sight<'_>) -> GetStatusResponse {
    let now = parts.clock.monotonic();
    let view = parts.view.read();
    let instances = view
        .instances()
        .filter(|instance| sight.sees(&instance.id.agent))
        .map(|instance| {
            let link = parts.links.to(instance, now);
            let measured = link.measured();
            let (places, messages) = link.places();
            InstanceStatistics {
                agent_id: instance.id.agent.clone(),
                instance_id: instance.id.instance.clone(),
                endpoint: instance.endpoint.to_string(),
                in_flight: u64::from(link.in_flight()),
                reported_load: link.load(instance),
                succeeded_total: measured.total().succeeded,
                failed_total: measured.total().failed,
                latency_seconds: measured.latency().unwrap_or(0.0),
                breaker: measured.breaker(now).name().to_owned(),
                region: instance.region.clone(),
                share: f64::from(link.share()) / f64::from(WHOLE),
                places,
                messages,
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
        calls: calls(parts, sight),
        region: parts.limits.regions.own.clone(),
        regions: regions(parts, &view, sight),
        agents: agents(parts, &view, now, sight),
        lines: lines(parts, sight),
        ..GetStatusResponse::default()
    }
}

fn agents(parts: &Parts, view: &View, now: Duration, sight: Sight<'_>) -> Vec<AgentStatistics> {
    let mut rows: BTreeMap<&str, AgentStatistics> = BTreeMap::new();
    for instance in view.instances().filter(|instance| sight.sees(&instance.id.agent)) {
        let agent = instance.id.agent.as_str();
        let row = rows.entry(agent).or_insert_with(|| {
            let last = parts.meters.last(agent, now);
            AgentStatistics {
                agent_id: agent.to_owned(),
                last_calls: last.calls,
                last_failed: last.failed,
                p50_seconds: last.median.as_secs_f64(),
                p95_seconds: last.p95.as_secs_f64(),
                ..AgentStatistics::default()
            }
        });
        let link = parts.links.to(instance, now);
        let (places, messages) = link.places();
        row.instances += 1;
        row.messages += u64::from(messages);
        row.places += u64::from(places);
        row.breakers_open += u64::from(link.measured().breaker(now) == breaker::State::Open);
    }
    let mut rows: Vec<AgentStatistics> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.last_calls));
    rows.truncate(MOST_AGENTS);
    rows
}

fn lines(parts: &Parts, sight: Sight<'_>) -> Vec<Line> {
    let mut lines = parts.flow.by_target();
    lines.retain(|(target, _)| sight.sees(target));
    lines.sort_by(|(one, many), (other, more)| more.cmp(many).then_with(|| one.cmp(other)));
    let told = lines.into_iter().take(MOST_LINES);
    told.map(|(target, waiting)| Line {
        target: target.to_string(),
        waiting: waiting as u64,
    })
    .collect()
}

fn regions(parts: &Parts, view: &View, sight: Sight<'_>) -> Vec<RegionStatistics> {
    let mut rows: BTreeMap<String, RegionStatistics> = BTreeMap::new();
    let row = |region: &str| RegionStatistics {
        region: region.to_owned(),
        ..RegionStatistics::default()
    };
    for instance in view.instances().filter(|instance| sight.sees(&instance.id.agent)) {
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

fn calls(parts: &Parts, sight: Sight<'_>) -> Vec<CallStatistics> {
    let rows = parts.meters.calls().rows().into_iter();
    let rows = rows.filter(|(agent, ..)| sight.sees(agent));
    rows.map(|(agent_id, binding, counted)| CallStatistics {
        agent_id,
        binding: binding.label().to_owned(),
        received_total: counted.succeeded + counted.failed,
        succeeded_total: counted.succeeded,
        failed_total: counted.failed,
    })
    .collect()
}

/// What was tuned.
#[must_use]
pub fn tuning(report: Report, sight: Sight<'_>) -> GetTuningResponse {
    let changes = report.changes.into_iter();
    let changes = changes.filter(|change| sight.sees(change.place.agent()));
    let proposals = report.proposals.into_iter();
    let proposals = proposals.filter(|(_, place, _)| sight.sees(place.agent()));
    GetTuningResponse {
        mode: report.mode.name().to_owned(),
        changes: changes.map(change).collect(),
        proposals: proposals
            .map(|(at, place, step)| tuned(0, at, &place, step, false))
            .collect(),
    }
}

/// One change.
#[must_use]
pub fn change(change: Change) -> TuningChange {
    tuned(
        change.number,
        change.at,
        &change.place,
        change.step,
        change.is_reverted,
    )
}

fn tuned(number: u64, at: Timestamp, place: &Place, step: Step, reverted: bool) -> TuningChange {
    let value = |value: u32| match place {
        Place::Share(..) => f64::from(value) / f64::from(WHOLE),
        Place::Places(_) => f64::from(value),
    };
    TuningChange {
        number,
        at: Some(muster_api::time::to_proto(at)),
        kind: place.kind().to_owned(),
        place: place.name(),
        from: value(step.from),
        to: value(step.to),
        evidence: step.evidence,
        reverted,
    }
}

/// Adds what the inbox holds and has done.
pub async fn add_inbox(status: &mut GetStatusResponse, inbox: &Inbox, sight: Sight<'_>) {
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
            .filter(|(target, _)| sight.sees(target))
            .map(|(target, size)| InboxTarget {
                target,
                size: size as u64,
            })
            .collect(),
    });
}
