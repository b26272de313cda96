//! Telling a torn end from damage, before the engine recovers.
//!
//! The engine appends every batch to a write-ahead file (`N.jnl`) and, when it opens, replays those files up to the
//! first record that makes no sense, then cuts the rest off. For the end of the file that is right: a crash in the
//! middle of a write leaves half a batch, which nobody was told is durable. But a flipped bit in the middle would
//! silently take every acknowledged batch after it along. So [`check`] walks the records first: if the end of a batch
//! can be found beyond the last batch that is reached record by record, the file is damaged, and opening is refused
//! with its name and position. The checksums of the batches that are reached are the engine's to verify; it refuses
//! too. Both refuse a last batch that is there but wrong: whether it was acknowledged cannot be told any more, and
//! to lose what was acknowledged is worse than to ask a person.
//!
//! Record layouts (little endian): `1 count:u32 seqno:u64` starts a batch, `2 kind:u8 compression:u8 keyspace:u64
//! key:u16 value:u32 stored:u32` and then key and stored value is an item, `4 keyspace:u64` clears a keyspace,
//! `3 checksum:u64 "FJL\x03"` ends a batch. New files are padded with zeros.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Error;

/// Ends every batch.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Tag, checksum and trailer of the record that ends a batch.
const END_BYTES: usize = 1 + 8 + TRAILER.len();

/// Checks every write-ahead file in `directory`; one that is not there yet is fine.
///
/// # Errors
/// A file is damaged before its end, or cannot be read.
pub fn check(directory: &Path) -> Result<(), Error> {
    for path in files(directory)? {
        check_file(&path)?;
    }
    Ok(())
}

/// The write-ahead file that is being written: the one with the highest number, else the directory.
pub(crate) fn newest(directory: &Path) -> PathBuf {
    files(directory)
        .ok()
        .and_then(|files| files.into_iter().next_back())
        .unwrap_or_else(|| directory.to_owned())
}

/// In the order of their numbers.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::io(directory, "list", error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jnl"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn check_file(path: &Path) -> Result<(), Error> {
    let inspect = || -> std::io::Result<Option<u64>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let stop = last_sound(&mut reader, length)?;
        reader.seek(SeekFrom::Start(stop))?;
        Ok(holds_a_batch_end(&mut reader)?.then_some(stop))
    };
    match inspect().map_err(|error| Error::io(path, "read", error))? {
        None => Ok(()),
        Some(position) => Err(Error::damaged(
            path,
            format!("no valid batch at byte {position}, but another ends after it"),
        )),
    }
}

/// Position after the last batch that can be reached from the start, record by record.
fn last_sound(reader: &mut BufReader<File>, length: u64) -> std::io::Result<u64> {
    let mut position = 0;
    let mut sound = 0;
    while let Some(record) = record(reader)? {
        position += record.read + record.rest;
        if position > length {
            break;
        }
        // What remains is at most a key and a value, both of 32-bit lengths.
        reader.seek_relative(i64::try_from(record.rest).unwrap_or(i64::MAX))?;
        if record.ends_batch {
            sound = position;
        }
    }
    Ok(sound)
}

struct Record {
    /// How many bytes of it were read.
    read: u64,
    /// How many are left.
    rest: u64,
    ends_batch: bool,
}

/// The record at the reader; `None` where there is none.
fn record(reader: &mut impl Read) -> std::io::Result<Option<Record>> {
    let Some([tag]) = take::<1>(reader)? else {
        return Ok(None);
    };
    let plain = |read, rest| {
        Some(Record {
            read,
            rest,
            ends_batch: false,
        })
    };
    Ok(match tag {
        1 => plain(1, 4 + 8),
        2 => take::<20>(reader)?
            .and_then(|head| contents(&head))
            .and_then(|rest| plain(1 + 20, rest)),
        3 => take::<12>(reader)?
            .filter(|end| end.ends_with(&TRAILER))
            .map(|_| Record {
                read: END_BYTES as u64,
                rest: 0,
                ends_batch: true,
            }),
        4 => plain(1, 8),
        _ => None,
    })
}

/// Size of an item's key and stored value.
fn contents(head: &[u8; 20]) -> Option<u64> {
    let [
        kind,
        compression,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        _,
        k0,
        k1,
        _,
        _,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
    ] = *head;
    let plausible = kind <= 4 && compression <= 1;
    let key = u64::from(u16::from_le_bytes([k0, k1]));
    let stored = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
    plausible.then_some(key + stored)
}

/// Exactly `N` bytes; `None` at the end of the file.
fn take<const N: usize>(reader: &mut impl Read) -> std::io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the rest of the file contains the record that ends a batch. Most rests are zeros, which go fast.
fn holds_a_batch_end(reader: &mut impl Read) -> std::io::Result<bool> {
    const CHUNK: usize = 256 * 1024;
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut window: Vec<u8> = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = reader.read(&mut chunk)?;
        if count == 0 {
            return Ok(false);
        }
        let fresh = chunk.get(..count).unwrap_or_default();
        if Some(fresh) == ZEROS.get(..count) {
            window.clear();
            continue;
        }
        window.extend_from_slice(fresh);
        if window
            .windows(END_BYTES)
            .any(|record| record.first() == Some(&3) && record.ends_with(&TRAILER))
        {
            return Ok(true);
        }
        // A record may lie across two chunks.
        let keep = window.len().min(END_BYTES - 1);
        window.drain(..window.len() - keep);
    }
}
