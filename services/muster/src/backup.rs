//! `muster backup` and `muster restore`: the engine's store in one file, and a data directory made of it.
//!
//! A file gets its name once all of it has been checked and is on disk; until then it has a temporary one, which goes when
//! anything fails.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use muster_api::workflow as proto;
use muster_api::workflow::backup_service_client::BackupServiceClient;
use muster_runtime::Shutdown;
use muster_store::backup::{self, Error, Summary};
use muster_workflow_engine::store::embedded::FORMAT;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::cli::{BackupArguments, RestoreArguments};
use crate::connect::{Endpoints, Service};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Standard input or output in place of a file.
const STANDARD: &str = "-";

/// So many chunks wait to be written.
const CHUNKS_AHEAD: usize = 4;

/// Runs `muster backup`.
pub async fn back_up(
    arguments: BackupArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let target = Target::of(&arguments)?;
    let failed = |status| endpoints.failure(Service::Engine, &status);
    let stream = BackupServiceClient::new(endpoints.channel(Service::Engine)?)
        .backup(proto::BackupRequest {})
        .await
        .map_err(failed)?
        .into_inner();
    let shutdown = Shutdown::on_signals();
    let (chunks, taken) = mpsc::channel(CHUNKS_AHEAD);
    let engine = PathBuf::from(format!("the backup of the engine at {}", endpoints.engine));
    let writing = tokio::task::spawn_blocking(move || target.write(Taken::new(taken), &engine));
    let progress = progress();
    let fed = tokio::select! {
        fed = feed(stream, chunks, &progress) => fed.map_err(failed),
        () = shutdown.requested() => Err(Failure::failed("interrupted: there is no backup")),
    };
    // The writer has come to the end of what it was given by now, or will.
    let written = writing
        .await
        .unwrap_or_else(|panic| Err(Failure::failed(format!("the backup cannot be written: {panic}"))));
    progress.finish_and_clear();
    let summary = match (written, fed) {
        (Ok(summary), _) => summary,
        // What the stream ended by says more than that it was cut off.
        (Err(_), Err(failure)) | (Err(failure), Ok(())) => return Err(failure),
    };
    let mut told = told(&summary);
    told.insert("file".to_owned(), arguments.file.as_str().into());
    let lines = if output.is_json() {
        format!("{:#}", Value::Object(told))
    } else {
        format!(
            "{} entries as of {}, {}, in {}\nsha256 {}",
            summary.entries(),
            summary.taken_at,
            BinaryBytes(summary.bytes),
            arguments.file,
            summary.sha256
        )
    };
    if arguments.file == STANDARD {
        output.aside(&lines);
    } else {
        output.line(&lines);
    }
    Ok(())
}

/// Hands on what comes, until it ends or nobody takes it any more.
async fn feed(
    mut stream: Streaming<proto::BackupResponse>,
    chunks: mpsc::Sender<Vec<u8>>,
    progress: &ProgressBar,
) -> Result<(), tonic::Status> {
    while let Some(proto::BackupResponse { chunk }) = stream.message().await? {
        progress.inc(chunk.len() as u64);
        if chunks.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// How much has come, on a terminal only.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {binary_bytes} {elapsed}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// Runs `muster restore`.
pub async fn restore(arguments: RestoreArguments, output: &Output) -> Result<(), Failure> {
    let RestoreArguments { file, directory } = arguments;
    let shutdown = Shutdown::on_signals();
    let (source, into) = (file.clone(), directory.clone());
    let restoring = tokio::task::spawn_blocking(move || {
        let (from, name): (Box<dyn Read>, &str) = if source == STANDARD {
            (Box::new(io::stdin().lock()), "standard input")
        } else {
            (Box::new(open(&source)?), source.as_str())
        };
        let from = BufReader::new(Interruptible { from, shutdown });
        backup::restore(from, Path::new(name), FORMAT, &into).map_err(refused)
    });
    let summary = restoring
        .await
        .unwrap_or_else(|panic| Err(Failure::failed(format!("{file} cannot be restored: {panic}"))))?;
    let directory = std::fs::canonicalize(&directory).unwrap_or(directory);
    if output.is_json() {
        let mut told = told(&summary);
        told.insert("file".to_owned(), file.into());
        told.insert("directory".to_owned(), directory.display().to_string().into());
        output.json(&Value::Object(told));
        return Ok(());
    }
    output.line(&format!(
        "{} entries as of {} are in {}",
        summary.entries(),
        summary.taken_at,
        directory.display()
    ));
    output
        .line("stop the engine that they were taken from, if it still runs, and start one on the directory:");
    output.line(&format!(
        "  muster-workflow-engine --set engine.data_directory={}",
        directory.display()
    ));
    if directory.ends_with("workflow-engine")
        && let Some(parent) = directory.parent()
    {
        output.line(&format!("  muster dev --data-dir {}", parent.display()));
    }
    Ok(())
}

fn open(file: &str) -> Result<File, Failure> {
    File::open(file).map_err(|error| {
        let mut failure = Failure::failed(format!("{file}: cannot be read: {error}"));
        if error.kind() == ErrorKind::NotFound {
            failure.exit = Exit::NotFound;
        }
        failure
    })
}

/// What a backup holds, for scripts.
fn told(summary: &Summary) -> Map<String, Value> {
    let keyspaces: Map<String, Value> = summary
        .keyspaces
        .iter()
        .map(|(name, entries)| (name.clone(), Value::from(*entries)))
        .collect();
    let told = json!({
        "bytes": summary.bytes,
        "sha256": summary.sha256,
        "takenAt": summary.taken_at.to_string(),
        "format": summary.format,
        "formatVersion": summary.format_version,
        "entries": summary.entries(),
        "keyspaces": keyspaces,
    });
    match told {
        Value::Object(told) => told,
        _ => Map::new(),
    }
}

fn refused(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::NotABackup(_)
        | Error::NewerLayout { .. }
        | Error::OtherFormat { .. }
        | Error::NotEmpty { .. }
        | Error::Directory(_) => Failure::usage(message),
        Error::CutOff { .. }
        | Error::Damaged { .. }
        | Error::TooLarge { .. }
        | Error::Store(_)
        | Error::Io { .. } => Failure::failed(message),
    }
}

/// Where a backup goes.
#[derive(Debug)]
enum Target {
    Standard,
    File { path: PathBuf, replace: bool },
}

impl Target {
    /// Refuses at once what would be refused at the end.
    fn of(arguments: &BackupArguments) -> Result<Self, Failure> {
        if arguments.file == STANDARD {
            if io::stdout().is_terminal() {
                return Err(Failure::usage(
                    "a backup is not text: direct standard output to a file or a program",
                ));
            }
            return Ok(Self::Standard);
        }
        let path = PathBuf::from(&arguments.file);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => {
                return Err(Failure::usage(format!("{}: is not a file", path.display()))
                    .with_remedy("name a file, or `-` for standard output"));
            }
            Ok(_) if !arguments.force => return Err(exists(&path)),
            _ => {}
        }
        Ok(Self::File {
            path,
            replace: arguments.force,
        })
    }

    /// Takes in a backup and checks it. A file is there whole, or not at all.
    fn write(&self, from: impl Read, name: &Path) -> Result<Summary, Failure> {
        let Self::File { path, replace } = self else {
            let to = io::stdout().lock();
            return backup::copy(from, name, to, Path::new("standard output")).map_err(refused);
        };
        let failed = |error: io::Error| {
            Failure::failed(format!("{}: cannot be written: {error}", path.display()))
                .with_remedy("free space, or name a file in a directory that is there and can be written")
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Readable by its owner only, as a temporary file is: inputs and outputs of runs are in it.
        let mut draft = tempfile::Builder::new()
            .prefix(".muster-backup-")
            .suffix(".partial")
            .tempfile_in(parent)
            .map_err(failed)?;
        let summary = backup::copy(from, name, BufWriter::new(draft.as_file_mut()), path).map_err(refused)?;
        draft.as_file().sync_all().map_err(failed)?;
        if *replace {
            draft.persist(path).map_err(|error| failed(error.error))?;
        } else {
            draft
                .persist_noclobber(path)
                .map_err(|error| match error.error.kind() {
                    ErrorKind::AlreadyExists => exists(path),
                    _ => failed(error.error),
                })?;
        }
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed)?;
        Ok(summary)
    }
}

fn exists(path: &Path) -> Failure {
    Failure::usage(format!("{}: exists", path.display()))
        .with_remedy("name another file, or replace it with --force")
}

/// The chunks that come, as bytes to read.
struct Taken {
    chunks: mpsc::Receiver<Vec<u8>>,
    chunk: io::Cursor<Vec<u8>>,
}

impl Taken {
    fn new(chunks: mpsc::Receiver<Vec<u8>>) -> Self {
        Self {
            chunks,
            chunk: io::Cursor::default(),
        }
    }
}

impl Read for Taken {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(to)?;
            if count > 0 || to.is_empty() {
                return Ok(count);
            }
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = io::Cursor::new(chunk),
                None => return Ok(0),
            }
        }
    }
}

/// Ends at Ctrl-C, so that what was begun is cleared away.
struct Interruptible<R> {
    from: R,
    shutdown: Shutdown,
}

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.shutdown.is_requested() {
            return Err(io::Error::other("interrupted"));
        }
        self.from.read(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole_backup() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let locked = muster_runtime::data_directory::open(directory.path()).unwrap();
        let database = muster_store::Database::open(locked, FORMAT, muster_store::Limits::default()).unwrap();
        database.keyspace("k").unwrap();
        let mut file = Vec::new();
        database.back_up(jiff::Timestamp::UNIX_EPOCH, &mut file).unwrap();
        file
    }

    fn target(directory: &Path, force: bool) -> Result<Target, Failure> {
        Target::of(&BackupArguments {
            file: directory.join("file").display().to_string(),
            force,
        })
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        entries.map(name).collect()
    }

    #[test]
    fn a_file_is_replaced_only_by_force() {
        let directory = tempfile::tempdir().unwrap();
        let backup = whole_backup();
        let name = Path::new("stream");
        let first = target(directory.path(), false).unwrap();
        let late = target(directory.path(), false).unwrap();
        let summary = first.write(backup.as_slice(), name).unwrap();
        assert_eq!(summary.bytes, backup.len() as u64);
        assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), backup);
        for refused in [
            target(directory.path(), false).unwrap_err(),
            late.write(backup.as_slice(), name).unwrap_err(),
        ] {
            assert_eq!(refused.exit, Exit::Usage);
            assert!(refused.remedy.unwrap().contains("--force"));
        }
        target(directory.path(), true)
            .unwrap()
            .write(backup.as_slice(), name)
            .unwrap();
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn what_ends_early_leaves_no_file_and_the_old_one_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "old").unwrap();
        let backup = whole_backup();
        let half = backup.get(..backup.len() / 2).unwrap();
        let failure = target(directory.path(), true)
            .unwrap()
            .write(half, Path::new("stream"))
            .unwrap_err();
        assert!(failure.message.contains("stream: ends at byte"), "{failure:?}");
        assert_eq!(names(directory.path()), ["file"]);
        assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"old");
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let arguments = BackupArguments {
            file: "/dev/null".to_owned(),
            force: true,
        };
        let failure = Target::of(&arguments).unwrap_err();
        assert!(
            failure.message.contains("/dev/null: is not a file"),
            "{failure:?}"
        );
    }
}
