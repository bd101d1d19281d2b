//! A producer and the thread that takes its reports.
//!
//! The crate's `ThreadedProducer` polls for 100 ms at a time and spends what is left below a millisecond, which is what
//! librdkafka can wait for, looking at the clock: a hundredth of a core for each producer, idle or not (ADR 6).

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, ProducerContext};

/// One poll: whole milliseconds, and a little for the thread to wake up in. After it the thread sees that it is to end.
const POLL: Duration = Duration::from_micros(250_200);

/// A producer whose reports come by themselves. Dropping it does not wait: its thread closes it within [`POLL`].
pub(crate) struct Producer<C: ProducerContext + 'static>(Arc<BaseProducer<C>>);

impl<C: ProducerContext + 'static> Producer<C> {
    /// The client inside.
    pub fn client(&self) -> &Client<C> {
        rdkafka::producer::Producer::client(&*self.0)
    }
}

impl<C: ProducerContext + 'static> Deref for Producer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<C: ProducerContext + 'static> FromClientConfigAndContext<C> for Producer<C> {
    fn from_config_and_context(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let base = Arc::new(BaseProducer::from_config_and_context(config, context)?);
        let polled = base.clone();
        let poll = move || {
            // Somebody else has it as well.
            while Arc::strong_count(&polled) > 1 {
                polled.poll(POLL);
            }
        };
        let polling = std::thread::Builder::new().name("kafka-reports".to_owned()).spawn(poll);
        polling.map_err(|error| KafkaError::ClientCreation(format!("no thread for its reports: {error}")))?;
        Ok(Self(base))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::client::ClientContext;
    use rdkafka::producer::DeliveryResult;

    use super::*;

    /// How long a producer may take to close, beside other tests.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Lives as long as its producer.
    struct Held(#[expect(dead_code, reason = "counted")] Arc<()>);

    impl ClientContext for Held {}

    impl ProducerContext for Held {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    #[tokio::test]
    async fn a_dropped_producer_is_closed_by_its_thread() {
        let held = Arc::new(());
        let config = ClientConfig::new();
        let producer = Producer::from_config_and_context(&config, Held(held.clone())).expect("a producer");
        tokio::time::sleep(2 * POLL).await;
        assert_eq!(Arc::strong_count(&held), 2, "open for as long as it is held");
        drop(producer);
        let closed = async {
            while Arc::strong_count(&held) > 1 {
                tokio::time::sleep(POLL / 10).await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("closed");
    }
}
