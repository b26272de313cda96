//! Layout of a backup.
//!
//! ```text
//! file  = "MUSTERBK" layout:u32 block…          layout: 1; raised when older software would misread what follows
//! block = kind:u8 length:u32 content check      length: of the content, at most 80 MiB
//! ```
//!
//! Numbers are little endian. The `check` of a block is the beginning of the SHA-256 of the whole file up to it: 8 bytes, of the
//! last block all 32. So a block that is altered, left out, repeated or moved is noticed where it stands, before it is used.
//!
//! | kind | content | where |
//! |---|---|---|
//! | `F` | version:u32 of the data's format, time:i64 of the snapshot in milliseconds since 1970, name of the format | first, once |
//! | `K` | name of a keyspace | before its entries, once for each, in order of names |
//! | `E` | entries: key length:u32, value length:u32, key, value; in order of keys | any number |
//! | `Z` | keyspaces:u32, entries:u64 | last, once; the file ends after it |
//!
//! A block of entries is closed once it has 64 KiB, so it is that large, or holds a single larger entry at its end.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{Error, Summary};
use crate::Format;

const MAGIC: [u8; 8] = *b"MUSTERBK";
const LAYOUT: u32 = 1;

/// A block of entries is closed once it has so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// Largest entry: twice the largest batch that a database takes by default.
const MOST_ENTRY_BYTES: usize = 64 * 1024 * 1024;

/// Largest content of a block.
const MOST_BLOCK_BYTES: usize = MOST_ENTRY_BYTES + 16 * 1024 * 1024;

/// Bytes of the check of a block that is not the last.
const CHECK_BYTES: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Format = b'F',
    Keyspace = b'K',
    Entries = b'E',
    End = b'Z',
}

impl Kind {
    const ALL: [Self; 4] = [Self::Format, Self::Keyspace, Self::Entries, Self::End];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    fn check_bytes(self) -> usize {
        match self {
            Self::Format | Self::Keyspace | Self::Entries => CHECK_BYTES,
            Self::End => 32,
        }
    }
}

/// What both sides come to know on the way.
struct Tally {
    digest: Sha256,
    bytes: u64,
    format: String,
    format_version: u32,
    taken_at: Timestamp,
    keyspaces: Vec<(String, u64)>,
}

impl Tally {
    fn new() -> Self {
        Self {
            digest: Sha256::new(),
            bytes: 0,
            format: String::new(),
            format_version: 0,
            taken_at: Timestamp::UNIX_EPOCH,
            keyspaces: Vec::new(),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The check of a block of that kind, if the file goes on from here with it.
    fn check(&self, kind: Kind) -> Vec<u8> {
        let mut check = self.digest.clone().finalize().to_vec();
        check.truncate(kind.check_bytes());
        check
    }

    fn entries(&self) -> u64 {
        self.keyspaces.iter().map(|(_, entries)| entries).sum()
    }

    /// Content of the last block.
    fn end(&self) -> Vec<u8> {
        let mut end = u32::try_from(self.keyspaces.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes()
            .to_vec();
        end.extend(self.entries().to_le_bytes());
        end
    }

    fn summary(self) -> Summary {
        let sha256 = self.digest.finalize();
        Summary {
            format: self.format,
            format_version: self.format_version,
            taken_at: self.taken_at,
            bytes: self.bytes,
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            keyspaces: self.keyspaces,
        }
    }
}

/// Writes a backup.
pub(crate) struct Writer<W> {
    to: W,
    path: PathBuf,
    tally: Tally,
    entries: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a backup of the database at `path`.
    pub(crate) fn begin(to: W, path: &Path, format: Format, taken_at: Timestamp) -> Result<Self, Error> {
        let milliseconds = taken_at.as_millisecond();
        let mut tally = Tally::new();
        format.name.clone_into(&mut tally.format);
        tally.format_version = format.version;
        tally.taken_at = Timestamp::from_millisecond(milliseconds).unwrap_or(taken_at);
        let mut writer = Self {
            to,
            path: path.to_owned(),
            tally,
            entries: Vec::new(),
        };
        writer.write(&MAGIC)?;
        writer.write(&LAYOUT.to_le_bytes())?;
        let mut head = format.version.to_le_bytes().to_vec();
        head.extend(milliseconds.to_le_bytes());
        head.extend(format.name.as_bytes());
        writer.block(Kind::Format, &head)?;
        Ok(writer)
    }

    pub(crate) fn keyspace(&mut self, name: &str) -> Result<(), Error> {
        self.close()?;
        self.block(Kind::Keyspace, name.as_bytes())?;
        self.tally.keyspaces.push((name.to_owned(), 0));
        Ok(())
    }

    /// The next entry of the keyspace that was named last.
    pub(crate) fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let bytes = key.len() + value.len();
        let lengths = u32::try_from(key.len())
            .ok()
            .zip(u32::try_from(value.len()).ok())
            .filter(|_| bytes <= MOST_ENTRY_BYTES);
        let Some((key_length, value_length)) = lengths else {
            return Err(Error::TooLarge {
                path: self.path.clone(),
                bytes,
                limit: MOST_ENTRY_BYTES,
            });
        };
        self.entries.extend(key_length.to_le_bytes());
        self.entries.extend(value_length.to_le_bytes());
        self.entries.extend(key);
        self.entries.extend(value);
        if let Some((_, entries)) = self.tally.keyspaces.last_mut() {
            *entries += 1;
        }
        if self.entries.len() < BLOCK_BYTES {
            return Ok(());
        }
        self.close()
    }

    pub(crate) fn finish(mut self) -> Result<Summary, Error> {
        self.close()?;
        let end = self.tally.end();
        self.block(Kind::End, &end)?;
        let flushed = self.to.flush();
        flushed.map_err(|error| self.refused(error))?;
        Ok(self.tally.summary())
    }

    /// Writes the entries that are gathered.
    fn close(&mut self) -> Result<(), Error> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.entries);
        self.block(Kind::Entries, &entries)?;
        entries.clear();
        // One large entry must not cost its memory for the rest of the backup.
        entries.shrink_to(2 * BLOCK_BYTES);
        self.entries = entries;
        Ok(())
    }

    fn block(&mut self, kind: Kind, content: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.write(&[kind as u8])?;
        self.write(&length.to_le_bytes())?;
        self.write(content)?;
        let check = self.tally.check(kind);
        self.write(&check)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.to.write_all(bytes);
        written.map_err(|error| self.refused(error))?;
        self.tally.add(bytes);
        Ok(())
    }

    fn refused(&self, error: std::io::Error) -> Error {
        Error::io(&self.path, "write the backup", error)
    }
}

/// A key and its value.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// What a block says, once it is known to be as it was written.
#[derive(Debug)]
pub(crate) enum Block<'a> {
    /// The entries of this keyspace follow.
    Keyspace(&'a str),
    /// Some of them.
    Entries(Vec<Entry<'a>>),
}

/// Reads a backup, and writes it on as it is.
pub(crate) struct Reader<R, W> {
    from: R,
    path: PathBuf,
    to: W,
    to_path: PathBuf,
    tally: Tally,
    content: Vec<u8>,
    ended: bool,
}

impl<R: Read, W: Write> Reader<R, W> {
    /// Reads up to what the backup is of. The paths are what the two are called in errors.
    pub(crate) fn begin(from: R, path: &Path, to: W, to_path: &Path) -> Result<Self, Error> {
        let mut reader = Self {
            from,
            path: path.to_owned(),
            to,
            to_path: to_path.to_owned(),
            tally: Tally::new(),
            content: Vec::new(),
            ended: false,
        };
        reader.magic()?;
        let layout = u32::from_le_bytes(reader.array()?);
        if layout > LAYOUT {
            return Err(Error::NewerLayout {
                path: path.to_owned(),
                found: layout,
                supported: LAYOUT,
            });
        }
        let begin = reader.tally.bytes;
        if layout != LAYOUT {
            return Err(reader.damaged(0, "there was never such a version of the layout"));
        }
        let kind = reader.checked()?;
        let head = reader.head().filter(|_| kind == Kind::Format);
        let (version, taken_at, name) =
            head.ok_or_else(|| reader.damaged(begin, "it does not say what the backup is of"))?;
        reader.tally.format = name;
        reader.tally.format_version = version;
        reader.tally.taken_at = taken_at;
        Ok(reader)
    }

    /// Refuses a backup of anything but this format.
    pub(crate) fn expect(&self, format: Format) -> Result<(), Error> {
        if format.reads(&self.tally.format, self.tally.format_version) {
            return Ok(());
        }
        Err(Error::OtherFormat {
            path: self.path.clone(),
            found: self.tally.format.clone(),
            found_version: self.tally.format_version,
            expected: format.name.to_owned(),
            expected_version: format.version,
        })
    }

    /// The next block; nothing at the end.
    pub(crate) fn block(&mut self) -> Result<Option<Block<'_>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let begin = self.tally.bytes;
        let kind = self.checked()?;
        let to = self.tally.bytes;
        let damaged = |path: &Path, what| Error::Damaged {
            path: path.to_owned(),
            from: begin,
            to,
            what,
        };
        match kind {
            Kind::Format => Err(damaged(&self.path, "it says again what the backup is of")),
            Kind::Keyspace => {
                let name = std::str::from_utf8(&self.content)
                    .ok()
                    .filter(|name| !name.is_empty() && name.len() <= usize::from(u8::MAX))
                    .ok_or_else(|| damaged(&self.path, "this is no name of a keyspace"))?;
                if self
                    .tally
                    .keyspaces
                    .last()
                    .is_some_and(|(last, _)| last.as_str() >= name)
                {
                    return Err(damaged(&self.path, "the keyspaces are not in order"));
                }
                self.tally.keyspaces.push((name.to_owned(), 0));
                Ok(Some(Block::Keyspace(name)))
            }
            Kind::Entries => {
                let entries =
                    entries(&self.content).ok_or_else(|| damaged(&self.path, "these are not entries"))?;
                let (_, counted) = self
                    .tally
                    .keyspaces
                    .last_mut()
                    .ok_or_else(|| damaged(&self.path, "entries stand outside a keyspace"))?;
                *counted += entries.len() as u64;
                Ok(Some(Block::Entries(entries)))
            }
            Kind::End => {
                if self.content != self.tally.end() {
                    return Err(damaged(&self.path, "its end counts other entries"));
                }
                let mut more = [0];
                match self.read_some(&mut more)? {
                    0 => {
                        self.ended = true;
                        Ok(None)
                    }
                    _ => Err(damaged(&self.path, "something follows its end")),
                }
            }
        }
    }

    /// What was read, after the last block.
    pub(crate) fn finish(mut self) -> Result<Summary, Error> {
        // Whoever has not seen the end has not seen that all of it is as it was written.
        while self.block()?.is_some() {}
        let flushed = self.to.flush();
        flushed.map_err(|error| Error::io(&self.to_path, "write the backup", error))?;
        Ok(self.tally.summary())
    }

    fn magic(&mut self) -> Result<(), Error> {
        let mut found = [0; MAGIC.len()];
        let mut length = 0;
        while let Some(rest) = found.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.read_some(rest)? {
                0 => break,
                count => length += count,
            }
        }
        let found = found.get(..length).unwrap_or_default();
        if !MAGIC.starts_with(found) {
            return Err(Error::NotABackup(self.path.clone()));
        }
        self.pass(found)?;
        if length < MAGIC.len() {
            return Err(self.cut_off());
        }
        Ok(())
    }

    /// Reads a block's content, and checks it.
    fn checked(&mut self) -> Result<Kind, Error> {
        let begin = self.tally.bytes;
        let [kind] = self.array()?;
        let length = u32::from_le_bytes(self.array()?) as usize;
        let kind = Kind::of(kind).ok_or_else(|| self.damaged(begin, "there is no such block"))?;
        if length > MOST_BLOCK_BYTES {
            return Err(self.damaged(begin, "no block is that long"));
        }
        let mut content = std::mem::take(&mut self.content);
        content.clear();
        content.shrink_to(2 * BLOCK_BYTES);
        // Grows with what is there, not with what a length says.
        let read = (&mut self.from).take(length as u64).read_to_end(&mut content);
        read.map_err(|error| Error::io(&self.path, "read", error))?;
        self.pass(&content)?;
        if content.len() < length {
            return Err(self.cut_off());
        }
        self.content = content;
        let expected = self.tally.check(kind);
        let mut check = vec![0; expected.len()];
        self.fill(&mut check)?;
        if check != expected {
            return Err(self.damaged(begin, "it is not as it was written"));
        }
        Ok(kind)
    }

    /// Version of the format, time and name of the format.
    fn head(&self) -> Option<(u32, Timestamp, String)> {
        let (version, rest) = self.content.split_first_chunk()?;
        let (milliseconds, name) = rest.split_first_chunk()?;
        let taken_at = Timestamp::from_millisecond(i64::from_le_bytes(*milliseconds)).ok()?;
        let name = std::str::from_utf8(name).ok()?;
        Some((u32::from_le_bytes(*version), taken_at, name.to_owned()))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.from.read_exact(bytes) {
            Ok(()) => self.pass(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(self.cut_off()),
            Err(error) => Err(Error::io(&self.path, "read", error)),
        }
    }

    fn read_some(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.from.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map_err(|error| Error::io(&self.path, "read", error)),
            }
        }
    }

    /// Counts what was read, and writes it on.
    fn pass(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.tally.add(bytes);
        let written = self.to.write_all(bytes);
        written.map_err(|error| Error::io(&self.to_path, "write the backup", error))
    }

    fn cut_off(&self) -> Error {
        Error::CutOff {
            path: self.path.clone(),
            position: self.tally.bytes,
        }
    }

    fn damaged(&self, from: u64, what: &'static str) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            from,
            to: self.tally.bytes,
            what,
        }
    }
}

/// The entries in the content of a block; nothing if it is not made of entries.
fn entries(mut content: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    while !content.is_empty() {
        let (key, rest) = content.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value) as usize)?;
        entries.push((key, value));
        content = rest;
    }
    Some(entries)
}
