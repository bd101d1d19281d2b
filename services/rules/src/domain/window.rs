//! A closed window as a message of its own, so that it goes through a rule's actions as any other does.

use bytes::Bytes;
use drover_bus::{Offset, Partition, Position, Record, Stored, TopicPartition};
use drover_rule_sql::Due;
use drover_types::{ClientId, DeviceId, Qos, RecordId, TELEMETRY_TOPIC, Telemetry, TopicName};

use super::definition::Definition;

/// Topic of these messages; nobody subscribes to it, and templates do not see it.
pub const TOPIC: &str = "$drover/window";

/// The message of a closed window: its payload are the results, its time is the window's end. The id is the same
/// whenever it is computed again; that of a late message's row hangs on the message, `late_of`.
pub fn message(rule: &Definition, due: &Due, late_of: Option<RecordId>) -> Result<Telemetry, String> {
    let plan = rule.rule.plan().ok_or("the rule does not group messages")?;
    let device = plan.device_of(&due.group).map_err(|error| error.to_string())?;
    let payload = plan.payload(&due.group, &due.closed).map_err(|error| error.to_string())?;
    let (start_ms, end_ms) = (due.closed.start_ms, due.closed.end_ms);
    let place = format!("{}{}/{start_ms}/{end_ms}", rule.state_prefix, due.group);
    let source = late_of.filter(|_| due.closed.late).unwrap_or(RecordId([0; 16]));
    Ok(Telemetry {
        id: source.derived(&place, 0),
        tenant: rule.tenant.clone(),
        client: ClientId::new(&device).map_err(|error| error.to_string())?,
        device: DeviceId::new(&device).map_err(|error| error.to_string())?,
        topic: TopicName::new(TOPIC).map_err(|error| error.to_string())?,
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: None,
        epoch: 0,
        fingerprint: [0; 16],
        time_ms: end_ms,
        content_type: None,
        properties: Vec::new(),
        mqtt5: None,
        traceparent: None,
        hops: due.closed.hops,
    })
}

/// It as a record, for dead letters; the place is that of the message that comes next.
pub fn stored(telemetry: &Telemetry, (partition, offset): (Partition, Offset)) -> Stored {
    let headers = telemetry.headers();
    let record = Record {
        key: Some(Bytes::from(telemetry.key().to_string())),
        value: Some(telemetry.payload.clone()),
        headers,
        timestamp_ms: telemetry.time_ms as i64,
    };
    Stored { position: Position { at: TopicPartition::new(TELEMETRY_TOPIC, partition), offset }, record }
}
