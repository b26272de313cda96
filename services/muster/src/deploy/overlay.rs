//! Where manifests come from: an overlay that Kustomize renders, or a file that is rendered already.
//!
//! Kustomize is the program that everybody has; a second engine of our own would differ from it in some corner, and what was looked
//! at with `kubectl kustomize` would not be what is applied.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::manifest::{self, Object};
use crate::failure::{Exit, Failure};

/// Where the overlays are, seen from the root of a clone.
const OVERLAYS: &str = "deploy/kubernetes/overlays";
/// What renders, in the order in which they are tried.
const ENGINES: [&[&str]; 2] = [&["kubectl", "kustomize"], &["kustomize", "build"]];

/// The objects of an overlay: its directory, its name, a file with manifests, or `-` for standard input.
pub async fn read(overlay: &str) -> Result<Vec<Object>, Failure> {
    let path = Path::new(overlay);
    let (text, origin) = if overlay == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("standard input: {error}")))?;
        (text, "standard input".to_owned())
    } else if path.is_file() {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        (text, overlay.to_owned())
    } else {
        let directory = directory(overlay)?;
        (render(&directory).await?, directory.display().to_string())
    };
    let objects = manifest::parse(&text).map_err(|what| Failure::usage(format!("{origin}: {what}")))?;
    if objects.is_empty() {
        return Err(Failure::usage(format!("{origin}: there is no object in it")));
    }
    Ok(objects)
}

/// The directory of an overlay.
fn directory(overlay: &str) -> Result<PathBuf, Failure> {
    let is_overlay = |path: &Path| path.join("kustomization.yaml").is_file();
    let candidates = [PathBuf::from(overlay), Path::new(OVERLAYS).join(overlay)];
    if let Some(found) = candidates.into_iter().find(|path| is_overlay(path)) {
        return Ok(found);
    }
    let mut known: Vec<String> = std::fs::read_dir(OVERLAYS)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| is_overlay(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    known.sort();
    let remedy = if known.is_empty() {
        format!(
            "name a directory with a kustomization.yaml, or a file with manifests; names are looked for in {OVERLAYS}"
        )
    } else {
        format!(
            "in {OVERLAYS} there are {}; a directory or a file with manifests will do too",
            known.join(", ")
        )
    };
    let mut failure = Failure::usage(format!("there is no overlay '{overlay}'")).with_remedy(remedy);
    failure.exit = Exit::NotFound;
    Err(failure)
}

async fn render(directory: &Path) -> Result<String, Failure> {
    for engine in ENGINES {
        let done = Command::new(engine[0])
            .args(&engine[1..])
            .arg(directory)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let done = match done {
            Ok(done) => done,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::failed(format!("{}: {error}", engine[0]))),
        };
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(Failure::usage(format!(
                "{} {}: {}",
                engine.join(" "),
                directory.display(),
                said.trim()
            )));
        }
        return String::from_utf8(done.stdout)
            .map_err(|_| Failure::failed(format!("{} writes what is no text", engine[0])));
    }
    Err(
        Failure::failed("overlays are rendered by kubectl or kustomize, and neither is on the path").with_remedy(
            "install kubectl 1.30 or newer, or give the file that `kubectl kustomize OVERLAY` has written elsewhere",
        ),
    )
}
