//! One member of a consumer group.
//!
//! librdkafka decides in its own threads, and its decisions are carried out here: an assignment when its starting
//! offsets are known, a revocation by the poll after the one that told of it. What a poll takes out of librdkafka it
//! returns without waiting in between, so a dropped poll loses nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{ConsumeError, Consumer, GroupConfig, Polled, Position, Start, Stored, Topic, TopicPartition};
use futures::{FutureExt, TryStreamExt};
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ask::{Asker, PATIENCE, blocking, committed, is_unknown, words};
use crate::convert::{list, offset, places, raw_partition, stored};
use crate::membership::{Decision, Decisions, Membership, Memberships};
use crate::options::KafkaOptions;
use crate::orphans;

/// Bytes of records one poll brings at most, but at least one record.
const POLL_BYTES_MAX: usize = 1024 * 1024;
/// Pause before what the group cannot take just now is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How long committed offsets may stay unknown before it is said, and said again.
const UNKNOWN_MAX: Duration = Duration::from_secs(60);

/// What every member is made of.
pub(crate) struct Groups {
    pub options: KafkaOptions,
    pub asker: Arc<Asker>,
    pub memberships: Arc<Memberships>,
}

/// A consumer of a group.
pub(crate) struct Member {
    membership: Arc<Membership>,
    memberships: Arc<Memberships>,
    asker: Arc<Asker>,
    topics: Vec<Topic>,
    start: Start,
    session_timeout: Duration,
    assigning: Option<Assigning>,
    /// Told to leave: given up by the next poll.
    leaving: Vec<TopicPartition>,
    watch: JoinHandle<()>,
}

/// Partitions whose starting offsets are being asked for.
struct Assigning {
    partitions: Vec<TopicPartition>,
    starts: JoinHandle<Result<Vec<Position>, KafkaError>>,
    /// When it is said that it takes long.
    told_at: Instant,
}

impl Groups {
    /// As the port promises.
    pub async fn join(&self, config: GroupConfig) -> Result<Member, ConsumeError> {
        for topic in &config.topics {
            let found = self.asker.partitions(topic).await;
            let found = found.map_err(|unseen| ConsumeError::Unavailable { reason: unseen.into() })?;
            if found.is_none() {
                return Err(ConsumeError::UnknownTopic { topic: topic.to_string() });
            }
        }
        let unavailable = |reason: String| ConsumeError::Unavailable { reason };
        let client = self.options.member(&config);
        let made = self.asker.clients().open(&client, Decisions::new);
        let consumer: Arc<StreamConsumer<Decisions>> = made.map_err(|error| unavailable(error.to_string()))?;
        let generation = self.memberships.next_generation();
        let watch = orphans::watch(self.options.clone(), self.asker.clone(), config.clone());
        let membership = Membership::new(config.group, config.member, consumer, generation);
        self.memberships.add(&membership);
        let topics: Vec<&str> = config.topics.iter().map(|topic| &**topic).collect();
        let subscribed = membership.consumer.subscribe(&topics);
        subscribed.map_err(|error| unavailable(self.asker.away("joining a group", &error)))?;
        Ok(Member {
            membership,
            memberships: self.memberships.clone(),
            asker: self.asker.clone(),
            topics: config.topics,
            start: config.start,
            session_timeout: config.session_timeout,
            assigning: None,
            leaving: Vec::new(),
            watch: tokio::spawn(watch),
        })
    }
}

impl Member {
    fn unavailable(&self, what: &str, error: &KafkaError) -> ConsumeError {
        ConsumeError::Unavailable { reason: self.asker.away(what, error) }
    }

    /// Gives up what the last poll said would leave, as soon as nobody commits for it.
    async fn give_up(&mut self) -> Result<(), ConsumeError> {
        if self.leaving.is_empty() {
            return Ok(());
        }
        let _moving = self.membership.moving.write().await;
        let unassigned = self.membership.consumer.incremental_unassign(&places(&self.leaving));
        unassigned.map_err(|error| self.unavailable("giving partitions up", &error))?;
        self.membership.give_up(&self.leaving, self.memberships.next_generation());
        self.leaving.clear();
        Ok(())
    }

    /// The next decision of the group, as far as the caller has to know of it.
    fn decide(&mut self) -> Result<Option<Polled>, ConsumeError> {
        while let Some(decision) = self.membership.consumer.context().next() {
            match decision {
                Decision::Lost(partitions) => {
                    // Given back when this member goes: librdkafka would join again at once.
                    self.leaving = partitions;
                    self.membership.fence();
                    return Err(self.membership.fenced());
                }
                Decision::Revoke(partitions) if partitions.is_empty() => {
                    let done = self.membership.consumer.incremental_unassign(&places(&[]));
                    done.map_err(|error| self.unavailable("giving partitions up", &error))?;
                }
                Decision::Revoke(partitions) => {
                    self.leaving.clone_from(&partitions);
                    return Ok(Some(Polled::Revoked(partitions)));
                }
                Decision::Assign(partitions) if partitions.is_empty() => {
                    let done = self.membership.consumer.incremental_assign(&places(&[]));
                    done.map_err(|error| self.unavailable("taking partitions", &error))?;
                }
                Decision::Assign(partitions) => {
                    self.assigning = Some(self.ask(partitions, Duration::ZERO, Instant::now() + UNKNOWN_MAX));
                }
            }
        }
        Ok(None)
    }

    /// Asks where to start; after `pause`, so that a failure is not repeated at once.
    fn ask(&self, partitions: Vec<TopicPartition>, pause: Duration, told_at: Instant) -> Assigning {
        let (consumer, start, of) = (self.membership.consumer.clone(), self.start, partitions.clone());
        let starts = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            blocking(move || starts(&consumer, &of, start)).await
        });
        Assigning { partitions, starts, told_at }
    }

    /// Takes the partitions, now that it is known where to start.
    fn assign(&mut self, starts: Result<Vec<Position>, KafkaError>) -> Result<Option<Polled>, ConsumeError> {
        let Some(Assigning { partitions, mut told_at, .. }) = self.assigning.take() else { return Ok(None) };
        match starts {
            Ok(positions) => {
                let assigned = self.membership.consumer.incremental_assign(&list(&positions));
                assigned.map_err(|error| self.unavailable("taking partitions", &error))?;
                self.asker.voice().all_well();
                if !self.membership.gain(partitions) {
                    return Err(self.membership.fenced());
                }
                Ok(Some(Polled::Assigned(positions)))
            }
            Err(error) => {
                let (reason, now) = (words(&error), Instant::now());
                tracing::debug!(reason, "kafka: committed offsets are not known yet");
                if now >= told_at {
                    told_at = now + UNKNOWN_MAX;
                    let (group, of) = (&*self.membership.group, partitions.len());
                    tracing::warn!(
                        group,
                        of,
                        reason,
                        "kafka: a group cannot go on, its committed offsets have not been known for a minute; where they are \
                         unstable, `kafka-transactions.sh find-hanging` names the transaction that has no end"
                    );
                }
                self.assigning = Some(self.ask(partitions, RETRY, told_at));
                Ok(None)
            }
        }
    }

    /// `first` and what else is here already.
    fn gather(&self, first: &BorrowedMessage<'_>, records_max: usize) -> Vec<Stored> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut take = |message: &BorrowedMessage<'_>| {
            let record = stored(message, &self.topic(message.topic()));
            bytes += record.record.bytes();
            records.push(record);
            records.len() < records_max.max(1) && bytes < POLL_BYTES_MAX
        };
        let mut more = take(first);
        let mut here = self.membership.consumer.stream();
        while more {
            match here.try_next().now_or_never() {
                Some(Ok(message)) => more = message.is_some_and(|message| take(&message)),
                // An error of librdkafka's comes again if it lasts.
                Some(Err(error)) => {
                    tracing::debug!(%error, "kafka: while records were read");
                    more = false;
                }
                None => more = false,
            }
        }
        records
    }

    fn topic(&self, name: &str) -> Topic {
        self.topics.iter().find(|topic| ***topic == *name).cloned().unwrap_or_else(|| name.into())
    }

    /// What an error of the consumer means; `None`: librdkafka goes on by itself.
    fn heard(&self, error: &KafkaError) -> Option<ConsumeError> {
        let code = error.rdkafka_error_code()?;
        match code {
            RDKafkaErrorCode::PollExceeded | RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::Fatal => {
                self.membership.fence();
                Some(self.membership.fenced())
            }
            RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed => {
                Some(ConsumeError::Unavailable { reason: format!("kafka: {code}") })
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                self.membership.fence();
                Some(self.membership.fenced())
            }
            code if is_unknown(code) => {
                let gone = self.topics.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Some(ConsumeError::UnknownTopic { topic: gone })
            }
            _ => {
                tracing::debug!(%error, "kafka: consumer");
                None
            }
        }
    }

    /// Whether a commit that the group refused may be tried again, now that the group has moved on without moving
    /// these partitions.
    fn may_retry(&self, code: RDKafkaErrorCode) -> bool {
        matches!(code, RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration)
    }
}

#[async_trait]
impl Consumer for Member {
    async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Polled, ConsumeError> {
        let deadline = Instant::now() + wait;
        if self.membership.is_fenced() {
            return Err(self.membership.fenced());
        }
        self.give_up().await?;
        loop {
            if let Some(polled) = self.decide()? {
                return Ok(polled);
            }
            let membership = self.membership.clone();
            let context = membership.consumer.context();
            let came = tokio::select! {
                biased;
                () = context.decided.notified() => continue,
                starts = known(&mut self.assigning) => match self.assign(starts)? {
                    Some(polled) => return Ok(polled),
                    None => continue,
                },
                came = membership.consumer.recv() => came,
                () = tokio::time::sleep_until(deadline) => return Ok(Polled::Idle),
            };
            match came {
                Ok(first) => return Ok(Polled::Records(self.gather(&first, records_max))),
                Err(error) => {
                    if let Some(error) = self.heard(&error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn commit(&mut self, next: Vec<Position>) -> Result<(), ConsumeError> {
        let _standing = self.membership.moving.clone().read_owned().await;
        let deadline = Instant::now() + self.session_timeout;
        loop {
            let (membership, offsets) = (self.membership.clone(), next.clone());
            let committed = blocking(move || {
                let may = membership.holds(offsets.iter()) && membership.is_itself();
                may.then(|| membership.consumer.commit(&list(&offsets), CommitMode::Sync))
            });
            let error = match committed.await {
                None => return Err(self.membership.fenced()),
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::NoOffset) => return Ok(()),
                Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::FencedInstanceId) => {
                    self.membership.fence();
                    return Err(self.membership.fenced());
                }
                Some(code) if self.may_retry(code) && Instant::now() < deadline => tokio::time::sleep(RETRY).await,
                Some(_) | None => return Err(self.unavailable("committing offsets", &error)),
            }
        }
    }

    async fn seek(&mut self, to: Position) -> Result<(), ConsumeError> {
        if !self.membership.holds(std::iter::once(&to)) {
            return Err(self.membership.fenced());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (consumer, place) = (self.membership.consumer.clone(), to.clone());
            let sought = blocking(move || seek(&consumer, place)).await;
            match sought {
                Ok(()) => return Ok(()),
                // The partition is just being taken.
                Err(error) if Instant::now() < deadline && is_settling(&error) => tokio::time::sleep(RETRY / 10).await,
                Err(error) => return Err(self.unavailable("seeking", &error)),
            }
        }
    }

    fn membership(&self) -> drover_bus::Membership {
        self.membership.proof()
    }
}

/// The starts, when they are known; never while nobody asks.
async fn known(assigning: &mut Option<Assigning>) -> Result<Vec<Position>, KafkaError> {
    match assigning {
        Some(assigning) => (&mut assigning.starts).await.unwrap_or(Err(KafkaError::Canceled)),
        None => std::future::pending().await,
    }
}

/// Where to start: the committed offset, or as the member was told.
fn starts(
    consumer: &StreamConsumer<Decisions>,
    partitions: &[TopicPartition],
    start: Start,
) -> Result<Vec<Position>, KafkaError> {
    let mut positions = committed(consumer, partitions)?;
    for at in partitions {
        if positions.iter().any(|position| position.at == *at) {
            continue;
        }
        let (low, high) = consumer.fetch_watermarks(&at.topic, raw_partition(at.partition), PATIENCE)?;
        let from = match start {
            Start::Earliest => low,
            Start::End => high,
        };
        positions.push(Position { at: at.clone(), offset: offset(from) });
    }
    Ok(positions)
}

fn seek(consumer: &StreamConsumer<Decisions>, to: Position) -> Result<(), KafkaError> {
    let sought = consumer.seek_partitions(list(&[to]), PATIENCE)?;
    sought.elements().iter().try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)
}

fn is_settling(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::State | RDKafkaErrorCode::PreviousInProgress))
}

impl Drop for Member {
    /// Leaving waits for threads of librdkafka, which no caller should.
    fn drop(&mut self) {
        self.watch.abort();
        let membership = self.membership.clone();
        membership.fence();
        let leaving = std::mem::take(&mut self.leaving);
        let assigning = self.assigning.take().map(|Assigning { partitions, starts, .. }| {
            starts.abort();
            partitions
        });
        let runtime = tokio::runtime::Handle::try_current();
        let leave = move || {
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            leave(&membership, assigning, leaving);
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-leave".to_owned()).spawn(leave) {
            tracing::warn!(%error, "no thread to leave a group");
        }
    }
}

/// Carries out what the group has decided, so that closing the consumer does not wait for anybody.
fn leave(membership: &Membership, assigning: Option<Vec<TopicPartition>>, leaving: Vec<TopicPartition>) {
    let consumer = &membership.consumer;
    let waiting = consumer.context().leave();
    let done = |result: Result<(), KafkaError>| {
        if let Err(error) = result {
            tracing::debug!(%error, "kafka: while leaving a group");
        }
    };
    if let Some(partitions) = assigning {
        done(consumer.incremental_assign(&places(&partitions)));
    }
    if !leaving.is_empty() {
        done(consumer.incremental_unassign(&places(&leaving)));
    }
    for decision in waiting {
        match decision {
            Decision::Assign(partitions) => done(consumer.incremental_assign(&places(&partitions))),
            Decision::Revoke(partitions) | Decision::Lost(partitions) => {
                done(consumer.incremental_unassign(&places(&partitions)));
            }
        }
    }
}
