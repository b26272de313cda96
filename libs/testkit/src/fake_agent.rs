//! An A2A agent on a port of its own that does what a test scripts, and counts what it was asked.
//!
//! It speaks the wire (tonic, official types) and nothing of Muster's own code takes part, so that a router or an
//! engine is tested against a stranger. Answers are scripted in order ([`FakeAgent::script`]); when the script is
//! empty the fallback answers, at first [`Answer::Echo`]. [`FakeAgent::hold`] stops all answers until released: a
//! stream stops before each of its events.

mod script;
mod service;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_api::a2a::a2a_service_server::A2aServiceServer;
use muster_api::{a2a, registry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

pub use script::{Answer, Call};

/// A running fake agent. Dropping it closes its port and breaks off its calls.
#[derive(Debug)]
pub struct FakeAgent {
    id: String,
    address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

/// What the server and the test share.
#[derive(Debug)]
struct State {
    id: String,
    calls: Mutex<Vec<Call>>,
    script: Mutex<VecDeque<Answer>>,
    fallback: Mutex<Answer>,
    load: Mutex<Option<f64>>,
    tasks: Mutex<BTreeMap<String, a2a::Task>>,
    gate: watch::Sender<Gate>,
    waiting: watch::Sender<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Gate {
    held: bool,
    tickets: usize,
}

impl FakeAgent {
    /// Starts an agent on a free port.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start(id: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Self::serve(id.into(), listener)
    }

    /// Starts an agent on a given address, for instance that of an agent that was dropped.
    pub async fn start_at(id: impl Into<String>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await;
        Self::serve(id.into(), listener)
    }

    fn serve(id: String, listener: std::io::Result<TcpListener>) -> Self {
        let listener = listener.unwrap_or_else(|error| panic!("bind the fake agent {id}: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("address of {id}: {error}"));
        let state = Arc::new(State {
            id: id.clone(),
            calls: Mutex::default(),
            script: Mutex::default(),
            fallback: Mutex::new(Answer::Echo),
            load: Mutex::default(),
            tasks: Mutex::default(),
            gate: watch::Sender::new(Gate::default()),
            waiting: watch::Sender::new(0),
        });
        let service = A2aServiceServer::new(service::Service(Arc::clone(&state)))
            .max_decoding_message_size(64 * 1024 * 1024)
            .max_encoding_message_size(64 * 1024 * 1024);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await;
            if let Err(error) = served {
                panic!("the fake agent at {address}: {error}");
            }
        });
        Self {
            id,
            address,
            state,
            _server: server,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as instances register it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its card with the given skills.
    #[must_use]
    pub fn card(&self, skills: &[&str]) -> a2a::AgentCard {
        a2a::AgentCard {
            name: self.id.clone(),
            description: format!("The fake agent {}", self.id),
            version: "1.0.0".to_owned(),
            supported_interfaces: vec![a2a::AgentInterface {
                url: self.address.to_string(),
                protocol_binding: "GRPC".to_owned(),
                protocol_version: "1.0".to_owned(),
                ..Default::default()
            }],
            capabilities: Some(a2a::AgentCapabilities {
                streaming: Some(true),
                ..Default::default()
            }),
            default_input_modes: vec!["text/plain".to_owned()],
            default_output_modes: vec!["text/plain".to_owned()],
            skills: skills.iter().map(|id| skill(id)).collect(),
            ..Default::default()
        }
    }

    /// The instance to register it with.
    #[must_use]
    pub fn instance(&self, skills: &[&str]) -> registry::Instance {
        registry::Instance {
            agent_id: self.id.clone(),
            card: Some(self.card(skills)),
            endpoint: self.endpoint(),
            version: "1.0.0".to_owned(),
            ..Default::default()
        }
    }

    /// Adds answers to the script; each is given once, in order.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        lock(&self.state.script).extend(answers);
    }

    /// Sets what answers when the script is empty.
    pub fn fall_back_to(&self, answer: Answer) {
        *lock(&self.state.fallback) = answer;
    }

    /// Tells this load with each answer from now on, as servers that report to Envoy do.
    pub fn tell_load(&self, load: f64) {
        *lock(&self.state.load) = Some(load);
    }

    /// Stops all answers from now on, until released.
    pub fn hold(&self) {
        self.state.gate.send_modify(|gate| gate.held = true);
    }

    /// Lets the next `count` answers (or events of streams) go; the others stay held.
    pub fn release(&self, count: usize) {
        self.state.gate.send_modify(|gate| gate.tickets += count);
    }

    /// Lets everything go and holds no more.
    pub fn release_all(&self) {
        self.state.gate.send_modify(|gate| *gate = Gate::default());
    }

    /// How many answers are held now. A caller who gives up is no longer among them.
    #[must_use]
    pub fn held(&self) -> usize {
        *self.state.waiting.borrow()
    }

    /// Every message so far, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state.calls).clone()
    }

    /// How often each message id came.
    #[must_use]
    pub fn calls_by_message_id(&self) -> BTreeMap<String, usize> {
        self.count(|call| Some(call.message_id.clone()))
    }

    /// How often each step key (metadata `muster-step-key`) came.
    #[must_use]
    pub fn calls_by_step_key(&self) -> BTreeMap<String, usize> {
        self.count(|call| call.step_key.clone())
    }

    fn count(&self, key: impl Fn(&Call) -> Option<String>) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for key in lock(&self.state.calls).iter().filter_map(key) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }
}

impl State {
    /// Waits while answers are held.
    async fn pass(&self) {
        let _waiting = Waiting::new(&self.waiting);
        let mut gate = self.gate.subscribe();
        loop {
            let mut passed = false;
            self.gate.send_if_modified(|gate| {
                passed = !gate.held || gate.tickets > 0;
                let takes_ticket = gate.held && gate.tickets > 0;
                gate.tickets -= usize::from(takes_ticket);
                takes_ticket
            });
            if passed || gate.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Counts a held answer as long as its caller waits.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn skill(id: &str) -> a2a::AgentSkill {
    a2a::AgentSkill {
        id: id.to_owned(),
        name: id.to_owned(),
        description: format!("The skill {id}"),
        tags: vec!["fake".to_owned()],
        ..Default::default()
    }
}

/// A panic in a test must not hide behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
