//! Records in and out through librdkafka: what goes in comes out exactly, once, in order.

use std::time::Duration;

use bytes::Bytes;
use drover_bus::{Bus, Outgoing, Position, Record, TopicConfig, TopicPartition, Transaction};
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::{Broker, PATIENCE};

fn assigned(broker: &Broker, topic: &str, partition: i32, from: Offset) -> StreamConsumer {
    let consumer: StreamConsumer = broker.consumer("reader").create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, from).expect("an offset");
    consumer.assign(&list).expect("assigned");
    consumer
}

async fn next(consumer: &StreamConsumer) -> OwnedMessage {
    tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a message in time").expect("a message").detach()
}

fn idempotent(broker: &Broker) -> FutureProducer {
    broker.client().set("enable.idempotence", "true").create().expect("a producer")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_writes_in_order_and_a_consumer_reads_everything_once() {
    let broker = Broker::start().await;
    broker.topic("ordered", 1).await;
    let producer = idempotent(&broker);
    let payloads: Vec<String> = (0..2_000).map(|n| format!("message {n}")).collect();
    let sends = payloads.iter().map(|p| {
        producer.send_result(FutureRecord::<str, str>::to("ordered").payload(p)).map_err(|(e, _)| e).expect("queued")
    });
    for sent in sends.collect::<Vec<_>>() {
        sent.await.expect("the producer lives").expect("delivered");
    }
    let consumer = assigned(&broker, "ordered", 0, Offset::Beginning);
    for (n, payload) in payloads.iter().enumerate() {
        let message = next(&consumer).await;
        assert_eq!((message.offset(), message.payload()), (n as i64, Some(payload.as_bytes())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_keys_times_and_tombstones_come_back_exactly() {
    let broker = Broker::start().await;
    broker.topic("exact", 1).await;
    let producer = idempotent(&broker);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "same", value: Some("1") })
        .insert(Header { key: "same", value: Some("2") })
        .insert(Header { key: "bytes", value: Some(&[0xffu8, 0][..]) });
    let full = FutureRecord::to("exact").key("key").payload(&[0u8, 0xfe][..]).timestamp(1_234_567).headers(headers);
    producer.send(full, PATIENCE).await.expect("delivered");
    producer.send(FutureRecord::<str, str>::to("exact").key("gone").timestamp(7), PATIENCE).await.expect("delivered");
    producer.send(FutureRecord::<str, str>::to("exact").payload("").timestamp(8), PATIENCE).await.expect("delivered");

    let consumer = assigned(&broker, "exact", 0, Offset::Beginning);
    let message = next(&consumer).await;
    assert_eq!((message.key(), message.payload()), (Some(&b"key"[..]), Some(&[0u8, 0xfe][..])));
    assert_eq!(message.timestamp().to_millis(), Some(1_234_567));
    let headers: Vec<_> =
        message.headers().expect("headers").iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
    let expected = [("same", b"1".to_vec()), ("same", b"2".to_vec()), ("bytes", vec![0xff, 0])];
    assert_eq!(headers, expected.map(|(k, v)| (k.to_owned(), Some(v))));
    let tombstone = next(&consumer).await;
    assert_eq!((tombstone.key(), tombstone.payload()), (Some(&b"gone"[..]), None));
    let empty = next(&consumer).await;
    assert_eq!((empty.key(), empty.payload()), (None, Some(&b""[..])));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_this_librdkafka_has_and_every_acks_is_durable() {
    let broker = Broker::start().await;
    broker.topic("packed", 1).await;
    let mut count = 0;
    for compression in ["none", "gzip", "snappy", "lz4"] {
        for acks in ["0", "1", "all"] {
            let producer: FutureProducer = broker
                .client()
                .set("compression.type", compression)
                .set("acks", acks)
                .create()
                .unwrap_or_else(|e| panic!("this librdkafka knows {compression}: {e}"));
            let payload = "so compressible ".repeat(50);
            producer.send(FutureRecord::<str, str>::to("packed").payload(&payload), PATIENCE).await.expect("delivered");
            count += 1;
        }
    }
    let consumer = assigned(&broker, "packed", 0, Offset::Beginning);
    for _ in 0..count {
        assert_eq!(next(&consumer).await.payload().map(<[u8]>::len), Some(800));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_seeks_by_time_and_learns_the_ends() {
    let broker = Broker::start().await;
    broker.topic("timed", 1).await;
    let producer = idempotent(&broker);
    for n in 0..100 {
        let payload = n.to_string();
        let record = FutureRecord::<str, str>::to("timed").payload(&payload).timestamp(1_000_000 + n * 1_000);
        producer.send(record, PATIENCE).await.expect("delivered");
    }
    let (found, ends) = tokio::task::spawn_blocking({
        let config = broker.consumer("seeker");
        move || {
            let consumer: BaseConsumer = config.create().expect("a consumer");
            let mut times = TopicPartitionList::new();
            times.add_partition_offset("timed", 0, Offset::Offset(1_041_500)).expect("a time");
            let found = consumer.offsets_for_times(times, PATIENCE).expect("found");
            let found = found.find_partition("timed", 0).expect("the partition").offset();
            (found, consumer.fetch_watermarks("timed", 0, PATIENCE).expect("ends"))
        }
    })
    .await
    .expect("no panic");
    assert_eq!((found, ends), (Offset::Offset(42), (0, 100)));
    let consumer = assigned(&broker, "timed", 0, found);
    assert_eq!(next(&consumer).await.payload(), Some(&b"42"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_platform_is_seen_once_it_is_committed() {
    let broker = Broker::start().await;
    broker.topic("committed", 1).await;
    let mut transactor = broker.bus.transactor("t").await.expect("a transactor");
    let record = Record { value: Some(Bytes::from_static(b"inside")), ..Record::default() };
    let records = vec![Outgoing { topic: "committed".into(), partition: Some(0), record }];
    let positions = transactor.commit(Transaction { records: records.into(), offsets: None }).await.expect("committed");
    assert_eq!(positions, [Position { at: TopicPartition::new("committed", 0), offset: positions[0].offset }]);
    let consumer = assigned(&broker, "committed", 0, Offset::Beginning);
    assert_eq!(next(&consumer).await.payload(), Some(&b"inside"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_consumer_gets_a_record_as_soon_as_it_is_written() {
    let broker = Broker::start().await;
    broker.topic("live", 3).await;
    let consumer = assigned(&broker, "live", 2, Offset::Offset(0));
    let early = tokio::time::timeout(Duration::from_millis(300), consumer.recv()).await;
    assert!(early.is_err(), "nothing is there yet");
    let record = Record { value: Some(Bytes::from_static(b"now")), ..Record::default() };
    let outgoing = Outgoing { topic: "live".into(), partition: Some(2), record };
    broker.bus.append(vec![outgoing]).await.expect("taken").await.expect("durable");
    assert_eq!(next(&consumer).await.payload(), Some(&b"now"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_producer_goes_on_across_a_restart_without_repeats() {
    let broker = Broker::start().await;
    broker.topic("lasting", 1).await;
    let producer = idempotent(&broker);
    producer.send(FutureRecord::<str, str>::to("lasting").payload("before"), PATIENCE).await.expect("delivered");
    let broker = broker.restart().await;
    producer.send(FutureRecord::<str, str>::to("lasting").payload("after"), PATIENCE).await.expect("delivered");
    let consumer = assigned(&broker, "lasting", 0, Offset::Beginning);
    assert_eq!(next(&consumer).await.payload(), Some(&b"before"[..]));
    assert_eq!(next(&consumer).await.payload(), Some(&b"after"[..]));
    let bounds = broker.bus.bounds(&TopicPartition::new("lasting", 0)).await.expect("known");
    assert_eq!(bounds.end, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactional_producers_are_refused() {
    let broker = Broker::start().await;
    let refused = tokio::task::spawn_blocking({
        let mut config = broker.client();
        config.set("transactional.id", "mine");
        move || {
            let producer: FutureProducer = config.create().expect("a producer");
            producer.init_transactions(PATIENCE)
        }
    })
    .await
    .expect("no panic");
    let Err(KafkaError::Transaction(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.code(), RDKafkaErrorCode::TransactionalIdAuthorizationFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_topics_of_the_platform_are_refused_and_reads_are_not() {
    let broker = Broker::start().await;
    broker.topic("drover.telemetry", 1).await;
    let producer: FutureProducer = broker.client().create().expect("a producer");
    let record = FutureRecord::<str, str>::to("drover.telemetry").payload("forged");
    let (error, _) = producer.send(record, PATIENCE).await.expect_err("refused");
    assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed));

    let record = Record { value: Some(Bytes::from_static(b"real")), ..Record::default() };
    let outgoing = Outgoing { topic: "drover.telemetry".into(), partition: Some(0), record };
    broker.bus.append(vec![outgoing]).await.expect("taken").await.expect("durable");
    let consumer = assigned(&broker, "drover.telemetry", 0, Offset::Beginning);
    assert_eq!(next(&consumer).await.payload(), Some(&b"real"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_read_as_it_is_with_its_offsets() {
    let broker = Broker::start().await;
    let config = TopicConfig {
        topic: "compact".into(),
        partitions: 1,
        compact: true,
        retention_ms: None,
        retention_bytes: None,
    };
    broker.bus.create_topic(config).await.expect("made");
    let producer = idempotent(&broker);
    for n in 0..50 {
        let (key, payload) = (format!("k{}", n % 5), n.to_string());
        let record = FutureRecord::to("compact").key(&key).payload(&payload);
        producer.send(record, PATIENCE).await.expect("delivered");
    }
    let consumer = assigned(&broker, "compact", 0, Offset::Beginning);
    let mut last = -1;
    while last < 49 {
        let message = next(&consumer).await;
        assert!(message.offset() > last);
        assert_eq!(message.payload(), Some(message.offset().to_string().as_bytes()));
        last = message.offset();
    }
}
