//! A gRPC service that answers as it is told, and remembers how it was called.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http;
use drover_host::{AdminToken, Calling, ListenSpec, Network, NetworkParts, Shutdown, Sockets, Transport, grpc};
use tokio::task::JoinHandle;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// May be called twice with the effect of once.
pub const GET: &str = "/test.Thing/Get";
/// May not.
pub const MAKE: &str = "/test.Thing/Make";
const TOKEN: &str = "s3cret";

/// Answers with these codes in turn, then with success.
#[derive(Clone, Default)]
pub struct Thing(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    answers: VecDeque<Code>,
    timeouts: Vec<String>,
}

impl Thing {
    pub fn answers(&self, codes: &[Code]) {
        self.0.lock().expect("no panic").answers = codes.iter().copied().collect();
    }

    /// The deadline that each call came with, as its header says it; forgets them.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic").timeouts)
    }
}

impl NamedService for Thing {
    const NAME: &'static str = "test.Thing";
}

impl UnaryService<()> for Thing {
    type Response = ();
    type Future = std::future::Ready<Result<Response<()>, Status>>;

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let timeout = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let mut script = self.0.lock().expect("no panic");
        script.timeouts.push(timeout.unwrap_or_default().to_owned());
        std::future::ready(match script.answers.pop_front() {
            Some(code) if code != Code::Ok => Err(Status::new(code, "as told")),
            Some(_) | None => Ok(Response::new(())),
        })
    }
}

impl Service<http::Request<tonic::body::Body>> for Thing {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let thing = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<(), ()>::default()).unary(thing, request).await) })
    }
}

/// A process that serves a [`Thing`] until dropped.
pub struct Served {
    pub thing: Thing,
    pub address: SocketAddr,
    stop: Shutdown,
    running: JoinHandle<()>,
}

impl Served {
    /// At a port of its own.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    pub fn start_at(address: SocketAddr) -> Self {
        let spec =
            ListenSpec { name: grpc::SOCKET, key: "thing.listen", transport: Transport::Tcp, addresses: vec![address] };
        let sockets = Sockets::bind(&[spec]).expect("the port is free");
        let address = sockets.addresses(grpc::SOCKET)[0];
        let (thing, stop) = (Thing::default(), Shutdown::new());
        let (routes, shutdown) = (grpc::Routes::new(thing.clone()), stop.clone());
        let running = tokio::spawn(async move {
            let network = Network::with_admin_token(HashMap::new(), AdminToken::new(TOKEN));
            grpc::serve(routes, "thing", &sockets, &network, shutdown).await.expect("serves");
        });
        Self { thing, address, stop, running }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("ends");
    }
}

/// A network that knows `thing` at these addresses.
pub fn network(addresses: &[SocketAddr], deadline: Duration) -> Network {
    let uris = addresses.iter().map(|address| format!("http://{address}").parse().expect("a URI")).collect();
    let parts = NetworkParts {
        services: HashMap::from([("thing".to_owned(), uris)]),
        admin_token: Some(AdminToken::new(TOKEN)),
        tls: None,
        calling: Calling { deadline, is_idempotent: |path| path == GET },
    };
    Network::new(parts).expect("no certificates")
}

/// One call.
pub async fn call(client: &grpc::Client, path: &'static str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(client.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await.map(Response::into_inner)
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    listener.local_addr().expect("bound")
}
