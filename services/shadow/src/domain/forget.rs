//! A device was deleted: its shadows go with it, as AWS deletes those of a thing.
//!
//! One request a device, in the partition of its other requests: so everything that was asked before is carried out
//! before, and whichever shadows there are then, deleted they will be.

use bytes::Bytes;
use drover_bus::{Outgoing, Position, Stored, repeats};
use drover_types::shadow::{SHADOW_REQUESTS_TOPIC, ShadowOperation, ShadowRequest};
use drover_types::{DeviceId, DeviceKey, Qos, RecordId, Telemetry, TopicName};

use super::asked::{Asked, Malformed};
use super::document::Shadow;
use super::key::ShadowKey;
use super::records::{Own, own};

/// Topic of the request, with the device's name behind it; no device's message of this topic comes into this log.
const TOPIC: &str = "$drover/shadows/forget/";
/// How far the clocks of the processes that receive requests and delete devices may be apart, milliseconds.
///
/// The log has requests of a device that was made anew behind the deletion of its namesake, unless this service was away
/// in between: then times decide, and what was set within this span after the deletion goes with it.
pub(super) const CLOCKS_APART_MS: u64 = 60 * 1_000;

/// A request to forget a device's shadows.
#[derive(Debug)]
pub struct Forget {
    pub device: DeviceKey,
    /// When the device was deleted, milliseconds since the Unix epoch.
    deleted_ms: u64,
    pub message: Telemetry,
}

/// A record of the request topic.
#[derive(Debug)]
pub enum Request {
    Shadow(Asked),
    Forget(Forget),
}

impl Request {
    /// Reads a record.
    pub fn read(stored: &Stored) -> Result<Self, Malformed> {
        let message = repeats::telemetry(stored)?;
        match message.topic.as_str().strip_prefix(TOPIC).map(DeviceId::new) {
            Some(Ok(device)) => Forget::of_message(message, device).map(Self::Forget),
            Some(Err(_)) | None => Asked::of_message(message).map(Self::Shadow),
        }
    }

    /// The message as it was received.
    pub fn message(&self) -> &Telemetry {
        match self {
            Self::Shadow(asked) => &asked.message,
            Self::Forget(forget) => &forget.message,
        }
    }
}

impl Forget {
    fn of_message(message: Telemetry, device: DeviceId) -> Result<Self, Malformed> {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let deleted_ms = text.parse().map_err(|_| Malformed::Time { text })?;
        Ok(Self { device: DeviceKey { tenant: message.tenant.clone(), device }, deleted_ms, message })
    }

    /// Whether the deletion concerns `shadow`: it is there, and was last changed before.
    pub fn concerns(&self, shadow: &Shadow) -> bool {
        shadow.state.is_some() && shadow.timestamp.saturating_mul(1_000) <= self.deleted_ms + CLOCKS_APART_MS
    }

    /// The request to delete one of the shadows. Nobody waits for its answer, and it is never repeated.
    pub fn of(&self, key: &ShadowKey) -> Option<Asked> {
        let operation = ShadowOperation::Delete;
        let topic = ShadowRequest { device: key.device.device.clone(), name: key.name.clone(), operation };
        let topic = TopicName::new(topic.to_string()).ok()?;
        let (payload, qos, dup, properties) = (Bytes::new(), Qos::AtMostOnce, false, Vec::new());
        let message = Telemetry { topic, payload, qos, dup, properties, ..self.message.clone() };
        Some(Asked { message, key: key.clone(), operation })
    }
}

/// The id of a request that follows from a deletion at `deleted_ms`, as the feed tells at `told`: from that place, so that
/// telling again is recognised.
pub fn deletion_id(deleted_ms: u64, told: &Position) -> RecordId {
    let mut place = [0; 10];
    place[..2].copy_from_slice(&told.at.partition.to_be_bytes()[2..]);
    place[2..].copy_from_slice(&told.offset.to_be_bytes());
    RecordId::at(deleted_ms, place)
}

/// The request `id` to forget the shadows of `device`, which was deleted at `deleted_ms`.
pub fn forget_request(device: &DeviceKey, deleted_ms: u64, id: RecordId, now_ms: u64) -> Outgoing {
    let topic = TopicName::new(format!("{TOPIC}{}", device.device)).expect("a device id is a level of a topic");
    let payload = deleted_ms.to_string().into();
    own(SHADOW_REQUESTS_TOPIC, device, Own { topic, payload, id, time_ms: now_ms, hops: 0 })
}

#[cfg(test)]
mod tests {
    use drover_bus::TopicPartition;

    use super::super::batch::Batch;
    use super::*;

    const DELETED_MS: u64 = 1_795_000_000_000;

    fn device() -> DeviceKey {
        ShadowKey::parse("home/lamp").expect("a key").device
    }

    fn read_back(deleted_ms: u64) -> Forget {
        let told = Position { at: TopicPartition::new("feed", 3), offset: 7 };
        let id = deletion_id(deleted_ms, &told);
        let Outgoing { record, .. } = forget_request(&device(), deleted_ms, id, deleted_ms + 5);
        let position = Position { at: TopicPartition::new(SHADOW_REQUESTS_TOPIC, 0), offset: 0 };
        match Request::read(&Stored { position, record }).expect("readable") {
            Request::Forget(forget) => forget,
            Request::Shadow(asked) => panic!("{asked:?}"),
        }
    }

    fn shadow(version: u64, timestamp: u64) -> Shadow {
        let state = r#""state":{"desired":{"on":true}},"metadata":{"desired":{"on":{"timestamp":7}}}"#;
        Shadow::from_json(format!(r#"{{{state},"version":{version},"timestamp":{timestamp}}}"#).as_bytes())
            .expect("a document")
    }

    #[test]
    fn a_request_reads_back_and_concerns_what_was_there_before() {
        let forget = read_back(DELETED_MS);
        assert_eq!((&forget.device, forget.deleted_ms), (&device(), DELETED_MS));
        let concerned = |timestamp_ms: u64| forget.concerns(&shadow(4, timestamp_ms / 1_000));
        assert!(concerned(DELETED_MS - 86_400_000) && concerned(DELETED_MS) && concerned(DELETED_MS + CLOCKS_APART_MS));
        assert!(!concerned(DELETED_MS + CLOCKS_APART_MS + 1_000), "it is that of a device made anew");
        assert!(!forget.concerns(&shadow(4, 1).deleted(2)), "it is deleted already");
    }

    #[test]
    fn every_shadow_of_the_device_is_deleted_by_the_version_that_follows() {
        let forget = read_back(DELETED_MS);
        let (mut batch, before) = (Batch::default(), DELETED_MS / 1_000 - 60);
        let keys = ["home/lamp", "home/lamp/config"].map(|text| ShadowKey::parse(text).expect("a key"));
        for (version, key) in (4..).zip(&keys) {
            batch.learn(key.clone(), Some(shadow(version, before)), 0);
        }
        batch.learn(ShadowKey::parse("home/fan").expect("a key"), Some(shadow(9, before)), 0);
        assert_eq!(batch.names(&device()), keys.clone().map(|key| key.name));
        for _ in 0..2 {
            keys.iter().for_each(|key| batch.forget(0, key, &forget));
        }
        let changes = batch.changes().remove(&0).expect("changed");
        let changes: Vec<_> = changes.iter().map(|(key, after)| (key, after.version, after.state.is_none())).collect();
        assert_eq!(changes, [(&keys[0], 5, true), (&keys[1], 6, true)], "once, and no other device's");
    }
}
