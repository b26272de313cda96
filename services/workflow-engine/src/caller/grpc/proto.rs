//! The contract of a service from its source: a `.proto` file and what it imports.
//!
//! Files are read by whoever calls, so that they come over the guarded way; the compiler here only asks for what is
//! missing. Imports are looked for beside the first file, by their path; Google's well-known files are known.

use std::collections::HashMap;

use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::options;

/// Most files of one contract.
pub const MOST_FILES: usize = 100;

/// Name of the first file.
pub const ROOT: &str = "main.proto";

/// What became of the sources so far.
pub enum Compiled {
    /// All is there.
    Contract(DescriptorPool),
    /// This file is imported and not there yet.
    Missing(String),
    /// The sources are wrong.
    Wrong(String),
}

/// The address of the file `name` that the file at `root` imports.
#[must_use]
pub fn beside(root: &str, name: &str) -> Option<String> {
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
#[must_use]
pub fn compile(sources: &HashMap<String, String>) -> Compiled {
    let parsed = sources
        .iter()
        .filter_map(|(name, source)| File::from_source(name, source).ok());
    let parsed: Vec<File> = parsed.collect();
    if parsed
        .iter()
        .any(|file| options::are_too_deep(file.file_descriptor_proto()))
    {
        let most = options::MOST_LEVELS;
        return Compiled::Wrong(format!("an option has more than {most} levels of braces"));
    }
    if let Some(name) = missing(sources, &parsed) {
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
fn missing(sources: &HashMap<String, String>, parsed: &[File]) -> Option<String> {
    let google = GoogleFileResolver::new();
    let imported = parsed
        .iter()
        .flat_map(|file| &file.file_descriptor_proto().dependency);
    let mut missing = imported.filter(|name| !sources.contains_key(*name) && google.open_file(name).is_err());
    missing.next().cloned()
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
    #[test]
    fn nesting_has_an_end() {
        const DEEP: usize = 100_000;
        let messages = "message M { ".repeat(DEEP) + &"}".repeat(DEEP);
        assert!(matches!(
            compiled(&[(ROOT, &format!("syntax = \"proto3\"; {messages}"))]),
            Compiled::Wrong(_)
        ));
        let deep = "m { ".repeat(DEEP) + &"}".repeat(DEEP);
        let source = format!(
            "syntax = \"proto2\"; import \"google/protobuf/descriptor.proto\";
             extend google.protobuf.MessageOptions {{ optional M m = 50000; }}
             message M {{ option (m) = {{ {deep} }}; optional M m = 1; }}"
        );
        assert!(matches!(compiled(&[(ROOT, &source)]), Compiled::Wrong(_)));
        let some = "m { ".repeat(options::MOST_LEVELS) + &"}".repeat(options::MOST_LEVELS);
        let source = source.replace(&deep, &some);
        assert!(matches!(compiled(&[(ROOT, &source)]), Compiled::Contract(_)));
    }
}
