//! The files of an audit log.
//!
//! A file is appended to and never rewritten, but for its torn tail: what a killed process or a full disk has left of a line
//! is cut off when the file is opened, or before it is tried again, and a line says so. The next file begins when one is full, with
//! the hash of the last line of the one before.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::Entry;
use super::chain::{self, Head};
use crate::clock::SharedClock;

/// Lines that wait to be written.
const MOST_PENDING: usize = 8_192;
/// How long to wait before a log that could not be written is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// When a line is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Before the answer.
    Now,
    /// With the next lot.
    Soon,
}

/// An audit log that is open.
pub(crate) struct Log {
    service: String,
    clock: SharedClock,
    core: Mutex<Core>,
}

struct Core {
    directory: PathBuf,
    file: File,
    number: u64,
    /// Bytes of the file that are whole lines.
    written: u64,
    rotate: u64,
    head: Head,
    pending: Vec<u8>,
    waiting: usize,
    is_dirty: bool,
    /// Why it could not be written, and when that was tried.
    failed: Option<(String, Duration)>,
    /// Refusals that found no place.
    lost: u64,
    /// Held as long as the log is open.
    _lock: File,
}

impl Log {
    /// Opens the log of a service below `directory`, or makes it.
    ///
    /// # Errors
    /// Names the path and says what to do.
    pub(crate) fn open(
        directory: &Path,
        service: &str,
        rotate: u64,
        clock: SharedClock,
    ) -> Result<Self, String> {
        let directory = directory.join(service);
        let wrong = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
        std::fs::create_dir_all(&directory).map_err(|error| wrong(&directory, &error))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(|error| wrong(&lock_path, &error))?;
        lock.try_lock().map_err(|_| {
            format!(
                "{}: another process writes this log; give each process a directory of its own",
                directory.display()
            )
        })?;
        let files = chain::files(&directory).map_err(|error| wrong(&directory, &error))?;
        let mut head = Head::default();
        // An empty file says nothing: it was begun and never written.
        for file in files.iter().rev() {
            if let Some(last) = last_line(file).map_err(|error| wrong(file, &error))? {
                head = Head::after(&last).ok_or_else(|| {
                    format!(
                        "{}: its last line is no line of an audit log; see `muster audit verify`, and move the directory away",
                        file.display()
                    )
                })?;
                break;
            }
        }
        let path = files.last().cloned();
        let number = path.as_deref().and_then(chain::number).unwrap_or(1);
        let path = path.unwrap_or_else(|| directory.join(chain::file_name(number)));
        let (file, written, torn) = open_file(&path).map_err(|error| wrong(&path, &error))?;
        let log = Self {
            service: service.to_owned(),
            clock,
            core: Mutex::new(Core {
                directory,
                file,
                number,
                written,
                rotate,
                head,
                pending: Vec::new(),
                waiting: 0,
                is_dirty: false,
                failed: None,
                lost: 0,
                _lock: lock,
            }),
        };
        if torn > 0 {
            tracing::warn!(path = %path.display(), torn, "a torn line at the end of the audit log was cut off");
            log.append(
                Entry::named("audit_recovered")
                    .with("reason", &format!("{torn} bytes of a torn line were cut off")),
                Urgency::Now,
            )?;
        }
        Ok(log)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The log cannot be written, and the line is not in it.
    pub(crate) fn append(&self, entry: Entry, urgency: Urgency) -> Result<(), String> {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let mut core = self.core.lock();
        if let Some((what, since)) = &core.failed
            && monotonic.saturating_sub(*since) < PAUSE
        {
            return Err(what.clone());
        }
        if core.waiting >= MOST_PENDING {
            core.flush(monotonic)?;
        }
        let before = (core.head.clone(), core.pending.len(), core.waiting);
        core.push(entry, &self.service, now);
        if urgency == Urgency::Now || core.failed.is_some() {
            let outcome = core.flush(monotonic);
            if outcome.is_err() {
                // It is refused, so that it must not be said later that it was allowed.
                (core.head, core.waiting) = (before.0, before.2);
                core.pending.truncate(before.1);
            }
            return outcome;
        }
        Ok(())
    }

    /// Adds a line about a refusal, which stands whether or not it is in the log.
    pub(crate) fn note(&self, entry: Entry) {
        if let Err(what) = self.append(entry, Urgency::Soon) {
            self.core.lock().lost += 1;
            tracing::error!(what, "a refusal is not in the audit log");
        }
    }

    /// Writes what waits, and has it on the disk. To be called now and then, where blocking is allowed.
    pub(crate) fn sync(&self) {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let mut core = self.core.lock();
        if core.lost > 0 && core.failed.is_none() {
            let lost = std::mem::take(&mut core.lost);
            let entry = Entry::named("audit_lost").with(
                "reason",
                &format!("{lost} refusals came while the log could not be written"),
            );
            core.push(entry, &self.service, now);
        }
        if let Err(what) = core.flush(monotonic) {
            tracing::error!(what, "the audit log cannot be written");
            return;
        }
        if core.is_dirty {
            match core.file.sync_data() {
                Ok(()) => core.is_dirty = false,
                Err(error) => tracing::error!(%error, "the audit log cannot be synchronized"),
            }
        }
    }

    /// Writes what waits.
    pub(crate) fn flush(&self) {
        let monotonic = self.clock.monotonic();
        // Told by those who append, and by `sync`.
        let _told = self.core.lock().flush(monotonic);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.sync();
    }
}

impl Core {
    fn push(&mut self, entry: Entry, service: &str, now: Timestamp) {
        let mut fields = entry.into_fields();
        fields.insert("service".to_owned(), Value::from(service));
        fields.insert("time".to_owned(), Value::from(format!("{now:.3}")));
        let line = self.head.seal(fields);
        self.pending.extend_from_slice(line.as_bytes());
        self.waiting += 1;
    }

    fn flush(&mut self, now: Duration) -> Result<(), String> {
        if self.pending.is_empty() && self.failed.is_none() {
            return Ok(());
        }
        let outcome = self.write();
        match outcome {
            Ok(()) => {
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                let what = format!(
                    "the audit log {} cannot be written: {error}; make room, or correct its permissions",
                    self.directory.display()
                );
                self.failed = Some((what.clone(), now));
                Err(what)
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.failed.is_some() {
            // What a failed attempt has left of a line.
            self.file.set_len(self.written)?;
        }
        self.file.write_all(&self.pending)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        self.waiting = 0;
        self.is_dirty = true;
        if self.written >= self.rotate
            && let Err(error) = self.rotate()
        {
            // What was to be written is written; the file grows until there can be another.
            tracing::error!(%error, "the audit log cannot begin another file");
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let path = self.directory.join(chain::file_name(self.number + 1));
        let (file, written, _) = open_file(&path)?;
        (self.file, self.written) = (file, written);
        self.number += 1;
        Ok(())
    }
}

/// A file to append to, cut to its whole lines; how many bytes they have, and how many were cut.
fn open_file(path: &Path) -> io::Result<(File, u64, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = whole_lines(path)?;
    if whole < length {
        file.set_len(whole)?;
    }
    Ok((file, whole, length - whole))
}

fn whole_lines(path: &Path) -> io::Result<u64> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut whole, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(whole);
        }
        whole += read as u64;
    }
}

/// The last line that has an end.
fn last_line(path: &Path) -> io::Result<Option<String>> {
    let mut last = None;
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(last);
        }
        last = Some(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::Event;
    use super::*;
    use crate::clock::ManualClock;

    fn open(directory: &Path, rotate: u64) -> Log {
        let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
        Log::open(directory, "router", rotate, clock).unwrap()
    }

    fn fill(directory: &Path, lines: usize, rotate: u64) {
        let log = open(directory, rotate);
        for line in 0..lines {
            let entry = Entry::new(Event::Allowed).with("object", &format!("task {line} \u{e4}\n"));
            let urgency = if line % 3 == 0 {
                Urgency::Now
            } else {
                Urgency::Soon
            };
            log.append(entry, urgency).unwrap();
        }
    }

    #[test]
    fn a_chain_goes_on_over_files_and_restarts() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            fill(directory.path(), 40, 4_000);
        }
        let chains = chain::chains(directory.path()).unwrap();
        assert_eq!(chains, [directory.path().join("router")]);
        let whole = chain::verify(&chains[0]).unwrap();
        assert_eq!((whole.lines, whole.first, whole.head.next), (120, 1, 121));
        assert!(whole.files > 3, "{whole:?}");
        // The oldest may be moved away, and no other.
        let files = chain::files(&chains[0]).unwrap();
        std::fs::remove_file(&files[0]).unwrap();
        assert!(chain::verify(&chains[0]).unwrap().first > 1);
        std::fs::remove_file(&files[2]).unwrap();
        let broken = chain::verify(&chains[0]).unwrap_err();
        assert!(broken.to_string().contains("missing"), "{broken}");
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_said_and_one_process_writes() {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path(), 5, 1 << 20);
        let file = directory.path().join("router").join(chain::file_name(1));
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(b"{\"event\":\"acc").unwrap();
        let broken = chain::verify(&directory.path().join("router")).unwrap_err();
        assert_eq!(broken.line, 6);
        let log = open(directory.path(), 1 << 20);
        let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
        let refused = Log::open(directory.path(), "router", 1 << 20, clock)
            .err()
            .unwrap();
        assert!(refused.contains("another process"), "{refused}");
        drop(log);
        let whole = chain::verify(&directory.path().join("router")).unwrap();
        assert_eq!(whole.lines, 6);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().last().unwrap().contains("audit_recovered"));
    }

    /// A full disk, as `/dev/full` has it.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_change_that_cannot_be_written_is_refused_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
        let log = Log::open(directory.path(), "router", 1 << 20, clock.clone()).unwrap();
        log.append(Entry::new(Event::Allowed), Urgency::Now).unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut log.core.lock().file, full);
        let told = log.append(Entry::new(Event::Allowed), Urgency::Now).unwrap_err();
        assert!(told.contains("cannot be written"), "{told}");
        log.note(Entry::new(Event::AccessRefused));
        assert!(log.append(Entry::new(Event::Allowed), Urgency::Soon).is_err());
        log.core.lock().file = file;
        clock.advance(PAUSE);
        log.append(Entry::new(Event::Allowed), Urgency::Now).unwrap();
        drop(log);
        let path = directory.path().join("router");
        assert_eq!(
            chain::verify(&path).unwrap().lines,
            3,
            "two changes, and what was lost"
        );
        let text = std::fs::read_to_string(path.join(chain::file_name(1))).unwrap();
        assert!(text.contains("audit_lost"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn whatever_is_changed_is_found(
            lines in 2_usize..12, at in any::<prop::sample::Index>(), bit in 0_u8..7, cut in any::<prop::sample::Index>()
        ) {
            let directory = tempfile::tempdir().unwrap();
            fill(directory.path(), lines, 1 << 20);
            let path = directory.path().join("router");
            let file = path.join(chain::file_name(1));
            let good = std::fs::read(&file).unwrap();
            let mut bytes = good.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            std::fs::write(&file, &bytes).unwrap();
            let broken = chain::verify(&path).unwrap_err();
            let line = good[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            // A line end that is gone makes one line of two.
            prop_assert!(broken.line == line || broken.line == line + 1, "{} {}", broken, line);
            // A line that is taken out.
            let text = String::from_utf8(good).unwrap();
            let gone = cut.index(lines - 1);
            let left: String = text.lines().enumerate().filter(|(index, _)| *index != gone).map(|(_, line)| format!("{line}\n")).collect();
            std::fs::write(&file, left).unwrap();
            let outcome = chain::verify(&path);
            if gone == 0 {
                prop_assert_eq!(outcome.unwrap().first, 2, "as if older files had been moved away, which is said");
            } else {
                prop_assert_eq!(outcome.unwrap_err().line, gone as u64 + 1);
            }
        }
    }
}
