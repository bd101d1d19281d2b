//! W3C trace context: carried in record headers and gRPC metadata, so that one trace follows a message all the way.
//!
//! Without a collector (`otlp.endpoint`) no ids are made and every function here does nothing.

use drover_types::TraceParent;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Header and metadata key of the trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The context of the current span, to be handed on; `None` when it is not traced.
pub fn current_traceparent() -> Option<TraceParent> {
    traceparent_of(&Span::current())
}

/// The context of `span`, to be handed on; `None` when it is not traced.
pub fn traceparent_of(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let context = context.span().span_context().clone();
    if !context.is_valid() {
        return None;
    }
    let flags = context.trace_flags().to_u8();
    TraceParent::parse(&format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
}

/// Makes `span`, not yet entered, a child of the context that came with a message. A malformed one is ignored, as
/// W3C Trace Context section 3.2.2.2 demands.
pub fn continue_from(span: &Span, traceparent: &str) {
    let Some(parent) = parse(traceparent) else { return };
    let parent = opentelemetry::Context::new().with_remote_span_context(parent);
    if let Err(error) = span.set_parent(parent) {
        tracing::trace!(%error, "span keeps its own trace");
    }
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let traceparent = TraceParent::parse(traceparent)?;
    let mut parts = traceparent.as_str().split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced(test: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test);
    }

    #[test]
    fn a_span_continues_the_trace_that_came_with_the_message() {
        traced(|| {
            let span = tracing::info_span!("message");
            continue_from(&span, PARENT);
            let handed_on = span.in_scope(current_traceparent).expect("traced");
            assert_eq!(handed_on.as_str()[..36], PARENT[..36], "same trace");
            assert_ne!(handed_on.as_str(), PARENT, "own span");
        });
    }

    #[test]
    fn a_malformed_context_starts_a_trace_of_its_own() {
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for wrong in ["", "nonsense", zero_trace, &PARENT.to_uppercase()] {
            traced(|| {
                let span = tracing::info_span!("message");
                continue_from(&span, wrong);
                let own = traceparent_of(&span).expect("traced");
                assert_ne!(own.as_str()[..36], PARENT[..36]);
            });
        }
    }

    #[test]
    fn without_a_collector_nothing_is_handed_on() {
        let span = tracing::info_span!("message");
        continue_from(&span, PARENT);
        assert_eq!(traceparent_of(&span), None);
    }
}
