//! Calls for what another engine works on: the same calls, sent on to it.
//!
//! A call is sent on once: who gets it and does not work on it either refuses it, and whoever asks tries again. What only reads
//! is answered from the store where there is nobody to ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_api::workflow as proto;
use muster_api::workflow::approval_service_client::ApprovalServiceClient;
use muster_api::workflow::schedule_service_client::ScheduleServiceClient;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_rpc::channel::Security;
use muster_rpc::loss::Loss;
use muster_runtime::trust::Grants;
use muster_runtime::trust::caller::{Caller, Kind, ON_BEHALF_OF_METADATA, Role};
use muster_runtime::trust::identity::{Channel, Identity};
use parking_lot::Mutex;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};

use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::replicas::{Owner, Replicas};
use crate::run::{InvalidId, RunId};

/// Says that a call was sent on.
const SENT_ON: &str = "muster-sent-on";

/// How long a call waits for somebody to take over what nobody works on: a little longer than it takes where an engine stops in
/// order.
const TAKEOVER: Duration = Duration::from_secs(2);

/// How long a question may take that the store can answer nearly as well.
const SOON: Duration = Duration::from_secs(2);

/// Between two looks at whether another engine still works on what it was asked about.
const CHECK: Duration = Duration::from_secs(1);

/// Between two looks at whether somebody has taken it over.
const LOOK: Duration = Duration::from_millis(100);

/// How long another engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Other engines, as far as this one asks them by itself.
#[async_trait]
pub(crate) trait Peers: Send + Sync {
    /// Has the engine at this address start a run.
    async fn start(&self, address: &str, wish: StartRun) -> Result<(), NotStarted>;

    /// What calls to the engine at this address are sent over.
    fn channel(&self, address: &str) -> Option<Channel>;
}

/// Why another engine has not started a run.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// Whether it never will.
    pub(crate) is_final: bool,
    /// What it says.
    pub(crate) what: String,
}

/// Others over the network.
pub(crate) struct Network {
    security: Security,
    /// Connections, by address.
    channels: Mutex<HashMap<String, Channel>>,
    /// Who this engine is to the others.
    identity: Identity,
}

impl Network {
    /// Nobody is connected yet. To others this engine is `identity`, and connections are secured like this.
    pub(crate) fn new(identity: Identity, security: Security) -> Self {
        Self {
            security,
            channels: Mutex::default(),
            identity,
        }
    }
}

#[async_trait]
impl Peers for Network {
    async fn start(&self, address: &str, wish: StartRun) -> Result<(), NotStarted> {
        let Some(channel) = self.channel(address) else {
            return Err(NotStarted {
                is_final: false,
                what: format!("'{address}' is no address"),
            });
        };
        match start(channel, wish).await {
            Ok(()) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(NotStarted {
                is_final: matches!(status.code(), Code::InvalidArgument | Code::NotFound),
                what: status.to_string(),
            }),
        }
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        match muster_rpc::endpoint::parse(&format!("http://{address}")) {
            Ok(endpoint) => {
                let channel = self.identity.channel(&endpoint, &self.security);
                channels.insert(address.to_owned(), channel.clone());
                Some(channel)
            }
            Err(error) => {
                tracing::error!(address, %error, "another engine says that it can be reached at what is no address");
                None
            }
        }
    }
}

/// Another engine, to which a call is sent on.
pub(crate) struct Peer {
    channel: Channel,
    replicas: Arc<Replicas>,
    partition: u16,
}

/// How a call is sent on: by which client.
macro_rules! client {
    ($name:ident, $client:ident) => {
        pub(crate) fn $name(&self) -> $client<Channel> {
            // What an engine answers, it has bounded itself.
            $client::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
        }
    };
}

impl Peer {
    client!(workflows, WorkflowServiceClient);
    client!(approvals, ApprovalServiceClient);
    client!(schedules, ScheduleServiceClient);

    /// What comes of a call, as long as the other engine works on what it is about: one that is frozen answers nothing, and
    /// one that cannot be reached is about to lose it.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Status> {
        let gone = || Error::NotOwner {
            partition: self.partition,
        };
        tokio::select! {
            biased;
            answer = call => answer.map_err(|status| {
                let is_silent = status.code() == Code::Unavailable && status.details().is_empty();
                if is_silent || Loss::of(&status).is_some() {
                    tracing::debug!(%status, "another engine does not answer");
                    gone().into()
                } else {
                    status
                }
            }),
            () = self.lost() => Err(gone().into()),
        }
    }

    /// Resolves when it is not the other engine's any more.
    async fn lost(&self) {
        loop {
            tokio::time::sleep(CHECK).await;
            if let Ok(Owner::Here | Owner::Nobody { .. }) = self.replicas.owner(self.partition).await {
                return;
            }
        }
    }

    /// What comes of a question, unless it takes so long that the store is asked instead.
    pub(crate) async fn soon<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Option<Result<Response<T>, Status>> {
        let answer = tokio::time::timeout(SOON, call).await.ok()?;
        let is_gone = answer
            .as_ref()
            .is_err_and(|status| status.code() == Code::Unavailable || Loss::of(status).is_some());
        (!is_gone).then_some(answer)
    }
}

/// The call as it is sent on.
pub(crate) fn sent_on<T>(mut request: Request<T>) -> Request<T> {
    let metadata = request.metadata_mut();
    metadata.insert(SENT_ON, MetadataValue::from_static("1"));
    // Who asked is in a header of the gate's; the other engine is to know this one by itself.
    metadata.remove("authorization");
    if !metadata.contains_key("grpc-timeout") {
        request.set_timeout(PATIENCE);
    }
    muster_runtime::trace::inject_request(&mut request);
    request
}

/// The call as it is sent on for this engine itself, which has decided that it may be made.
pub(crate) fn on_our_own<T>(message: T) -> Request<T> {
    let roles = [Role::Service, Role::Admin].into_iter().collect();
    let engine = Caller::new(Kind::Service, None, "workflow-engine", roles, Grants::default());
    let mut request = sent_on(Request::new(message));
    if let Ok(value) = engine.to_text().parse() {
        request.metadata_mut().insert(ON_BEHALF_OF_METADATA, value);
    }
    request
}

/// Whether the call comes from another engine.
pub(crate) fn was_sent_on<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(SENT_ON)
}

impl Engine {
    /// To whom a call for a run is to be sent on; nobody: it is answered here.
    ///
    /// # Errors
    /// Nobody works on the run.
    pub(crate) async fn peer_of<T>(&self, run: &RunId, request: &Request<T>) -> Result<Option<Peer>, Error> {
        match self.placement.replicas() {
            Some(replicas) => peer(replicas, replicas.partition_of(run), was_sent_on(request)).await,
            None => Ok(None),
        }
    }

    /// To whom a call that begins a run is to be sent on; nobody: it is answered here. Where the caller leaves the id to us, it is
    /// one of a run that belongs here, as long as anything does.
    ///
    /// # Errors
    /// The id is none, or nobody works on the run.
    pub(crate) async fn peer_of_new<T>(
        &self,
        request: &mut Request<T>,
        run_id: impl Fn(&mut T) -> &mut String,
    ) -> Result<Option<Peer>, Error> {
        if run_id(request.get_mut()).is_empty() {
            let fresh = self.placement.fresh();
            if self.placement.is_here(&fresh) {
                return Ok(None);
            }
            *run_id(request.get_mut()) = fresh.into();
        }
        let id: RunId = run_id(request.get_mut())
            .parse()
            .map_err(|error: InvalidId| Error::field("run_id", error.to_string()))?;
        self.peer_of(&id, request).await
    }

    /// To whom a call for the schedule or the starts of a workflow is to be sent on; nobody: it is answered here.
    ///
    /// # Errors
    /// Nobody works on it.
    pub(crate) async fn peer_of_name<T>(
        &self,
        namespace: &str,
        name: &str,
        request: &Request<T>,
    ) -> Result<Option<Peer>, Error> {
        match self.placement.replicas() {
            Some(replicas) => {
                let partition = replicas.partition_of_name(namespace, name);
                peer(replicas, partition, was_sent_on(request)).await
            }
            None => Ok(None),
        }
    }
}

/// Who else works on a partition; waits a little where nobody does.
async fn peer(replicas: &Arc<Replicas>, partition: u16, was_sent_on: bool) -> Result<Option<Peer>, Error> {
    let known = async {
        loop {
            match replicas.owner(partition).await? {
                Owner::Here => return Ok(None),
                Owner::Peer(_) if was_sent_on => return Err(Error::NotOwner { partition }),
                Owner::Peer(address) => {
                    if let Some(channel) = replicas.peers.channel(&address) {
                        return Ok(Some(Peer {
                            channel,
                            replicas: Arc::clone(replicas),
                            partition,
                        }));
                    }
                }
                Owner::Nobody { .. } => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let known = tokio::time::timeout(TAKEOVER, known).await;
    known.unwrap_or(Err(Error::NotOwner { partition }))
}

async fn start(channel: Channel, wish: StartRun) -> Result<(), Status> {
    let source = match wish.source {
        Source::Catalogue(reference) => {
            proto::start_run_request::Source::Workflow(proto::WorkflowReference {
                namespace: reference.namespace,
                name: reference.name,
                version: reference.version,
            })
        }
        Source::Document(document) => proto::start_run_request::Source::Document(document),
    };
    let request = proto::StartRunRequest {
        run_id: wish.id.map(String::from).unwrap_or_default(),
        source: Some(source),
        input_json: wish.input.to_string(),
        hears_from: wish.hears_from,
        ..proto::StartRunRequest::default()
    };
    let mut request = sent_on(Request::new(request));
    let caller = wish.caller.filter(|caller| !caller.is_anybody());
    if let Some(value) = caller.and_then(|caller| caller.to_text().parse().ok()) {
        request.metadata_mut().insert(ON_BEHALF_OF_METADATA, value);
    }
    let mut client = WorkflowServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    client.start_run(request).await.map(|_| ())
}

/// What all other engines that are alive are doing; those that do not answer in time are left out.
pub(crate) async fn doings(replicas: &Replicas) -> Vec<proto::GetStatusResponse> {
    /// How long one may take.
    const WITHIN: Duration = Duration::from_secs(2);
    let others = replicas.others().into_iter();
    let channels = others.filter_map(|address| replicas.peers.channel(&address));
    let questions = channels.map(|channel| async move {
        let mut client = WorkflowServiceClient::new(channel);
        let question = client.get_status(on_our_own(proto::GetStatusRequest {}));
        tokio::time::timeout(WITHIN, question).await.ok()?.ok()
    });
    let answers = futures::future::join_all(questions).await;
    answers.into_iter().flatten().map(Response::into_inner).collect()
}
