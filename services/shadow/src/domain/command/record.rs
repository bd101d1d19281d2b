//! Records of the log of commands: written by this service, or by the ingress as devices answer.

use bytes::Bytes;
use drover_bus::{Outgoing, Stored, repeats};
use drover_types::command::{
    COMMANDS_TOPIC, CommandName, CommandResponse, command_forget_topic, command_request_topic,
};
use drover_types::limits::{COMMAND_PAYLOAD_BYTES_MAX, COMMAND_RESPONSE_BYTES_MAX};
use drover_types::{DeviceId, DeviceKey, InvalidId, InvalidTelemetry, RecordId, Telemetry};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::records::{Own, own};
use super::execution::Execution;

/// A command that is to be sent.
#[derive(Clone, Debug)]
pub struct NewCommand {
    pub device: DeviceKey,
    pub id: RecordId,
    pub name: CommandName,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    pub expires_ms: u64,
    pub payload: Box<RawValue>,
    /// How many rules have handed the message on that it comes of.
    pub hops: u32,
}

impl NewCommand {
    /// Whether `there`, which has its id, is this command sent before.
    pub fn is(&self, there: &Execution) -> bool {
        let Execution { head, body } = there;
        let has_time =
            head.expires_ms.saturating_sub(head.created_ms) == self.expires_ms.saturating_sub(self.created_ms);
        has_time && body.name == self.name.as_str() && *body.payload == *self.payload.get().as_bytes()
    }
}

/// What a device is told: the value of a new command's record, and the payload of its request.
#[derive(Debug, Serialize, Deserialize)]
struct Told<'r> {
    name: String,
    #[serde(borrow)]
    payload: &'r RawValue,
    /// Deadline, milliseconds since the Unix epoch.
    expires: u64,
}

/// A record of the log of commands.
#[derive(Debug)]
pub struct Event {
    pub device: DeviceKey,
    /// When it was sent, or the log has it from; milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub what: CommandEvent,
}

/// What a record says.
#[derive(Debug)]
pub enum CommandEvent {
    Created {
        id: RecordId,
        name: String,
        payload: Bytes,
        expires_ms: u64,
        request: Bytes,
        hops: u32,
    },
    Answered {
        id: RecordId,
        code: u16,
        response: Bytes,
    },
    /// The device was deleted at this time.
    Forgotten {
        deleted_ms: u64,
    },
}

/// A record that says nothing; it is passed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCommand {
    #[error(transparent)]
    Message(#[from] InvalidTelemetry),
    #[error("topic {topic:?} is not that of a command or of an answer to one")]
    Topic { topic: String },
    #[error("{status:?} is not a status: a number from 100 to 599, as in HTTP")]
    Status { status: String },
    #[error("answer has {bytes} bytes, limit is {COMMAND_RESPONSE_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("request is not a command: {reason}")]
    Request { reason: String },
    #[error("device: {0}")]
    Device(#[from] InvalidId),
    #[error("{text:?} is not a time in milliseconds since the Unix epoch")]
    Time { text: String },
}

impl Event {
    /// Reads a record.
    pub fn read(stored: &Stored) -> Result<Self, MalformedCommand> {
        let message = repeats::telemetry(stored)?;
        let device = DeviceKey { tenant: message.tenant.clone(), device: message.device.clone() };
        let (topic, logged_ms) = (message.topic.as_str(), stored.record.timestamp_ms.unsigned_abs());
        let (time_ms, what) = if topic == command_request_topic(&device.device, message.id).as_str() {
            // As whoever sends it has it, for the deadline counts from there, whatever the log makes of it.
            (message.time_ms, created(&message)?)
        } else if topic == command_forget_topic(&device.device).as_str() {
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            let deleted_ms = text.parse().map_err(|_| MalformedCommand::Time { text })?;
            (logged_ms, CommandEvent::Forgotten { deleted_ms })
        } else {
            (logged_ms, answered(&message, &device.device)?)
        };
        Ok(Self { device, time_ms, what })
    }
}

fn created(message: &Telemetry) -> Result<CommandEvent, MalformedCommand> {
    let request = |reason: String| MalformedCommand::Request { reason };
    let told: Told<'_> = serde_json::from_slice(&message.payload).map_err(|error| request(error.to_string()))?;
    let name = CommandName::new(&told.name).map_err(|error| request(error.to_string()))?;
    let payload = told.payload.get();
    if payload.len() > COMMAND_PAYLOAD_BYTES_MAX {
        return Err(request(format!("payload has {} bytes, limit is {COMMAND_PAYLOAD_BYTES_MAX}", payload.len())));
    }
    Ok(CommandEvent::Created {
        id: message.id,
        name: name.as_str().to_owned(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        expires_ms: told.expires,
        request: message.payload.clone(),
        hops: message.hops,
    })
}

fn answered(message: &Telemetry, device: &DeviceId) -> Result<CommandEvent, MalformedCommand> {
    let topic = message.topic.as_str();
    let unknown = || MalformedCommand::Topic { topic: topic.to_owned() };
    let response = CommandResponse::of_topic(topic).filter(|response| response.device == device.as_str());
    let response = response.ok_or_else(unknown)?;
    let id = RecordId::parse(response.id).ok_or_else(unknown)?;
    let status = || MalformedCommand::Status { status: response.status.to_owned() };
    let code = response.code().ok_or_else(status)?;
    let bytes = message.payload.len();
    if bytes > COMMAND_RESPONSE_BYTES_MAX {
        return Err(MalformedCommand::TooLarge { bytes });
    }
    Ok(CommandEvent::Answered { id, code, response: message.payload.clone() })
}

/// The record of a new command.
pub fn new_record(command: &NewCommand) -> Outgoing {
    let NewCommand { device, id, name, created_ms, expires_ms, payload, hops } = command;
    let told = Told { name: name.as_str().to_owned(), payload, expires: *expires_ms };
    let told = serde_json::to_vec(&told).expect("a text, JSON and a number are JSON");
    let topic = command_request_topic(&device.device, *id);
    own(COMMANDS_TOPIC, device, Own { topic, payload: told.into(), id: *id, time_ms: *created_ms, hops: *hops })
}

/// The record that says that `device` was deleted at `deleted_ms`.
pub fn forget_record(device: &DeviceKey, deleted_ms: u64, id: RecordId, time_ms: u64) -> Outgoing {
    let (topic, payload) = (command_forget_topic(&device.device), deleted_ms.to_string().into());
    own(COMMANDS_TOPIC, device, Own { topic, payload, id, time_ms, hops: 0 })
}

#[cfg(test)]
mod tests {
    use drover_bus::{Position, TopicPartition};
    use drover_types::{TenantId, TopicName};

    use super::super::execution::{Body, Head};
    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;
    const ID: RecordId = RecordId([7; 16]);

    fn lamp() -> DeviceKey {
        DeviceKey { tenant: TenantId::new("home").expect("valid"), device: DeviceId::new("lamp").expect("valid") }
    }

    fn read(outgoing: Outgoing) -> Result<Event, MalformedCommand> {
        let position = Position { at: TopicPartition::new(COMMANDS_TOPIC, 0), offset: 0 };
        Event::read(&Stored { position, record: outgoing.record })
    }

    /// What the device sends by `topic`.
    fn sent(topic: &str, payload: &[u8]) -> Result<Event, MalformedCommand> {
        let (topic, payload) = (TopicName::new(topic).expect("a topic"), Bytes::copy_from_slice(payload));
        read(own(COMMANDS_TOPIC, &lamp(), Own { topic, payload, id: RecordId([1; 16]), time_ms: NOW_MS, hops: 0 }))
    }

    #[test]
    fn a_command_reads_back_with_every_digit_of_its_payload() {
        let payload = RawValue::from_string(r#"{"speed":1.50}"#.to_owned()).expect("JSON");
        let name = CommandName::new("fan").expect("valid");
        let (created_ms, expires_ms) = (NOW_MS, NOW_MS + 5_000);
        let command = NewCommand { device: lamp(), id: ID, name, created_ms, expires_ms, payload, hops: 2 };
        let mut logged = new_record(&command);
        // A broker may have records of its own time.
        logged.record.timestamp_ms += 700;
        let event = read(logged).expect("readable");
        assert_eq!((&event.device, event.time_ms), (&lamp(), NOW_MS));
        let CommandEvent::Created { id, name, payload, expires_ms, request, hops } = event.what else {
            panic!("{event:?}")
        };
        assert_eq!((id, name.as_str(), &*payload, hops), (ID, "fan", br#"{"speed":1.50}"#.as_slice(), 2));
        assert_eq!(expires_ms, NOW_MS + 5_000);
        let expected = format!(r#"{{"name":"fan","payload":{{"speed":1.50}},"expires":{expires_ms}}}"#);
        assert_eq!(String::from_utf8_lossy(&request), expected);
    }

    #[test]
    fn a_command_sent_again_is_the_same_by_its_name_payload_and_time() {
        let command = |name: &str, payload: &str, created_ms, timeout_ms| NewCommand {
            device: lamp(),
            id: ID,
            name: CommandName::new(name).expect("valid"),
            created_ms,
            expires_ms: created_ms + timeout_ms,
            payload: RawValue::from_string(payload.to_owned()).expect("JSON"),
            hops: 0,
        };
        let (created_at, slot, sent_ms, answered) = (4, 0, Some(NOW_MS + 1), None);
        let head = Head { id: ID, slot, created_at, created_ms: NOW_MS, expires_ms: NOW_MS + 5_000, sent_ms, answered };
        let body = Body { name: "fan".to_owned(), payload: "[1]".into(), response: Bytes::new() };
        let there = Execution { head, body };
        assert!(command("fan", "[1]", NOW_MS + 9_000, 5_000).is(&there), "later, with as much time");
        for other in [
            command("pump", "[1]", NOW_MS, 5_000),
            command("fan", "[1.0]", NOW_MS, 5_000),
            command("fan", "[1]", NOW_MS, 5_001),
        ] {
            assert!(!other.is(&there), "{other:?}");
        }
    }

    #[test]
    fn an_answer_reads_back_and_what_is_none_says_why() {
        let event = sent(&format!("$drover/commands/lamp/{ID}/response/404"), b"\xff").expect("readable");
        let CommandEvent::Answered { id, code, response } = event.what else { panic!("{event:?}") };
        assert_eq!((id, code, &*response), (ID, 404, b"\xff".as_slice()));

        let refused = |topic: &str| sent(topic, b"").expect_err(topic).to_string();
        assert!(refused(&format!("$drover/commands/lamp/{ID}/response/600")).contains("\"600\" is not a status"));
        assert!(refused("$drover/commands/lamp/1/response/200").contains("is not that of a command"));
        assert!(refused(&format!("$drover/commands/fan/{ID}/response/200")).contains("is not that of a command"));
        assert!(refused(&format!("$drover/commands/lamp/{ID}/request")).contains("is not that of a command"));
        let topic = format!("$drover/commands/lamp/{ID}/response/200");
        assert!(sent(&topic, &vec![b'x'; COMMAND_RESPONSE_BYTES_MAX]).is_ok());
        let bytes = COMMAND_RESPONSE_BYTES_MAX + 1;
        assert_eq!(sent(&topic, &vec![b'x'; bytes]).expect_err("over"), MalformedCommand::TooLarge { bytes });
    }

    #[test]
    fn that_a_device_was_deleted_reads_back() {
        let event = read(forget_record(&lamp(), NOW_MS, ID, NOW_MS + 5)).expect("readable");
        assert!(matches!(event.what, CommandEvent::Forgotten { deleted_ms: NOW_MS }), "{event:?}");
    }
}
