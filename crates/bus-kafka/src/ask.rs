//! Questions to the cluster: librdkafka answers them in blocking calls, so each takes a thread that may wait.
//!
//! Every question has an end: [`PATIENCE`] after which the cluster counts as away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use drover_bus::{Bounds, Offset, Position, ReadError, Topic, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use tokio::time::Instant;

use crate::clients::Clients;
use crate::convert::{offset, places, raw_offset, raw_partition};
use crate::options::TRANSACTION_TIMEOUT;
use crate::readers::Lane;
use crate::voice::{Plain, Voice};

/// Longest wait for an answer of the cluster.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Pause before it is looked again whether a transaction is visible.
const VISIBLE: Duration = Duration::from_millis(1);
/// Pause before it is looked again whether all transactions of a partition have ended.
const SETTLING: Duration = Duration::from_millis(5);
/// Longest wait for that: the coordinator ends what a dead process left open after its time, at its next look, which are
/// ten seconds apart; the rest is for the partitions to hear of it.
const SETTLED_MAX: Duration = Duration::from_secs(TRANSACTION_TIMEOUT.as_secs() + 25);
/// Pause before the leader of a partition is asked again.
const MOVING: Duration = Duration::from_millis(50);
/// How often nobody must know of a partition, [`MOVING`] apart, until it counts as gone: brokers hear of a new topic one after
/// the other.
const GONE: u32 = 10;

/// How long it is not asked again whether a topic has more partitions than are known.
const GROWTH: Duration = Duration::from_secs(5);

/// Why nobody knows how many partitions a topic has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unseen {
    /// Until somebody changes the rights of this client, or the name.
    #[error("kafka: topic {topic} may not be seen: {reason}")]
    Refused { topic: String, reason: String },
    #[error("{0}")]
    Away(String),
}

impl From<Unseen> for String {
    fn from(unseen: Unseen) -> Self {
        unseen.to_string()
    }
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("blocking work does not panic, and the runtime outlives its callers")
}

/// The client that asks, and what never changes about a topic.
///
/// It holds no partition: on a connection with a fetch that waits for records, every question would wait behind it.
pub(crate) struct Asker {
    lane: Arc<Lane>,
    /// Sees what is not committed as well.
    witness: Arc<Lane>,
    clients: Clients,
    /// Numbers of partitions; as many entries as the cluster has topics that were used.
    counts: RwLock<HashMap<Topic, u32>>,
    /// When it was asked last whether one of them has grown; of the same topics.
    growth: Mutex<HashMap<Topic, Instant>>,
}

impl Asker {
    pub fn new(lane: Arc<Lane>, witness: Arc<Lane>, clients: Clients) -> Self {
        Self { lane, witness, clients, counts: RwLock::default(), growth: Mutex::default() }
    }

    /// The client, for questions that are asked elsewhere.
    pub fn client(&self) -> Arc<StreamConsumer<Plain>> {
        self.lane.client.clone()
    }

    /// Where further clients come from.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What callers are told when the cluster does not answer.
    pub fn voice(&self) -> &Voice {
        self.clients.voice()
    }

    /// Partitions of a topic, if they are known without asking.
    pub fn known(&self, topic: &str) -> Option<u32> {
        self.counts.read().unwrap_or_else(PoisonError::into_inner).get(topic).copied()
    }

    /// Notes the partitions of a topic.
    pub fn learn(&self, topic: Topic, partitions: u32) {
        self.counts.write().unwrap_or_else(PoisonError::into_inner).insert(topic, partitions);
    }

    /// The topic was deleted, or made anew.
    pub fn forget(&self, topic: &str) {
        self.counts.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    /// Partitions of a topic; `None` if there is no such topic.
    pub async fn partitions(&self, topic: &str) -> Result<Option<u32>, Unseen> {
        if let Some(known) = self.known(topic) {
            return Ok(Some(known));
        }
        let found = self.look(topic).await?;
        if let Some(partitions) = found {
            self.learn(topic.into(), partitions);
        }
        Ok(found)
    }

    /// Partitions of a topic that may have more than the `known` ones, as somebody names another. It is asked at most once
    /// in [`GROWTH`], so that a partition that is nowhere costs no question a record.
    pub async fn grown(&self, topic: &str, known: u32) -> Result<u32, Unseen> {
        let asked = self.growth.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied();
        if asked.is_some_and(|at| at.elapsed() < GROWTH) {
            return Ok(self.known(topic).unwrap_or(known));
        }
        let Some(partitions) = self.look(topic).await? else {
            self.forget(topic);
            return Ok(known);
        };
        self.growth.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.into(), Instant::now());
        self.learn(topic.into(), partitions);
        Ok(partitions)
    }

    /// As [`Self::partitions`], asking in any case; a topic counts as there when every partition has a leader.
    pub async fn look(&self, topic: &str) -> Result<Option<u32>, Unseen> {
        let metadata = self.metadata(Some(topic.to_owned())).await.map_err(Unseen::Away)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let away = |why: &str| Err(Unseen::Away(self.voice().explain(format!("{topic} {why}"))));
        let partitions = match found.map(|found| (found.error().map(RDKafkaErrorCode::from), found.partitions())) {
            None => return away("is not in the answer"),
            Some((Some(code), _)) if is_unknown(code) => return Ok(None),
            Some((Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::InvalidTopic)), _)) => {
                return Err(Unseen::Refused { topic: topic.to_owned(), reason: code.to_string() });
            }
            Some((Some(code), _)) => return away(&format!("cannot be looked at: {code}")),
            Some((None, [])) => return Ok(None),
            Some((None, partitions)) => partitions,
        };
        if partitions.iter().any(|partition| partition.leader() < 0) {
            return away("has a partition without leader");
        }
        Ok(Some(u32::try_from(partitions.len()).unwrap_or(u32::MAX)))
    }

    /// What the cluster says of a topic, or of all. A cluster none of whose brokers is back yet knows of nothing.
    async fn metadata(&self, topic: Option<String>) -> Result<Metadata, String> {
        let client = self.client();
        let metadata = blocking(move || client.fetch_metadata(topic.as_deref(), PATIENCE)).await;
        let metadata = metadata.map_err(|error| self.away("metadata", &error))?;
        if metadata.brokers().is_empty() {
            return Err(self.voice().explain("the cluster has no brokers just now"));
        }
        self.voice().all_well();
        Ok(metadata)
    }

    /// Names and partitions of all topics, and the number of brokers.
    pub async fn all(&self) -> Result<(Vec<(Topic, u32)>, usize), String> {
        let metadata = self.metadata(None).await?;
        let there = metadata.topics().iter().filter(|topic| topic.error().is_none());
        let topics = there.map(|t| (t.name().into(), u32::try_from(t.partitions().len()).unwrap_or(u32::MAX)));
        Ok((topics.collect(), metadata.brokers().len()))
    }

    /// Replicas of the partition of a topic that has the fewest; `None` if there is no such topic.
    pub async fn replicas(&self, topic: &str) -> Result<Option<usize>, String> {
        let metadata = self.metadata(Some(topic.to_owned())).await?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found.and_then(|found| found.partitions().iter().map(|partition| partition.replicas().len()).min()))
    }

    /// Refuses a partition that is not there.
    async fn exists(&self, at: &TopicPartition) -> Result<(), ReadError> {
        let unavailable = |unseen: Unseen| ReadError::Unavailable { reason: unseen.into() };
        let count = match self.partitions(&at.topic).await.map_err(unavailable)? {
            Some(known) if at.partition >= known => self.grown(&at.topic, known).await.map_err(unavailable)?,
            Some(known) => known,
            None => 0,
        };
        if at.partition < count { Ok(()) } else { Err(ReadError::Unknown { at: at.clone() }) }
    }

    /// First kept and next offset, open transactions left out.
    pub async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        self.marks(at, self.client()).await
    }

    /// As the port promises: whatever is written at the beginning of the call is decided, and can be read if committed.
    pub async fn settled_bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        let written = self.marks(at, self.witness.client.clone()).await?.end;
        let until = Instant::now() + SETTLED_MAX;
        loop {
            let bounds = self.bounds(at).await?;
            if bounds.end >= written {
                return Ok(bounds);
            }
            if Instant::now() >= until {
                let (topic, partition, end) = (&at.topic, at.partition, bounds.end);
                let reason = format!("{topic}/{partition}: a transaction is open at {end}, records end at {written}");
                return Err(ReadError::Unavailable { reason });
            }
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// First kept and next offset, as a client sees them.
    async fn marks(&self, at: &TopicPartition, client: Arc<StreamConsumer<Plain>>) -> Result<Bounds, ReadError> {
        let of = at.clone();
        let marks = move || client.fetch_watermarks(&of.topic, raw_partition(of.partition), PATIENCE);
        let (low, high) = self.of_leader(at, marks).await?;
        self.voice().all_well();
        Ok(Bounds { earliest: offset(low), end: offset(high) })
    }

    /// Asks the leader of a partition. One that has just become it may not know of it yet, and is asked again for as long as
    /// others do.
    async fn of_leader<T: Send + 'static>(
        &self,
        at: &TopicPartition,
        question: impl Fn() -> Result<T, KafkaError> + Clone + Send + 'static,
    ) -> Result<T, ReadError> {
        self.exists(at).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let question = question.clone();
            match blocking(move || settled(question)).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.rdkafka_error_code().is_some_and(is_unknown) => {
                    return Err(self.unreadable(at, &error));
                }
                Err(error) if self.is_gone(at).await => return Err(self.unreadable(at, &error)),
                Err(error) if Instant::now() >= until => {
                    let reason = self.away(&format!("{}/{}", at.topic, at.partition), &error);
                    return Err(ReadError::Unavailable { reason });
                }
                Err(_) => tokio::time::sleep(MOVING).await,
            }
        }
    }

    /// Whether nobody knows of a partition that was there.
    async fn is_gone(&self, at: &TopicPartition) -> bool {
        for _ in 0..GONE {
            match self.look(&at.topic).await {
                Ok(Some(count)) if at.partition < count => return false,
                Ok(_) => tokio::time::sleep(MOVING).await,
                Err(_) => return false,
            }
        }
        true
    }

    /// Blocks until records at `positions`, which are committed, can be read: the coordinator answers a commit before
    /// the partitions have heard of it. A cluster that goes away meanwhile keeps its word later.
    #[expect(clippy::disallowed_methods, reason = "runs on a thread that may block")]
    pub fn wait_visible(&self, positions: &[Position]) {
        let mut last: HashMap<&TopicPartition, Offset> = HashMap::new();
        for Position { at, offset } in positions {
            let known = last.entry(at).or_default();
            *known = (*known).max(*offset);
        }
        let until = Instant::now() + PATIENCE;
        while !last.is_empty() && Instant::now() < until {
            let partitions: Vec<TopicPartition> = last.keys().map(|at| (*at).clone()).collect();
            match self.ends(&partitions) {
                Ok(ends) => {
                    let visible = |at: &TopicPartition, offset: Offset| ends.get(at).is_some_and(|end| *end > offset);
                    last.retain(|at, offset| !visible(at, *offset));
                }
                Err(error) => tracing::debug!(%error, "kafka: ends of partitions"),
            }
            if !last.is_empty() {
                std::thread::sleep(VISIBLE);
            }
        }
    }

    /// Next offsets of partitions, open transactions left out; one request a broker.
    fn ends(&self, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, Offset>, KafkaError> {
        let mut list = places(partitions);
        list.set_all_offsets(rdkafka::Offset::End)?;
        let found = self.lane.client.offsets_for_times(list, PATIENCE)?;
        let mut ends = HashMap::new();
        for element in found.elements() {
            element.error()?;
            if let rdkafka::Offset::Offset(end) = element.offset() {
                let at = TopicPartition::new(element.topic(), crate::convert::partition(element.partition()));
                ends.insert(at, offset(end));
            }
        }
        Ok(ends)
    }

    /// First offset whose record is at or after a time; the end if there is none.
    pub async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        let (client, of) = (self.client(), at.clone());
        let time = u64::try_from(timestamp_ms).unwrap_or(0);
        let question = move || {
            let list = crate::convert::list(&[Position { at: of.clone(), offset: time }]);
            let list = client.offsets_for_times(list, PATIENCE)?;
            let found = list.elements().first().map(|element| element.error().map(|()| element.offset()));
            found.unwrap_or(Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition)))
        };
        match self.of_leader(at, question).await? {
            rdkafka::Offset::Offset(found) => Ok(offset(found)),
            rdkafka::Offset::End
            | rdkafka::Offset::Beginning
            | rdkafka::Offset::Stored
            | rdkafka::Offset::Invalid
            | rdkafka::Offset::OffsetTail(_) => Ok(self.bounds(at).await?.end),
        }
    }

    /// Error of a question about one partition.
    pub fn unreadable(&self, at: &TopicPartition, error: &KafkaError) -> ReadError {
        if error.rdkafka_error_code().is_some_and(is_unknown) {
            self.forget(&at.topic);
            return ReadError::Unknown { at: at.clone() };
        }
        let reason = self.away(&format!("{}/{}", at.topic, at.partition), error);
        ReadError::Unavailable { reason }
    }

    /// Why nobody knows.
    pub fn away(&self, what: &str, error: &KafkaError) -> String {
        self.voice().explain(format!("{what}: {}", words(error)))
    }
}

/// Committed next offsets of a group, asked by a client of that group; partitions without one are left out.
pub(crate) fn committed<C: Consumer<X>, X: rdkafka::consumer::ConsumerContext>(
    client: &C,
    partitions: &[TopicPartition],
) -> Result<Vec<Position>, KafkaError> {
    // The list is gone before this returns: one that outlives its client keeps it from ever being closed.
    let list: TopicPartitionList = client.committed_offsets(places(partitions), PATIENCE)?;
    let mut committed = Vec::new();
    for element in list.elements() {
        element.error()?;
        if let rdkafka::Offset::Offset(next) = element.offset() {
            let at = TopicPartition::new(element.topic(), crate::convert::partition(element.partition()));
            committed.push(Position { at, offset: offset(next) });
        }
    }
    Ok(committed)
}

/// Asks again while the partition's leader is just changing, or does not know yet that it is: that lasts for moments.
#[expect(clippy::disallowed_methods, reason = "runs on a thread that may block")]
fn settled<T>(mut ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(error) if is_moving(&error) && Instant::now() < until => std::thread::sleep(MOVING),
            answer => return answer,
        }
    }
}

fn is_moving(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable))
}

/// Whether a topic or partition does not exist.
pub(crate) fn is_unknown(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicId
    )
}

/// An error in few words: what librdkafka says of its code, without the layers around it.
pub(crate) fn words(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.to_string(),
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}

/// The offset element of a list of one, as librdkafka takes it.
pub(crate) fn one(at: &TopicPartition, from: Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&at.topic, raw_partition(at.partition), raw_offset(from))?;
    Ok(list)
}
