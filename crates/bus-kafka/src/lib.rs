//! The Kafka adapter of the Bus port; the only crate that names rdkafka, but for two calls of C (`drover-rdkafka-calls`).
//!
//! One [`KafkaBus`] a process. Its parts: [`options`] (settings of each kind of client), `appends` (producer), `readers`
//! (partitions without a group), `member` (groups), `transactor`, `admin` (topics), `ask` (questions to the cluster), `clients`
//! (all of them, led back to the cluster).

mod admin;
mod appends;
mod ask;
mod batch;
mod clients;
mod convert;
mod cursor;
mod member;
mod membership;
pub mod options;
mod orphans;
mod producer;
mod readers;
mod transactor;
mod voice;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Offset, Outgoing, Position, ReadError,
    Receipt, Stored, TopicConfig, TopicPartition, TransactError, Transactor,
};
use rdkafka::consumer::BaseConsumer;
use tokio::task::JoinHandle;

use admin::Admin;
use appends::Appends;
pub use appends::{AppendState, ProducerState, STALLED_AFTER};
use ask::{Asker, blocking};
use clients::{Clients, create};
use member::Groups;
use membership::Memberships;
pub use options::{KafkaOptions, OptionsError};
use readers::{Lane, Readers};
use transactor::Transactors;
use voice::{Plain, Voice};

/// A Kafka cluster as the log. Cheap to clone.
#[derive(Clone)]
pub struct KafkaBus(Arc<Parts>);

struct Parts {
    options: KafkaOptions,
    asker: Arc<Asker>,
    admin: Admin,
    appends: Arc<Appends>,
    readers: Arc<Readers>,
    groups: Groups,
    transactors: Transactors,
    watch: JoinHandle<()>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl KafkaBus {
    /// Checks the options and opens the clients, which connect by themselves: a cluster that is away is waited for by
    /// the calls that need it. To be called within a tokio runtime.
    pub fn open(options: KafkaOptions) -> Result<Self, OptionsError> {
        options.check()?;
        let clients = Clients::new(&options, Voice::default());
        let witness = Lane::open(&options.witness(), &clients)?;
        let asker = Arc::new(Asker::new(Lane::open(&options.reader(), &clients)?, witness, clients.clone()));
        let appends = Arc::new(Appends::new(options.clone(), asker.clone())?);
        let memberships = Arc::new(Memberships::default());
        let admin = Admin::new(&options, asker.clone())?;
        let readers = Arc::new(Readers::new(options.clone(), asker.clone()));
        let watch = futures::future::join(clients.watch(), readers.clone().watch());
        Ok(Self(Arc::new(Parts {
            admin,
            readers,
            groups: Groups { options: options.clone(), asker: asker.clone(), memberships: memberships.clone() },
            transactors: Transactors {
                options: options.clone(),
                asker: asker.clone(),
                appends: appends.clone(),
                memberships,
            },
            options,
            asker,
            appends,
            watch: tokio::spawn(async {
                watch.await;
            }),
        })))
    }

    /// What is known of the records that `append` has taken.
    pub fn append_state(&self) -> AppendState {
        self.0.appends.state()
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError> {
        self.0.admin.create(&config).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        self.0.admin.delete(topic).await
    }

    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        self.0.admin.list().await
    }

    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        self.0.appends.append(batch).await
    }

    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        self.0.readers.read(at, from, bytes_max, wait).await
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        self.0.asker.bounds(at).await
    }

    async fn settled_bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        self.0.asker.settled_bounds(at).await
    }

    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        self.0.asker.offset_at(at, timestamp_ms).await
    }

    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        Ok(Box::new(self.0.groups.join(config).await?))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError> {
        let unavailable = |reason: String| ReadError::Unavailable { reason };
        let found = self.0.asker.partitions(topic).await.map_err(|unseen| unavailable(unseen.into()))?;
        let partitions = found.ok_or_else(|| ReadError::Unknown { at: TopicPartition::new(topic, 0) })?;
        let of: Vec<_> = (0..partitions).map(|partition| TopicPartition::new(topic, partition)).collect();
        let (config, voice) = (self.0.options.inspector(group), self.0.asker.voice().clone());
        let asked = blocking(move || {
            let client: BaseConsumer<Plain> = create(&config, Plain(voice)).map_err(|error| error.to_string())?;
            ask::committed(&client, &of).map_err(|error| ask::words(&error))
        });
        asked.await.map_err(|reason| unavailable(self.0.asker.voice().explain(reason)))
    }

    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError> {
        Ok(Box::new(self.0.transactors.open(transactional_id).await?))
    }
}
