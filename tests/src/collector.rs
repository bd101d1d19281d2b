//! A stand-in for an OpenTelemetry collector: takes spans over OTLP/gRPC and keeps them, or takes calls and never answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How it treats what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Takes,
    Hangs,
}

/// The running stand-in; gone when dropped.
pub struct Collector {
    pub address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    stop: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Traces {
    manner: Manner,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts on a free port, in threads of its own.
    pub fn start(manner: Manner) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let (address, spans, stop) = (listener.local_addr()?, Arc::default(), CancellationToken::new());
        let service = TraceServiceServer::new(Traces { manner, spans: Arc::clone(&spans) });
        let served = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop.clone().cancelled_owned());
        runtime.spawn(served);
        Ok(Self { address, spans, stop, runtime: Some(runtime) })
    }

    /// What a process is told to send its traces here.
    pub fn setting(&self) -> String {
        format!("otlp.endpoint=http://{}", self.address)
    }

    /// All spans taken so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.cancel();
        // A call that hangs on purpose is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.manner == Manner::Hangs {
            std::future::pending::<()>().await;
        }
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
