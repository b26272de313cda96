//! The operator's files: `AGENT/SCHEME` is a secret, `AGENT/hosts` says who may be given them.
//!
//! A secret is a line of text, or two of them, a client's id and its secret, or a certificate with its key in PEM. Nothing of it is shown,
//! neither when it is printed for debugging nor in an error.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_api::names;
use muster_rpc::outbound::Certificate;
use muster_rpc::reread::Reread;
use parking_lot::Mutex;

/// What is in a text of PEM, and in no secret of a line.
const PEM: &str = "-----BEGIN ";
/// The file with the hosts.
const HOSTS: &str = "hosts";
/// Largest file, in bytes.
const LARGEST: u64 = 64 * 1024;
/// Most files that are remembered; their names come from cards.
const MOST_FILES: usize = 4_096;

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// One line.
    Text(String),
    /// Two lines.
    Client { id: String, secret: String },
    /// In PEM.
    Certificate(Certificate),
}

impl Secret {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains(PEM) {
            return Certificate::from_pem(text).map(Self::Certificate);
        }
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        match lines[..] {
            [] => Err("it is empty".to_owned()),
            [text] => Ok(Self::Text(text.to_owned())),
            [id, secret] => Ok(Self::Client {
                id: id.to_owned(),
                secret: secret.to_owned(),
            }),
            _ => Err("it has more than two lines".to_owned()),
        }
    }

    /// The line, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Client { .. } | Self::Certificate(_) => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

/// Hosts, each with a port or without, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hosts(Vec<String>);

impl Hosts {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(|line| line.trim().to_ascii_lowercase());
        let hosts: Vec<String> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        match hosts
            .iter()
            .find(|host| host.contains("://") || host.contains('/'))
        {
            Some(wrong) => Err(format!(
                "'{wrong}' is no host; give HOST or HOST:PORT, one a line"
            )),
            None => Ok(Self(hosts)),
        }
    }

    fn has(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let with_port = format!("{host}:{port}");
        self.0.iter().any(|known| *known == host || *known == with_port)
    }
}

/// See the module.
pub(super) struct Folder {
    directory: PathBuf,
    secrets: Mutex<HashMap<PathBuf, Arc<Reread<Secret>>>>,
    hosts: Mutex<HashMap<PathBuf, Arc<Reread<Hosts>>>>,
}

impl Folder {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            secrets: Mutex::default(),
            hosts: Mutex::default(),
        }
    }

    /// What is given to an agent for a scheme.
    pub(super) fn secret(&self, agent: &str, scheme: &str, now: Duration) -> Result<Arc<Secret>, String> {
        let path = self.path(agent, scheme)?;
        if scheme == HOSTS {
            return Err(format!(
                "a scheme of that name has no file, because '{HOSTS}' says who may be given credentials"
            ));
        }
        file(&self.secrets, path, Secret::parse).get(now)
    }

    /// Whether a host may be given what is there for an agent.
    pub(super) fn admits(&self, agent: &str, host: &str, port: u16, now: Duration) -> Result<(), String> {
        let path = self.path(agent, HOSTS)?;
        let shown = path.display().to_string();
        let hosts = file(&self.hosts, path, Hosts::parse).get(now).map_err(|what| {
            format!("nobody may be given its credentials: {what}; write '{host}:{port}' into that file, if that is the agent's")
        })?;
        if hosts.has(host, port) {
            return Ok(());
        }
        Err(format!(
            "'{host}:{port}' may not be given its credentials; write it into {shown}, if that is the agent's"
        ))
    }

    /// A file's place; names that would lead elsewhere have none.
    fn path(&self, agent: &str, name: &str) -> Result<PathBuf, String> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if !names::is_dns_label(agent)
            || name.is_empty()
            || name.starts_with('.')
            || !name.chars().all(is_plain)
        {
            return Err(
                "its name cannot be that of a file: use letters, digits, '-', '_' and '.'".to_owned(),
            );
        }
        Ok(self.directory.join(agent).join(name))
    }
}

fn file<T>(
    files: &Mutex<HashMap<PathBuf, Arc<Reread<T>>>>,
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
) -> Arc<Reread<T>> {
    let mut files = files.lock();
    if let Some(file) = files.get(&path) {
        return Arc::clone(file);
    }
    if files.len() >= MOST_FILES {
        files.clear();
    }
    let file = Arc::new(Reread::new(path.clone(), LARGEST, parse));
    files.insert(path, Arc::clone(&file));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn secrets_are_lines_and_are_not_shown() {
        assert_eq!(Secret::parse("key\n").unwrap(), Secret::Text("key".to_owned()));
        let client = Secret::parse("id\r\nsecret\n\n").unwrap();
        assert_eq!(client.text(), None);
        assert!(!format!("{client:?}").contains("secret\""));
        assert!(Secret::parse("\n").is_err());
        assert!(Secret::parse("a\nb\nc").is_err());
    }

    #[test]
    fn only_hosts_that_are_named_are_given_anything() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path().to_owned());
        let agent = directory.path().join("payer");
        std::fs::create_dir(&agent).unwrap();
        let told = folder.admits("payer", "a.example", 80, NOW).unwrap_err();
        assert!(told.contains("a.example:80"), "{told}");
        std::fs::write(agent.join("hosts"), "# ours\nA.example\nb.example:443\n").unwrap();
        let later = Duration::from_secs(2);
        assert_eq!(folder.admits("payer", "a.EXAMPLE", 80, later), Ok(()));
        assert_eq!(folder.admits("payer", "b.example", 443, later), Ok(()));
        assert!(folder.admits("payer", "b.example", 80, later).is_err());
        assert!(folder.admits("other", "a.example", 80, later).is_err());
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = Folder::new(PathBuf::from("/nowhere"));
        for (agent, scheme) in [
            ("payer", ".."),
            ("payer", "../other/key"),
            ("..", "key"),
            ("payer", ""),
            ("payer", "hosts"),
            ("payer", "a b"),
        ] {
            let told = folder.secret(agent, scheme, NOW).unwrap_err();
            assert!(!told.contains("/nowhere"), "{agent} {scheme}: {told}");
        }
    }
}
