//! Each kind of task that works outside of the engine, in the five ways that a run can take: it succeeds, it fails, it takes
//! too long, it is cancelled, and the engine is restarted in the middle of it.
//!
//! Agents, gRPC services, MCP servers over HTTP, workflows and events are covered where their tests are.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::{Value, json};

use crate::harness::{Engine, PATIENCE, document};
use crate::processes::gone;
use crate::service::{Reply, Seen, Service};

/// A kind of task, and how it is written. `MODE` is what the work is to do: `quick`, `broken` or `slow`.
struct Row {
    kind: &'static str,
    does: Does,
    functions: String,
    task: String,
    output: Value,
    /// The last part of the type of the error that broken work gives, and its status.
    fault: (&'static str, i32),
}

/// Who does the work.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Service,
    Program,
}

/// Work that has begun.
#[derive(Debug, Clone, PartialEq)]
struct Begun {
    /// What tells that it is the same work again.
    key: String,
    /// The process, if it is one.
    process: String,
}

/// Everybody who does work, and the engine that asks them.
struct World {
    engine: Engine,
    directory: tempfile::TempDir,
    service: Service,
    released: Arc<AtomicBool>,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let client = programs(directory.path());
        let engine = Engine::start_with(|settings| {
            settings.outbound.allow = vec!["127.0.0.0/8".into()];
            settings.mcp_stdio_commands = vec!["sh".into()];
            settings.run.shell = true;
            settings.run.script = true;
            settings.run.container = true;
            settings.run.container_program = client;
        })
        .await;
        let released = Arc::new(AtomicBool::new(false));
        let release = Arc::clone(&released);
        let service = Service::start(move |seen| answer(seen, &release)).await;
        Self {
            engine,
            directory,
            service,
            released,
        }
    }

    fn rows(&self) -> Vec<Row> {
        let work = self.directory.path().join("work").display().to_string();
        let described = |call: &str, path: &str, key: &str| {
            format!(
                "{{call: {call}, with: {{document: {{endpoint: '{}'}}, {key}: MODE}}TIMEOUT}}",
                self.service.url(path)
            )
        };
        let http = format!(
            "call: http, with: {{method: post, endpoint: '{}'}}",
            self.service.url("/work/MODE")
        );
        let done = || json!({"done": true});
        let (refused, exited) = (("communication", 503), ("runtime", 500));
        let row = |kind, does, functions: String, task: String, output, fault| Row {
            kind,
            does,
            functions,
            task,
            output,
            fault,
        };
        vec![
            row(
                "http",
                Does::Service,
                String::new(),
                format!("{{{http}TIMEOUT}}"),
                done(),
                refused,
            ),
            row(
                "openapi",
                Does::Service,
                String::new(),
                described("openapi", "/openapi.json", "operationId"),
                done(),
                refused,
            ),
            row(
                "asyncapi",
                Does::Service,
                String::new(),
                described(
                    "asyncapi",
                    "/asyncapi.json",
                    "message: {payload: {n: 1}}, operation",
                ),
                done(),
                refused,
            ),
            row(
                "function",
                Does::Service,
                format!("use: {{functions: {{ask: {{{http}}}}}}}\n"),
                "{call: askTIMEOUT}".into(),
                done(),
                refused,
            ),
            row(
                "shell",
                Does::Program,
                String::new(),
                format!("{{run: {{shell: {{command: '{work} MODE'}}}}TIMEOUT}}"),
                json!("done\n"),
                exited,
            ),
            row(
                "script",
                Does::Program,
                String::new(),
                format!(
                    "{{run: {{script: {{language: python, code: 'import os; os.execv(\"{work}\", [\"work\", \"MODE\"])'}}}}TIMEOUT}}"
                ),
                json!("done\n"),
                exited,
            ),
            row(
                "container",
                Does::Program,
                String::new(),
                "{run: {container: {image: MODE}}TIMEOUT}".into(),
                json!("done\n"),
                exited,
            ),
            row(
                "mcp over stdio",
                Does::Program,
                String::new(),
                format!(
                    "{{call: mcp, with: {{method: tools/list, transport: {{stdio: {{command: sh, arguments: ['{}', MODE]}}}}}}TIMEOUT}}",
                    self.directory.path().join("server").display()
                ),
                json!({"tools": []}),
                ("communication", 502),
            ),
        ]
    }

    /// All work of a kind that has begun, oldest first.
    fn begun(&self, does: Does) -> Vec<Begun> {
        match does {
            Does::Service => self
                .service
                .seen()
                .iter()
                .filter(|seen| seen.path.starts_with("/work/"))
                .map(|seen| Begun {
                    key: seen.header("idempotency-key").to_owned(),
                    process: String::new(),
                })
                .collect(),
            Does::Program => {
                let text = std::fs::read_to_string(self.directory.path().join("begun"));
                let text = text.unwrap_or_default();
                text.lines()
                    .map(|line| {
                        let (process, key) = line.split_once(' ').unwrap();
                        Begun {
                            key: key.to_owned(),
                            process: process.to_owned(),
                        }
                    })
                    .collect()
            }
        }
    }

    /// Waits until more work has begun than there was; the newest.
    async fn until_begun(&self, row: &Row, before: usize) -> Begun {
        wait_for(&format!("{} to begin", row.kind), PATIENCE, async || {
            let begun = self.begun(row.does);
            match begun.get(before) {
                Some(begun) => Ok(begun.clone()),
                None => Err(format!("{begun:?}")),
            }
        })
        .await
    }

    /// Waits until nobody does that work any more; `abandoned` requests were before.
    async fn until_gone(&self, begun: &Begun, abandoned: &mut usize) {
        if begun.process.is_empty() {
            *abandoned += 1;
            self.service.until_gone(*abandoned).await;
        } else {
            gone(&begun.process).await;
        }
    }

    fn set_released(&self, released: bool) {
        self.released.store(released, Ordering::SeqCst);
        let go = self.directory.path().join("go");
        if released {
            std::fs::write(go, "").unwrap();
        } else {
            // There may be none.
            let _ = std::fs::remove_file(go);
        }
    }
}

impl Row {
    fn document(&self, mode: &str, timeout: &str) -> String {
        let text = document(&format!("  - it: {}\n", self.task.replace("TIMEOUT", timeout)));
        let text = text.replace("\ndo:\n", &format!("\n{}do:\n", self.functions));
        text.replace("MODE", mode)
    }
}

/// What the service says to whom. Slow work is done once it is released.
fn answer(seen: &Seen, released: &AtomicBool) -> Reply {
    let modes = ["quick", "broken", "slow"];
    let host = seen.header("host");
    match seen.path.as_str() {
        "/openapi.json" => {
            let paths = modes.map(|mode| (format!("/work/{mode}"), json!({"post": {"operationId": mode}})));
            let paths: serde_json::Map<String, Value> = paths.into_iter().collect();
            Reply::json(
                &json!({"openapi": "3.0.3", "servers": [{"url": format!("http://{host}")}], "paths": paths}),
            )
        }
        "/asyncapi.json" => {
            let channels = modes.map(|mode| (mode.to_owned(), json!({"address": format!("work/{mode}")})));
            let operations = modes.map(|mode| {
                let channel = json!({"$ref": format!("#/channels/{mode}")});
                (mode.to_owned(), json!({"action": "receive", "channel": channel}))
            });
            Reply::json(&json!({
                "asyncapi": "3.0.0",
                "servers": {"here": {"host": host, "protocol": "http"}},
                "channels": channels.into_iter().collect::<serde_json::Map<_, _>>(),
                "operations": operations.into_iter().collect::<serde_json::Map<_, _>>(),
            }))
        }
        "/work/broken" => Reply::text(503, "out of order"),
        "/work/slow" if !released.load(Ordering::SeqCst) => Reply::silence(),
        _ => Reply::json(&json!({"done": true})),
    }
}

/// Writes the program that does work, a stand-in for the client of containers, and a server that speaks MCP; the client.
fn programs(directory: &Path) -> String {
    let here = directory.display();
    let program = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    program(
        "work",
        format!(
            "#!/bin/sh\necho \"$$ ${{2:-$MUSTER_MESSAGE_ID}}\" >> {here}/begun\ncase \"$1\" in\n  broken) echo 'out of order' >&2; exit \
             3;;\n  slow) until [ -e {here}/go ]; do sleep 0.05; done;;\nesac\necho done\n"
        ),
    );
    let hello = json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "sh", "version": "1"}}});
    let tools = json!({"jsonrpc": "2.0", "id": 2, "result": {"tools": []}});
    program(
        "server",
        format!(
            "read hello\necho '{hello}'\nread initialized\nread asked\n{here}/work \"$1\" \"$asked\" >/dev/null || exit\necho '{tools}'\n"
        ),
    );
    program(
        "client",
        format!(
            "#!/bin/sh\n[ \"$1\" = run ] || exit 0\nfor word; do\n  case \"$word\" in --label=muster.message=*) key=$word;; esac\ndone\nexec \
             {here}/work \"$word\" \"$key\"\n"
        ),
    )
}

#[tokio::test]
async fn each_succeeds() {
    let world = World::start().await;
    for row in world.rows() {
        let before = world.begun(row.does).len();
        let output = world.engine.output(&row.document("quick", ""), "").await;
        assert_eq!(output, row.output, "{}", row.kind);
        assert_eq!(world.begun(row.does).len() - before, 1, "{}", row.kind);
    }
}

#[tokio::test]
async fn each_fails_and_is_not_done_again_unasked() {
    let world = World::start().await;
    for row in world.rows() {
        let before = world.begun(row.does).len();
        let error = world.engine.fault(&row.document("broken", "")).await;
        let (kind, status) = row.fault;
        assert!(
            error.r#type.ends_with(&format!("/{kind}")),
            "{}: {error:?}",
            row.kind
        );
        assert_eq!(error.status, status, "{}: {error:?}", row.kind);
        assert!(error.detail.contains("out of order"), "{}: {error:?}", row.kind);
        assert_eq!(world.begun(row.does).len() - before, 1, "{}", row.kind);
    }
}

#[tokio::test]
async fn each_ends_at_its_timeout() {
    let world = World::start().await;
    let mut abandoned = 0;
    for row in world.rows() {
        let before = world.begun(row.does).len();
        let text = row.document("slow", ", timeout: {after: PT1S}");
        let run = world.engine.start_run(&text, "", "").await.unwrap();
        let begun = world.until_begun(&row, before).await;
        let run = world.engine.until(&run.run_id, RunStatus::Faulted).await;
        let error = run.error.unwrap();
        assert!(error.r#type.ends_with("/timeout"), "{}: {error:?}", row.kind);
        assert_eq!(
            (error.status, error.instance.as_str()),
            (408, "/do/0/it"),
            "{}",
            row.kind
        );
        world.until_gone(&begun, &mut abandoned).await;
    }
}

#[tokio::test]
async fn each_is_cancelled_and_nothing_goes_on() {
    let world = World::start().await;
    let mut abandoned = 0;
    for row in world.rows() {
        let before = world.begun(row.does).len();
        let run = world
            .engine
            .start_run(&row.document("slow", ""), "", "")
            .await
            .unwrap();
        let begun = world.until_begun(&row, before).await;
        world.engine.cancel(&run.run_id).await.unwrap();
        world.engine.until(&run.run_id, RunStatus::Cancelled).await;
        world.until_gone(&begun, &mut abandoned).await;
        assert_eq!(world.begun(row.does).len() - before, 1, "{}", row.kind);
    }
}

#[tokio::test]
async fn each_is_done_again_after_a_restart_under_the_same_key() {
    let mut world = World::start().await;
    let mut abandoned = 0;
    for row in world.rows() {
        world.set_released(false);
        let before = world.begun(row.does).len();
        let run = world
            .engine
            .start_run(&row.document("slow", ""), "", "")
            .await
            .unwrap();
        let begun = world.until_begun(&row, before).await;
        world.engine.stop().await;
        world.until_gone(&begun, &mut abandoned).await;
        world.set_released(true);
        world.engine.launch().await;
        let run = world.engine.until(&run.run_id, RunStatus::Completed).await;
        let output: Value = serde_json::from_str(&run.output_json).unwrap();
        assert_eq!(output, row.output, "{}", row.kind);
        let keys: Vec<String> = world
            .begun(row.does)
            .split_off(before)
            .into_iter()
            .map(|begun| begun.key)
            .collect();
        assert!(!keys[0].is_empty(), "{}", row.kind);
        assert_eq!(keys, [keys[0].as_str(), keys[0].as_str()], "{}", row.kind);
    }
}
