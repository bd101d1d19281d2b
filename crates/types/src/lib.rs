//! Words every part of Drover shares: ids, topics, QoS, limits, errors and the shape of a telemetry record.
//!
//! Innermost layer: depends on nothing of ours, does no I/O, knows neither async nor the system clock.

mod api_token;
mod clock;
pub mod command;
mod decimal;
mod error;
mod fnv;
mod headers;
mod hex;
mod ids;
mod internal;
pub mod limits;
mod name;
pub mod object;
mod qos;
mod random;
pub mod repeat;
pub mod shadow;
mod telemetry;
mod topic;
mod units;

pub use api_token::{API_TOKEN_PREFIX, api_token_tenant};
pub use clock::{Clock, FixedClock};
pub use decimal::Decimal;
pub use error::{ApiError, ErrorCode, in_range};
pub use fnv::fnv1a;
pub use headers::Headers;
pub use hex::hex;
pub use ids::{ClientId, DEFAULT_TENANT, DeviceId, DeviceKey, InvalidId, RecordId, RecordIds, TenantId};
pub use internal::{EVENTS_TOPIC, NODES_TOPIC, PRESENCE_TOPIC, REGISTRY_CHANGES_TOPIC};
pub use name::{key, subdomain};
pub use qos::Qos;
pub use random::Random;
pub use telemetry::{
    COAP_CLIENT, Fingerprint, InvalidTelemetry, Mqtt5, TELEMETRY_TOPIC, Telemetry, TraceParent, fingerprint, header,
};
pub use topic::{InvalidTopic, TopicFilter, TopicName, matches};
pub use units::{ByteSize, Duration, InvalidQuantity};
