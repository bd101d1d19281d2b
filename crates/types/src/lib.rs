//! Words every part of Drover shares: ids, topics, QoS, limits, errors and the shape of a telemetry record.
//!
//! Innermost layer: depends on nothing of ours, does no I/O, knows neither async nor the system clock.

mod clock;
mod error;
mod ids;
pub mod limits;
pub mod object;
mod qos;
mod random;
pub mod repeat;
pub mod shadow;
mod telemetry;
mod topic;

pub use clock::{Clock, FixedClock};
pub use error::{ApiError, ErrorCode, in_range};
pub use ids::{ClientId, DEFAULT_TENANT, DeviceId, DeviceKey, InvalidId, RecordId, TenantId};
pub use qos::Qos;
pub use random::Random;
pub use telemetry::{Fingerprint, InvalidTelemetry, TELEMETRY_TOPIC, Telemetry, TraceParent, fingerprint, header};
pub use topic::{InvalidTopic, TopicFilter, TopicName, matches};
