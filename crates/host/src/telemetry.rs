//! Logs to stderr and, where a collector is configured, traces to it.

use std::io::{self, IsTerminal};

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tonic::metadata::MetadataMap;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{LogConfig, LogFormat, OtlpConfig};

/// Why logs or traces cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("otlp.endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("otlp.authorization is not a header value")]
    Authorization,
    #[error("the process already writes logs")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Hands the last spans over when dropped.
#[must_use = "spans of the last seconds are lost when nobody keeps this"]
#[derive(Default)]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Installs the process's one subscriber. Must be called within the runtime when a collector is configured.
pub fn install(log: &LogConfig, otlp: &OtlpConfig) -> Result<Telemetry, TelemetryError> {
    let provider = otlp.endpoint.as_deref().map(|endpoint| provider(endpoint, otlp)).transpose()?;
    let traces =
        provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("drover")));
    let lines = match log.format {
        LogFormat::Text => {
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(EnvFilter::try_new(&log.level)?).with(traces).with(lines).try_init()?;
    Ok(Telemetry(provider))
}

fn provider(endpoint: &str, otlp: &OtlpConfig) -> Result<SdkTracerProvider, TelemetryError> {
    let mut headers = MetadataMap::new();
    if let Some(secret) = &otlp.authorization {
        let value = secret.expose().parse().map_err(|_| TelemetryError::Authorization)?;
        headers.insert("authorization", value);
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_metadata(headers).build()?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(Resource::builder().with_service_name("drover").with_attribute(version).build())
        .build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(provider) = self.0.take() else { return };
        if let Err(error) = provider.shutdown() {
            tracing::warn!(%error, "last spans were not handed over");
        }
    }
}
