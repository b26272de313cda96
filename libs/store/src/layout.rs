//! Is the directory one that the engine can open?
//!
//! The engine trusts the names it finds among its own files and panics on others, some of these while it holds a
//! lock, which then ends the process. So the names are looked at first; what does not belong there is named.

use std::io::ErrorKind;
use std::path::Path;

use crate::Error;

/// Each directory in here is a keyspace and has a number for a name.
const KEYSPACES: &str = "keyspaces";

/// Refuses a directory with entries that the engine would trip over; one that is not there yet is fine.
pub(crate) fn check(directory: &Path) -> Result<(), Error> {
    for_each_entry(directory, |path, is_directory| {
        let write_ahead = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("jnl"));
        let numbered = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(is_number);
        if write_ahead && (is_directory || !numbered) {
            return Err(Error::damaged(
                path,
                "is not one of the store's files; move it away",
            ));
        }
        Ok(())
    })?;
    for_each_entry(&directory.join(KEYSPACES), |path, is_directory| {
        let numbered = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_number);
        if is_directory && !numbered {
            return Err(Error::damaged(
                path,
                "is not one of the store's directories; move it away",
            ));
        }
        Ok(())
    })
}

fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}

fn for_each_entry(
    directory: &Path,
    mut look: impl FnMut(&Path, bool) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |error| Error::io(directory, "list", error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        look(&entry.path(), !kind.is_file())?;
    }
    Ok(())
}
