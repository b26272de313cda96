//! `muster deploy destroy`: everything that was applied, removed in the opposite order.
//!
//! The volumes hold what cannot be made again, so they stay unless they are to go; and with them the namespace, whose end would be
//! theirs. Who asks for it types the namespace's name, or says `--yes`.

use std::io::{BufRead as _, IsTerminal as _};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::cluster::Resource;
use super::lease::Lease;
use super::manifest::Object;
use super::waves::Roller;
use super::{Patience, Place, plan, revision};
use crate::failure::Failure;
use crate::output::Output;

/// Runs it.
pub async fn run(
    place: &Place,
    yes: bool,
    volumes: bool,
    patience: &Patience,
    output: &Output,
) -> Result<(), Failure> {
    let cluster = place.target.connect()?;
    let namespace = place.namespace.as_str();
    let known = revision::all(&cluster, namespace).await?;
    let newest = known.last().ok_or_else(|| revision::none(namespace))?;
    let going: Vec<&Object> = newest
        .objects
        .iter()
        .rev()
        .filter(|object| !plan::is_kept(object))
        .collect();
    if !yes {
        confirm(namespace, cluster.server(), going.len(), volumes, output)?;
    }
    let lease = Lease::take(&cluster, namespace, output).await?;
    let roller = Roller {
        cluster: &cluster,
        namespace,
        patience: patience.duration(),
        force: false,
        output,
    };
    let outcome = async {
        for object in &going {
            roller.delete(object).await?;
        }
        roller.gone(&going).await?;
        if volumes {
            let claims = Resource::namespaced::<PersistentVolumeClaim>();
            for name in claims_of(&cluster, namespace, &newest.objects).await? {
                let _was_there = cluster.delete(&claims, Some(namespace), &name).await?;
                output.aside(&format!("persistentvolumeclaim/{name} is removed"));
            }
        }
        revision::forget(&cluster, namespace, &known).await?;
        Ok::<(), Failure>(())
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        lost = lease.lost() => return Err(lost),
    };
    if let Err(failure) = outcome {
        lease.release().await;
        return Err(failure);
    }
    lease.remove().await?;
    let namespaces: Vec<&Object> = newest
        .objects
        .iter()
        .filter(|object| volumes && object.kind() == "Namespace")
        .collect();
    for object in &namespaces {
        roller.delete(object).await?;
    }
    roller.gone(&namespaces).await?;
    let removed = going.len() + namespaces.len();
    if output.is_json() {
        output.json(&serde_json::json!({"namespace": namespace, "removed": removed, "volumes": volumes}));
    } else {
        output.line(&format!("{removed} objects are removed"));
        if !volumes {
            output.line(&format!(
                "the namespace and its volumes are there: kubectl -n {namespace} get persistentvolumeclaims"
            ));
        }
    }
    Ok(())
}

fn confirm(
    namespace: &str,
    server: &str,
    count: usize,
    volumes: bool,
    output: &Output,
) -> Result<(), Failure> {
    let refused = |what: &str| {
        Failure::usage(what.to_owned()).with_remedy("type the namespace's name when asked, or say --yes")
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused("nobody is there to be asked"));
    }
    let what = if volumes {
        "its volumes with all that is in them, and the namespace"
    } else {
        "and no volumes"
    };
    output.aside(&format!(
        "This removes {count} objects of {namespace} at {server}, {what}.\nType the name of the namespace to go on:"
    ));
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    if read.is_err() || typed.trim() != namespace {
        return Err(refused("that is not the namespace's name: nothing was removed"));
    }
    Ok(())
}

/// The volumes that StatefulSets have claimed: TEMPLATE-SET-NUMBER.
async fn claims_of(
    cluster: &super::Cluster,
    namespace: &str,
    objects: &[Object],
) -> Result<Vec<String>, Failure> {
    let claims = Resource::namespaced::<PersistentVolumeClaim>();
    let prefixes: Vec<String> = objects
        .iter()
        .flat_map(|object| {
            let templates = object.value().pointer("/spec/volumeClaimTemplates");
            let templates = templates.and_then(|list| list.as_array()).into_iter().flatten();
            templates
                .filter_map(|template| template.pointer("/metadata/name")?.as_str())
                .map(|template| format!("{template}-{}-", object.name()))
                .collect::<Vec<_>>()
        })
        .collect();
    let found = cluster.list(&claims, Some(namespace), "").await?;
    let is_ours = |name: &&str| {
        prefixes.iter().any(|prefix| {
            name.strip_prefix(prefix.as_str())
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    Ok(found
        .iter()
        .filter_map(|claim| claim.pointer("/metadata/name")?.as_str())
        .filter(is_ours)
        .map(str::to_owned)
        .collect())
}
