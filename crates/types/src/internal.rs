//! Names of internal topics that more than one service knows.

/// Every change of every object of the registry; key = `kind/tenant/name`, value = `drover.registry.v1.Change`.
pub const REGISTRY_CHANGES_TOPIC: &str = "drover.registry.changes";
/// What ingress nodes say of their connections; key = `tenant/device`, value = `drover.ingress.v1.PresenceReport`.
pub const PRESENCE_TOPIC: &str = "drover.presence";
/// Words of life of ingress nodes; key = the node, value = `drover.ingress.v1.NodeAlive`. One partition.
pub const NODES_TOPIC: &str = "drover.nodes";
/// Ordered lifecycle events; key = `tenant/device`, value = JSON.
pub const EVENTS_TOPIC: &str = "drover.events";
