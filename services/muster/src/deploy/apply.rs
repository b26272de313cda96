//! `muster deploy apply`: objects into a cluster, and back where they do not get well.
//!
//! What every object would become is asked for first, by dry runs: a conflict of ownership or a refused field is known before
//! anything is changed, and all of them together. Then each wave is applied and awaited. What was applied before and is no longer
//! wanted goes last, when nothing uses it any more.
//!
//! When a workload does not get well, or the command is interrupted, everything goes back to the newest revision: the same way, by
//! the same code, to the manifests that were well. The store is no version of ours and is never taken back; its changes are the
//! operator's. Where there is no revision before, what was applied stays, to be looked at.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use muster_runtime::Shutdown;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::cluster::{Cluster, Error, Manner};
use super::lease::Lease;
use super::manifest::{Id, Object, Wave};
use super::plan::{self, Action, Change};
use super::revision::{self, Revision};
use super::waves::Roller;
use super::{ApplyArguments, namespace_of, preflight};
use crate::failure::Failure;
use crate::output::Output;

/// Requests under way at once.
pub const AT_ONCE: usize = 8;

/// Runs `muster deploy apply`.
pub async fn run(arguments: &ApplyArguments, output: &Output) -> Result<(), Failure> {
    let objects = arguments.wanted.objects().await?;
    let namespace = namespace_of(&objects)?;
    let cluster = arguments.target.connect()?;
    let checks = preflight::check(&cluster, &objects).await?;
    preflight::refuse(&checks, &arguments.ignore)?;
    // The lease is in the namespace, which therefore comes before everything.
    let mut made = Vec::new();
    for object in objects
        .iter()
        .filter(|object| Wave::of(object) == Wave::Namespace)
    {
        if cluster.live(object).await?.is_none() {
            let _created = cluster.apply(object, Manner::default()).await?;
            made.push(object.id());
        }
    }
    let lease = Lease::take(&cluster, &namespace, output).await?;
    let roller = Roller {
        cluster: &cluster,
        namespace: &namespace,
        patience: arguments.patience.duration(),
        force: arguments.force_conflicts,
        output,
    };
    let outcome = apply(&roller, &lease, &made, &objects, &arguments.wanted.overlay).await;
    lease.release().await;
    outcome
}

/// Everything of it, while the lease is held; `made` is there since just now.
async fn apply(
    roller: &Roller<'_>,
    lease: &Lease,
    made: &[Id],
    objects: &[Object],
    note: &str,
) -> Result<(), Failure> {
    let Roller {
        cluster,
        namespace,
        output,
        ..
    } = *roller;
    let known = revision::all(cluster, namespace).await?;
    let mut changes = survey(cluster, objects, roller.force).await?;
    for change in changes
        .iter_mut()
        .filter(|change| made.contains(&change.object.id()))
    {
        change.action = Action::Create;
    }
    let pruned = pruned(cluster, known.last(), objects).await?;
    let stop = Shutdown::on_signals();
    let outcome = tokio::select! {
        outcome = roller.roll_out(&changes, &pruned) => outcome,
        () = stop.requested() => Err(Failure::failed("interrupted")),
        lost = lease.lost() => return Err(lost),
    };
    if let Err(failure) = outcome {
        return Err(roller.take_back(lease, failure, known.last(), objects).await);
    }
    let number = revision::record(cluster, namespace, &known, note, &now(), objects).await?;
    roller.print(&changes, &pruned, number);
    output.aside(&format!("everything is well; this is revision {number}"));
    Ok(())
}

/// The time, as it is written down.
pub fn now() -> String {
    let now: Timestamp = SystemClock::default().now();
    format!("{now:.0}")
}

/// What would become of each object.
pub async fn survey(cluster: &Cluster, objects: &[Object], force: bool) -> Result<Vec<Change>, Failure> {
    let asked: Vec<Result<Change, Error>> = stream::iter(objects.iter().cloned())
        .map(|object| change(cluster, object, force))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut changes = Vec::new();
    let mut conflicts = Vec::new();
    let mut refused = Vec::new();
    for outcome in asked {
        match outcome {
            Ok(change) => changes.push(change),
            Err(error) if !error.conflicts().is_empty() => {
                conflicts.extend(error.conflicts());
                refused.push(error);
            }
            Err(error) if matches!(error.code(), Some(400 | 422)) => refused.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    let lines: Vec<String> = refused
        .iter()
        .flat_map(|error| match error.conflicts() {
            lines if lines.is_empty() => vec![error.to_string()],
            lines => lines,
        })
        .collect();
    match refused.pop() {
        None => Ok(changes),
        Some(last) => {
            let mut failure = Failure::from(last);
            failure.message = lines.join("\n");
            Err(failure)
        }
    }
}

async fn change(cluster: &Cluster, object: Object, force: bool) -> Result<Change, Error> {
    let live = cluster.live(&object).await?;
    let manner = Manner { dry: true, force };
    let known = |action, live| Change {
        object: object.clone(),
        action,
        live,
        next: None,
    };
    match cluster.apply(&object, manner).await {
        Ok(next) => Ok(Change::of(object, live, next)),
        // Its namespace is still to come.
        Err(error) if error.code() == Some(404) && live.is_none() => Ok(known(Action::Create, live)),
        // The template of a Job cannot be changed.
        Err(error) if error.code() == Some(422) && live.is_some() && object.kind() == "Job" => {
            Ok(known(Action::Replace, live))
        }
        Err(error) => Err(error),
    }
}

/// What was applied with a revision, is still there, and is no longer wanted.
pub async fn pruned(
    cluster: &Cluster,
    before: Option<&Revision>,
    wanted: &[Object],
) -> Result<Vec<Change>, Failure> {
    let before = before.map_or(&[][..], |before| before.objects.as_slice());
    let found: Vec<Option<Change>> = stream::iter(plan::superfluous(before, wanted))
        .map(|object| async move {
            // A kind that is gone has taken its objects with it.
            if cluster
                .resource(object.api_version(), object.kind())
                .await?
                .is_none()
            {
                return Ok::<_, Error>(None);
            }
            let live = cluster.live(&object).await?;
            Ok(live.map(|live| Change {
                object,
                action: Action::Prune,
                live: Some(live),
                next: None,
            }))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

impl Roller<'_> {
    /// Everything back to what was applied before; what is to be said in the end.
    async fn take_back(
        &self,
        lease: &Lease,
        failure: Failure,
        before: Option<&Revision>,
        objects: &[Object],
    ) -> Failure {
        let Some(before) = before else {
            return Failure {
                message: format!(
                    "{}\nthere is no revision to go back to: what was applied stays, to be looked at",
                    failure.message
                ),
                ..failure
            };
        };
        self.output.aside(&format!(
            "{}\ngoing back to revision {}",
            failure.message, before.number
        ));
        let back = async {
            let (changes, pruned) = self.way_back(before, objects).await?;
            let roller = Roller { force: true, ..*self };
            roller.roll_out(&changes, &pruned).await
        };
        let outcome = tokio::select! {
            outcome = back => outcome,
            lost = lease.lost() => Err(lost),
        };
        let what = match outcome {
            Ok(()) => format!("everything is back at revision {}, and well", before.number),
            Err(second) => format!(
                "and revision {} could not be brought back: {}",
                before.number, second.message
            ),
        };
        Failure {
            message: format!("{}\n{what}", failure.message),
            ..failure
        }
    }

    /// What has to change for a revision to be there again.
    pub async fn way_back(
        &self,
        to: &Revision,
        from: &[Object],
    ) -> Result<(Vec<Change>, Vec<Change>), Failure> {
        let ours = |object: &&Object| !(object.is_workload() && Wave::of(object) == Wave::Store);
        let wanted: Vec<Object> = to.objects.iter().filter(ours).cloned().collect();
        let changes = survey(self.cluster, &wanted, true).await?;
        let from = Revision {
            objects: from.iter().filter(ours).cloned().collect(),
            ..to.clone()
        };
        let pruned = pruned(self.cluster, Some(&from), &to.objects).await?;
        Ok((changes, pruned))
    }

    /// Says what was done.
    pub fn print(&self, changes: &[Change], pruned: &[Change], number: u64) {
        let all = || changes.iter().chain(pruned);
        let count = |action: Action| all().filter(|change| change.action == action).count();
        if self.output.is_json() {
            let changed: Vec<Value> = all()
                .filter(|change| change.action != Action::Keep)
                .map(|change| {
                    let id = change.object.id();
                    json!({"kind": id.kind, "name": id.name, "namespace": id.namespace, "action": change.action.name()})
                })
                .collect();
            self.output.json(&json!({
                "namespace": self.namespace, "server": self.cluster.server(), "revision": number,
                "changed": changed, "unchanged": count(Action::Keep),
            }));
            return;
        }
        self.output.line(&format!(
            "{} created, {} changed, {} removed, {} unchanged",
            count(Action::Create),
            count(Action::Update) + count(Action::Replace),
            count(Action::Prune),
            count(Action::Keep)
        ));
    }
}
