//! What a directory holds, and in which version: a one-line file that is read before anything else.
//!
//! A plain file and not a record in the database, because a newer version may use an engine that this one cannot
//! even open, and because a person can read it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use crate::Error;

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "format";

/// Says that what the directory holds is encrypted; software that does not know of it refuses the line.
const SEALED: &str = " sealed";

/// Larger than any line that we write.
const MOST_BYTES: u64 = 256;

/// Name and version of the data in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// What it is, such as `workflow-engine`: one word.
    pub name: &'static str,
    /// Version of keys and values, from 1; raised when older software would misread them.
    pub version: u32,
    /// The oldest version that can be used as it is. A directory of such a version becomes one of this version when it is
    /// opened, because from then on older software may misread what is written.
    pub oldest: u32,
}

impl Format {
    /// Whether data of this format can be used.
    pub(crate) fn reads(self, name: &str, version: u32) -> bool {
        name == self.name && (self.oldest..=self.version).contains(&version)
    }

    /// The version that the directory is in, if it is in use and can be used.
    ///
    /// # Errors
    /// It holds something else, or another version than can be used.
    pub fn found(self, directory: &Path) -> Result<Option<u32>, Error> {
        let path = directory.join(FILE);
        match read(&path)? {
            None => Ok(None),
            Some(text) => self.check(&path, &text).map(Some),
        }
    }

    /// Accepts a directory of this format, marks an unused one and one of an older version that can be used, refuses every
    /// other.
    pub(crate) fn check_or_mark(self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        match read(&path)? {
            None => self.mark(directory, false),
            Some(text) => {
                if self.check(&path, &text)? < self.version {
                    tracing::info!(path = %path.display(), from = text.trim_end(), to = self.version, "the format is raised");
                    self.mark(directory, text.trim_end().ends_with(SEALED))?;
                }
                Ok(())
            }
        }
    }

    /// Says of a directory of this format that what it holds is encrypted.
    pub(crate) fn mark_sealed(self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, "read", error))?;
        if text.trim_end().ends_with(SEALED) {
            return Ok(());
        }
        self.mark(directory, true)
    }

    /// The version found, if it can be used.
    fn check(self, path: &Path, text: &str) -> Result<u32, Error> {
        let damaged = || Error::damaged(path, "is not a name and a version");
        let text = text.trim_end();
        let plain = text.strip_suffix(SEALED).unwrap_or(text);
        let (name, version) = plain.split_once(' ').ok_or_else(damaged)?;
        let found: u32 = version.parse().map_err(|_| damaged())?;
        let (path, supported) = (path.to_owned(), self.version);
        if name != self.name {
            return Err(Error::ForeignFormat {
                path,
                found: name.to_owned(),
                expected: self.name.to_owned(),
            });
        }
        if self.reads(name, found) {
            return Ok(found);
        }
        let name = name.to_owned();
        Err(if found > supported {
            Error::NewerFormat {
                path,
                name,
                found,
                supported,
            }
        } else {
            Error::OlderFormat {
                path,
                name,
                found,
                supported,
            }
        })
    }

    /// Written whole before it gets its name, so that a crash leaves no half of it.
    fn mark(self, directory: &Path, is_sealed: bool) -> Result<(), Error> {
        let draft = directory.join("format.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&draft)?;
            let sealed = if is_sealed { SEALED } else { "" };
            writeln!(file, "{} {}{sealed}", self.name, self.version)?;
            file.sync_all()?;
            std::fs::rename(&draft, directory.join(FILE))?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| Error::io(&draft, "write", error))
    }
}

/// What the file says; `None` if it is not there.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read", error)),
        Ok(metadata) if metadata.len() > MOST_BYTES => Err(Error::damaged(path, "too long")),
        Ok(_) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(Error::io(path, "read", error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format {
        name: "engine",
        version: 3,
        oldest: 2,
    };

    #[test]
    fn an_unused_directory_is_marked_and_then_accepted() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(FORMAT.found(directory.path()).unwrap(), None);
        FORMAT.check_or_mark(directory.path()).unwrap();
        FORMAT.check_or_mark(directory.path()).unwrap();
        assert_eq!(FORMAT.found(directory.path()).unwrap(), Some(FORMAT.version));
        assert_eq!(
            std::fs::read_to_string(directory.path().join(FILE)).unwrap(),
            "engine 3\n"
        );
    }

    #[test]
    fn an_older_version_that_can_be_used_becomes_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, "engine 2\n").unwrap();
        FORMAT.check_or_mark(directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "engine 3\n");
    }

    #[test]
    fn what_is_encrypted_says_so_and_goes_on_saying_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, "engine 2\n").unwrap();
        let older = Format { version: 2, ..FORMAT };
        for _ in 0..2 {
            older.mark_sealed(directory.path()).unwrap();
            older.check_or_mark(directory.path()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "engine 2 sealed\n");
        }
        FORMAT.check_or_mark(directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "engine 3 sealed\n");
    }

    #[test]
    fn other_formats_are_refused_by_name() {
        let path = Path::new("/data/format");
        assert!(matches!(
            FORMAT.check(path, "engine 4\n"),
            Err(Error::NewerFormat {
                found: 4,
                supported: 3,
                ..
            })
        ));
        assert!(matches!(
            FORMAT.check(path, "engine 1\n"),
            Err(Error::OlderFormat { found: 1, .. })
        ));
        assert!(matches!(
            FORMAT.check(path, "router 3\n"),
            Err(Error::ForeignFormat { .. })
        ));
        for text in ["", "engine", "engine x", "engine -1", "engine 99999999999"] {
            let error = FORMAT.check(path, text).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{text:?}");
            assert!(error.to_string().contains("/data/format"), "{error}");
        }
    }
}
