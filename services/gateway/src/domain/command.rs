//! Commands to devices as REST shows them.
//!
//! Domain layer, no I/O.

use drover_proto::shadow::v1 as wire;
use drover_types::{ApiError, ErrorCode, RecordId};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::declared::iso;
use super::live::base64;

/// In which state a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// Not handed to the ingress yet.
    Queued,
    /// Handed to the device's connection, or to its persistent session.
    Sent,
    /// The device has answered 1xx.
    InProgress,
    /// 2xx.
    Succeeded,
    /// 4xx.
    Rejected,
    /// 3xx or 5xx.
    Failed,
    /// Its time is over, and no answer was the last one.
    TimedOut,
}

impl CommandStatus {
    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Sent | Self::InProgress => false,
            Self::Succeeded | Self::Rejected | Self::Failed | Self::TimedOut => true,
        }
    }
}

/// A command and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    #[serde(serialize_with = "text")]
    #[schema(value_type = String)]
    pub id: RecordId,
    device: String,
    name: String,
    #[schema(value_type = Value)]
    payload: Box<RawValue>,
    pub status: CommandStatus,
    /// Of the device's last answer, as in HTTP; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u32>,
    /// The device's last answer: JSON as it is, another text as text, bytes in base64. Absent: none, or an empty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    response: Option<Box<RawValue>>,
    created_at: String,
    expires_at: String,
    updated_at: String,
}

impl Execution {
    /// As the shadow service tells it.
    pub fn of(command: Option<wire::Command>) -> Result<Self, ApiError> {
        let unreadable = |what: &str| ApiError::new(ErrorCode::Internal, format!("the shadow service tells {what}"));
        let command = command.ok_or_else(|| unreadable("no command"))?;
        let id = command.id.as_slice().try_into().map_err(|_| unreadable("an id that is none"))?;
        let status = match command.status() {
            wire::CommandStatus::Queued => CommandStatus::Queued,
            wire::CommandStatus::Sent => CommandStatus::Sent,
            wire::CommandStatus::InProgress => CommandStatus::InProgress,
            wire::CommandStatus::Succeeded => CommandStatus::Succeeded,
            wire::CommandStatus::Rejected => CommandStatus::Rejected,
            wire::CommandStatus::Failed => CommandStatus::Failed,
            wire::CommandStatus::TimedOut => CommandStatus::TimedOut,
            wire::CommandStatus::Unspecified => return Err(unreadable("no status")),
        };
        Ok(Self {
            id: RecordId(id),
            device: command.device,
            name: command.name,
            payload: serde_json::from_slice(&command.payload).map_err(|_| unreadable("a payload that is no JSON"))?,
            status,
            status_code: Some(command.status_code).filter(|code| *code > 0),
            response: shown(command.response),
            created_at: iso(command.created_ms),
            expires_at: iso(command.expires_ms),
            updated_at: iso(command.updated_ms),
        })
    }
}

fn text<S: Serializer>(id: &RecordId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// What a device sent, as JSON.
fn shown(response: Vec<u8>) -> Option<Box<RawValue>> {
    if response.is_empty() {
        return None;
    }
    if let Ok(json) = serde_json::from_slice(&response) {
        return Some(json);
    }
    let text = String::from_utf8(response).unwrap_or_else(|error| base64(error.as_bytes()));
    Some(to_raw_value(&text).expect("a text is JSON"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_shown_as_json_as_text_or_in_base64() {
        let shown = |response: &[u8]| shown(response.to_vec()).map(|json| json.get().to_owned());
        assert_eq!(shown(b""), None);
        assert_eq!(shown(br#"{"t": 1.50}"#).as_deref(), Some(r#"{"t": 1.50}"#));
        assert_eq!(shown(b"{done").as_deref(), Some(r#""{done""#));
        assert_eq!(shown(b"\xff\0").as_deref(), Some(r#""/wA=""#));
    }

    #[test]
    fn a_command_is_shown_without_what_is_not_there() {
        let command = wire::Command {
            id: vec![7; 16],
            device: "lamp".into(),
            name: "fan".into(),
            payload: br#"{"speed":1.50}"#.to_vec(),
            status: wire::CommandStatus::InProgress.into(),
            created_ms: 1_795_000_000_000,
            expires_ms: 1_795_000_060_000,
            updated_ms: 1_795_000_000_000,
            ..wire::Command::default()
        };
        let execution = Execution::of(Some(command.clone())).expect("readable");
        let json = serde_json::to_string(&execution).expect("JSON");
        let expected = format!(
            r#"{{"id":"{}","device":"lamp","name":"fan","payload":{{"speed":1.50}},"status":"in_progress","createdAt":"{}","#,
            "07".repeat(16),
            iso(1_795_000_000_000)
        );
        assert!(json.starts_with(&expected), "{json}");
        assert!(!json.contains("statusCode") && !json.contains("response"), "{json}");
        let answered = wire::Command { status_code: 102, response: b"50 %".to_vec(), ..command };
        let answered = serde_json::to_value(Execution::of(Some(answered)).expect("readable")).expect("JSON");
        assert_eq!((&answered["statusCode"], &answered["response"]), (&json!(102), &json!("50 %")));
        assert!(Execution::of(None).is_err() && Execution::of(Some(wire::Command::default())).is_err());
    }
}
