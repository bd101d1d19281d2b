//! A cluster that names no broker for a moment, as one does all of whose brokers were away for longer than their sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use drover_bus::{Bus, ReadError, TopicPartition};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::broker::within;

/// The last version of questions about topics whose frame is that of Kafka's first days.
const METADATA: i16 = 4;
/// `UNKNOWN_TOPIC_OR_PARTITION`.
const UNKNOWN_TOPIC: i16 = 3;
/// `UNSUPPORTED_VERSION`: clients ask for the versions of all else once more, as of Kafka's first days.
const UNSUPPORTED_VERSION: i16 = 35;

/// A broker that has no topic and answers what its clients ask before all else.
#[derive(Default)]
struct Broker {
    port: i32,
    nameless: AtomicBool,
    /// Answers that named no broker.
    answers: AtomicUsize,
}

impl Broker {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port().into();
        let broker = Arc::new(Self { port, ..Self::default() });
        let serving = broker.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        broker
    }

    /// Answers one client until it goes.
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        while let Ok(length) = stream.read_u32().await {
            let mut frame = vec![0; usize::try_from(length).expect("a length")];
            if stream.read_exact(&mut frame).await.is_err() {
                return;
            }
            let answer = self.answer(Bytes::from(frame));
            let length = u32::try_from(answer.len()).expect("short").to_be_bytes();
            if stream.write_all(&[&length, &answer[..]].concat()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, mut frame: Bytes) -> BytesMut {
        let (api, version) = (frame[..2].try_into().expect("two"), frame[2..4].try_into().expect("two"));
        let (api, version) = (ApiKey::try_from(i16::from_be_bytes(api)).expect("known"), i16::from_be_bytes(version));
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).expect("a header");
        let mut answer = BytesMut::new();
        let head = ResponseHeader::default().with_correlation_id(header.correlation_id);
        match api {
            ApiKey::ApiVersions => {
                head.encode(&mut answer, 0).expect("fits");
                let versions = [(ApiKey::ApiVersions, 0), (ApiKey::Metadata, METADATA)].map(|(api, last)| {
                    ApiVersion::default().with_api_key(api as i16).with_min_version(0).with_max_version(last)
                });
                let error = if version == 0 { 0 } else { UNSUPPORTED_VERSION };
                let body = ApiVersionsResponse::default().with_error_code(error).with_api_keys(versions.into());
                body.encode(&mut answer, 0).expect("fits");
            }
            ApiKey::Metadata => {
                head.encode(&mut answer, 0).expect("fits");
                let asked = MetadataRequest::decode(&mut frame, version).expect("a question");
                self.metadata(asked).encode(&mut answer, version).expect("fits");
            }
            _ => answer.put_slice(frame.chunk()),
        }
        answer
    }

    /// Of the topics that are asked for there is none; brokers there is one, or none.
    fn metadata(&self, asked: MetadataRequest) -> MetadataResponse {
        let topics = asked
            .topics
            .into_iter()
            .flatten()
            .map(|topic| MetadataResponseTopic::default().with_name(topic.name).with_error_code(UNKNOWN_TOPIC));
        let mut brokers = Vec::new();
        if self.nameless.load(Ordering::Relaxed) {
            self.answers.fetch_add(1, Ordering::Relaxed);
        } else {
            let host = "127.0.0.1".to_owned().into();
            brokers
                .push(MetadataResponseBroker::default().with_node_id(BrokerId(1)).with_host(host).with_port(self.port));
        }
        MetadataResponse::default().with_brokers(brokers).with_topics(topics.collect())
    }
}

/// librdkafka lets go of all brokers it knows then, and about one client in ten does not start over by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_names_no_broker_for_a_moment_is_found_again_by_all_clients() {
    const CLIENTS: usize = 40;
    let broker = Broker::start().await;
    let brokers = vec![format!("127.0.0.1:{}", broker.port)];
    let options = KafkaOptions { brokers, replication_factor: 1, min_insync_replicas: 1, ..KafkaOptions::default() };
    let buses: Vec<KafkaBus> = (0..CLIENTS).map(|_| KafkaBus::open(options.clone()).expect("opens")).collect();
    let nobody = TopicPartition::new("nobody", 0);
    let is_answered = async |bus: &KafkaBus| matches!(bus.bounds(&nobody).await, Err(ReadError::Unknown { .. }));
    let found = async |bus: &KafkaBus| while !is_answered(bus).await {};
    within(futures::future::join_all(buses.iter().map(found))).await;

    broker.nameless.store(true, Ordering::Relaxed);
    let answers = broker.answers.load(Ordering::Relaxed);
    within(futures::future::join_all(buses.iter().map(is_answered))).await;
    assert!(broker.answers.load(Ordering::Relaxed) >= answers + CLIENTS, "all have asked");
    broker.nameless.store(false, Ordering::Relaxed);
    within(futures::future::join_all(buses.iter().map(found))).await;
}
