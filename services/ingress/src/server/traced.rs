//! The span of a message that comes by no connection: by HTTP, by CoAP, or from another service.

use drover_host::trace;
use drover_types::{DeviceId, TraceParent};

/// A span of the message below what it comes from, while this process takes part in a trace; what goes on with the message goes
/// on with this.
pub fn publish(device: &DeviceId, topic: &str, from: Option<TraceParent>) -> Option<TraceParent> {
    let span = tracing::debug_span!("publish", %device, topic);
    if let Some(parent) = &from {
        trace::continue_from(&span, parent.as_str());
    }
    trace::traceparent_of(&span).or(from)
}
