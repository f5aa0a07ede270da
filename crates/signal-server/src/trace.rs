//! A message's trace (W3C Trace Context), from its producer over the bus to the fan-out.
//!
//! The envelope carries a `traceparent`. Where the feature `otel` is on, a publish of this edge gives
//! that of the span it is called in, and an edge that delivers a traced message makes a span below it.
//! Without the feature nothing here costs anything; with it, a message without a trace does not either.

#[cfg(feature = "otel")]
pub(crate) use self::otel::{current, fan_out};

#[cfg(not(feature = "otel"))]
pub(crate) use self::none::{current, fan_out};

#[cfg(not(feature = "otel"))]
mod none {
    /// The `traceparent` of the span under way.
    pub(crate) const fn current() -> Option<String> {
        None
    }

    /// Nothing is measured.
    pub(crate) const fn fan_out(_traceparent: &str) {}
}

#[cfg(feature = "otel")]
mod otel {
    use std::collections::HashMap;

    use opentelemetry::propagation::TextMapPropagator as _;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing::span::EnteredSpan;
    use tracing::{Span, info_span};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    const TRACEPARENT: &str = "traceparent";

    /// The `traceparent` of the span under way, if there is one.
    pub(crate) fn current() -> Option<String> {
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
        carrier.remove(TRACEPARENT)
    }

    /// A span for as long as the value lives, below the producer's.
    pub(crate) fn fan_out(traceparent: &str) -> EnteredSpan {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        let span = info_span!("fan-out");
        // It fails only where no collector is set up.
        let _ = span.set_parent(parent);
        span.entered()
    }
}
