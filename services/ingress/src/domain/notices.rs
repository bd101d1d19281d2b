//! Notices: what a node tells of its clients to those who subscribe, and is in no log. Subscriptions that come and go, at
//! `$events/subscriptions/(subscribed|unsubscribed)/{device}`, and at `$drover/errors/{device}` why something that a device
//! wanted was refused.
//!
//! Domain layer, pure. The keys are those of lifecycle events; an error has the shape that it has everywhere. Why notices are
//! not logged: ADR 43.

use bytes::Bytes;
use drover_types::{ApiError, DeviceId, TopicName};
use serde::Serialize;

use crate::domain::message::Publisher;

/// First levels of the topics of subscriptions.
const SUBSCRIPTIONS: &str = "$events/subscriptions";
/// First levels of the topics of errors.
pub const ERRORS: &str = "$drover/errors";

/// What has become of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Subscribed,
    Unsubscribed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscriptions<'a> {
    event_type: Change,
    tenant: &'a str,
    device: &'a str,
    client_id: &'a str,
    /// Milliseconds since the Unix epoch.
    timestamp: u64,
    epoch: u64,
    node: &'a str,
    topics: &'a [&'a str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refusal<'a> {
    error: &'a ApiError,
    client_id: &'a str,
    /// Milliseconds since the Unix epoch.
    timestamp: u64,
}

/// Where it is told what became of a device's filters.
pub fn subscriptions_topic(change: Change, device: &DeviceId) -> TopicName {
    let level = match change {
        Change::Subscribed => "subscribed",
        Change::Unsubscribed => "unsubscribed",
    };
    topic(&format!("{SUBSCRIPTIONS}/{level}/{device}"))
}

/// Where a device is told why something was refused.
pub fn errors_topic(device: &DeviceId) -> TopicName {
    topic(&format!("{ERRORS}/{device}"))
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).expect("an id is one level, and short")
}

/// What became of `filters` of the client of `publisher`, at `node`.
pub fn subscriptions(change: Change, filters: &[&str], publisher: &Publisher, node: &str, time_ms: u64) -> Bytes {
    json(&Subscriptions {
        event_type: change,
        tenant: publisher.tenant.as_str(),
        device: publisher.device.as_str(),
        client_id: publisher.client.as_str(),
        timestamp: time_ms,
        epoch: publisher.epoch,
        node,
        topics: filters,
    })
}

/// Why something that the client of `publisher` wanted was refused.
pub fn refusal(error: &ApiError, publisher: &Publisher, time_ms: u64) -> Bytes {
    json(&Refusal { error, client_id: publisher.client.as_str(), timestamp: time_ms })
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("texts and numbers are JSON").into()
}

#[cfg(test)]
mod tests {
    use drover_types::{ClientId, TenantId};

    use super::*;

    fn publisher() -> Publisher {
        Publisher {
            tenant: TenantId::new("home").expect("valid"),
            device: DeviceId::new("lamp").expect("valid"),
            client: ClientId::new("lamp-2").expect("valid"),
            epoch: 3,
        }
    }

    #[test]
    fn subscriptions_are_told_with_the_keys_of_lifecycle_events() {
        let device = DeviceId::new("lamp").expect("valid");
        let topic = subscriptions_topic(Change::Unsubscribed, &device);
        assert_eq!(topic.as_str(), "$events/subscriptions/unsubscribed/lamp");
        assert_eq!(
            subscriptions(Change::Subscribed, &["a/#", "b"], &publisher(), "n", 7),
            r#"{"eventType":"subscribed","tenant":"home","device":"lamp","clientId":"lamp-2","timestamp":7,"epoch":3,"node":"n","topics":["a/#","b"]}"#
        );
    }

    #[test]
    fn an_error_has_the_shape_it_has_everywhere() {
        assert_eq!(errors_topic(&DeviceId::new("lamp").expect("valid")).as_str(), "$drover/errors/lamp");
        assert_eq!(
            refusal(&ApiError::invalid("topic", "is empty"), &publisher(), 7),
            r#"{"error":{"code":"invalid_argument","field":"topic","message":"is empty"},"clientId":"lamp-2","timestamp":7}"#
        );
    }
}
