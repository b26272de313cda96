//! A collector of traces, for a stack of one's own and for what has no store of them: it keeps which service has sent which span of
//! which trace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::failure::Failure;

/// Spans that are kept at most; a stack of one's own sends those that were asked for.
const MOST_SPANS: usize = 20_000;

/// The services that have sent spans, by trace, each with how many.
type Seen = BTreeMap<Vec<u8>, BTreeMap<String, usize>>;

/// See the module. It ends with this value.
pub struct Collector {
    url: String,
    kept: Arc<Mutex<Kept>>,
    _serving: JoinSet<Result<(), tonic::transport::Error>>,
}

#[derive(Default)]
struct Kept {
    seen: Seen,
    spans: usize,
}

impl Collector {
    /// Starts it on a free port.
    pub async fn start() -> Result<Self, Failure> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts it there.
    pub async fn start_at(address: SocketAddr) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("the collector of traces at {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let url = format!("http://{}", listener.local_addr().map_err(failed)?);
        let kept = Arc::new(Mutex::new(Kept::default()));
        let mut serving = JoinSet::new();
        serving.spawn(
            Server::builder()
                .add_service(TraceServiceServer::new(Sink(Arc::clone(&kept))))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Ok(Self {
            url,
            kept,
            _serving: serving,
        })
    }

    /// Where it takes spans.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who has sent spans of this trace, and how many.
    pub fn services_of(&self, trace: &[u8]) -> BTreeMap<String, usize> {
        self.kept.lock().seen.get(trace).cloned().unwrap_or_default()
    }
}

struct Sink(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock();
        for of_resource in request.into_inner().resource_spans {
            let service = service(of_resource.resource.as_ref());
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if kept.spans < MOST_SPANS {
                    kept.spans += 1;
                    let by_service = kept.seen.entry(span.trace_id).or_default();
                    *by_service.entry(service.clone()).or_default() += 1;
                }
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The name of the service that a resource is.
fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    let name = attributes
        .iter()
        .find(|attribute| attribute.key == "service.name");
    match name.and_then(|name| name.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => "unnamed".to_owned(),
    }
}
