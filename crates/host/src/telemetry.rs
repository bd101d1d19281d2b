//! Logs to stderr and, where a collector is configured, traces to it.

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tonic::metadata::MetadataMap;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::Metrics;
use crate::collector::Collector;
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

/// Spans and log lines are chosen apart from each other: all of ours, down to this level, belong to a trace.
const TRACED: (&str, LevelFilter) = ("drover", LevelFilter::DEBUG);
/// Spans waiting for the collector; more are dropped rather than waited with.
const QUEUE_SPANS: usize = 8 * 1024;
/// Spans of one request, and how long they gather at most.
const BATCH_SPANS: usize = 512;
const GATHER: Duration = Duration::from_secs(1);
/// A collector that has not taken a batch within this time is not waited for.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// At the end of the process, for the last spans.
const FAREWELL: Duration = Duration::from_secs(2);

/// Installs the process's one subscriber. Must be called within the runtime when a collector is configured.
pub fn install(log: &LogConfig, otlp: &OtlpConfig, metrics: &Metrics) -> Result<Telemetry, TelemetryError> {
    let provider = otlp.endpoint.as_deref().map(|endpoint| provider(endpoint, otlp, metrics)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let ours = Targets::new().with_target(TRACED.0, TRACED.1);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("drover")).with_filter(ours)
    });
    let lines = match log.format {
        LogFormat::Text => {
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(EnvFilter::try_new(&log.level)?);
    tracing_subscriber::registry().with(traces).with(lines).try_init()?;
    Ok(Telemetry(provider))
}

fn provider(endpoint: &str, otlp: &OtlpConfig, metrics: &Metrics) -> Result<SdkTracerProvider, TelemetryError> {
    let mut headers = MetadataMap::new();
    if let Some(secret) = &otlp.authorization {
        let value = secret.expose().parse().map_err(|_| TelemetryError::Authorization)?;
        headers.insert("authorization", value);
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT);
    let exporter = Collector::new(exporter.with_metadata(headers).build()?, endpoint, metrics);
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS)
        .with_max_export_batch_size(BATCH_SPANS)
        .with_scheduled_delay(GATHER)
        .build();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(sampler)
        .with_resource(Resource::builder().with_service_name("drover").with_attribute(version).build())
        .build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(provider) = self.0.take() else { return };
        if let Err(error) = provider.shutdown_with_timeout(FAREWELL) {
            tracing::warn!(%error, "last spans were not handed over");
        }
    }
}
