//! The name under which an engine holds leases, kept in its data directory.

use std::io::ErrorKind;
use std::path::Path;

use muster_runtime::Error;

/// File in the data directory.
const FILE: &str = "owner";

/// The name that the directory keeps, or a new one.
pub(crate) fn kept_in(directory: &Path) -> Result<String, Error> {
    let path = directory.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let known = text.trim().parse::<uuid::Uuid>();
            known
                .map(|owner| owner.to_string())
                .map_err(|_| Error::DataDirectory {
                    path: path.clone(),
                    what: "holds no UUID; remove the file".to_owned(),
                })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let owner = uuid::Uuid::new_v4().to_string();
            keep(&path, &owner).map_err(|error| Error::DataDirectory {
                path: path.clone(),
                what: format!("cannot be written: {error}; choose another or correct its permissions"),
            })?;
            Ok(owner)
        }
        Err(error) => Err(Error::DataDirectory {
            path,
            what: format!("cannot be read: {error}; correct its permissions"),
        }),
    }
}

/// Written whole before it gets its name, so that a crash leaves no half of it.
fn keep(path: &Path, owner: &str) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, format!("{owner}\n"))?;
    std::fs::rename(draft, path)
}
