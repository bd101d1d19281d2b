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
use tonic::transport::{Channel, Endpoint, Uri};

use crate::AdminToken;
use crate::grpc::{self, Outgoing};
use crate::http::SharedRoutes;

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
    remote: HashMap<String, Uri>,
    /// Services in this process, by name; made when first asked for from either side.
    local: Mutex<HashMap<String, Pipe>>,
    /// Proves this process to services in others, and others to this one.
    admin_token: Option<AdminToken>,
    /// Routes that services of this process serve on each other's listeners.
    http: SharedRoutes,
}

struct Pipe {
    connect: mpsc::Sender<DuplexStream>,
    /// Taken by the service when it starts to listen.
    accept: Option<mpsc::Receiver<DuplexStream>>,
}

impl Network {
    /// A network whose services live in this process, but for those in `remote`.
    pub fn new(remote: HashMap<String, Uri>) -> Self {
        Self(Arc::new(Inner { remote, ..Inner::default() }))
    }

    /// As [`Network::new`], for a process that knows the administrator's token.
    pub fn with_admin_token(remote: HashMap<String, Uri>, admin_token: AdminToken) -> Self {
        Self(Arc::new(Inner { remote, admin_token: Some(admin_token), ..Inner::default() }))
    }

    /// The administrator's token, if this process knows it.
    pub fn admin_token(&self) -> Option<AdminToken> {
        self.0.admin_token.clone()
    }

    /// The HTTP routes that services of this process hand over to each other.
    pub fn http(&self) -> &SharedRoutes {
        &self.0.http
    }

    /// [`Network::channel`] with trace context, and with the admin token when `service` is in another process.
    pub fn client(&self, service: &str) -> grpc::Client {
        let token = self.0.admin_token.clone().filter(|_| self.0.remote.contains_key(service));
        grpc::Client::new(self.channel(service), Outgoing { token })
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

    /// A channel to `service`, connected when first used and again whenever it breaks.
    pub fn channel(&self, service: &str) -> Channel {
        if let Some(uri) = self.0.remote.get(service) {
            return Endpoint::from(uri.clone()).connect_lazy();
        }
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
