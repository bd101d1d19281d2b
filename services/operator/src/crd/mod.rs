//! One file a resource; doc comments are what `kubectl explain` prints.

mod condition;
mod device;
mod fleet;
mod function;
mod policy;
mod rule;

pub use condition::Condition;
pub use device::{CertificateSecret, Device, DeviceCredential, DevicePhase, DeviceSpec, DeviceStatus, TokenSecret};
pub use fleet::{
    CountSource, CsvSource, DeviceFleet, DeviceFleetSpec, DeviceFleetStatus, FleetError, FleetSource, FleetTemplate,
};
pub use function::{Function, FunctionExample, FunctionSpec, FunctionStatus};
pub use policy::{Policy, PolicyAction, PolicyEffect, PolicySpec, PolicyStatement, PolicyStatus};
pub use rule::{CreateTopic, KafkaAction, RepublishAction, Rule, RuleAction, RuleLastError, RuleSpec, RuleStatus};
