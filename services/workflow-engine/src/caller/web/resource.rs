//! Documents outside of workflows: read over HTTP, or from the directory that the operator sets apart for them.
//!
//! They are kept for a short while, because a workflow that calls ten operations of a service reads its description ten times.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::SharedClock;
use muster_workflow_dsl::request::{Destination, shown};
use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::HeaderMap;

use super::super::session::Session;
use super::super::{Failure, Kind};
use super::{Outgoing, Web, address};
use crate::off_thread::off_thread;

/// How long a document is kept.
const FRESH: Duration = Duration::from_secs(60);

/// Most documents that are kept, and the most bytes of all together.
const MOST: usize = 64;
const MOST_BYTES: usize = 32 << 20;

/// Documents that were read a short while ago.
pub(super) struct Resources {
    directory: Option<PathBuf>,
    clock: SharedClock,
    kept: Mutex<HashMap<String, (Duration, Arc<str>)>>,
}

impl Resources {
    pub(super) fn new(directory: Option<PathBuf>, clock: SharedClock) -> Self {
        Self {
            directory,
            clock,
            kept: Mutex::default(),
        }
    }

    fn get(&self, key: &str) -> Option<Arc<str>> {
        let now = self.clock.monotonic();
        let kept = self.kept.lock();
        let (since, text) = kept.get(key)?;
        (now.saturating_sub(*since) < FRESH).then(|| Arc::clone(text))
    }

    fn keep(&self, key: String, text: &Arc<str>) {
        let now = self.clock.monotonic();
        let mut kept = self.kept.lock();
        kept.retain(|_, (since, _)| now.saturating_sub(*since) < FRESH);
        let bytes: usize = kept.values().map(|(_, text)| text.len()).sum();
        if kept.len() < MOST && bytes.saturating_add(text.len()) <= MOST_BYTES {
            kept.insert(key, (now, Arc::clone(text)));
        }
    }
}

impl Web {
    /// The text of a document outside of the workflow.
    ///
    /// # Errors
    /// It cannot be read, or is too large.
    pub async fn document(&self, at: &Destination, session: &mut Session) -> Result<Arc<str>, Failure> {
        if let Some(path) = at.uri.strip_prefix("file://") {
            return self.file(path).await;
        }
        // What one may read is not read to another: the key holds what the reader shows, with markers that are the run's own.
        let shown_credentials = serde_json::to_string(&at.authentication).unwrap_or_default();
        let key = muster_workflow_dsl::digest(&format!("{} {shown_credentials}", session.address(&at.uri)));
        let may_share = at.authentication.is_none();
        if let Some(text) = self.resources.get(&key).filter(|_| may_share) {
            return Ok(text);
        }
        let finish = |session: &Session| {
            Ok(Outgoing {
                method: Method::GET,
                url: address(&session.address(&at.uri))?,
                headers: HeaderMap::new(),
                body: None,
            })
        };
        let answer = self.send(at.authentication.as_ref(), session, finish).await?;
        let what = shown(&at.uri);
        if !answer.status.is_success() {
            let status = answer.status.as_u16();
            let detail = format!("the document '{what}' cannot be read: {}", answer.status);
            return Err(Failure::new(Kind::Communication, status, detail));
        }
        let text: Arc<str> = String::from_utf8(answer.body).map(Arc::from).map_err(|_| {
            let detail = format!("the document '{what}' is not text");
            Failure::new(Kind::Communication, 502, detail)
        })?;
        if may_share {
            self.resources.keep(key, &text);
        }
        Ok(text)
    }

    async fn file(&self, path: &str) -> Result<Arc<str>, Failure> {
        let wrong = |what: String| Failure::new(Kind::Configuration, 400, what);
        let Some(directory) = self.resources.directory.clone() else {
            let detail = format!(
                "'file://{path}' cannot be read: the operator has set apart no directory for documents ('engine.resource_directory')"
            );
            return Err(wrong(detail));
        };
        let (path, most) = (path.trim_start_matches('/').to_owned(), self.most_bytes);
        off_thread(move || read(&directory, &path, most).map(Arc::from))
            .await
            .map_err(wrong)
    }
}

/// Reads a file below the directory; links do not lead out of it.
fn read(directory: &Path, path: &str, most: usize) -> Result<String, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("'file://{path}' cannot be read: {what}");
    let directory = directory.canonicalize().map_err(|error| wrong(&error))?;
    let file = directory
        .join(path)
        .canonicalize()
        .map_err(|error| wrong(&error))?;
    if !file.starts_with(&directory) {
        return Err(wrong(&"it is not in 'engine.resource_directory'"));
    }
    let length = std::fs::metadata(&file).map_err(|error| wrong(&error))?.len();
    if length > most as u64 {
        return Err(wrong(&format!(
            "it has {length} bytes, and at most {most} are taken ('engine.max_payload_bytes')"
        )));
    }
    std::fs::read_to_string(&file).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn files_are_read_from_one_directory_only() {
        let outside = tempfile::tempdir().unwrap();
        let directory = outside.path().join("documents");
        std::fs::create_dir_all(directory.join("app")).unwrap();
        std::fs::write(directory.join("app/a.proto"), "syntax").unwrap();
        std::fs::write(outside.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), directory.join("link")).unwrap();
        assert_eq!(read(&directory, "app/a.proto", 10), Ok("syntax".to_owned()));
        assert!(
            read(&directory, "app/a.proto", 5)
                .unwrap_err()
                .contains("at most 5")
        );
        for path in ["../secret", "link", "app/../../secret"] {
            assert!(
                read(&directory, path, 10).unwrap_err().contains("not in"),
                "{path}"
            );
        }
        assert!(read(&directory, "none", 10).is_err());
    }
}
