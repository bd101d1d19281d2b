//! The record that an action makes of a row: an output of the log, or an entry of the outbox.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use drover_bus::{Headers, Outgoing, Partition, Record, Stored};
use drover_proto::rules::v1 as wire;
use drover_proto::rules::v1::outbox_entry::Work;
use drover_proto::rules::v1::{
    CommandOrder, FunctionCall, KafkaRecord, Notice, OutboxEntry, Republish, ShadowUpdate, StoredRow, Webhook,
};
use drover_rule_sql::{EvalError, Message, Row, Template};
use drover_types::limits::{PARTITIONS_MAX, REPUBLISH_HOPS_MAX};
use drover_types::{Decimal, DeviceId, RecordId, Telemetry, TopicName, TraceParent, header};
use prost::Message as _;
use serde_json::value::RawValue;

use super::action::{CompiledAction, CompiledWebhook};
use super::definition::Definition;
use super::letters::OUTBOX_TOPIC;

/// Number of the error action in derived ids; ordinary actions count from 0.
pub const ERROR_ACTION: u32 = u32::MAX;

/// Bytes of the headers of an output but for its rule's name: an id, a time and a place in a trace.
const HEADERS_BYTES: usize = 128;

/// One readable message on its way.
pub struct Inbound<'i> {
    pub source: Arc<Stored>,
    pub telemetry: &'i Telemetry,
    pub message: Message<'i>,
}

/// What came of a message, for an action.
pub struct Emitted<'e> {
    pub row: &'e Row<'e>,
    /// The row as it is sent.
    pub value: &'e Bytes,
    pub trace: Option<&'e TraceParent>,
}

/// The record that action number `number` makes of a row, or why there is none.
pub fn output(
    inbound: &Inbound<'_>,
    rule: &Definition,
    number: u32,
    action: &CompiledAction,
    emitted: &Emitted<'_>,
) -> Result<Outgoing, String> {
    let telemetry = inbound.telemetry;
    let id = telemetry.id.derived(&rule.name, number);
    let text = |template: &Template| template.render(&inbound.message, emitted.row).map_err(told);
    let work = match action {
        CompiledAction::Kafka { topic, key, partition, headers: own, cluster, .. } => {
            let key = key.as_ref().map_or_else(|| Ok(telemetry.device.to_string()), text)?;
            let partition = partition.as_ref().map(|partition| text(partition).and_then(|text| number_of(&text)));
            let partition = partition.transpose()?;
            let mut headers = output_headers(id, rule, telemetry, emitted.trace);
            for (name, value) in own {
                headers.push(name, text(value)?.as_bytes());
            }
            if let Some(cluster) = cluster {
                let record = KafkaRecord {
                    cluster: cluster.clone(),
                    topic: topic.to_string(),
                    key: key.into_bytes(),
                    value: emitted.value.to_vec(),
                    headers: headers.iter().map(wire_header).collect(),
                    partition,
                };
                return Ok(entry(id, inbound, rule, number, emitted.trace, Work::Kafka(record)));
            }
            let (value, timestamp_ms) = (Some(emitted.value.clone()), telemetry.time_ms as i64);
            let record = Record { key: Some(key.into()), value, headers, timestamp_ms };
            return Ok(Outgoing { topic: topic.clone(), partition, record });
        }
        CompiledAction::Republish { topic, qos } => {
            let topic = text(topic)?;
            TopicName::check(&topic).map_err(|error| format!("topic {topic:?}: {error}"))?;
            let (payload, hops) = (emitted.value.to_vec(), next_hop(telemetry)?);
            Work::Republish(Republish { topic, qos: u32::from(u8::from(*qos)), payload, hops })
        }
        CompiledAction::Webhook(webhook) => {
            let url = webhook.url.render_url(&inbound.message, emitted.row).map_err(told)?;
            Work::Webhook(request(webhook, url, &text, emitted.value)?)
        }
        CompiledAction::Shadow(shadow) => {
            let device = text(&shadow.device)?;
            DeviceId::new(&device).map_err(|error| error.to_string())?;
            let document = shadow.document(&inbound.message, emitted.row).map_err(told)?.into_bytes();
            Work::Shadow(ShadowUpdate { device, name: shadow.name.clone(), document })
        }
        CompiledAction::Store { table, device } => {
            let device = device.as_ref().map_or_else(|| Ok(telemetry.device.to_string()), text)?;
            DeviceId::new(&device).map_err(|error| error.to_string())?;
            json(emitted.value, "a row that is kept is JSON")?;
            Work::Store(StoredRow { device, table: table.clone(), row: emitted.value.to_vec() })
        }
        CompiledAction::Function { function } => {
            json(emitted.value, "a function is called with JSON")?;
            let (row, hops) = (emitted.value.to_vec(), next_hop(telemetry)?);
            Work::Function(FunctionCall { function: function.clone(), row, hops })
        }
        CompiledAction::Notify { channel, text: template } => {
            Work::Notice(Notice { channel: channel.clone(), text: text(template)? })
        }
        CompiledAction::Command(command) => {
            let device = text(&command.device)?;
            DeviceId::new(&device).map_err(|error| error.to_string())?;
            let payload = command.payload(&inbound.message, emitted.row).map_err(told)?.into_bytes();
            let (name, timeout_ms, hops) = (command.name.clone(), command.timeout_ms, next_hop(telemetry)?);
            Work::Command(CommandOrder { device, name, payload, timeout_ms, hops })
        }
    };
    Ok(entry(id, inbound, rule, number, emitted.trace, work))
}

/// Which partition is meant; whether the topic has so many is the log's to say.
fn number_of(partition: &str) -> Result<Partition, String> {
    let number = partition.parse::<Partition>().ok().filter(|number| *number < PARTITIONS_MAX);
    number.ok_or_else(|| format!("partition {partition:?} is no number from 0 to {}", PARTITIONS_MAX - 1))
}

fn told(error: EvalError) -> String {
    error.to_string()
}

fn next_hop(telemetry: &Telemetry) -> Result<u32, String> {
    if telemetry.hops >= REPUBLISH_HOPS_MAX {
        return Err(format!("message was republished {} times, limit is {REPUBLISH_HOPS_MAX}", telemetry.hops));
    }
    Ok(telemetry.hops + 1)
}

fn request(
    webhook: &CompiledWebhook,
    url: String,
    text: &dyn Fn(&Template) -> Result<String, String>,
    row: &Bytes,
) -> Result<Webhook, String> {
    let body = match &webhook.body {
        Some(body) => text(body)?.into_bytes(),
        None => row.to_vec(),
    };
    if webhook.batch_records > 0 {
        json(&body, "a batch is an array of JSON")?;
    }
    let mut headers = HashMap::new();
    for (name, value) in &webhook.headers {
        headers.insert(name.clone(), text(value)?);
    }
    Ok(Webhook {
        url,
        headers,
        body,
        headers_secret: webhook.headers_secret.clone(),
        signature_secret: webhook.signature_secret.clone(),
        timeout_ms: webhook.timeout_ms,
        batch_records: webhook.batch_records,
    })
}

fn json(bytes: &[u8], rule: &str) -> Result<(), String> {
    serde_json::from_slice::<&RawValue>(bytes).map(|_| ()).map_err(|error| format!("{rule}: {error}"))
}

fn output_headers(id: RecordId, rule: &Definition, telemetry: &Telemetry, trace: Option<&TraceParent>) -> Headers {
    let mut headers = Headers::with_capacity(HEADERS_BYTES + rule.name.len());
    headers.push(header::ID, &id.0);
    headers.push(header::RULE, rule.name.as_bytes());
    headers.push(header::TIME, Decimal::of(telemetry.time_ms).as_bytes());
    headers.extend(trace.map(|trace| (header::TRACEPARENT, trace.as_str())));
    headers
}

/// An entry of the outbox, under the key of its device.
fn entry(
    id: RecordId,
    inbound: &Inbound<'_>,
    rule: &Definition,
    action: u32,
    trace: Option<&TraceParent>,
    work: Work,
) -> Outgoing {
    let telemetry = inbound.telemetry;
    let entry = OutboxEntry {
        id: id.0.to_vec(),
        tenant: telemetry.tenant.to_string(),
        device: telemetry.device.to_string(),
        rule: rule.name.clone(),
        action,
        time_ms: telemetry.time_ms,
        traceparent: trace.map(|trace| trace.as_str().to_owned()).unwrap_or_default(),
        work: Some(work),
        source: Some(enclosed(&inbound.source)),
    };
    let record = Record {
        key: Some(telemetry.key().to_string().into()),
        value: Some(entry.encode_to_vec().into()),
        headers: output_headers(id, rule, telemetry, trace),
        timestamp_ms: telemetry.time_ms as i64,
    };
    Outgoing::keyed(OUTBOX_TOPIC, record)
}

/// A record to go with what came of it.
fn enclosed(source: &Stored) -> wire::Source {
    let Stored { position, record } = source;
    wire::Source {
        topic: position.at.topic.to_string(),
        partition: position.at.partition,
        offset: position.offset,
        key: record.key.as_deref().unwrap_or_default().to_vec(),
        payload: record.value.as_deref().unwrap_or_default().to_vec(),
        headers: record.headers.iter().map(wire_header).collect(),
        timestamp_ms: record.timestamp_ms,
    }
}

fn wire_header((name, value): (&str, &[u8])) -> wire::Header {
    wire::Header { name: name.to_owned(), value: value.to_vec() }
}
