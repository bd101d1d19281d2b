//! What librdkafka says about the cluster: into the log, and into the errors that callers see.
//!
//! librdkafka tries for ever; a caller who only hears "timed out" could not know that the password is wrong.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What is the matter with the cluster is one for all clients of a bus; what has become of its connections is each one's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Voice {
    trouble: Arc<Mutex<Option<Trouble>>>,
    lost: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Trouble {
    code: RDKafkaErrorCode,
    reason: String,
}

/// Callbacks of a client that has no others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain(pub Voice);

impl Voice {
    /// For the callbacks of one client, which say in `lost` that it has no connection any more.
    pub fn of_client(&self, lost: &Arc<AtomicBool>) -> Self {
        Self { trouble: self.trouble.clone(), lost: lost.clone() }
    }

    /// A line of librdkafka's own log.
    pub fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::debug!(facility, why = message, "librdkafka: error");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(facility, why = message, "librdkafka"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, why = message, "librdkafka");
            }
        }
    }

    /// An error that belongs to no call; said once until it is over or another one comes.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == RDKafkaErrorCode::PartitionEOF {
            return;
        }
        if code == RDKafkaErrorCode::AllBrokersDown {
            self.lost.store(true, Ordering::Release);
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // A broken connection or "all brokers are down" follows on what was the matter, and would hide it.
        let consequence = matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure);
        match &*trouble {
            Some(known) if known.code == code || consequence => {}
            Some(_) | None => {
                tracing::warn!(reason, "kafka");
                *trouble = Some(Trouble { code, reason: reason.to_owned() });
            }
        }
    }

    /// The cluster has answered.
    pub fn all_well(&self) {
        if let Some(trouble) = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tracing::info!(reason = trouble.reason, "kafka: over");
        }
    }

    /// `what` failed, with what is known about the cluster.
    pub fn explain(&self, what: impl std::fmt::Display) -> String {
        match &*self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(trouble) => format!("kafka: {what}: {}", trouble.reason),
            None => format!("kafka: {what}"),
        }
    }
}

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for Plain {}
