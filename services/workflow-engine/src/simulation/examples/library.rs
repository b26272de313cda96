//! Whoever the examples call: a library with its books and its clerks, the agents, and the programs on its machines.
//!
//! Each answers by what is asked, like the services of `tests/engine/examples.rs`, and knows who asks: the wrong token, body or
//! argument is refused. Which attempt of which task a call is, the witness knows from the durable journal. Nothing is remembered
//! here, so the same message has the same answer in every life.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_runtime::clock::Clock as _;
use muster_workflow_dsl::document::{Arguments, ResponseFormat, Return, Scheme};
use muster_workflow_dsl::request::mcp::Transport;
use muster_workflow_dsl::request::{
    A2a, AsyncApi, Authentication, Grpc, Http, Mcp, OpenApi, Process, Program, Request,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::chance::decided;
use super::super::clock::Virtual;
use super::super::witness::{Asked, Standing};
use super::super::world::World;
use super::LIBRARY;
use super::mishap::{Mishap, Step};
use crate::caller::emit::Emitter;
use crate::caller::session::Session;
use crate::caller::{Call, Caller, Failure, Kind, Progress};
use crate::events::Events;
use crate::run::RunId;
use crate::secrets::Secrets;

/// The token that readers show.
const TOKEN: &str = "t0ken";

/// See the module.
pub(crate) struct Library {
    world: Arc<World>,
    clock: Virtual,
    secrets: Arc<Secrets>,
    emitter: Emitter,
    mishap: Mishap,
    /// What was asked, over all lives: each step once, with the number of its attempts.
    asked: Arc<Mutex<BTreeMap<Step, u32>>>,
}

/// What a call is answered with before anybody knows how the caller wants it.
type Answer = Result<Value, Failure>;

impl Library {
    pub(crate) fn new(
        world: Arc<World>,
        clock: Virtual,
        secrets: Arc<Secrets>,
        events: Arc<Events>,
        mishap: Mishap,
        asked: Arc<Mutex<BTreeMap<Step, u32>>>,
    ) -> Self {
        Self {
            world,
            clock,
            secrets,
            emitter: Emitter::new(events),
            mishap,
            asked,
        }
    }

    fn note(&self, step: &Step, attempt: u32) {
        let mut asked = self.asked.lock();
        let attempts = asked.entry(step.clone()).or_default();
        *attempts = attempt.max(*attempts);
    }

    async fn answer(&self, asked: &Asked, call: &Call, progress: &Progress) -> Answer {
        let session = Session::open(&self.secrets, &call.grant).await?;
        match &*call.request {
            Request::Http(request) => http(request, asked.attempt, &session),
            Request::OpenApi(request) => openapi(request),
            Request::AsyncApi(request) => asyncapi(request, &session),
            Request::Grpc(request) => grpc(request),
            Request::Mcp(request) => mcp(request),
            Request::A2a(request) => agent(request),
            Request::Process(process) => run(process),
            Request::Emit(request) => self.emitter.call(request, progress).await,
            Request::Workflow(_) => Err(refused("runs are not called")),
        }
    }
}

#[async_trait]
impl Caller for Library {
    async fn call(&self, call: &Call, progress: &Progress) -> Answer {
        let (now, target) = (self.clock.now(), call.request.target());
        let asked = self.world.witness.asked(call.message_id);
        let _in_flight = {
            // One engine lives at a time.
            let owner = |_: &RunId| Standing::Owner;
            self.world.witness.called(now, 0, call.message_id, &target, owner)
        };
        // Nobody waits for one that was given up while it was sent.
        let asked = asked.ok_or_else(|| refused("nobody waits for that"))?;
        let step = Step {
            task: asked.task.to_string(),
            key: asked.step_key,
        };
        self.note(&step, asked.attempt);
        if let Some(failure) = self.mishap.failure(&step, asked.attempt) {
            // Before any other answer comes, so that a race ends the same way in every life.
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Err(failure);
        }
        let latency = decided(self.world.plan.seed, &[&"latency", &call.message_id]) % 200;
        tokio::time::sleep(Duration::from_millis(20 + latency)).await;
        self.answer(&asked, call, progress).await
    }

    async fn stop(&self, _call: &Call, _progress: &Progress) -> Result<(), Failure> {
        Ok(())
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(Kind::Validation, 400, why)
}

fn dune() -> Value {
    json!({"id": 1, "title": "Dune"})
}

/// Whether whoever asks has shown the token, or may be given one.
fn is_known(authentication: Option<&Authentication>, token: &str, session: &Session) -> bool {
    let Some(authentication) = authentication else {
        return false;
    };
    let Ok(shown) = session.properties::<Value>(authentication) else {
        return false;
    };
    match authentication.scheme {
        Scheme::Bearer => shown["token"] == token,
        Scheme::Oauth2 | Scheme::Oidc => {
            shown["authority"] == format!("{LIBRARY}/realm") && shown["client"]["secret"] == "open-sesame"
        }
        _ => false,
    }
}

fn http(request: &Http, attempt: u32, session: &Session) -> Answer {
    let uri = session.address(&request.endpoint.uri);
    let body = request.body.as_deref().cloned().unwrap_or_default();
    let authentication = request.endpoint.authentication.as_ref();
    let path = uri.strip_prefix(LIBRARY).unwrap_or(&uri);
    let content = match (request.method.as_str(), path) {
        ("GET", "/books/1") => dune(),
        ("GET", "/books/2") => json!({"id": 2, "author": format!("{LIBRARY}/authors/1")}),
        ("GET", "/books/7") => json!({"id": 7, "title": "Emma"}),
        ("GET", "/authors/1") => json!({"name": "Frank"}),
        ("GET", "/books") if request.query.get("title") == Some(&json!("Dune")) => json!([dune()]),
        ("GET", "/old-books") if request.redirect => json!({"moved": "/books"}),
        ("GET", "/books/flaky") if attempt < 3 => {
            return Err(Failure::new(Kind::Communication, 503, "busy"));
        }
        ("GET", "/books/flaky") => json!({"title": "At last"}),
        ("GET", "/private/1") if is_known(authentication, TOKEN, session) => json!({"title": "Private"}),
        ("PUT", "/books/1") => body,
        ("PUT", path) if path.starts_with("/alarms/") => json!({"called": body["room"]}),
        ("POST", path) if path.starts_with("/rooms/") => json!({"lit": path}),
        ("POST", "/inventories") => json!({"inventory": "begun"}),
        ("POST", "/notices") => body,
        ("POST", "/log") => json!({"logged": body["message"]}),
        // What the README calls.
        ("GET", "http://127.0.0.1:7403/v1/status") if is_known(authentication, "a-secret-value", session) => {
            json!({"runs": 0})
        }
        _ => return Err(Failure::new(Kind::Communication, 404, "no such book")),
    };
    Ok(match request.output {
        ResponseFormat::Raw => content.to_string().into(),
        ResponseFormat::Content => content,
        ResponseFormat::Response => {
            let sent = json!({"method": request.method, "uri": uri, "headers": {}});
            json!({"request": sent, "statusCode": 200, "headers": {}, "content": content})
        }
    })
}

fn openapi(request: &OpenApi) -> Answer {
    let parameter = |name: &str| request.parameters.get(name).cloned().unwrap_or_default();
    match request.operation.as_str() {
        "findBooks" if parameter("title") == "Dune" => Ok(json!([dune()])),
        "logReading" if parameter("room") == 4 => Ok(json!({"logged": true})),
        "makeReport" => Ok(json!({"report": "made"})),
        other => Err(refused(&format!("no operation {other} with these parameters"))),
    }
}

fn asyncapi(request: &AsyncApi, session: &Session) -> Answer {
    let is_announced = request.operation.as_deref() == Some("announceBook")
        && request.payload.as_deref() == Some(&json!({"bookId": 1}))
        && is_known(request.authentication.as_ref(), TOKEN, session);
    if is_announced {
        Ok(Value::Null)
    } else {
        Err(refused("that cannot be announced"))
    }
}

fn grpc(request: &Grpc) -> Answer {
    if (request.service.as_str(), request.method.as_str()) == ("grpc.health.v1.Health", "Check") {
        Ok(json!({"status": "SERVING"}))
    } else {
        Err(refused("no such method"))
    }
}

fn mcp(request: &Mcp) -> Answer {
    let parameters = &request.parameters;
    let text = match &request.transport {
        Transport::Stdio {
            arguments,
            environment,
            ..
        } if arguments.ends_with(&["--transport".to_owned(), "stdio".to_owned()])
            && parameters["name"] == "post_message" =>
        {
            let token = environment.get("TOKEN").map_or("nothing", String::as_str);
            format!("posted with {token}")
        }
        Transport::Http { .. } if parameters["name"] == "search" => {
            format!(
                "found {}",
                parameters["arguments"]["query"].as_str().unwrap_or_default()
            )
        }
        _ => return Err(refused("no such tool")),
    };
    Ok(json!({"content": [{"type": "text", "text": text}], "isError": false}))
}

/// An agent's answer is a task.
fn agent(request: &A2a) -> Answer {
    let message = &request.parameters["message"];
    let data = &message["parts"][0]["data"];
    let (state, result) = match request.endpoint.to_string().as_str() {
        "skill://weather_forecasting" if data["city"] == "Seattle" => {
            ("TASK_STATE_COMPLETED", json!({"rainy_dates": ["2014-03-02"]}))
        }
        "skill://weather_forecasting" => ("TASK_STATE_COMPLETED", json!({"rainy_dates": []})),
        // It asks back, and goes on with the task that the next message names.
        "agent://customer-service" if message["taskId"] == "question-1" => {
            ("TASK_STATE_COMPLETED", json!({"answer": "press the button"}))
        }
        "agent://customer-service" if message["taskId"].is_null() => {
            ("TASK_STATE_INPUT_REQUIRED", json!({"asks": "what do you mean?"}))
        }
        other => return Err(refused(&format!("{other} does not know that"))),
    };
    Ok(json!({
        "id": "question-1",
        "contextId": "context-1",
        "status": {"state": state},
        "artifacts": [{"parts": [{"data": result}]}],
    }))
}

/// What a program of the examples writes, by its text.
fn run(process: &Process) -> Answer {
    let listed = match &process.arguments {
        Some(Arguments::Listed(arguments)) => arguments.as_slice(),
        _ => &[],
    };
    let stdin = process.stdin.as_deref().unwrap_or_default();
    let (stdout, stderr) = match (&process.program, listed) {
        (Program::Container { image, .. }, []) if image == "hello-world" => {
            ("Hello\n".to_owned(), "careful\n")
        }
        (
            Program::Container {
                command: Some(command),
                ..
            }
            | Program::Shell { command },
            [one, two],
        ) if command.contains("input=$(cat)") => (format!("read: {stdin}\ngiven: {one} {two}\n"), ""),
        (Program::Shell { command }, [one, two]) if command.starts_with("echo \"$1: $2 g\"") => {
            (format!("{one}: {two} g\n"), "")
        }
        (Program::Script { code, .. }, []) if code == "console.log(message)" => match &process.arguments {
            Some(Arguments::Named(named)) => {
                (format!("{}\n", named["message"].as_str().unwrap_or_default()), "")
            }
            _ => return Err(refused("no message")),
        },
        (Program::Script { code, .. }, [side]) if code.contains("os.environ[\"SHELF\"]") => {
            let shelf = process.environment.get("SHELF");
            (
                json!({"title": stdin, "shelf": shelf, "side": side}).to_string() + "\n",
                "",
            )
        }
        _ => return Err(refused("no such program")),
    };
    Ok(match process.returns {
        Return::Stdout => stdout.into(),
        Return::Stderr => stderr.into(),
        Return::Code => 0.into(),
        Return::All => json!({"code": 0, "stdout": stdout, "stderr": stderr}),
        Return::None => Value::Null,
    })
}
