//! An ordinary Kafka consumer, read-committed, to the end of a topic.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// For metadata and watermarks.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: String,
    /// Names of its headers.
    pub headers: Vec<String>,
    /// Its trace context, if it carries one.
    pub traceparent: Option<String>,
}

/// How many partitions a topic has.
pub fn partitions(brokers: &str, topic: &str) -> anyhow::Result<usize> {
    count(&consumer(brokers)?, topic)
}

fn count(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<usize> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().first().context("topic in metadata")?.partitions().len();
    ensure!(partitions > 0, "topic {topic} does not exist");
    Ok(partitions)
}

fn consumer(brokers: &str) -> anyhow::Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "drover-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()?)
}

/// A read-committed consumer of a whole topic, from its start on.
pub struct Follower {
    consumer: BaseConsumer,
    partitions: usize,
    /// Partitions whose end has been seen.
    ended: BTreeSet<i32>,
}

impl Follower {
    pub fn open(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer = consumer(brokers)?;
        let partitions = count(&consumer, topic)?;
        let mut wanted = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions)? {
            wanted.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&wanted)?;
        Ok(Self { consumer, partitions, ended: BTreeSet::new() })
    }

    /// Whether it has been at the end of every partition.
    fn is_at_end(&self) -> bool {
        self.ended.len() >= self.partitions
    }

    /// The next record, in the order of its partition; `None`: every end was seen, or none came for so long.
    pub fn next(&mut self, wait: Duration) -> anyhow::Result<Option<Output>> {
        loop {
            match self.consumer.poll(wait) {
                None => return Ok(None),
                // Offsets tell nothing of how many records there are: transactions leave marks among them.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.ended.insert(partition);
                    if self.is_at_end() {
                        return Ok(None);
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(message)) => return Ok(Some(Output::of(&message))),
            }
        }
    }
}

impl Output {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map(|headers| headers.iter().map(|h| h.key.to_owned()).collect());
        let traceparent = message.headers().and_then(|headers| headers.iter().find(|h| h.key == "traceparent"));
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key()),
            value: text(message.payload()),
            headers: headers.unwrap_or_default(),
            traceparent: traceparent.map(|header| text(header.value)),
        }
    }
}

/// All records of a topic from its start to its present end, by partition and offset.
pub fn read_committed(brokers: &str, topic: &str) -> anyhow::Result<Vec<Output>> {
    let mut follower = Follower::open(brokers, topic)?;
    let mut outputs = Vec::new();
    while !follower.is_at_end() {
        match follower.next(TIMEOUT)? {
            Some(output) => outputs.push(output),
            None => ensure!(follower.is_at_end(), "no record of {topic} within {TIMEOUT:?}"),
        }
    }
    outputs.sort_by_key(|output| (output.partition, output.offset));
    Ok(outputs)
}
