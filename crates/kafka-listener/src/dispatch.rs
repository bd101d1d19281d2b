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
use crate::groups::{self, Coordinator, Retention};
use crate::metrics::Metrics;
use crate::owners::Owners;
use crate::ports::Principal;
use crate::view::{Topics, View};
use crate::wire::api::{Head, Request, Response};
use crate::{admin, configs, fetch, metadata, offsets, produce, sasl, versions};

/// What all connections share.
pub struct Listener {
    pub bus: EmbeddedBus,
    pub config: ListenerConfig,
    pub metrics: Metrics,
    pub coordinator: Coordinator,
    pub retention: Retention,
    pub owners: Owners,
}

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    pub remote: SocketAddr,
    /// Host and port this client finds us under, for Metadata and FindCoordinator.
    pub host: StrBytes,
    pub port: u16,
    /// Whom it speaks for.
    pub principal: Principal,
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
        let (coordinator, retention, owners) = (Coordinator::default(), Retention::default(), Owners::default());
        Self { bus, config, metrics, coordinator, retention, owners }
    }
}

impl Peer {
    /// The peer of an accepted connection; it speaks for the administrator until something else is known.
    pub fn of(stream: &TcpStream, config: &ListenerConfig) -> std::io::Result<Self> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let (host, port) =
            config.advertised.clone().unwrap_or_else(|| (local.ip().to_canonical().to_string(), local.port()));
        Ok(Self { remote, host: host.into(), port, principal: Principal::Administrator })
    }

    /// The client called us by this name in its handshake of TLS: under it, and the certificate that has it, it finds us
    /// again.
    pub fn is_called(&mut self, name: Option<&str>, config: &ListenerConfig) {
        if let (Some(name), None) = (name, &config.advertised) {
            self.host = StrBytes::from_string(name.to_owned());
        }
    }
}

/// Hands a request to its handler.
pub async fn dispatch(listener: &Arc<Listener>, peer: &Arc<Peer>, head: Head, mut request: Request) -> Reply {
    let (l, p) = (listener.clone(), peer.clone());
    groups::names::inward(&peer.principal, &mut request);
    let (topics, version) = (Topics::of(&peer.principal, &request), head.version);
    match request {
        Request::Produce(r) => match l.view(&p.principal, topics).await {
            Ok(view) => produce::produce(l, p, &view, r).await,
            Err(error) => std::future::ready(Outcome::Close(error.to_string())).boxed(),
        },
        Request::ApiVersions(r) => reply(p.clone(), async move { versions::answer(&p, &r) }),
        Request::SaslHandshake(_) => reply(p, async { sasl::out_of_turn_handshake() }),
        Request::SaslAuthenticate(_) => reply(p, async { sasl::out_of_turn_authenticate() }),
        Request::Metadata(r) => {
            within(l, p, topics, move |l, p, view| async move { metadata::metadata(&l, &p, &view, version, r).await })
        }
        Request::DescribeCluster(r) => reply(p.clone(), async move { metadata::describe_cluster(&p, &r) }),
        Request::ListOffsets(r) => within(l, p, topics, |l, _, view| async move { offsets::list(&l, &view, r).await }),
        Request::OffsetForLeaderEpoch(r) => {
            within(l, p, topics, |l, _, view| async move { offsets::for_leader_epoch(&l, &view, r).await })
        }
        Request::Fetch(r) => within(l, p, topics, |l, _, view| async move { fetch::fetch(&l, &view, r).await }),
        Request::InitProducerId(r) => reply(p.clone(), async move { produce::init_producer_id(&l, &p, r).await }),
        Request::FindCoordinator(r) => reply(p.clone(), async move { groups::find_coordinator(&p, version, r) }),
        Request::JoinGroup(r) => reply(p.clone(), async move { groups::join(&l, &p, &head, r).await }),
        Request::SyncGroup(r) => reply(p, async move { groups::sync(&l, r).await }),
        Request::Heartbeat(r) => reply(p, async move { groups::heartbeat(&l, &r) }),
        Request::LeaveGroup(r) => reply(p, async move { groups::leave(&l, version, r) }),
        Request::OffsetCommit(r) => {
            within(l, p, topics, |l, p, view| async move { groups::commit(&l, &p, &view, r).await })
        }
        Request::OffsetFetch(r) => reply(p, async move { groups::committed(&l, version, r).await }),
        Request::DescribeGroups(r) => reply(p, async move { groups::describe(&l, r).await }),
        Request::ListGroups(r) => reply(p, async move { groups::list(&l, version, r).await }),
        Request::DeleteGroups(r) => reply(p.clone(), async move { groups::delete(&l, &p, r).await }),
        Request::CreateTopics(r) => {
            within(l, p, topics, move |l, p, view| async move { admin::create_topics(&l, &p, &view, version, r).await })
        }
        Request::DeleteTopics(r) => {
            within(l, p, topics, move |l, p, view| async move { admin::delete_topics(&l, &p, &view, version, r).await })
        }
        Request::DescribeConfigs(r) => {
            within(l, p, topics, |l, _, view| async move { configs::describe(&l, &view, r).await })
        }
    }
}

fn reply<R: Into<Response>>(peer: Arc<Peer>, response: impl Future<Output = R> + Send + 'static) -> Reply {
    response.map(move |response| answer(&peer, response.into())).boxed()
}

/// The answer to a request that names topics: made when it is known which of them are there for the client, or never.
fn within<R, F>(
    listener: Arc<Listener>,
    peer: Arc<Peer>,
    topics: Topics,
    handle: impl FnOnce(Arc<Listener>, Arc<Peer>, View) -> F + Send + 'static,
) -> Reply
where
    R: Into<Response>,
    F: Future<Output = R> + Send,
{
    async move {
        match listener.view(&peer.principal, topics).await {
            Ok(view) => answer(&peer, handle(listener, peer.clone(), view).await.into()),
            Err(error) => Outcome::Close(error.to_string()),
        }
    }
    .boxed()
}

fn answer(peer: &Peer, mut response: Response) -> Outcome {
    groups::names::outward(&peer.principal, &mut response);
    Outcome::Answer(response)
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, Bytes, BytesMut};
    use drover_bus::embedded::EmbeddedOptions;
    use drover_bus::{Bus, TopicConfig};
    use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseKind};
    use kafka_protocol::protocol::Encodable;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::wire::api::{Api, Decoded, decode, encode};
    use crate::wire::samples;

    struct Fixture {
        listener: Arc<Listener>,
        peer: Arc<Peer>,
        _directory: TempDir,
    }

    async fn fixture() -> Fixture {
        let directory = TempDir::new().expect("a directory");
        let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
        let config = TopicConfig {
            topic: "a-topic".into(),
            partitions: 2,
            compact: false,
            retention_ms: None,
            retention_bytes: Some(10),
        };
        bus.create_topic(config).await.expect("made");
        let listener = Arc::new(Listener::new(bus, ListenerConfig::default(), Metrics::default()));
        let remote = "127.0.0.1:1".parse().expect("an address");
        let (host, principal) = (StrBytes::from_static_str("127.0.0.1"), Principal::Administrator);
        let peer = Arc::new(Peer { remote, host, port: 9092, principal });
        Fixture { listener, peer, _directory: directory }
    }

    fn frame(api: Api, version: i16) -> BytesMut {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default().with_request_api_key(api.number()).with_request_api_version(version);
        let key = ApiKey::try_from(api.number()).expect("an api of Kafka");
        header.encode(&mut frame, key.request_header_version(version)).expect("fits");
        samples::encode(api, version, &mut frame);
        frame
    }

    /// Hands a frame to its handler and encodes the answer, if there is one.
    async fn answer(fixture: &Fixture, frame: Bytes) -> Option<Bytes> {
        let Ok(Decoded::Request(head, request)) = decode(frame) else { return None };
        let (version, correlation_id) = (head.version, head.correlation_id);
        let reply = dispatch(&fixture.listener, &fixture.peer, head, *request).await;
        let patience = std::time::Duration::from_secs(3_600);
        tokio::select! {
            outcome = reply => match outcome {
                Outcome::Answer(response) => Some(encode(correlation_id, version, &response).expect("it fits its version")),
                Outcome::Silence | Outcome::Close(_) => None,
            },
            () = fixture.listener.coordinator.run() => None,
            () = tokio::time::sleep(patience) => panic!("never answered"),
        }
    }

    #[tokio::test]
    async fn every_api_answers_in_every_version_it_is_spoken_in() {
        let fixture = fixture().await;
        for api in Api::ALL {
            let (min, max) = api.versions();
            for version in min..=max {
                let bytes = frame(*api, version).freeze();
                let is_silent = *api == Api::Produce;
                match answer(&fixture, bytes).await {
                    Some(mut bytes) => {
                        let key = ApiKey::try_from(api.number()).expect("an api of Kafka");
                        bytes.advance(8 + usize::from(key.response_header_version(version) >= 1));
                        let decoded = ResponseKind::decode(key, &mut bytes, version);
                        assert!(decoded.is_ok() && bytes.is_empty(), "{api:?} version {version}: {decoded:?}");
                    }
                    None => assert!(is_silent, "{api:?} version {version} was not answered"),
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_a_handler_panic(
            picks in proptest::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(),
                 proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)),
                1..30,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(async {
                let fixture = fixture().await;
                for (api, version, changes) in picks {
                    let api = Api::ALL[api.index(Api::ALL.len())];
                    let (min, max) = api.versions();
                    let mut bytes = frame(api, min + version.index((max - min + 1) as usize) as i16);
                    for (at, byte) in changes {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    drop(tokio::time::timeout(std::time::Duration::from_millis(20), answer(&fixture, bytes.freeze())).await);
                }
            });
        }
    }
}
