//! The contract of a service from its source: a `.proto` file and what it imports.
//!
//! Files are read by whoever calls, so that they come over the guarded way; the compiler here only asks for what is
//! missing. Imports are looked for beside the first file, by their path; Google's well-known files are known.

use std::collections::HashMap;

use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// Most files of one contract.
pub(super) const MOST_FILES: usize = 100;

/// Name of the first file.
pub(super) const ROOT: &str = "main.proto";

/// What became of the sources so far.
pub(super) enum Compiled {
    /// All is there.
    Contract(DescriptorPool),
    /// This file is imported and not there yet.
    Missing(String),
    /// The sources are wrong.
    Wrong(String),
}

/// The address of the file `name` that the file at `root` imports.
pub(super) fn beside(root: &str, name: &str) -> Option<String> {
    let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
    if !name.split('/').all(inside) || !name.chars().all(plain) {
        return None;
    }
    let path = root.split(['?', '#']).next()?;
    let (folder, _) = path.rsplit_once('/')?;
    Some(format!("{folder}/{name}"))
}

/// Compiles `sources`, of which [`ROOT`] is the first.
pub(super) fn compile(sources: &HashMap<String, String>) -> Compiled {
    if let Some(name) = missing(sources) {
        return Compiled::Missing(name);
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(sources.clone()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    match compiler.open_file(ROOT) {
        Ok(compiler) => Compiled::Contract(compiler.descriptor_pool()),
        Err(error) => Compiled::Wrong(error.to_string()),
    }
}

/// An import that is not there yet.
fn missing(sources: &HashMap<String, String>) -> Option<String> {
    let google = GoogleFileResolver::new();
    sources
        .iter()
        .filter_map(|(name, source)| File::from_source(name, source).ok())
        .flat_map(|file| file.file_descriptor_proto().dependency.clone())
        .find(|name| !sources.contains_key(name) && google.open_file(name).is_err())
}

struct Sources(HashMap<String, String>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(source) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(files: &[(&str, &str)]) -> Compiled {
        let files = files
            .iter()
            .map(|(name, source)| ((*name).to_owned(), (*source).to_owned()));
        compile(&files.collect())
    }

    #[test]
    fn a_contract_is_made_of_its_files() {
        let main = "syntax = \"proto3\"; package t; import \"parts/a.proto\"; import \"google/protobuf/empty.proto\";
            service S { rpc Get(A) returns (google.protobuf.Empty); }";
        match compiled(&[(ROOT, main)]) {
            Compiled::Missing(name) => assert_eq!(name, "parts/a.proto"),
            _ => panic!("an import is missing"),
        }
        let part = "syntax = \"proto3\"; package t; message A { string name = 1; }";
        match compiled(&[(ROOT, main), ("parts/a.proto", part)]) {
            Compiled::Contract(pool) => assert!(pool.get_service_by_name("t.S").is_some()),
            _ => panic!("all is there"),
        }
    }

    #[test]
    fn imports_are_beside_the_first_file() {
        let root = "https://h.test/api/v1/main.proto?x=y";
        assert_eq!(
            beside(root, "parts/a.proto").as_deref(),
            Some("https://h.test/api/v1/parts/a.proto")
        );
        assert_eq!(
            beside("file://app/a.proto", "b.proto").as_deref(),
            Some("file://app/b.proto")
        );
        for name in ["../a.proto", "/a.proto", "a//b.proto", "http://x/a.proto", "a?b"] {
            assert_eq!(beside(root, name), None, "{name}");
        }
    }

    #[test]
    fn a_mistake_is_told() {
        match compiled(&[(
            ROOT,
            "syntax = \"proto3\"; service S { rpc Get(Nobody) returns (Nobody); }",
        )]) {
            Compiled::Wrong(what) => assert!(what.contains("Nobody"), "{what}"),
            _ => panic!("it is wrong"),
        }
        assert!(matches!(compiled(&[(ROOT, "service {")]), Compiled::Wrong(_)));
    }
}
