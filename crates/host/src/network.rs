//! How services reach each other: gRPC over TCP between processes, over an in-memory pipe within one.
//!
//! gRPC stays gRPC: one process runs the same wire code as many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, ServerTlsConfig, Uri};

use crate::grpc;
use crate::http::SharedRoutes;
use crate::network_tls::NetworkTls;
use crate::remote::{Calling, Remote, Tally, Wires};
use crate::{AdminToken, Metrics};

/// Bytes buffered in each direction of an in-memory pipe.
const PIPE_BYTES: usize = 256 * 1024;
/// Connections waiting to be accepted by an in-process server.
const BACKLOG: usize = 64;

/// In-memory connections to one service.
pub type Incoming = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = std::io::Result<DuplexStream>> + Send>>;

/// The way to other services. Cheap to clone.
#[derive(Clone, Default)]
pub struct Network(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Services in other processes, by name.
    remote: HashMap<String, Remote>,
    /// Services in this process, by name; made when first asked for from either side.
    local: Mutex<HashMap<String, Pipe>>,
    /// Proves this process to services in others, and others to this one.
    admin_token: Option<AdminToken>,
    /// Proves both ends of a connection to each other before anything is sent.
    tls: Option<NetworkTls>,
    tally: Tally,
    /// Routes that services of this process serve on each other's listeners.
    http: SharedRoutes,
}

/// What a network is made of.
#[derive(Default)]
pub struct NetworkParts {
    /// Services in other processes, by name, and where their replicas are; all others are in this process.
    pub services: HashMap<String, Vec<Uri>>,
    pub admin_token: Option<AdminToken>,
    pub tls: Option<NetworkTls>,
    pub calling: Calling,
}

struct Pipe {
    connect: mpsc::Sender<DuplexStream>,
    /// Taken by the service when it starts to listen.
    accept: Option<mpsc::Receiver<DuplexStream>>,
}

impl Network {
    /// A network of these parts. The error: its certificates cannot be used.
    pub fn new(parts: NetworkParts) -> Result<Self, tonic::transport::Error> {
        Self::build(parts, None)
    }

    /// As [`Network::new`]; services in other processes are reached by `wires` instead of TCP.
    pub fn over(parts: NetworkParts, wires: &Arc<dyn Wires>) -> Result<Self, tonic::transport::Error> {
        Self::build(parts, Some(wires))
    }

    fn build(parts: NetworkParts, wires: Option<&Arc<dyn Wires>>) -> Result<Self, tonic::transport::Error> {
        let NetworkParts { services, admin_token, tls, calling } = parts;
        let (client_tls, tally) = (tls.as_ref().map(NetworkTls::client), Tally::default());
        let mut remote = HashMap::new();
        for (name, uris) in services {
            let service = Remote::new(&name, uris, client_tls.as_ref(), wires, calling.clone(), tally.clone())?;
            remote.insert(name, service);
        }
        Ok(Self(Arc::new(Inner { remote, admin_token, tls, tally, ..Inner::default() })))
    }

    /// A network whose services live in this process, but for those in `remote`, of a process that knows the
    /// administrator's token.
    pub fn with_admin_token(remote: HashMap<String, Uri>, admin_token: AdminToken) -> Self {
        let services = remote.into_iter().map(|(name, uri)| (name, vec![uri])).collect();
        let parts = NetworkParts { services, admin_token: Some(admin_token), ..NetworkParts::default() };
        Self::new(parts).expect("only certificates can be refused")
    }

    /// The administrator's token, if this process knows it.
    pub fn admin_token(&self) -> Option<AdminToken> {
        self.0.admin_token.clone()
    }

    /// The HTTP routes that services of this process hand over to each other.
    pub fn http(&self) -> &SharedRoutes {
        &self.0.http
    }

    /// TLS of this process's gRPC servers; `None`: they speak plain text.
    pub fn server_tls(&self) -> Option<ServerTlsConfig> {
        self.0.tls.as_ref().map(NetworkTls::server)
    }

    /// Names of the services in other processes, sorted.
    pub fn remote_services(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.remote.keys().cloned().collect();
        names.sort();
        names
    }

    /// Whether this service is in other processes.
    pub fn is_remote(&self, service: &str) -> bool {
        self.0.remote.contains_key(service)
    }

    /// Adds the metrics of calls to other processes.
    pub fn register(&self, metrics: &Metrics) {
        self.0.tally.register(metrics);
    }

    /// A client of `service`: of whichever replica answers, where there are several in other processes. It sends the
    /// trace context of the calling span, and the admin token to other processes.
    pub fn client(&self, service: &str) -> grpc::Client {
        match self.0.remote.get(service) {
            Some(remote) => grpc::Client::remote(remote.clone(), self.0.admin_token.clone()),
            None => grpc::Client::pipe(self.pipe(service)),
        }
    }

    /// A client of each replica of `service` by itself, with its name: for what all of them have to be told. A service
    /// with one replica goes by its own name, the replicas of others by their `HOST:PORT`.
    pub fn replicas(&self, service: &str) -> Vec<(String, grpc::Client)> {
        let Some(remote) = self.0.remote.get(service) else {
            return vec![(service.to_owned(), self.client(service))];
        };
        let client = |remote| grpc::Client::remote(remote, self.0.admin_token.clone());
        match remote.replicas().as_slice() {
            [_] => vec![(service.to_owned(), client(remote.clone()))],
            many => many.iter().map(|(name, remote)| (name.clone(), client(remote.clone()))).collect(),
        }
    }

    /// Connections made to `service` from within this process. Asked for again after a restart of the service, it
    /// starts anew.
    pub fn listen(&self, service: &str) -> Incoming {
        let mut local = self.0.local.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = local.get_mut(service).and_then(|pipe| pipe.accept.take());
        let accept = waiting.unwrap_or_else(|| {
            let mut pipe = Pipe::new();
            let accept = pipe.accept.take().expect("a new pipe has its receiver");
            local.insert(service.to_owned(), pipe);
            accept
        });
        Box::pin(ReceiverStream::new(accept).map(Ok))
    }

    /// A channel to `service` in this process, connected when first used and again whenever it breaks.
    fn pipe(&self, service: &str) -> Channel {
        let (network, service) = (self.clone(), service.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (network, service) = (network.clone(), service.clone());
            async move { network.open(&service).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://in-process").connect_with_connector_lazy(connector)
    }

    /// A pipe to whoever listens, or will listen, under `service` in this process.
    pub async fn open(&self, service: &str) -> std::io::Result<DuplexStream> {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let refused = |_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        self.connector(service).send(server).await.map_err(refused)?;
        Ok(client)
    }

    fn connector(&self, service: &str) -> mpsc::Sender<DuplexStream> {
        let mut local = self.0.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.entry(service.to_owned()).or_insert_with(Pipe::new).connect.clone()
    }
}

impl Pipe {
    fn new() -> Self {
        let (connect, accept) = mpsc::channel(BACKLOG);
        Self { connect, accept: Some(accept) }
    }
}
