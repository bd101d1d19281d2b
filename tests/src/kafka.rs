//! An ordinary Kafka consumer, read-committed, to the end of a topic.

use std::time::Duration;

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
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

/// All records of a topic from its start to its present end, by partition and offset.
pub fn read_committed(brokers: &str, topic: &str) -> anyhow::Result<Vec<Output>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "drover-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().first().context("topic in metadata")?.partitions().len();
    let mut wanted = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        wanted.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&wanted)?;
    let (mut outputs, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        let message = match consumer.poll(TIMEOUT).context("no record within the timeout")? {
            Ok(message) => message,
            // Offsets tell nothing of how many records there are: transactions leave marks among them.
            Err(KafkaError::PartitionEOF(_)) => {
                ended += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map(|headers| headers.iter().map(|h| h.key.to_owned()).collect());
        let traceparent = message.headers().and_then(|headers| headers.iter().find(|h| h.key == "traceparent"));
        outputs.push(Output {
            partition: message.partition(),
            offset: message.offset(),
            key: text(message.key()),
            value: text(message.payload()),
            headers: headers.unwrap_or_default(),
            traceparent: traceparent.map(|header| text(header.value)),
        });
    }
    outputs.sort_by_key(|output| (output.partition, output.offset));
    Ok(outputs)
}
