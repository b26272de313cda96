//! Something that runs: a `muster dev`, the compose file, a cluster, or any addresses.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use muster_jose::Private;
use muster_jose::token::Signer;
use serde_json::Value;
use url::Url;

use super::collector::Collector;
use super::hands::Hands;
use super::{Issuer, Kind, Place, Target};
use crate::connect::Endpoints;
use crate::failure::Failure;
use crate::read;

/// Largest file of addresses.
const LARGEST: u64 = 1 << 20;

/// What is known of it beside the addresses of its services.
#[derive(Default)]
pub struct Running {
    /// The command line's certificates.
    pub certificates: Option<PathBuf>,
    /// Who signs tokens.
    pub issuer: Option<Issuer>,
    /// Where its audit logs are.
    pub audit: Option<PathBuf>,
    /// Its Prometheus.
    pub prometheus: Option<Url>,
    /// Its Alertmanager.
    pub alertmanager: Option<Url>,
    /// Where that Alertmanager sends alerts to.
    pub alert_listen: Option<SocketAddr>,
    /// Where its traces can be asked for.
    pub traces: Option<Url>,
    /// Where its traces are sent to, in place of that.
    pub collector: Option<Collector>,
    /// What may be done to its parts, and how.
    pub hands: Hands,
}

/// A target out of what the command line says.
pub fn target(
    mut endpoints: Endpoints,
    file: Option<&Path>,
    expected: Vec<String>,
    has_leave: bool,
    running: Running,
) -> Result<Target, Failure> {
    let mut places = Vec::new();
    if let Some(path) = file {
        let said = said(path)?;
        for (name, url) in [
            ("registry", &mut endpoints.registry),
            ("router", &mut endpoints.router),
            ("workflow-engine", &mut endpoints.engine),
        ] {
            if let Some(said) = said[name]["url"].as_str() {
                said.clone_into(url);
            }
        }
        places = self::places(&said);
    }
    Ok(Target {
        endpoints,
        places,
        expected,
        has_leave,
        kind: Kind::Running(Box::new(running)),
    })
}

/// What a file of addresses says.
fn said(path: &Path) -> Result<Value, Failure> {
    let name = format!("--endpoints {}", path.display());
    let text = read::bounded_text(&name, path, LARGEST)?;
    let said: Value =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    if !said.is_object() {
        return Err(Failure::usage(format!(
            "{name}: is no JSON object of parts, each with `url`, `health` and `metrics`"
        ))
        .with_remedy("`muster dev` writes such a file, `endpoints.json` in its data directory"));
    }
    Ok(said)
}

fn places(said: &Value) -> Vec<Place> {
    let parts = said.as_object().into_iter().flatten();
    let place = |(name, place): (&String, &Value)| {
        let text = |field: &str| place[field].as_str().map(str::to_owned);
        Place {
            name: name.clone(),
            health: text("health"),
            metrics: text("metrics"),
        }
    };
    parts.map(place).collect()
}

/// The folders of this name in a directory, and in the folders there: those of a service, or of its replicas.
pub fn audits(directory: &Path, name: &OsStr) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = entries.map(|entry| entry.path().join(name)).collect();
    places.sort_unstable();
    places.insert(0, directory.join(name));
    places.retain(|place| place.is_dir());
    places
}

/// Who signs with the key in this file.
pub fn issuer(key: &Path, name: &str) -> Result<Issuer, Failure> {
    let wrong = |what: String| Failure::usage(format!("--token-key: {what}"));
    let private = Private::read(key).map_err(wrong)?;
    let public = private.key_set("").to_string();
    Ok(Issuer {
        signer: Signer::Key(private, String::new()),
        name: name.to_owned(),
        public,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn audit_logs_are_those_of_a_service_or_of_its_replicas() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for place in ["registry", "router-1/router", "router-2/router", "router-2/lock"] {
            std::fs::create_dir_all(path.join(place)).unwrap();
        }
        let of = |name: &str| audits(path, name.as_ref());
        assert_eq!(of("registry"), [path.join("registry")]);
        assert_eq!(
            of("router"),
            [path.join("router-1/router"), path.join("router-2/router")]
        );
        assert!(of("workflow-engine").is_empty());
    }

    #[test]
    fn places_are_what_muster_dev_writes() {
        let said = json!({
            "router": {"url": "http://127.0.0.1:1", "health": "http://127.0.0.1:2", "metrics": "http://127.0.0.1:3/metrics"},
            "engine-2": {"health": "http://127.0.0.1:4"},
        });
        let places = places(&said);
        assert_eq!(places.len(), 2);
        assert_eq!(places[0].name, "engine-2");
        assert_eq!(places[0].metrics, None);
        assert_eq!(places[1].metrics.as_deref(), Some("http://127.0.0.1:3/metrics"));
    }
}
