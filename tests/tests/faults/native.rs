//! Services that speak mutual TLS with each other: certificates out of `muster certs`, all of them replaced under way, their
//! authority too, and strangers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use muster_api::a2a::ListTasksRequest;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{DrainRequest, ListAgentsRequest, RegisterRequest};
use muster_api::router::ReceiveRequest;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_rpc::endpoint;
use muster_runtime::clock::SystemClock;
use muster_runtime::server;
use muster_runtime::trust::audit::chain;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{self, Caller, Grants, Kind, Mode, Native, Role, Trust, Workload};
use muster_testkit::{FakeAgent, Process, Program, http, wait_for};
use muster_tests::{Dev, Finished, PATIENCE, muster, repository_file};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const QUESTION: &str = "Seattle 2014-03-01 to 2014-03-02";

/// A registry, a router and an agent that know each other by certificates.
struct Secured {
    directory: TempDir,
    programs: Vec<Program>,
    _running: Vec<Process>,
}

impl Secured {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = directory.path().join("certificates");
        let audit = directory.path().join("audit");
        let path = certificates.to_str().unwrap().to_owned();
        let made = muster(&[], &["certs", "init", &path, "-o", "json"])
            .await
            .success();
        assert_eq!(
            made.json()["certificates"].as_array().unwrap().len(),
            11,
            "{made:?}"
        );
        let program = |binary: &str, name: &str| {
            Program::named(binary)
                .env("MUSTER__TRUST__ENABLE_MTLS", "true")
                .env("MUSTER__TRUST__NATIVE__CERTIFICATE", format!("{path}/{name}.pem"))
                .env("MUSTER__TRUST__NATIVE__KEY", format!("{path}/{name}-key.pem"))
                .env("MUSTER__TRUST__NATIVE__AUTHORITIES", format!("{path}/bundle.pem"))
                .env("MUSTER__TRUST__NATIVE__RELOAD_SECONDS", "1")
                .env("MUSTER__TRUST__AUDIT__DIRECTORY", audit.display().to_string())
        };
        let data = directory.path().display();
        let registry = program("muster-registry", "registry");
        // Whatever the address says, TLS is spoken.
        let router = program("muster-router", "router")
            .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
            .env("MUSTER__ROUTER__DATA_DIRECTORY", format!("{data}/router"));
        let weather = program("muster-agent-weather", "weather")
            .env("MUSTER__AGENT__REGISTRY_URL", secured(&registry))
            .env("MUSTER__AGENT__DATA_DIRECTORY", format!("{data}/agents"));
        let programs = vec![registry, router, weather];
        let mut running = Vec::new();
        for program in &programs {
            running.push(program.start_ready().await);
        }
        let secured = Self {
            directory,
            programs,
            _running: running,
        };
        wait_for("an answer", PATIENCE, async || {
            let answer = secured.send(&secured.certificates()).await;
            if answer.code == 0 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
        secured
    }

    fn certificates(&self) -> String {
        self.directory.path().join("certificates").display().to_string()
    }

    async fn certs(&self, arguments: &[&str]) -> Finished {
        let certificates = self.certificates();
        let mut all = vec!["certs", arguments[0], &certificates];
        all.extend(&arguments[1..]);
        muster(&[], &all).await
    }

    /// A connection to a service as the workload that has this certificate.
    fn channel(&self, program: &Program, service: Workload, certificate: &str) -> Channel {
        let directory = self.directory.path().join("certificates");
        let config = trust::Config {
            mode: Some(Mode::Native),
            native: Native {
                certificate: directory.join(format!("{certificate}.pem")),
                key: directory.join(format!("{certificate}-key.pem")),
                authorities: directory.join("bundle.pem"),
                ..Native::default()
            },
            ..trust::Config::default()
        };
        let clock = Arc::new(SystemClock::default());
        let trust = Trust::open(&config, &server::Config::default(), Workload::Agent, clock).unwrap();
        let endpoint = endpoint::parse(&secured(program)).unwrap();
        muster_rpc::channel::connect_lazy_secured(&endpoint, &trust.to(service))
    }

    /// The lines of a service's audit log about a workload.
    fn audit(&self, service: &str, workload: &str) -> Vec<Value> {
        let log = self.directory.path().join("audit").join(service);
        let lines = chain::lines(&log).unwrap().into_iter();
        let about = |line: &Value| line["user"].as_str().is_some_and(|user| user.ends_with(workload));
        lines.filter(about).collect()
    }

    /// Sends a question as whoever has the certificate in this directory.
    async fn send(&self, certificates: &str) -> Finished {
        self.as_operator(
            certificates,
            &["send", "--agent", "weather", QUESTION, "-o", "json"],
        )
        .await
    }

    async fn as_operator(&self, certificates: &str, arguments: &[&str]) -> Finished {
        let mut environment = vec![
            ("MUSTER_REGISTRY_URL".to_owned(), secured(&self.programs[0])),
            ("MUSTER_ROUTER_URL".to_owned(), secured(&self.programs[1])),
        ];
        if !certificates.is_empty() {
            environment.push(("MUSTER_CERTIFICATES".to_owned(), certificates.to_owned()));
        }
        muster(&environment, arguments).await
    }

    /// Waits until each service has taken up new files so often.
    async fn taken_up(&self, times: u32) {
        let wanted = format!("certificate_reloads_total{{outcome=\"replaced\"}} {times}");
        for program in &self.programs {
            let metrics = ([127, 0, 0, 1], program.ports().metrics).into();
            wait_for("new certificates", PATIENCE, async || {
                let text = http::get(metrics, "/metrics").await?.text();
                if text.contains(&wanted) {
                    Ok(())
                } else {
                    let line = text
                        .lines()
                        .find(|line| line.starts_with("certificate_reloads_total"));
                    Err(line.unwrap_or("none").to_owned())
                }
            })
            .await;
        }
    }
}

fn secured(program: &Program) -> String {
    format!("https://{}", program.data_address())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn certificates_and_their_authority_are_replaced_while_calls_go_on() {
    let system = Secured::start().await;
    let certificates = system.certificates();
    let file = |name: &str| Path::new(&certificates).join(name);
    assert_eq!(mode(Path::new(&certificates)), 0o700);
    for (name, expected) in [
        ("router-key.pem", 0o600),
        ("authority-key.pem", 0o600),
        ("router.pem", 0o644),
    ] {
        assert_eq!(mode(&file(name)), expected, "{name}");
    }

    let certificate = file("weather.pem").display().to_string();
    let inspect = ["certs", "inspect", &certificate, "-o", "json"];
    let before = muster(&[], &inspect).await.success().json()["certificates"][0].clone();
    assert_eq!(
        before["spiffeId"],
        "spiffe://cluster.local/ns/agent-system/sa/weather"
    );
    let names: Vec<&str> = before["dns"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(names.contains(&"weather.agent-system.svc"), "{before}");
    assert!(
        before["secondsLeft"].as_i64().unwrap() > 89 * 24 * 3_600,
        "{before}"
    );

    let _done = system.certs(&["rotate", "--authority"]).await.success();
    system.taken_up(1).await;
    let _done = system.send(&certificates).await.success();
    let early = system.certs(&["rotate", "--retire"]).await;
    assert!(
        early.code == 1 && early.stderr.contains("of an authority before"),
        "{early:?}"
    );
    let _done = system.certs(&["rotate"]).await.success();
    system.taken_up(2).await;
    let _done = system.send(&certificates).await.success();
    let _done = system.certs(&["rotate", "--retire"]).await.success();
    system.taken_up(3).await;
    let _done = system.send(&certificates).await.success();
    let after = muster(&[], &inspect).await.success().json()["certificates"][0].clone();
    assert_ne!(after["issuer"], before["issuer"]);
    assert_eq!(after["dns"], before["dns"]);

    let again = muster(&[], &["certs", "init", &certificates]).await;
    assert!(again.code == 2 && again.stderr.contains("rotate"), "{again:?}");
    let outside = system.certs(&["issue", "billing", "--dns", "example.com"]).await;
    assert!(
        outside.code == 2 && outside.stderr.contains("--permit-dns"),
        "{outside:?}"
    );
    let _done = system.certs(&["issue", "billing", "--days", "7"]).await.success();
    assert_eq!(mode(&file("billing-key.pem")), 0o600);
}

#[tokio::test]
async fn strangers_get_nothing() {
    let system = Secured::start().await;
    let status = ["agents", "list", "-o", "json"];
    let listed = system
        .as_operator(&system.certificates(), &status)
        .await
        .success();
    assert!(
        listed.stdout.contains("https://"),
        "an agent says that it speaks TLS: {listed:?}"
    );

    // Without a certificate: the registry refuses.
    let nobody = system.as_operator("", &status).await;
    assert_eq!(nobody.code, 5, "{nobody:?}");
    // Of another authority.
    let foreign = tempfile::tempdir().unwrap();
    let path = foreign.path().join("certificates").display().to_string();
    let _done = muster(&[], &["certs", "init", &path]).await.success();
    assert_eq!(system.as_operator(&path, &status).await.code, 5);
    // Of the right one, under a name that nobody knows.
    let certificates = system.certificates();
    let stranger = foreign.path().join("stranger").display().to_string();
    std::fs::create_dir(&stranger).unwrap();
    let _done = system
        .certs(&["issue", "stranger", "--namespace", "elsewhere"])
        .await
        .success();
    for (from, to) in [
        ("stranger.pem", "muster.pem"),
        ("stranger-key.pem", "muster-key.pem"),
        ("bundle.pem", "bundle.pem"),
    ] {
        std::fs::copy(format!("{certificates}/{from}"), format!("{stranger}/{to}")).unwrap();
    }
    let refused = system.as_operator(&stranger, &status).await;
    assert_eq!(refused.code, 5, "{refused:?}");
    let _done = system.send(&certificates).await.success();
}

/// A request that says on whose behalf it is.
fn on_behalf<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = caller.to_text().parse().unwrap();
    request.metadata_mut().insert(ON_BEHALF_OF_METADATA, value);
    request
}

fn refused<T>(what: &str, answer: Result<T, Status>) {
    let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
    assert_eq!(code, Code::PermissionDenied, "{what}");
}

#[tokio::test]
async fn an_agent_that_was_taken_over_is_nobody_but_itself() {
    let system = Secured::start().await;
    let _done = system.certs(&["issue", "rogue"]).await.success();
    let [registry, router, _] = &system.programs[..] else {
        panic!("three programs")
    };
    let as_rogue = |program, service| system.channel(program, service, "rogue");
    let mut agents = RegistryServiceClient::new(as_rogue(registry, Workload::Registry));
    let mut messages = A2aServiceClient::new(as_rogue(router, Workload::Router));
    let mut inbox = InboxServiceClient::new(as_rogue(router, Workload::Router));

    // It may look, as itself.
    let seen = agents.list_agents(ListAgentsRequest::default()).await.unwrap();
    assert_eq!(seen.into_inner().agents.len(), 1);

    // On nobody's behalf: neither as an admin, nor as a caller, nor as a service of ours.
    let caller = |kind, name: &str, role| {
        Caller::new(
            kind,
            Some("us"),
            name,
            [role].into_iter().collect(),
            Grants::default(),
        )
    };
    let others = [
        caller(Kind::EndUser, "root", Role::Admin),
        caller(Kind::EndUser, "ada", Role::AgentWriter),
        caller(Kind::Service, "router", Role::Service),
    ];
    for other in &others {
        let list = ListTasksRequest {
            tenant: "weather".to_owned(),
            ..ListTasksRequest::default()
        };
        refused("a list", messages.list_tasks(on_behalf(other, list)).await);
        let drain = DrainRequest {
            agent_id: "weather".to_owned(),
            ..DrainRequest::default()
        };
        refused("a drain", agents.drain(on_behalf(other, drain)).await);
    }

    // Under its own name it registers; under another's it does not, and gets no messages that were left for that.
    let fake = FakeAgent::start("weather").await;
    let mut instance = fake.instance(&["weather_forecasting"]);
    let register = |instance: &muster_api::registry::Instance| RegisterRequest {
        instance: Some(instance.clone()),
    };
    refused("another's name", agents.register(register(&instance)).await);
    for target in ["weather", "skill:weather_forecasting"] {
        let receive = ReceiveRequest {
            target: target.to_owned(),
            ..ReceiveRequest::default()
        };
        refused(target, inbox.receive(receive).await);
    }
    instance.agent_id = "rogue".to_owned();
    agents.register(register(&instance)).await.unwrap();
    let own = ReceiveRequest {
        target: "rogue".to_owned(),
        ..ReceiveRequest::default()
    };
    inbox.receive(own).await.unwrap();
    // Nor does a service of ours whose certificate was stolen.
    instance.agent_id = "weather".to_owned();
    let mut as_router = RegistryServiceClient::new(system.channel(registry, Workload::Registry, "router"));
    refused("a router", as_router.register(register(&instance)).await);
    let _done = system.send(&system.certificates()).await.success();

    // Each refusal has its line.
    for (service, event, count) in [
        ("router", "impersonation_refused", others.len()),
        ("registry", "impersonation_refused", others.len()),
        ("router", "access_refused", 2),
        ("registry", "access_refused", 1),
    ] {
        wait_for("the lines of the audit log", PATIENCE, async || {
            let lines = system.audit(service, "/sa/rogue");
            let found = lines.iter().filter(|line| line["event"] == event).count();
            if found == count {
                Ok(())
            } else {
                Err(format!("{service} {event}: {lines:#?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn one_process_speaks_tls_too_and_beyond_loopback_nothing_starts_without() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start_with(&directory.path().join("data"), &["--tls"]).await;
    let certificates = directory.path().join("data/certificates").display().to_string();
    let environment = [
        ("MUSTER_REGISTRY_URL", dev.url("registry")),
        ("MUSTER_ROUTER_URL", dev.url("router")),
        ("MUSTER_ENGINE_URL", dev.url("workflow-engine")),
        ("MUSTER_CERTIFICATES", certificates),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    assert!(dev.url("weather").starts_with("https://"));
    let _done = muster(&environment, &["status"]).await.success();
    let example = |ending: &str| repository_file(&format!("services/muster/examples/trip.{ending}"));
    let input = format!("@{}", example("json").display());
    let document = example("yaml").display().to_string();
    let run = [
        "workflow", "run", &document, "--input", &input, "--wait", "-o", "json",
    ];
    let run = muster(&environment, &run).await.success().json();
    assert_eq!(run["status"], "completed", "{run}");

    let mut open = Program::named("muster-registry")
        .env("MUSTER__SERVER__HOST", "0.0.0.0")
        .start();
    assert_eq!(open.exit().await.code(), Some(2));
    let told = open.stderr();
    assert!(
        told.contains("trust.native.certificate") && told.contains("certs init"),
        "{told}"
    );
}

#[tokio::test]
async fn agents_of_others_are_reached_by_grpc_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certificates").display().to_string();
    let _done = muster(&[], &["certs", "init", &path]).await.success();
    let data = directory.path().display();
    let bundle = format!("{path}/bundle.pem");
    let credentials = directory.path().join("credentials");
    // One that takes callers without a certificate, and knows nothing of our registry.
    let agent = Program::named("muster-agent-weather")
        .env("MUSTER__AGENT__REGISTRY_URL", "http://127.0.0.1:1")
        .env("MUSTER__AGENT__DATA_DIRECTORY", format!("{data}/agents"))
        .env("MUSTER__TRUST__MODE", "native")
        .env("MUSTER__TRUST__CLIENT_CERTIFICATES", "optional")
        .env(
            "MUSTER__TRUST__NATIVE__CERTIFICATE",
            format!("{path}/weather.pem"),
        )
        .env("MUSTER__TRUST__NATIVE__KEY", format!("{path}/weather-key.pem"))
        .env("MUSTER__TRUST__NATIVE__AUTHORITIES", &bundle);
    let registry = Program::named("muster-registry")
        .env("MUSTER__REGISTRY__OUTBOUND__ALLOW", "[\"127.0.0.0/8\"]")
        .env("MUSTER__REGISTRY__OUTBOUND__CERTIFICATE_AUTHORITIES", &bundle);
    let router = |authorities: Option<&str>, name: &str| {
        let router = Program::named("muster-router")
            .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
            .env("MUSTER__ROUTER__DATA_DIRECTORY", format!("{data}/{name}"))
            .env(
                "MUSTER__ROUTER__CREDENTIALS__DIRECTORY",
                credentials.display().to_string(),
            );
        match authorities {
            Some(file) => router.env("MUSTER__ROUTER__OUTBOUND__CERTIFICATE_AUTHORITIES", file),
            None => router,
        }
    };
    let (trusting, doubting) = (router(Some(&bundle), "trusting"), router(None, "doubting"));
    let mut running = Vec::new();
    for program in [&agent, &registry, &trusting, &doubting] {
        running.push(program.start_ready().await);
    }
    let environment = |router: &Program| {
        [
            ("MUSTER_REGISTRY_URL".to_owned(), registry.url()),
            ("MUSTER_ROUTER_URL".to_owned(), router.url()),
        ]
    };
    let register = [
        "agents",
        "register",
        "--card",
        &secured(&agent),
        "--binding",
        "GRPC",
        "--id",
        "theirs",
    ];
    let _done = muster(&environment(&trusting), &register).await.success();
    let ask = ["send", "--agent", "theirs", QUESTION, "-o", "json"];
    // Its card says that it wants to know who calls, which the router of others cannot show by itself.
    wait_for("what is missing to be named", PATIENCE, async || {
        let answer = muster(&environment(&trusting), &ask).await;
        if answer.code != 0 && answer.stderr.contains("'mtls'") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    let given = credentials.join("theirs");
    std::fs::create_dir_all(&given).unwrap();
    let file = |name: &str| std::fs::read_to_string(format!("{path}/{name}")).unwrap();
    std::fs::write(given.join("mtls"), file("router.pem") + &file("router-key.pem")).unwrap();
    std::fs::write(given.join("hosts"), "127.0.0.1\n").unwrap();
    wait_for("an answer over TLS", PATIENCE, async || {
        let answer = muster(&environment(&trusting), &ask).await;
        if answer.code == 0 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    // Nobody vouches for it to a router that trusts the world's authorities alone.
    wait_for(
        "the other router to know it and to refuse it",
        PATIENCE,
        async || {
            let refused = muster(&environment(&doubting), &ask).await;
            if refused.code == 5 && refused.stderr.contains("UnknownIssuer") {
                Ok(())
            } else {
                Err(format!("{refused:?}"))
            }
        },
    )
    .await;
}
