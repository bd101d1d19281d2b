//! The clients of one bus: made here, and led back to the cluster when they have forgotten its brokers.
//!
//! A cluster all of whose brokers were away for longer than their sessions tells for a moment of topics and no brokers. A
//! client of librdkafka that asks just then lets go of all brokers it knows and may never start over (ADR 44).

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::ProducerContext;
use tokio::time::Instant;

use crate::ask::blocking;
use crate::options::{self, KafkaOptions, OptionsError};
use crate::producer::Producer;
use crate::voice::Voice;

/// Between two looks at the clients that have lost all their connections.
const LOOK: Duration = Duration::from_secs(1);
/// A client whose brokers are away is told of them once more after a pause that doubles from [`LOOK`] on, so many times.
const DOUBLES_MAX: u32 = 3;
/// Wait for an answer to such a client.
const ANSWER: Duration = Duration::from_millis(500);
/// A topic that nobody makes.
const NO_TOPIC: &str = "drover.nobody";

/// Makes clients, and knows those that there are. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clients {
    voice: Voice,
    brokers: Arc<CStr>,
    made: Arc<Mutex<Vec<Made>>>,
}

/// A client, for as long as its holder has it.
struct Made {
    client: Weak<dyn Native>,
    /// It has lost all its connections, and no answer was seen since.
    lost: Arc<AtomicBool>,
    /// Looks in a row at which it found no broker.
    failed: Arc<AtomicU32>,
    look_at: Instant,
}

/// What every kind of client can do.
pub(crate) trait Native: Send + Sync {
    /// Whether it gets an answer that names a broker. Blocks for [`ANSWER`] at most.
    fn finds_a_broker(&self) -> bool;
    /// Tells it of brokers.
    fn add(&self, brokers: &CStr);
}

impl<C: ClientContext> Native for Client<C> {
    fn finds_a_broker(&self) -> bool {
        self.fetch_metadata(Some(NO_TOPIC), ANSWER).is_ok_and(|metadata| !metadata.brokers().is_empty())
    }

    fn add(&self, brokers: &CStr) {
        drover_rdkafka_calls::add_brokers(self, brokers);
    }
}

/// For each kind of client, by the one inside.
macro_rules! native_by {
    ($($context:ident $kind:ty: $inner:expr;)*) => {$(
        impl<C: $context + 'static> Native for $kind {
            fn finds_a_broker(&self) -> bool {
                $inner(self).finds_a_broker()
            }

            fn add(&self, brokers: &CStr) {
                $inner(self).add(brokers);
            }
        }
    )*};
}

native_by! {
    ConsumerContext StreamConsumer<C>: StreamConsumer::client;
    ProducerContext Producer<C>: Producer::client;
    ClientContext AdminClient<C>: AdminClient::inner;
}

impl Clients {
    /// None yet.
    pub fn new(options: &KafkaOptions, voice: Voice) -> Self {
        let brokers = CString::new(options.brokers.join(",")).unwrap_or_default();
        Self { voice, brokers: brokers.into(), made: Arc::default() }
    }

    /// What callers are told when the cluster does not answer.
    pub fn voice(&self) -> &Voice {
        &self.voice
    }

    /// A client whose callbacks have a voice of its own; it connects by itself.
    pub fn open<C, T>(&self, config: &ClientConfig, context: impl FnOnce(Voice) -> C) -> Result<Arc<T>, OptionsError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C> + Native + 'static,
    {
        let lost = Arc::default();
        let client: Arc<T> = Arc::new(create(config, context(self.voice.of_client(&lost)))?);
        let weak: Weak<T> = Arc::downgrade(&client);
        let mut made = self.made();
        made.retain(|made| made.client.strong_count() > 0);
        made.push(Made { client: weak, lost, failed: Arc::default(), look_at: Instant::now() });
        Ok(client)
    }

    /// Looks after them for as long as somebody waits for it.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let (due, brokers) = (self.due(), self.brokers.clone());
            if !due.is_empty() {
                blocking(move || due.iter().for_each(|lost| lost.lead_back(&brokers))).await;
            }
        }
    }

    /// Those that are lost and whose pause is over.
    fn due(&self) -> Vec<Lost> {
        let now = Instant::now();
        let due = |made: &mut Made| {
            if !made.lost.load(Ordering::Acquire) || now < made.look_at {
                return None;
            }
            made.look_at = now + LOOK * 2_u32.pow(made.failed.load(Ordering::Relaxed).min(DOUBLES_MAX));
            Some(Lost { client: made.client.upgrade()?, lost: made.lost.clone(), failed: made.failed.clone() })
        };
        self.made().iter_mut().filter_map(due).collect()
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that has lost all its connections.
struct Lost {
    client: Arc<dyn Native>,
    lost: Arc<AtomicBool>,
    failed: Arc<AtomicU32>,
}

impl Lost {
    fn lead_back(&self, brokers: &CStr) {
        if self.client.finds_a_broker() {
            self.lost.store(false, Ordering::Release);
            self.failed.store(0, Ordering::Relaxed);
        } else {
            self.client.add(brokers);
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A client of librdkafka; a setting it does not take is named.
pub(crate) fn create<C: ClientContext, T: FromClientConfigAndContext<C>>(
    config: &ClientConfig,
    context: C,
) -> Result<T, OptionsError> {
    config.create_with_context(context).map_err(|error| match error {
        KafkaError::ClientConfig(_, reason, key, value) => options::refused(key, &value, &reason),
        error => OptionsError::Client { reason: error.to_string() },
    })
}
