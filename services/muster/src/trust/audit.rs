//! `muster audit`: print audit logs, and check their chains; needs no server.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use muster_runtime::trust::audit::chain;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::Output;

/// `muster audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the lines of all logs below a directory, one JSON object each, as the security monitor reads them.
    Export {
        /// The directory of a service's log, or that of all (`trust.audit.directory`).
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Only what was refused.
        #[arg(long)]
        refused: bool,
    },
    /// Follow the chain of each log to its end, and name the first line that does not fit.
    Verify {
        /// The directory of a service's log, or that of all (`trust.audit.directory`).
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The hash that a log is known to have had; it must be in one of them.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

/// Runs `muster audit …`.
pub fn run(command: &AuditCommand, output: &Output) -> Result<(), Failure> {
    match command {
        AuditCommand::Export { directory, refused } => export(directory, *refused, output),
        AuditCommand::Verify { directory, head } => verify(directory, head.as_deref(), output),
    }
}

fn chains(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |what: String| Failure::usage(format!("{}: {what}", directory.display()));
    let found = chain::chains(directory).map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("holds no audit log".to_owned())
            .with_remedy("name the directory that `trust.audit.directory` of a service names"));
    }
    Ok(found)
}

/// The lines of all files in order, with what they are.
fn lines(directory: &Path, mut take: impl FnMut(&str, &Value) -> Result<(), Failure>) -> Result<(), Failure> {
    for chain in chains(directory)? {
        let failed =
            |path: &Path, error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
        for path in chain::files(&chain).map_err(|error| failed(&chain, error))? {
            let file = File::open(&path).map_err(|error| failed(&path, error))?;
            for line in BufReader::new(file).lines() {
                let line = line.map_err(|error| failed(&path, error))?;
                // A torn one is the verification's to complain of.
                if let Ok(value) = serde_json::from_str(&line) {
                    take(&line, &value)?;
                }
            }
        }
    }
    Ok(())
}

fn export(directory: &Path, refused: bool, output: &Output) -> Result<(), Failure> {
    lines(directory, |line, value| {
        if !refused || value["outcome"] == "refused" {
            output.line(line);
        }
        Ok(())
    })
}

fn verify(directory: &Path, head: Option<&str>, output: &Output) -> Result<(), Failure> {
    let mut whole = Vec::new();
    for chain in chains(directory)? {
        let verified = chain::verify(&chain).map_err(|broken| {
            Failure::failed(format!("the chain is broken at {broken}"))
                .with_remedy("what follows that line cannot be relied on; compare with a copy, and find out who wrote there")
        })?;
        whole.push(verified);
    }
    if let Some(head) = head {
        let mut is_known = false;
        lines(directory, |_, value| {
            is_known |= value["hash"] == head;
            Ok(())
        })?;
        if !is_known {
            return Err(Failure::failed(format!("no line has the hash {head}"))
                .with_remedy("lines were cut off at the end, or the log was written anew"));
        }
    }
    if output.is_json() {
        let chains: Vec<Value> = whole
            .iter()
            .map(|chain| {
                json!({
                    "directory": chain.directory, "files": chain.files, "lines": chain.lines,
                    "first": chain.first, "head": chain.head.hash,
                })
            })
            .collect();
        output.json(&json!({ "ok": true, "chains": chains }));
        return Ok(());
    }
    for chain in whole {
        let begins = match chain.first {
            0 | 1 => String::new(),
            first => format!(", from number {first} on: older files were moved away"),
        };
        output.line(&format!(
            "{}: {} lines in {} files are whole{begins}; the last hash is {}",
            chain.directory.display(),
            chain.lines,
            chain.files,
            chain.head.hash
        ));
    }
    Ok(())
}
