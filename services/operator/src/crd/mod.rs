//! One file a resource; doc comments are what `kubectl explain` prints.

mod action;
mod condition;
mod device;
mod fleet;
mod function;
mod policy;
mod rule;

pub use action::{
    Batch, CommandAction, CreateTopic, FunctionAction, KafkaAction, NotifyAction, RepublishAction, RuleAction,
    SecretRef, ShadowAction, StoreAction, WebhookAction,
};
pub use condition::Condition;
pub use device::{CertificateSecret, Device, DeviceCredential, DevicePhase, DeviceSpec, DeviceStatus, TokenSecret};
pub use fleet::{
    AuthoritySource, CountSource, CsvSource, DeviceFleet, DeviceFleetSpec, DeviceFleetStatus, FleetError, FleetSource,
    FleetTemplate,
};
pub use function::{Function, FunctionExample, FunctionSpec, FunctionStatus};
pub use policy::{Policy, PolicyAction, PolicyEffect, PolicySpec, PolicyStatement, PolicyStatus};
pub use rule::{Rule, RuleLastError, RuleSpec, RuleStatus};

use device::any_object;

/// What Secrets and ConfigMaps can be called: `domain/name.rs` checks the same.
const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
