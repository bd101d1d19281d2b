//! One file a resource; doc comments are what `kubectl explain` prints.

mod condition;
mod device;
mod rule;

pub use condition::Condition;
pub use device::{CertificateSecret, Device, DeviceCredential, DevicePhase, DeviceSpec, DeviceStatus, TokenSecret};
pub use rule::{CreateTopic, KafkaAction, RepublishAction, Rule, RuleAction, RuleLastError, RuleSpec, RuleStatus};
