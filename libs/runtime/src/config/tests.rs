//! Layers, mistakes and secrets: what `load` takes, refuses and keeps to itself.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Example {
    server: server::Config,
    telemetry: telemetry::Config,
    trust: trust::Config,
    own: Own,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    name: String,
    size: u16,
    token: Option<String>,
    pin: u16,
    limit: Option<u16>,
    strict: Option<bool>,
    list: Vec<u16>,
    labels: BTreeMap<String, String>,
    weights: BTreeMap<String, u16>,
    peers: Vec<Peer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    port: u16,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            name: "n".into(),
            size: 1,
            token: None,
            pin: 0,
            limit: None,
            strict: None,
            list: Vec::new(),
            labels: BTreeMap::new(),
            weights: BTreeMap::new(),
            peers: Vec::new(),
        }
    }
}

impl Settings for Example {
    fn server(&self) -> &server::Config {
        &self.server
    }
    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }
    fn trust(&self) -> Option<&trust::Config> {
        Some(&self.trust)
    }
    fn validate(&self, mistakes: &mut Mistakes) {
        self.server.validate(mistakes);
        if self.own.size == 0 {
            mistakes.add("own.size", "must be at least 1");
        }
        if let Some(token) = self.own.token.as_ref().filter(|token| token.len() < 8) {
            mistakes.add("own.token", format!("'{token}' is too short"));
        }
    }
    fn secrets() -> &'static [&'static str] {
        &["own.token", "own.pin"]
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("muster.toml");
    std::fs::write(&file, "[own]\nname = 'file'\nsize = 2\n[server]\ndata_port = 1\n").unwrap();
    let environment = pairs(&[
        ("MUSTER__OWN__NAME", "environment"),
        ("MUSTER__SERVER__DATA_PORT", "2"),
        ("PATH", "x"),
    ]);
    let flags = pairs(&[("server.data_port", "3")]);
    let config: Example = load(Example::default(), Some(&file), environment.into_iter(), &flags).unwrap();
    assert_eq!(
        (config.own.name.as_str(), config.own.size, config.server.data_port),
        ("environment", 2, 3)
    );
}

#[test]
fn all_mistakes_come_at_once_with_key_and_nearest_key() {
    let environment = pairs(&[
        ("MUSTER__OWN__SIZ", "1"),
        ("MUSTER__SERVER__HOST", "not an address"),
    ]);
    let flags = pairs(&[
        ("own.size", "many"),
        ("server.metrics_port", "70000"),
        ("elsewhere", "1"),
    ]);
    let mistakes = load::<Example>(Example::default(), None, environment.into_iter(), &flags).unwrap_err();
    let text = mistakes.to_string();
    for expected in [
        "own.siz: unknown key; did you mean 'size'?",
        "own.size: 'many' is not a number",
        "server.host:",
        "server.metrics_port:",
        "elsewhere: unknown key",
    ] {
        assert!(text.contains(expected), "{expected} is missing in: {text}");
    }
    assert!(!text.contains('\n'));
}

#[test]
fn secrets_are_not_printed() {
    let flags = pairs(&[("own.token", "canary-bird")]);
    let config: Example = load(Example::default(), None, std::iter::empty(), &flags).unwrap();
    assert_eq!(config.own.token.as_deref(), Some("canary-bird"));
    assert!(!redacted(&config).to_string().contains("canary"));
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let missing = load::<Example>(
        Example::default(),
        Some(Path::new("/nowhere/x.toml")),
        std::iter::empty(),
        &[],
    );
    assert!(missing.unwrap_err().to_string().contains("/nowhere/x.toml"));
}

fn set(flags: &[(&str, &str)]) -> Result<Example, Mistakes> {
    load(Example::default(), None, std::iter::empty(), &pairs(flags))
}

fn refused(flags: &[(&str, &str)]) -> Vec<(String, String)> {
    let mistakes = set(flags).unwrap_err();
    mistakes
        .iter()
        .map(|(key, what)| (key.to_owned(), what.to_owned()))
        .collect()
}

fn keys(mistakes: &[(String, String)]) -> Vec<&str> {
    mistakes.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn a_type_mistake_does_not_hide_what_the_rules_refuse() {
    let found = refused(&[
        ("server.data_port", "x"),
        ("server.max_header_bytes", "1"),
        ("own.size", "0"),
    ]);
    assert_eq!(
        keys(&found),
        ["server.data_port", "server.max_header_bytes", "own.size"],
        "each once, though the sections are asked twice"
    );
    // The rule would judge the default, which is loopback; the mistake at the same key is enough.
    assert_eq!(keys(&refused(&[("server.host", "nope")])), ["server.host"]);
}

#[test]
fn the_standard_sections_are_asked_without_the_service_doing_it() {
    let found = refused(&[
        ("telemetry.log_level", "=="),
        ("telemetry.environment", "Über"),
        ("server.host", "0.0.0.0"),
        ("trust.mode", "loopback"),
    ]);
    assert_eq!(
        keys(&found),
        ["telemetry.log_level", "telemetry.environment", "server.host"]
    );
}

#[test]
fn bad_elements_are_named_by_the_index_that_was_given_and_reading_goes_on() {
    let found = refused(&[
        ("own.list", "[70000, 1, -1, 2, 80000]"),
        (
            "own.peers",
            r#"[{"name": "a", "port": "b"}, {"name": "c"}, {"name": "d", "port": 4, "x": 1}]"#,
        ),
        ("own.weights.a", "heavy"),
        ("own.weights.b", "2"),
        ("server.host", "nope"),
    ]);
    let mut found = keys(&found);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "own.list[0]",
            "own.list[2]",
            "own.list[4]",
            "own.peers[0].port",
            "own.peers[1]",
            "own.peers[2].x",
            "own.weights.a",
            "server.host"
        ]
    );
}

#[test]
fn options_of_numbers_and_truth_values_are_set_by_text() {
    let own = set(&[
        ("own.limit", "5"),
        ("own.strict", "true"),
        ("own.token", "12345678"),
    ])
    .unwrap()
    .own;
    assert_eq!((own.limit, own.strict), (Some(5), Some(true)));
    assert_eq!(
        own.token.as_deref(),
        Some("12345678"),
        "an option of text stays text"
    );
    assert_eq!(set(&[("own.limit", "null")]).unwrap().own.limit, None);
    let found = refused(&[("own.limit", "many"), ("own.strict", "5")]);
    assert_eq!(keys(&found), ["own.limit", "own.strict"]);
}

#[test]
fn keys_of_maps_are_set_by_the_file_the_environment_and_flags_together() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("muster.yaml");
    std::fs::write(&file, "own:\n  labels:\n    Zone: a\n").unwrap();
    let environment = pairs(&[("MUSTER__OWN__LABELS__RACK", "7")]);
    let flags = pairs(&[("own.labels.row", "1"), ("own.weights.one", "1")]);
    let config: Example = load(Example::default(), Some(&file), environment.into_iter(), &flags).unwrap();
    let labels: Vec<(&str, &str)> = config
        .own
        .labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(labels, [("Zone", "a"), ("rack", "7"), ("row", "1")]);
    assert_eq!(config.own.weights["one"], 1);
}

#[test]
fn files_are_read_by_their_ending() {
    let directory = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        load::<Example>(Example::default(), Some(&file), std::iter::empty(), &[])
            .map(|config| config.own.size)
            .map_err(|mistakes| mistakes.to_string())
    };
    assert_eq!(read("c.json", r#"{"own": {"size": 3}}"#), Ok(3));
    assert_eq!(read("c.yaml", "own:\n  size: 3\n"), Ok(3));
    assert_eq!(read("c.toml", "[own]\nsize = 3\n"), Ok(3));
    assert!(
        read("list.json", "[1]")
            .unwrap_err()
            .contains("must hold sections")
    );
    assert!(
        read("bad.json", "{")
            .unwrap_err()
            .contains("bad.json: is not JSON")
    );
    assert!(read("c.ini", "").unwrap_err().contains(".json"));
}

#[test]
fn no_mistake_shows_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    std::fs::write(&file, "[own]\ntoken = canary bird\n").unwrap();
    let broken = load::<Example>(Example::default(), Some(&file), std::iter::empty(), &[]);
    let broken = broken.unwrap_err().to_string();
    assert!(
        broken.contains("line 2") && !broken.contains("canary"),
        "{broken}"
    );
    for flags in [
        [("own.pin", "canary")],
        [("own.pin", "70000")],
        [("own.token", "canary")],
        [("own", "canary")],
        [("own.token.x", "canary")],
    ] {
        let text = set(&flags).unwrap_err().to_string();
        assert!(!text.contains("canary") && !text.contains("70000"), "{text}");
        assert!(text.contains("own"), "{text}");
    }
    let malformed = parse_override("own.token canary").unwrap_err();
    assert!(
        malformed.contains("own.token") && !malformed.contains("canary"),
        "{malformed}"
    );
}

#[test]
fn what_the_file_says_is_not_missed_when_the_file_cannot_be_read() {
    let file = Path::new("/nowhere/x.toml");
    let flags = pairs(&[("own.size", "0"), ("own.limit", "x")]);
    let mistakes = load::<Example>(Example::default(), Some(file), std::iter::empty(), &flags).unwrap_err();
    let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["--config /nowhere/x.toml", "own.limit"]);
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused_without_a_panic(
            key in "[a-z_.]{0,20}|own\\.(size|list|labels|limit|peers|weights)(\\.[a-z.]{0,5})?",
            value in ".{0,20}|\\[[0-9,{}\"a-z:]{0,20}\\]",
        ) {
        let _outcome = load::<Example>(Example::default(), None, std::iter::empty(), &[(key, value)]);
    }
}
