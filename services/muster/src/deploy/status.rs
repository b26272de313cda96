//! `muster deploy status`: how what was applied is, and, for an overlay, whether that is what it says now.

use serde_json::{Value, json};

use super::manifest::Object;
use super::rollout::Progress;
use super::waves::{Roller, is_template};
use super::{StatusArguments, Wanted, namespace_of, revision};
use crate::failure::Failure;
use crate::output::Output;

/// Runs it.
pub async fn run(arguments: StatusArguments, output: &Output) -> Result<(), Failure> {
    let StatusArguments {
        overlay,
        config,
        place,
    } = arguments;
    let wanted = match overlay {
        Some(overlay) => Some(Wanted { overlay, config }.objects().await?),
        None => None,
    };
    let namespace = match &wanted {
        Some(objects) => namespace_of(objects)?,
        None => place.namespace,
    };
    let namespace = namespace.as_str();
    let cluster = place.target.connect()?;
    let known = revision::all(&cluster, namespace).await?;
    let newest = known.last().ok_or_else(|| revision::none(namespace))?;
    let roller = Roller {
        cluster: &cluster,
        namespace,
        patience: std::time::Duration::ZERO,
        force: false,
        output,
    };
    let is_wanted = wanted.map(|objects| objects == newest.objects);
    let workloads: Vec<&Object> = newest
        .objects
        .iter()
        .filter(|object| object.is_workload())
        .collect();
    let mut rows = Vec::new();
    let mut ill = Vec::new();
    for object in workloads.iter().filter(|object| !is_template(object, &workloads)) {
        let (live, progress, complaint) = roller.observe(object).await?;
        // A Job that has ended is removed after its time.
        if object.kind() == "Job" && live.is_none() {
            continue;
        }
        let state = match progress {
            Progress::Done => "well".to_owned(),
            Progress::Going(why) | Progress::Failed(why) => {
                ill.push(object.id().to_string());
                complaint.map_or_else(|| why.clone(), |complaint| format!("{why} ({complaint})"))
            }
        };
        let images = images(live.as_ref(), object, &workloads);
        rows.push((object.id().to_string(), pods(live.as_ref()), images, state));
    }
    if output.is_json() {
        let workloads: Vec<Value> = rows
            .iter()
            .map(|(name, pods, images, state)| {
                json!({"workload": name, "pods": pods, "images": images, "state": state})
            })
            .collect();
        let revisions: Vec<Value> = known
            .iter()
            .map(|one| json!({"revision": one.number, "appliedAt": one.applied_at, "of": one.note}))
            .collect();
        let mut status = json!({
            "server": cluster.server(), "namespace": namespace, "revision": newest.number,
            "well": ill.is_empty(), "workloads": workloads, "revisions": revisions,
        });
        if let Some(is_wanted) = is_wanted {
            status["asWanted"] = is_wanted.into();
        }
        output.json(&status);
    } else {
        output.line(&format!(
            "revision {} of {} in {namespace} at {}",
            newest.number,
            newest.note,
            cluster.server()
        ));
        match is_wanted {
            Some(true) => output.line("it is what the overlay says"),
            Some(false) => output.line("the overlay says something else now: `muster deploy diff` shows it"),
            None => {}
        }
        let rows = rows
            .into_iter()
            .map(|(name, pods, images, state)| [name, pods, images.join("\n"), state])
            .collect();
        output.table(["workload", "pods", "images", "state"], rows);
        let rows = known
            .iter()
            .rev()
            .map(|one| [one.number.to_string(), one.applied_at.clone(), one.note.clone()])
            .collect();
        output.table(["revision", "applied at", "of"], rows);
    }
    if ill.is_empty() {
        return Ok(());
    }
    Err(
        Failure::failed(format!("not well: {}", ill.join(", "))).with_remedy(format!(
            "`kubectl -n {namespace} describe` one of them; `muster deploy rollback` goes back"
        )),
    )
}

/// How many of its pods are ready.
fn pods(live: Option<&Value>) -> String {
    let number = |pointer: &str| {
        live.and_then(|live| live.pointer(pointer))
            .and_then(Value::as_i64)
    };
    let ready = number("/status/readyReplicas")
        .or_else(|| number("/status/succeeded"))
        .unwrap_or(0);
    let wanted = number("/spec/replicas")
        .or_else(|| number("/spec/completions"))
        .unwrap_or(1);
    format!("{ready}/{wanted}")
}

/// What runs; of a Rollout, what its template says.
fn images(live: Option<&Value>, object: &Object, workloads: &[&Object]) -> Vec<String> {
    let template = object
        .value()
        .pointer("/spec/workloadRef/name")
        .and_then(Value::as_str);
    let template = workloads
        .iter()
        .find(|other| other.kind() == "Deployment" && Some(other.name()) == template)
        .map(|other| other.value());
    let containers = template
        .or(live)
        .and_then(|value| value.pointer("/spec/template/spec/containers"));
    containers
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|container| container["image"].as_str().map(str::to_owned))
        .collect()
}
