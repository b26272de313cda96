//! What is put on a call, and what is said where it cannot be.

use std::path::Path;
use std::time::Duration;

use muster_a2a::client::Place;
use muster_api::a2a::{MutualTlsSecurityScheme, security_scheme::Scheme};
use muster_rpc::{endpoint, outbound};
use muster_runtime::clock::ManualClock;
use muster_runtime::trust::SpiffeId;

use super::demand::tests::{api_key, card, http, oauth2};
use super::*;

struct Stage {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    credentials: Credentials,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::default());
        let config = Config {
            directory: Some(directory.path().to_owned()),
        };
        let credentials = Credentials::new(
            &config,
            Mode::Loopback,
            outbound(),
            Arc::clone(&clock) as SharedClock,
        );
        Self {
            directory,
            clock,
            credentials,
        }
    }

    /// Writes files of the agent, and lets the time pass after which they are read again.
    fn give(&self, files: &[(&str, &str)]) {
        give(self.directory.path(), files);
        self.clock.advance(Duration::from_secs(2));
    }

    async fn attach(&self, instance: &Instance) -> Result<Request<()>, String> {
        attach(&self.credentials, instance).await
    }
}

fn outbound() -> Outbound {
    Outbound::new(&outbound::Config::default(), "test").unwrap()
}

fn give(directory: &Path, files: &[(&str, &str)]) {
    let agent = directory.join("payer");
    std::fs::create_dir_all(&agent).unwrap();
    for (name, content) in files {
        std::fs::write(agent.join(name), content).unwrap();
    }
}

async fn attach(credentials: &Credentials, instance: &Instance) -> Result<Request<()>, String> {
    let mut request = Request::new(());
    match credentials.attach(instance, None, &mut request).await {
        Ok(_) => Ok(request),
        Err(Missing::Credentials(what) | Missing::Token(what)) => Err(what),
    }
}

fn instance(card: AgentCard) -> Instance {
    let mut instance = Instance::example("payer", "p1", &["s"]);
    let url = format!("http://{}/rpc", instance.endpoint.authority());
    instance.place = Some(Place::JsonRpc(url.parse().unwrap()));
    instance.card = Arc::new(card);
    instance
}

fn hosts(instance: &Instance) -> String {
    format!("{}:{}", instance.endpoint.host(), instance.endpoint.port())
}

fn header<'r>(request: &'r Request<()>, name: &str) -> Option<&'r str> {
    request.metadata().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn each_kind_is_put_in_its_place_together_with_others() {
    let stage = Stage::new();
    let schemes = || {
        vec![
            ("key", api_key("header", "X-Key")),
            ("parameter", api_key("query", "k")),
            ("session", api_key("cookie", "sid")),
            ("login", http("basic")),
            ("bearer", http("bearer")),
        ]
    };
    let all = instance(card(schemes(), &[&["key", "parameter", "session", "login"]]));
    stage.give(&[
        ("hosts", &hosts(&all)),
        ("key", "k1\n"),
        ("parameter", "p1"),
        ("session", "s1"),
        ("login", "ada:pw"),
        ("bearer", "b1"),
    ]);
    let request = stage.attach(&all).await.unwrap();
    assert_eq!(header(&request, "x-key"), Some("k1"));
    assert_eq!(header(&request, "cookie"), Some("sid=s1"));
    assert_eq!(header(&request, "authorization"), Some("Basic YWRhOnB3"));
    let query = request.extensions().get::<Query>().unwrap();
    assert_eq!(query.0, [("k".to_owned(), "p1".to_owned())]);

    let bearer = instance(card(schemes(), &[&["bearer"]]));
    let request = stage.attach(&bearer).await.unwrap();
    assert_eq!(header(&request, "authorization"), Some("Bearer b1"));
    // Replaced without a restart.
    stage.give(&[("bearer", "b2-longer")]);
    let request = stage.attach(&bearer).await.unwrap();
    assert_eq!(header(&request, "authorization"), Some("Bearer b2-longer"));

    // Two that want the same place, and a key in the query over gRPC.
    let both = instance(card(schemes(), &[&["bearer", "login"]]));
    assert!(stage.attach(&both).await.unwrap_err().contains("the same place"));
    let mut grpc = instance(card(schemes(), &[&["parameter"]]));
    grpc.place = None;
    assert!(stage.attach(&grpc).await.unwrap_err().contains("gRPC"));
}

#[tokio::test]
async fn the_first_alternative_for_which_everything_is_there_is_taken() {
    let stage = Stage::new();
    let schemes = vec![("a", http("bearer")), ("b", api_key("header", "x-b"))];
    let instance = instance(card(schemes, &[&["a"], &["b"]]));
    stage.give(&[("hosts", &hosts(&instance)), ("b", "key")]);
    let request = stage.attach(&instance).await.unwrap();
    assert_eq!(header(&request, "x-b"), Some("key"));
    assert_eq!(header(&request, "authorization"), None);
}

#[tokio::test]
async fn what_is_missing_is_named_and_nothing_secret_is_said() {
    let stage = Stage::new();
    let needy = instance(card(vec![("a", http("bearer"))], &[&["a"]]));
    let told = stage.attach(&needy).await.unwrap_err();
    assert!(told.contains("'a'") && told.contains("payer/a"), "{told}");
    // Given, but to nobody.
    stage.give(&[("a", "very-secret")]);
    let told = stage.attach(&needy).await.unwrap_err();
    assert!(told.contains("hosts") && told.contains(&hosts(&needy)), "{told}");
    // Given to somebody else.
    stage.give(&[("hosts", "elsewhere.example")]);
    let told = stage.attach(&needy).await.unwrap_err();
    assert!(told.contains("may not be given"), "{told}");
    // Something that cannot be sent.
    stage.give(&[("hosts", &hosts(&needy)), ("a", "very\u{7f}secret")]);
    let told = stage.attach(&needy).await.unwrap_err();
    assert!(!told.contains("very"), "{told}");
    // No folder at all.
    let credentials = Credentials::new(
        &Config::default(),
        Mode::Loopback,
        outbound(),
        Arc::clone(&stage.clock) as SharedClock,
    );
    let told = attach(&credentials, &needy).await.unwrap_err();
    assert!(told.contains("router.credentials.directory"), "{told}");
    let needless = instance(AgentCard::default());
    assert!(attach(&credentials, &needless).await.is_ok());
}

#[tokio::test]
async fn a_clients_secret_goes_only_to_hosts_that_are_named() {
    let stage = Stage::new();
    let scheme = vec![("o", oauth2("https://evil.example/token"))];
    let instance = instance(card(scheme, &[&["o"]]));
    stage.give(&[("hosts", &hosts(&instance)), ("o", "id\nsecret")]);
    let told = stage.attach(&instance).await.unwrap_err();
    assert!(told.contains("evil.example:443"), "{told}");
    // A token that somebody else obtains goes to the agent alone.
    stage.give(&[("o", "a-token")]);
    let request = stage.attach(&instance).await.unwrap();
    assert_eq!(header(&request, "authorization"), Some("Bearer a-token"));
}

#[tokio::test]
async fn a_certificate_that_is_shown_anyway_need_not_be_given() {
    let stage = Stage::new();
    let mtls = Scheme::MtlsSecurityScheme(MutualTlsSecurityScheme::default());
    let mut instance = instance(card(vec![("m", mtls)], &[&["m"]]));
    let told = stage.attach(&instance).await.unwrap_err();
    assert!(told.contains("no https"), "{told}");
    let clock = Arc::clone(&stage.clock) as SharedClock;
    let in_mesh = Credentials::new(&Config::default(), Mode::Mesh, outbound(), clock);
    attach(&in_mesh, &instance).await.expect("the sidecar shows it");
    // No sidecar sees into this.
    instance.endpoint = endpoint::parse("https://payer.example:443").unwrap();
    let told = attach(&in_mesh, &instance).await.unwrap_err();
    assert!(told.contains("router.credentials.directory"), "{told}");
    instance.identity = Some(SpiffeId::of_service("d", "n", "payer").unwrap());
    stage
        .attach(&instance)
        .await
        .expect("a workload of ours is shown ours");
}
