//! Commands to devices: on which topics they go out and are answered, and what they are called.

use crate::ids::check;
use crate::limits::{COMMAND_KEY_BYTES_MAX, COMMAND_NAME_BYTES_MAX};
use crate::{ApiError, DeviceId, InvalidId, RecordId, TopicName};

/// Topic of commands and of devices' answers: key = `tenant/device`; value and headers as of telemetry.
pub const COMMANDS_TOPIC: &str = "drover.commands";

/// What every topic of a device's commands begins with; the device follows.
pub const COMMAND_TOPICS: &str = "$drover/commands/";

/// Name of a command: what the device is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandName(Box<str>);

impl CommandName {
    /// Checks `text`: 1 to 128 of A-Z, a-z, 0-9 and . _ : -.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        check("command name", text, COMMAND_NAME_BYTES_MAX, "A-Z, a-z, 0-9 and . _ : -", is_allowed)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What whoever sends a command calls it, so that it may be sent again and is the same: an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandKey(Box<str>);

impl CommandKey {
    /// Checks `text`: 1 to 128 visible characters of ASCII, none of them `"` or `\`.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let is_allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        let allowed = r#"visible characters of ASCII but " and \"#;
        check("idempotency key", text, COMMAND_KEY_BYTES_MAX, allowed, is_allowed)?;
        Ok(Self(text.into()))
    }

    /// As [`CommandKey::new`]; the error names `field`, the limit and the value.
    pub fn of_field(field: &str, text: &str) -> Result<Self, ApiError> {
        Self::new(text).map_err(|error| {
            let refused = ApiError::invalid(field, error.to_string());
            match error {
                InvalidId::TooLong { bytes, limit, .. } => refused.over(limit, bytes),
                InvalidId::Empty { .. } => refused.over(1, 0),
                InvalidId::Character { allowed, found, .. } => refused.over(allowed, found),
            }
        })
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The topic by which `device` gets the command `id`.
pub fn command_request_topic(device: &DeviceId, id: RecordId) -> TopicName {
    TopicName::new(format!("{COMMAND_TOPICS}{device}/{id}/request")).expect("ids are levels of a topic")
}

/// The topic that stands for the wish to forget the commands of `device`; no message of a device comes by it into the log of
/// commands.
pub fn command_forget_topic(device: &DeviceId) -> TopicName {
    TopicName::new(format!("{COMMAND_TOPICS}{device}/forget")).expect("an id is a level of a topic")
}

/// A topic by which a device answers a command: `$drover/commands/{device}/{id}/response/{status}`. What stands for id and
/// status may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandResponse<'t> {
    pub device: &'t str,
    pub id: &'t str,
    pub status: &'t str,
}

impl<'t> CommandResponse<'t> {
    /// The answer that `topic` stands for, if it is one.
    pub fn of_topic(topic: &'t str) -> Option<Self> {
        let (device, rest) = topic.strip_prefix(COMMAND_TOPICS)?.split_once('/')?;
        let (id, rest) = rest.split_once('/')?;
        Some(Self { device, id, status: rest.strip_prefix("response/")? })
    }

    /// The status as a number, 100 to 599 with the meaning it has in HTTP; `None`: it is none.
    pub fn code(&self) -> Option<u16> {
        let is_number = self.status.len() == 3 && self.status.bytes().all(|byte| byte.is_ascii_digit());
        self.status.parse().ok().filter(|code| is_number && (100..600).contains(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190163d8694739ba6d6a7b7c2a00001";

    #[test]
    fn an_answer_is_read_whatever_its_status_and_only_numbers_of_http_are_codes() {
        let prefix = format!("$drover/commands/a:b@c/{ID}/response/");
        for (status, code) in [
            ("100", Some(100)),
            ("200", Some(200)),
            ("599", Some(599)),
            ("099", None),
            ("600", None),
            ("+20", None),
            ("2000", None),
            ("ok", None),
            ("200/x", None),
            ("", None),
        ] {
            let topic = format!("{prefix}{status}");
            let answer = CommandResponse::of_topic(&topic).expect(&topic);
            assert_eq!((answer.device, answer.id, answer.status), ("a:b@c", ID, status));
            assert_eq!(answer.code(), code, "{topic}");
        }
    }

    #[test]
    fn a_request_and_what_only_looks_like_an_answer_is_none() {
        let device = DeviceId::new("lamp").expect("valid");
        let request = command_request_topic(&device, RecordId::parse(ID).expect("an id"));
        assert_eq!(request.as_str(), format!("$drover/commands/lamp/{ID}/request"));
        for topic in [
            request.as_str(),
            command_forget_topic(&device).as_str(),
            "$drover/commands/lamp/response/200",
            "$drover/commands/lamp/1/response",
            "drover/commands/lamp/1/response/200",
            "$drover/errors/lamp",
        ] {
            assert_eq!(CommandResponse::of_topic(topic), None, "{topic}");
        }
    }

    #[test]
    fn names_are_checked_at_their_limit() {
        assert!(CommandName::new(&"n".repeat(128)).is_ok() && CommandName::new("A:z_0.9-").is_ok());
        assert!(matches!(CommandName::new(&"n".repeat(129)), Err(InvalidId::TooLong { bytes: 129, limit: 128, .. })));
        assert!(matches!(CommandName::new(""), Err(InvalidId::Empty { .. })));
        assert!(matches!(CommandName::new("a/b"), Err(InvalidId::Character { found: '/', .. })));
    }

    #[test]
    fn a_key_is_checked_at_its_limit_and_what_is_wrong_is_named() {
        for key in ["x", "8e03978e-40d5-43dd-bc93-6894a57f9324", "order/7+a=~", &"k".repeat(128)] {
            assert_eq!(CommandKey::new(key).expect(key).as_str(), key);
        }
        for (key, limit, value) in [
            ("", "1", "0"),
            (&*"k".repeat(129), "128", "129"),
            ("a b", r#"visible characters of ASCII but " and \"#, " "),
            (r#"a"b"#, r#"visible characters of ASCII but " and \"#, "\""),
            ("ö", r#"visible characters of ASCII but " and \"#, "ö"),
        ] {
            let refused = CommandKey::of_field("key", key).expect_err(key);
            assert_eq!(refused.field.as_deref(), Some("key"));
            assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some(limit), Some(value)), "{key}");
        }
    }
}
