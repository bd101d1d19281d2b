//! Measures how fast one consumer streams from the embedded log: `cargo run --release --example stream`.
//!
//! Prints records per second of 200-byte records, as fetched over a socket of this machine; the consumer only counts.

use std::future::pending;

use anyhow::{Context, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, TopicConfig};
use drover_kafka_listener::{ListenerConfig, Metrics, serve};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::RecordBatchDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const RECORDS: u64 = 1_000_000;
const RECORD_BYTES: usize = 200;
const APPEND_RECORDS: u64 = 1_000;
/// What consumers ask for per partition by default.
const FETCH_BYTES: i32 = 1024 * 1024;
const VERSION: i16 = 12;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default())?;
    fill(&bus).await?;
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TcpStream::connect(socket.local_addr()?).await?;
    tokio::spawn(serve(vec![socket], bus, ListenerConfig::default(), Metrics::default(), pending()));
    let began = Instant::now();
    drain(stream).await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{RECORDS} records of {RECORD_BYTES} B in {seconds:.2} s: {:.0} records/s", RECORDS as f64 / seconds);
    Ok(())
}

async fn fill(bus: &EmbeddedBus) -> anyhow::Result<()> {
    let topic = TopicConfig {
        topic: "stream".into(),
        partitions: 1,
        compact: false,
        retention_ms: None,
        retention_bytes: None,
    };
    bus.create_topic(topic).await?;
    let record = Record { value: Some(vec![7; RECORD_BYTES].into()), ..Record::default() };
    let outgoing = Outgoing { topic: "stream".into(), partition: Some(0), record };
    for _ in 0..RECORDS / APPEND_RECORDS {
        bus.append(vec![outgoing.clone(); APPEND_RECORDS as usize]).await?.await?;
    }
    Ok(())
}

async fn drain(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut offset = 0;
    while offset < RECORDS {
        stream.write_all(&request(offset)?).await?;
        let mut answer = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        answer.advance(4 + 1);
        let response = FetchResponse::decode(&mut answer, VERSION)?;
        let partition = &response.responses.first().context("a topic")?.partitions[0];
        ensure!(partition.error_code == 0, "fetch failed with {}", partition.error_code);
        let mut records = partition.records.clone().context("records")?;
        let batches = RecordBatchDecoder::decode_batch_info(&mut records)?;
        offset += batches.iter().map(|batch| batch.record_count as u64).sum::<u64>();
    }
    Ok(())
}

fn request(offset: u64) -> anyhow::Result<Bytes> {
    let partition = FetchPartition::default().with_fetch_offset(offset as i64).with_partition_max_bytes(FETCH_BYTES);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str("stream")))
        .with_partitions(vec![partition]);
    let request =
        FetchRequest::default().with_max_bytes(8 * FETCH_BYTES).with_max_wait_ms(500).with_topics(vec![topic]);
    let header = RequestHeader::default().with_request_api_key(ApiKey::Fetch as i16).with_request_api_version(VERSION);
    let mut body = BytesMut::new();
    header.encode(&mut body, ApiKey::Fetch.request_header_version(VERSION))?;
    request.encode(&mut body, VERSION)?;
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.extend_from_slice(&body);
    Ok(frame.freeze())
}
