//! What was applied, kept in the cluster itself: whoever has the cluster can go back, from any machine.
//!
//! Each rollout that ended well is a Secret `muster-revision-NUMBER` in the namespace, with the manifests, compressed. A Secret and no
//! ConfigMap, because an operator's overlay may have Secrets in it. The last [`KEPT`] are there. A revision that is the same as the
//! one before is not written again.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::cluster::{Cluster, Error, Manner, Resource};
use super::manifest::{self, Object};
use crate::failure::{Exit, Failure};

/// How many there are at most.
const KEPT: usize = 10;
/// What the cluster keeps in one Secret.
const MOST_BYTES: usize = 1_000_000;
/// What is taken out of one: a bound for what somebody else has put there.
const MOST_UNPACKED: u64 = 64 << 20;
const LABEL: &str = "muster.dev/revision";
const NOTE: &str = "muster.dev/note";
const TIME: &str = "muster.dev/applied-at";

/// One of them.
#[derive(Debug, Clone)]
pub struct Revision {
    /// Its number; they rise.
    pub number: u64,
    /// When it was there.
    pub applied_at: String,
    /// Whence it came.
    pub note: String,
    /// What was applied.
    pub objects: Vec<Object>,
}

fn secrets() -> Resource {
    Resource::namespaced::<Secret>()
}

fn name(number: u64) -> String {
    format!("muster-revision-{number}")
}

/// All that are there, the oldest first.
pub async fn all(cluster: &Cluster, namespace: &str) -> Result<Vec<Revision>, Failure> {
    let found = cluster.list(&secrets(), Some(namespace), LABEL).await?;
    let mut revisions = Vec::new();
    for secret in &found {
        let revision = read(secret).map_err(|what| {
            let name = secret
                .pointer("/metadata/name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            Failure::failed(format!("secret/{name}: {what}")).with_remedy(format!(
                "`kubectl -n {namespace} delete secret {name}` forgets this revision"
            ))
        })?;
        revisions.push(revision);
    }
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

/// The newest, which is what is there.
pub async fn newest(cluster: &Cluster, namespace: &str) -> Result<Option<Revision>, Failure> {
    Ok(all(cluster, namespace).await?.pop())
}

/// What nothing was applied to.
pub fn none(namespace: &str) -> Failure {
    let mut failure = Failure::failed(format!("nothing has been applied to the namespace {namespace}"))
        .with_remedy("`muster deploy apply OVERLAY` does; --namespace and --context say where to look");
    failure.exit = Exit::NotFound;
    failure
}

/// Writes what was applied down; its number.
pub async fn record(
    cluster: &Cluster,
    namespace: &str,
    known: &[Revision],
    note: &str,
    time: &str,
    objects: &[Object],
) -> Result<u64, Failure> {
    let last = known.last();
    if let Some(same) = last.filter(|last| last.objects == objects) {
        return Ok(same.number);
    }
    let number = last.map_or(1, |last| last.number + 1);
    let packed = pack(objects).map_err(Failure::failed)?;
    if packed.len() > MOST_BYTES {
        return Err(Failure::failed(format!(
            "the manifests need {} bytes, compressed, and a revision holds {MOST_BYTES}",
            packed.len()
        ))
        .with_remedy("everything is applied and well, but `rollback` cannot come back to it"));
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "muster.dev/revision",
        "metadata": {
            "name": name(number), "namespace": namespace,
            "labels": {LABEL: number.to_string()},
            "annotations": {NOTE: note, TIME: time},
        },
        "data": {"manifests": packed},
    });
    let secret = Object::new(secret).map_err(Failure::failed)?;
    let manner = Manner {
        force: true,
        ..Manner::default()
    };
    let _written = cluster.apply(&secret, manner).await?;
    let surplus = (known.len() + 1).saturating_sub(KEPT);
    for old in known.iter().take(surplus) {
        let _was_there = cluster
            .delete(&secrets(), Some(namespace), &name(old.number))
            .await?;
    }
    Ok(number)
}

/// Forgets all of them.
pub async fn forget(cluster: &Cluster, namespace: &str, revisions: &[Revision]) -> Result<(), Error> {
    for revision in revisions {
        let _was_there = cluster
            .delete(&secrets(), Some(namespace), &name(revision.number))
            .await?;
    }
    Ok(())
}

fn pack(objects: &[Object]) -> Result<String, String> {
    let values: Vec<&Value> = objects.iter().map(Object::value).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = serde_json::to_vec(&values)
        .map_err(|error| error.to_string())
        .and_then(|bytes| encoder.write_all(&bytes).map_err(|error| error.to_string()))
        .and_then(|()| encoder.finish().map_err(|error| error.to_string()))?;
    Ok(STANDARD.encode(packed))
}

fn unpack(packed: &str) -> Result<Vec<Object>, String> {
    let bytes = STANDARD.decode(packed).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .take(MOST_UNPACKED)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    let values: Vec<Value> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let mut objects = values
        .into_iter()
        .map(Object::new)
        .collect::<Result<Vec<_>, _>>()?;
    manifest::order(&mut objects);
    Ok(objects)
}

fn read(secret: &Value) -> Result<Revision, String> {
    let text = |pointer: &str| {
        secret
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = text("/metadata/labels/muster.dev~1revision");
    Ok(Revision {
        number: number
            .parse()
            .map_err(|_| format!("'{number}' is no number of a revision"))?,
        applied_at: text("/metadata/annotations/muster.dev~1applied-at").to_owned(),
        note: text("/metadata/annotations/muster.dev~1note").to_owned(),
        objects: unpack(text("/data/manifests"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_come_out_as_they_went_in() {
        let objects = manifest::parse(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 1}]}\n",
        )
        .unwrap();
        assert_eq!(unpack(&pack(&objects).unwrap()).unwrap(), objects);
        assert!(unpack("AAAA").is_err());
        assert!(unpack("!").is_err());
    }
}
