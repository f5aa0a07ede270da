//! Logs: to standard error, as text on a terminal, else as JSON lines.

use std::io::IsTerminal as _;

use signal_server::config::{ConfigError, Values};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Starts logging as the settings say; tools that print results log only what is wrong.
pub(crate) fn start(values: &Values, command: &str) -> Result<(), ConfigError> {
    let default = if matches!(command, "serve" | "demo") { "info" } else { "error" };
    let directives = values.get("SIGNAL_LOG").unwrap_or(default);
    let filter = EnvFilter::builder().parse(directives).map_err(|_| ConfigError::Value {
        name: "SIGNAL_LOG",
        value: directives.to_owned(),
        allowed: "a filter, like info or signal_server=debug".to_owned(),
    })?;
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match values.get("SIGNAL_LOG_FORMAT") {
        None => is_terminal,
        Some("text") => true,
        Some("json") => false,
        Some(value) => {
            return Err(ConfigError::Value {
                name: "SIGNAL_LOG_FORMAT",
                value: value.to_owned(),
                allowed: "text or json".to_owned(),
            });
        }
    };
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
    let logs = if is_text { text.boxed() } else { text.json().boxed() };
    let subscriber = tracing_subscriber::registry().with(logs.with_filter(filter));
    #[cfg(feature = "otel")]
    let subscriber = subscriber.with(telemetry::layer());
    subscriber.init();
    Ok(())
}

/// Sends what is still to be sent to the collector, at the end of the process.
pub(crate) fn finish() {
    #[cfg(feature = "otel")]
    telemetry::finish();
}

#[cfg(feature = "otel")]
mod telemetry {
    use std::sync::OnceLock;

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
    use tracing::{Subscriber, warn};
    use tracing_opentelemetry::OpenTelemetryLayer;
    use tracing_subscriber::registry::LookupSpan;

    static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

    /// Spans to the collector that the environment names, if it names one.
    pub(super) fn layer<S>() -> Option<OpenTelemetryLayer<S, Tracer>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        signal_server::config::telemetry_endpoint()?;
        let exporter = SpanExporter::builder().with_http().build().ok()?;
        let resource = Resource::builder().with_service_name("signal").build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("signal");
        PROVIDER.get_or_init(|| provider);
        Some(tracing_opentelemetry::layer().with_tracer(tracer))
    }

    pub(super) fn finish() {
        if let Some(Err(error)) = PROVIDER.get().map(SdkTracerProvider::shutdown) {
            warn!(%error, "the last spans did not reach the collector");
        }
    }
}
