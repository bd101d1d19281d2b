//! From a request to its handler: one exhaustive match.
//!
//! Adapter layer. Answers are given one after the other in the order of the requests; only a produce starts its work
//! before its turn, so that a pipelining producer is not slowed to one batch per fsync.

use std::net::SocketAddr;
use std::sync::Arc;

use drover_bus::embedded::EmbeddedBus;
use futures::future::{BoxFuture, FutureExt};
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpStream;

use crate::config::ListenerConfig;
use crate::groups::{self, Coordinator};
use crate::metrics::Metrics;
use crate::wire::api::{Head, Request, Response};
use crate::{admin, configs, fetch, metadata, offsets, produce, versions};

/// What all connections share.
pub struct Listener {
    pub bus: EmbeddedBus,
    pub config: ListenerConfig,
    pub metrics: Metrics,
    pub coordinator: Coordinator,
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    pub remote: SocketAddr,
    /// Host and port this client finds us under, for Metadata and FindCoordinator.
    pub host: StrBytes,
    pub port: u16,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    Answer(Response),
    /// The client wants no answer (`acks=0`).
    Silence,
    /// The client wants no answer but must learn of the failure: the connection is closed, for this reason.
    Close(String),
}

/// An outcome in the making.
pub type Reply = BoxFuture<'static, Outcome>;

impl Listener {
    /// A listener without connections.
    pub fn new(bus: EmbeddedBus, config: ListenerConfig, metrics: Metrics) -> Self {
        Self { bus, config, metrics, coordinator: Coordinator::default() }
    }
}

impl Peer {
    /// The peer of an accepted connection.
    pub fn of(stream: &TcpStream, config: &ListenerConfig) -> std::io::Result<Self> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let (host, port) =
            config.advertised.clone().unwrap_or_else(|| (local.ip().to_canonical().to_string(), local.port()));
        Ok(Self { remote, host: host.into(), port })
    }
}

/// Hands a request to its handler.
pub async fn dispatch(listener: &Arc<Listener>, peer: &Arc<Peer>, head: Head, request: Request) -> Reply {
    let (l, p) = (listener.clone(), peer.clone());
    match request {
        Request::Produce(r) => produce::produce(l, p, r).await,
        Request::ApiVersions(r) => reply(async move { versions::answer(&p, &r) }),
        Request::Metadata(r) => reply(async move { metadata::metadata(&l, &p, head.version, r).await }),
        Request::DescribeCluster(r) => reply(async move { metadata::describe_cluster(&p, &r) }),
        Request::ListOffsets(r) => reply(async move { offsets::list(&l, r).await }),
        Request::OffsetForLeaderEpoch(r) => reply(async move { offsets::for_leader_epoch(&l, r).await }),
        Request::Fetch(r) => reply(async move { fetch::fetch(&l, r).await }),
        Request::InitProducerId(r) => reply(async move { produce::init_producer_id(&l, &p, r).await }),
        Request::FindCoordinator(r) => reply(async move { groups::find_coordinator(&p, head.version, r) }),
        Request::JoinGroup(r) => reply(async move { groups::join(&l, &p, &head, r).await }),
        Request::SyncGroup(r) => reply(async move { groups::sync(&l, r).await }),
        Request::Heartbeat(r) => reply(async move { groups::heartbeat(&l, &r) }),
        Request::LeaveGroup(r) => reply(async move { groups::leave(&l, head.version, r) }),
        Request::OffsetCommit(r) => reply(async move { groups::commit(&l, &p, r).await }),
        Request::OffsetFetch(r) => reply(async move { groups::committed(&l, head.version, r).await }),
        Request::DescribeGroups(r) => reply(async move { groups::describe(&l, r).await }),
        Request::ListGroups(r) => reply(async move { groups::list(&l, head.version, r).await }),
        Request::DeleteGroups(r) => reply(async move { groups::delete(&l, &p, r).await }),
        Request::CreateTopics(r) => reply(async move { admin::create_topics(&l, &p, head.version, r).await }),
        Request::DeleteTopics(r) => reply(async move { admin::delete_topics(&l, &p, head.version, r).await }),
        Request::DescribeConfigs(r) => reply(async move { configs::describe(&l, r).await }),
    }
}

fn reply<R: Into<Response>>(response: impl Future<Output = R> + Send + 'static) -> Reply {
    response.map(|response| Outcome::Answer(response.into())).boxed()
}
