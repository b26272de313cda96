//! Where the passages come from: a folder of Markdown, or Muster's own documentation, which is built in.

use std::path::{Path, PathBuf};

use crate::passage::{Passage, split};

/// Most documents in a folder.
pub const MAX_FILES: usize = 500;
/// Largest document.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Largest folder.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Muster's documentation: name and text of each document.
const BUILT_IN: [(&str, &str); 8] = [
    (
        "getting-started.md",
        include_str!("../knowledge/getting-started.md"),
    ),
    ("agents.md", include_str!("../knowledge/agents.md")),
    ("routing.md", include_str!("../knowledge/routing.md")),
    ("workflows.md", include_str!("../knowledge/workflows.md")),
    ("durability.md", include_str!("../knowledge/durability.md")),
    (
        "troubleshooting.md",
        include_str!("../knowledge/troubleshooting.md"),
    ),
    ("configuration.md", include_str!("../knowledge/configuration.md")),
    ("security.md", include_str!("../knowledge/security.md")),
];

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a document cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No documents.
    #[error("{}: there is no .md file with text in it", .0.display())]
    Empty(PathBuf),
    /// Too many or too large.
    #[error("{}: {what}; at most {limit} are read", path.display())]
    TooLarge {
        /// The folder or the document.
        path: PathBuf,
        /// What there is too much of.
        what: String,
        /// How much may be.
        limit: u64,
    },
}

/// The passages of the built-in documentation.
#[must_use]
pub fn built_in() -> Vec<Passage> {
    BUILT_IN
        .iter()
        .flat_map(|(file, markdown)| split(file, markdown))
        .collect()
}

/// The passages of the `.md` files in a folder (not below it), in order of their names.
///
/// # Errors
/// When the folder or a document cannot be read, is too large, or says nothing.
pub fn from_folder(folder: &Path) -> Result<Vec<Passage>, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Unreadable { path, source }
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("md"))
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            let limit = MAX_FILES as u64;
            return Err(Error::TooLarge {
                path: folder.to_owned(),
                what: format!("more than {limit} files"),
                limit,
            });
        }
    }
    files.sort();
    let mut total = 0;
    let mut passages = Vec::new();
    for path in files {
        let bytes = std::fs::metadata(&path).map_err(unreadable(&path))?.len();
        total += bytes;
        for (path, bytes, limit) in [
            (path.as_path(), bytes, MAX_FILE_BYTES),
            (folder, total, MAX_BYTES),
        ] {
            if bytes > limit {
                return Err(Error::TooLarge {
                    path: path.to_owned(),
                    what: format!("{bytes} bytes"),
                    limit,
                });
            }
        }
        let markdown = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        passages.extend(split(&name, &markdown));
    }
    if passages.is_empty() {
        return Err(Error::Empty(folder.to_owned()));
    }
    Ok(passages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_documentation_has_passages_and_known_issues() {
        let passages = built_in();
        assert!(passages.len() >= 40, "{}", passages.len());
        assert!(
            passages
                .iter()
                .filter(|passage| !passage.steps.is_empty())
                .count()
                >= 8
        );
        assert!(passages.iter().all(|passage| !passage.headings.is_empty()));
    }

    #[test]
    fn a_folder_is_read_in_order_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.md"), "# B\n\nSecond.").unwrap();
        std::fs::write(folder.path().join("a.MD"), "# A\n\nFirst.").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "nothing").unwrap();
        let passages = from_folder(folder.path()).unwrap();
        let topics: Vec<&str> = passages.iter().map(Passage::topic).collect();
        assert_eq!(topics, ["A", "B"]);
    }

    #[test]
    fn folders_that_cannot_serve_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            from_folder(folder.path())
                .unwrap_err()
                .to_string()
                .contains("no .md file")
        );
        let missing = from_folder(&folder.path().join("missing"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("missing"), "{missing}");
        std::fs::write(folder.path().join("bad.md"), b"\xff").unwrap();
        assert!(
            from_folder(folder.path())
                .unwrap_err()
                .to_string()
                .contains("bad.md")
        );
    }
}
