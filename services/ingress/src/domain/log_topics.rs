//! Which log a message goes into, by its topic: telemetry, or one that the shadow service reads.
//!
//! Domain layer, pure.

use drover_bus::Topic;
use drover_types::command::{COMMANDS_TOPIC, CommandResponse};
use drover_types::shadow::{SHADOW_REQUESTS_TOPIC, ShadowRequest};
use drover_types::{DeviceKey, TELEMETRY_TOPIC};

/// Where messages are logged; the names made once.
#[derive(Clone, Debug)]
pub struct LogTopics {
    pub(super) telemetry: Topic,
    /// `None`: nobody serves shadows and commands.
    pub(super) of_shadows: Option<ShadowTopics>,
}

/// Of what the shadow service reads.
#[derive(Clone, Debug)]
pub(super) struct ShadowTopics {
    pub requests: Topic,
    pub commands: Topic,
}

/// What the shadow service reads, and the device it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForShadows {
    /// A request to the device's shadow.
    Request(DeviceKey),
    /// An answer of the device to a command, or what looks like one.
    Response(DeviceKey),
}

impl ForShadows {
    /// The device.
    pub fn device(&self) -> &DeviceKey {
        match self {
            Self::Request(device) | Self::Response(device) => device,
        }
    }
}

/// Whether a message of this topic is for the shadow service: refused where there is none.
pub fn is_for_shadows(topic: &str) -> bool {
    ShadowRequest::of_topic(topic).is_some() || CommandResponse::of_topic(topic).is_some()
}

impl LogTopics {
    /// The topics of a platform with or without a shadow service.
    pub fn new(shadows: bool) -> Self {
        let of_shadows = || ShadowTopics { requests: SHADOW_REQUESTS_TOPIC.into(), commands: COMMANDS_TOPIC.into() };
        Self { telemetry: TELEMETRY_TOPIC.into(), of_shadows: shadows.then(of_shadows) }
    }
}
