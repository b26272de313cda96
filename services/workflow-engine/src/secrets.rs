//! Where secrets come from: files and environment variables that the operator grants to a namespace.
//!
//! A workflow gets a secret only if its document lists it in `use.secrets` and the operator has put it where the document's namespace
//! may look: the file `DIRECTORY/NAMESPACE/NAME`, which is how Kubernetes mounts a secret per namespace, or the environment
//! variable `PREFIX` + `NAMESPACE__NAME` in upper case. Secrets are read when they are needed, so that a new value is used
//! from the next step on.
//!
//! What is JSON of an object is an object; everything else is text, without the newline that an editor puts at its end.

mod redaction;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_workflow_dsl::Definition;
use muster_workflow_dsl::secret::{self, Nonce, Unmarking};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::{Failure, Kind};
use crate::off_thread::off_thread;
pub use redaction::Redaction;

/// Largest secret, in bytes.
const LARGEST: u64 = 64 * 1024;

/// What is shorter could not be kept out of answers without tearing them apart.
pub(crate) const SHORTEST: usize = 4;

/// Section `engine.secrets`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A directory with a directory for each namespace, with a file for each secret.
    pub directory: Option<PathBuf>,
    /// What the names of environment variables with secrets begin with, such as `WORKFLOW_SECRET_`.
    pub environment_prefix: Option<String>,
}

/// Reads secrets.
#[derive(Debug)]
pub struct Secrets {
    config: Config,
}

/// What a call may know: the secrets of its document, in its run.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// The namespace of the document.
    pub namespace: Arc<str>,
    /// What the document lists.
    pub listed: Arc<[String]>,
    /// What the run's markers are made with.
    pub nonce: Nonce,
}

impl Grant {
    /// What runs of a definition may know.
    #[must_use]
    pub fn new(definition: &Definition, nonce: &Nonce) -> Self {
        let workflow = &definition.workflow;
        Self {
            namespace: Arc::from(workflow.header.namespace.as_str()),
            listed: workflow.secrets.as_slice().into(),
            nonce: nonce.clone(),
        }
    }
}

impl Grant {
    /// The same without any secret.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self {
            listed: Arc::default(),
            ..self.clone()
        }
    }
}

impl Secrets {
    /// Secrets from where the configuration says.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// All secrets of a document by name.
    ///
    /// # Errors
    /// One is not there or cannot be read: which one, and where it is looked for.
    pub async fn read(&self, grant: &Grant) -> Result<BTreeMap<String, Value>, String> {
        if grant.listed.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (config, grant) = (self.config.clone(), grant.clone());
        off_thread(move || {
            let names = grant.listed.iter();
            names
                .map(|name| Ok((name.clone(), config.read(&grant.namespace, name)?)))
                .collect()
        })
        .await
    }

    /// What puts the secrets of a document in the place of their markers.
    ///
    /// # Errors
    /// As [`Self::read`], as the failure of a call.
    pub async fn unmarking(&self, grant: &Grant) -> Result<(Unmarking, BTreeMap<String, Value>), Failure> {
        let secrets = self.read(grant).await;
        let secrets = secrets.map_err(|why| Failure::new(Kind::Authorization, 403, why))?;
        Ok((Unmarking::new(&grant.nonce, &secrets), secrets))
    }
}

impl Config {
    fn read(&self, namespace: &str, name: &str) -> Result<Value, String> {
        if !secret::is_name(name) || !muster_api::names::is_dns_label(namespace) {
            return Err(format!("'{name}' cannot be the name of a secret"));
        }
        let mut places = Vec::new();
        if let Some(directory) = &self.directory {
            let path = directory.join(namespace).join(name);
            if let Some(text) = read_file(&path).map_err(|what| format!("the secret '{name}': {what}"))? {
                return parse(name, text);
            }
            places.push(format!("the file {}", path.display()));
        }
        if let Some(prefix) = &self.environment_prefix
            && let Some(variable) = variable(prefix, namespace, name)
        {
            if let Ok(text) = std::env::var(&variable) {
                return parse(name, text);
            }
            places.push(format!("the environment variable {variable}"));
        }
        let remedy = if places.is_empty() {
            "the operator has set neither 'engine.secrets.directory' nor 'engine.secrets.environment_prefix'"
                .to_owned()
        } else {
            format!("it is looked for in {}", places.join(" and "))
        };
        Err(format!(
            "the namespace '{namespace}' has no secret '{name}': {remedy}"
        ))
    }
}

/// The variable that holds a secret; none where it could be that of another namespace too.
fn variable(prefix: &str, namespace: &str, name: &str) -> Option<String> {
    let mapped = |text: &str| {
        let kept = |character: char| {
            if character.is_ascii_alphanumeric() {
                character.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        text.chars().map(kept).collect::<String>()
    };
    let (namespace, name) = (mapped(namespace), mapped(name));
    let ambiguous = namespace.contains("__") || name.contains("__") || name.starts_with('_');
    (!ambiguous).then(|| format!("{prefix}{namespace}__{name}"))
}

fn read_file(path: &Path) -> Result<Option<String>, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&error)),
        Ok(metadata) if metadata.len() > LARGEST => {
            return Err(wrong(&format!("has more than {LARGEST} bytes")));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path)
        .map(Some)
        .map_err(|error| wrong(&error))
}

fn parse(name: &str, text: String) -> Result<Value, String> {
    let text = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.trim_end_matches('\r'));
    if text.trim_start().starts_with('{')
        && let Ok(value @ Value::Object(_)) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    if text.len() < SHORTEST {
        return Err(format!(
            "the secret '{name}' has fewer than {SHORTEST} bytes, and could not be kept out of answers"
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grant(namespace: &str, listed: &[&str]) -> Grant {
        Grant {
            namespace: namespace.into(),
            listed: listed.iter().map(|name| (*name).to_owned()).collect(),
            nonce: Nonce::fresh(),
        }
    }

    #[tokio::test]
    async fn files_are_granted_by_namespace() {
        let directory = tempfile::tempdir().unwrap();
        let team = directory.path().join("team");
        std::fs::create_dir(&team).unwrap();
        std::fs::write(team.join("token"), "t0ken\n").unwrap();
        std::fs::write(team.join("db"), r#"{"username": "u", "password": "pass"}"#).unwrap();
        std::fs::write(team.join("short"), "abc").unwrap();
        let secrets = Secrets::new(Config {
            directory: Some(directory.path().to_owned()),
            environment_prefix: Some("MUSTER_TEST_SECRET_".into()),
        });
        let read = secrets.read(&grant("team", &["token", "db"])).await.unwrap();
        assert_eq!(read["token"], "t0ken");
        assert_eq!(read["db"], json!({"username": "u", "password": "pass"}));
        let error = secrets.read(&grant("other", &["token"])).await.unwrap_err();
        assert!(
            error.contains("other/token") && error.contains("MUSTER_TEST_SECRET_OTHER__TOKEN"),
            "{error}"
        );
        assert!(
            secrets
                .read(&grant("team", &["short"]))
                .await
                .unwrap_err()
                .contains("fewer than")
        );
        for name in ["../team/token", ".", ""] {
            assert!(secrets.read(&grant("team", &[name])).await.is_err(), "{name}");
        }
        let none = Secrets::new(Config::default())
            .read(&grant("team", &["token"]))
            .await
            .unwrap_err();
        assert!(none.contains("engine.secrets.directory"), "{none}");
    }

    #[test]
    fn a_variable_belongs_to_one_namespace() {
        assert_eq!(
            variable("P_", "my-team", "api.token").as_deref(),
            Some("P_MY_TEAM__API_TOKEN")
        );
        assert_eq!(variable("P_", "a--b", "c"), None);
        assert_eq!(variable("P_", "a", "b__c"), None);
        assert_eq!(variable("P_", "a", "_b"), None);
    }
}
