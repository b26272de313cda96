//! The house keeps its shape: who may depend on whom, where versions and lints are named, what a service looks
//! like. A rule here is one that reviews would otherwise repeat.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace exists")
}

fn manifest(folder: &Path) -> Table {
    let path = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every member's folder (relative to the root) and manifest.
fn members() -> Vec<(String, Table)> {
    let workspace = manifest(&root());
    let listed = workspace["workspace"]["members"]
        .as_array()
        .expect("members is a list")
        .clone();
    listed
        .into_iter()
        .map(|member| {
            let folder = member.as_str().expect("a member is a path").to_owned();
            let manifest = manifest(&root().join(&folder));
            (folder, manifest)
        })
        .collect()
}

fn dependencies<'a>(manifest: &'a Table, section: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    manifest
        .get(section)
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn all_rust_files() -> Vec<PathBuf> {
    ["libs", "services", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .collect()
}

#[test]
fn a_service_depends_on_libraries_only() {
    let members = members();
    let services: BTreeSet<String> = members
        .iter()
        .filter(|(folder, _)| folder.starts_with("services/"))
        .map(|(_, manifest)| manifest["package"]["name"].as_str().expect("a name").to_owned())
        .collect();
    assert!(services.len() >= 9, "found only {services:?}");
    for (folder, manifest) in &members {
        if folder == "services/muster" || folder == "tests" {
            continue; // one process that runs all of them, and the tests
        }
        for (name, _) in dependencies(manifest, "dependencies") {
            assert!(!services.contains(name), "{folder} depends on the service {name}");
        }
    }
}

#[test]
fn members_name_no_version_and_inherit_the_lints() {
    for (folder, manifest) in members() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in dependencies(&manifest, section) {
                let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
                assert!(inherited, "{folder}: {name} must say `workspace = true`");
            }
        }
        let lints = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(Value::as_bool);
        assert_eq!(lints, Some(true), "{folder} must inherit the workspace's lints");
        let version = manifest["package"]
            .get("version")
            .and_then(|version| version.get("workspace"));
        assert!(version.is_some(), "{folder} must inherit its version");
    }
}

#[test]
fn every_workspace_dependency_is_used() {
    let workspace = manifest(&root());
    let named = workspace["workspace"]["dependencies"]
        .as_table()
        .expect("a table")
        .clone();
    let used: BTreeSet<String> = members()
        .iter()
        .flat_map(|(_, manifest)| {
            ["dependencies", "dev-dependencies", "build-dependencies"]
                .into_iter()
                .flat_map(|section| {
                    dependencies(manifest, section)
                        .map(|(name, _)| name.clone())
                        .collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let idle: Vec<_> = named.keys().filter(|name| !used.contains(*name)).collect();
    assert!(
        idle.is_empty(),
        "named in the root Cargo.toml and used by nobody: {idle:?}"
    );
}

#[test]
fn the_top_level_holds_only_what_belongs_there() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "proto",
        "services",
        "libs",
        "deploy",
        "docker-compose.yml",
        "tests",
    ];
    let also = [
        "README.md",
        "LICENSE",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "clippy.toml",
        "target", // built
        "data",   // where services keep theirs by default
    ];
    for entry in std::fs::read_dir(root()).expect("the root is readable") {
        let name = entry
            .expect("a readable entry")
            .file_name()
            .to_string_lossy()
            .into_owned();
        let known =
            name.starts_with('.') || allowed.contains(&name.as_str()) || also.contains(&name.as_str());
        assert!(known, "{name} does not belong at the top level");
    }
}

#[test]
fn a_binary_is_a_sentence() {
    for (folder, _) in members() {
        let main = root().join(&folder).join("src/main.rs");
        if let Ok(text) = std::fs::read_to_string(&main) {
            assert!(
                text.lines().count() <= 30,
                "{folder}/src/main.rs is longer than 30 lines"
            );
        }
    }
}

#[test]
fn no_room_without_an_idea() {
    for path in all_rust_files() {
        let stem = path
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            ![
                "common", "utils", "util", "helpers", "helper", "manager", "misc", "mod"
            ]
            .contains(&stem.as_str()),
            "{}: name the file for its idea",
            path.display()
        );
    }
}

#[test]
fn tests_wait_for_conditions_and_never_sleep() {
    let sleeps = ["thread::sle", "time::sle"].map(|start| format!("{start}ep("));
    for path in rust_files(&root().join("tests")) {
        let text = std::fs::read_to_string(&path).expect("readable source");
        for sleep in &sleeps {
            assert!(!text.contains(sleep.as_str()), "{} sleeps", path.display());
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for path in all_rust_files() {
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue; // the tests of the module beside it, which says it
        }
        let text = std::fs::read_to_string(&path).expect("readable source");
        assert!(
            text.starts_with("//!"),
            "{} does not begin with a module document",
            path.display()
        );
    }
}
