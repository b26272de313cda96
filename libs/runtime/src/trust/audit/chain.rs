//! Lines and their hashes, and where a chain breaks.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// What the first line of all has in the place of the hash before it.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Longest line that is read.
const LONGEST_LINE: u64 = 64 << 10;

/// Where a chain stands: the next line's number, and the hash of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the line to come; the first is 1.
    pub next: u64,
    /// Hash of the last line.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            next: 1,
            hash: BEGINNING.to_owned(),
        }
    }
}

impl Head {
    /// The line that these fields become, with its line end; the head moves on.
    pub(super) fn seal(&mut self, mut fields: Map<String, Value>) -> String {
        fields.insert("sequence".to_owned(), Value::from(self.next));
        fields.insert("previous".to_owned(), Value::from(self.hash.as_str()));
        let hash = digest(&fields);
        fields.insert("hash".to_owned(), Value::from(hash.as_str()));
        let line = canonical(&fields);
        self.next += 1;
        self.hash = hash;
        line + "\n"
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// Says what is wrong with it.
    fn follow(&mut self, line: &str, is_first: bool) -> Result<(), String> {
        let fields: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("it is no JSON object: {error}"))?;
        let (sequence, previous, hash) = parts(&fields)?;
        let mut unsealed = fields.clone();
        unsealed.remove("hash");
        if digest(&unsealed) != hash {
            return Err("it was changed: its hash does not fit".to_owned());
        }
        // Older files may have been moved away; what is left is whole in itself.
        if !is_first {
            if previous != self.hash {
                return Err(format!(
                    "a line before it was removed, inserted or changed: it follows '{previous}', and the line before it is '{}'",
                    self.hash
                ));
            }
            if sequence != self.next {
                return Err(format!("it has number {sequence}, and {} was to come", self.next));
            }
        } else if sequence == 1 && previous != BEGINNING {
            return Err("it is the first line and follows another".to_owned());
        }
        self.next = sequence.saturating_add(1);
        hash.clone_into(&mut self.hash);
        Ok(())
    }

    /// Where the chain stands after a line that is taken as it is.
    pub(super) fn after(line: &str) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        let (sequence, _, hash) = parts(&fields).ok()?;
        Some(Self {
            next: sequence.checked_add(1)?,
            hash: hash.to_owned(),
        })
    }
}

fn parts(fields: &Map<String, Value>) -> Result<(u64, &str, &str), String> {
    let missing = |name: &str| format!("it has no '{name}'");
    let text = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| missing(name))
    };
    let sequence = fields.get("sequence").and_then(Value::as_u64);
    Ok((
        sequence.ok_or_else(|| missing("sequence"))?,
        text("previous")?,
        text("hash")?,
    ))
}

fn canonical(fields: &Map<String, Value>) -> String {
    // Texts and whole numbers always have a canonical form.
    serde_json_canonicalizer::to_string(fields).unwrap_or_default()
}

fn digest(fields: &Map<String, Value>) -> String {
    let hash: [u8; 32] = Sha256::digest(canonical(fields).as_bytes()).into();
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

/// A chain that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its directory.
    pub directory: PathBuf,
    /// How many files it has.
    pub files: usize,
    /// How many lines.
    pub lines: u64,
    /// Number of its first line: above 1 where older files were moved away.
    pub first: u64,
    /// Where it stands.
    pub head: Head,
}

/// Where a chain breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {what}", file.display())]
pub struct Broken {
    /// In which file.
    pub file: PathBuf,
    /// In which line, from 1; 0 for the file itself.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

/// The directories of chains: `directory` itself, or those in it.
///
/// # Errors
/// It cannot be read.
pub fn chains(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !files(directory)?.is_empty() {
        return Ok(vec![directory.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() && !files(&path)?.is_empty() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The files of a chain, in order.
///
/// # Errors
/// The directory cannot be read.
pub fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if number(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// All lines of a chain as JSON, in order. A last one that is under way is left out; whether they are whole, [`verify`] says.
///
/// # Errors
/// The directory cannot be read, or a file.
pub fn lines(directory: &Path) -> std::io::Result<Vec<Value>> {
    let mut lines = Vec::new();
    for file in files(directory)? {
        let text = std::fs::read_to_string(file)?;
        lines.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    Ok(lines)
}

/// The number in a file's name.
pub(super) fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    (digits.len() == 10).then(|| digits.parse().ok()).flatten()
}

/// The name of a file.
pub(super) fn file_name(number: u64) -> String {
    format!("audit-{number:010}.jsonl")
}

/// Follows a chain to its end.
///
/// # Errors
/// The first place where it breaks.
pub fn verify(directory: &Path) -> Result<Whole, Broken> {
    let broken = |file: &Path, line, what: String| Broken {
        file: file.to_owned(),
        line,
        what,
    };
    let files = files(directory).map_err(|error| broken(directory, 0, error.to_string()))?;
    let (mut head, mut lines, mut first) = (Head::default(), 0_u64, 0);
    let mut expected = None;
    for file in &files {
        let this = number(file);
        if let (Some(expected), Some(this)) = (expected, this)
            && expected != this
        {
            return Err(broken(
                file,
                0,
                format!("the file {} is missing before it", file_name(expected)),
            ));
        }
        expected = this.map(|this| this.saturating_add(1));
        let opened = File::open(file).map_err(|error| broken(file, 0, error.to_string()))?;
        let mut reader = BufReader::new(opened);
        for number in 1.. {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            if read.map_err(|error| broken(file, number, error.to_string()))? == 0 {
                break;
            }
            if line.pop() != Some(b'\n') {
                return Err(broken(file, number, "it is torn: it has no end".to_owned()));
            }
            let line =
                String::from_utf8(line).map_err(|_| broken(file, number, "it is no text".to_owned()))?;
            head.follow(&line, lines == 0)
                .map_err(|what| broken(file, number, what))?;
            if lines == 0 {
                first = head.next - 1;
            }
            lines += 1;
        }
    }
    Ok(Whole {
        directory: directory.to_owned(),
        files: files.len(),
        lines,
        first,
        head,
    })
}
