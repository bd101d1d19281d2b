//! Which device's shadow a topic speaks of, and what a client may ask of it: AWS IoT's reserved topics.

use std::fmt;

use crate::limits::SHADOW_NAME_BYTES_MAX;
use crate::{DeviceId, InvalidId};

/// Topic of requests to shadows: key = `tenant/device` of the shadow; value and headers as of telemetry.
pub const SHADOW_REQUESTS_TOPIC: &str = "drover.shadow.requests";
/// Topic of the last document of each shadow, compacted: key `tenant/device[/name]`, JSON without delta; a deleted shadow
/// has no `state`. The truth about shadows.
pub const SHADOW_DOCUMENTS_TOPIC: &str = "drover.shadow.documents";

/// What every topic of a device's shadows begins with; the device follows.
const THINGS: &str = "$aws/things/";

/// Name of a shadow. The classic shadow, of which a device has one, has the empty name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShadowName(Box<str>);

impl ShadowName {
    /// Checks `text`: empty, or 1 to 64 of A-Z, a-z, 0-9 and : _ -.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let kind = "shadow name";
        if text.len() > SHADOW_NAME_BYTES_MAX {
            return Err(InvalidId::TooLong { kind, bytes: text.len(), limit: SHADOW_NAME_BYTES_MAX });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
        match text.chars().find(|c| !allowed(*c)) {
            Some(found) => Err(InvalidId::Character { kind, found, allowed: "A-Z, a-z, 0-9 and : _ -" }),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as text; empty for the classic shadow.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client asks of a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShadowOperation {
    Get,
    Update,
    Delete,
}

impl ShadowOperation {
    /// Every operation.
    pub const ALL: [Self; 3] = [Self::Get, Self::Update, Self::Delete];

    /// Its level in topics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A topic a client publishes requests to: `$aws/things/{device}/shadow[/name/{shadow}]/(get|update|delete)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowRequest {
    pub device: DeviceId,
    pub name: ShadowName,
    pub operation: ShadowOperation,
}

impl ShadowRequest {
    /// The request `topic` stands for, if it is one.
    pub fn of_topic(topic: &str) -> Option<Self> {
        let (device, rest) = shadow_topic(topic)?;
        let (name, operation) = match rest.strip_prefix("name/") {
            Some(named) => named.split_once('/').filter(|(name, _)| !name.is_empty())?,
            None => ("", rest),
        };
        let operation = ShadowOperation::ALL.into_iter().find(|known| known.as_str() == operation)?;
        Some(Self { device: DeviceId::new(device).ok()?, name: ShadowName::new(name).ok()?, operation })
    }
}

impl fmt::Display for ShadowRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, name, operation } = self;
        match name.as_str() {
            "" => write!(f, "{THINGS}{device}/shadow/{}", operation.as_str()),
            name => write!(f, "{THINGS}{device}/shadow/name/{name}/{}", operation.as_str()),
        }
    }
}

/// Whether `topic` is one of those on which shadows answer and tell of changes: no client publishes there.
pub fn is_shadow_answer(topic: &str) -> bool {
    shadow_topic(topic).is_some() && ShadowRequest::of_topic(topic).is_none()
}

/// Device and rest of a topic of shadows.
fn shadow_topic(topic: &str) -> Option<(&str, &str)> {
    let (device, rest) = topic.strip_prefix(THINGS)?.split_once('/')?;
    Some((device, rest.strip_prefix("shadow/")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_classic_and_named_shadows_are_read_and_written() {
        for (topic, device, name, operation) in [
            ("$aws/things/lamp/shadow/get", "lamp", "", ShadowOperation::Get),
            ("$aws/things/lamp/shadow/update", "lamp", "", ShadowOperation::Update),
            ("$aws/things/a:b@c/shadow/name/config/delete", "a:b@c", "config", ShadowOperation::Delete),
            ("$aws/things/lamp/shadow/name/get/get", "lamp", "get", ShadowOperation::Get),
        ] {
            let request = ShadowRequest::of_topic(topic).expect(topic);
            assert_eq!((request.device.as_str(), request.name.as_str(), request.operation), (device, name, operation));
            assert_eq!(request.to_string(), topic);
            assert!(!is_shadow_answer(topic), "{topic}");
        }
    }

    #[test]
    fn answers_and_what_only_looks_like_a_request_belong_to_the_platform() {
        let long = format!("$aws/things/lamp/shadow/name/{}/get", "n".repeat(65));
        for topic in [
            "$aws/things/lamp/shadow/get/accepted",
            "$aws/things/lamp/shadow/update/delta",
            "$aws/things/lamp/shadow/name/config/update/documents",
            "$aws/things/lamp/shadow/name//get",
            "$aws/things/lamp/shadow/name/a.b/get",
            "$aws/things/la mp/shadow/get",
            "$aws/things/lamp/shadow/list",
            "$aws/things/lamp/shadow/",
            &long,
        ] {
            assert_eq!(ShadowRequest::of_topic(topic), None, "{topic}");
            assert!(is_shadow_answer(topic), "{topic}");
        }
        for topic in ["$aws/things/lamp/jobs/get", "$aws/rules/r/x", "aws/things/lamp/shadow/get", "$aws/things/lamp"] {
            assert!(ShadowRequest::of_topic(topic).is_none() && !is_shadow_answer(topic), "{topic}");
        }
    }

    #[test]
    fn names_are_checked_at_their_limit() {
        assert!(ShadowName::new(&"n".repeat(64)).is_ok() && ShadowName::new("A:z_0-9").is_ok());
        assert!(matches!(ShadowName::new(&"n".repeat(65)), Err(InvalidId::TooLong { bytes: 65, limit: 64, .. })));
        assert!(matches!(ShadowName::new("a/b"), Err(InvalidId::Character { found: '/', .. })));
        assert_eq!(ShadowName::new(""), Ok(ShadowName::default()));
    }
}
