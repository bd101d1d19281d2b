//! The producer of one transactional id: each commit is one transaction from begin to end.
//!
//! What is certain is told as it is: aborted, refused, fenced, rebalanced. Only when the end of a commit stays unknown
//! the transactor is closed: its holder opens it anew, which ends what may be open, and reads what was committed.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{AppendError, Outgoing, Partition, Position, TransactError, Transaction, Transactor};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::appends::{Appends, Delivering};
use crate::ask::{Asker, PATIENCE, blocking, is_unknown, words};
use crate::batch::{Batch, Outcome};
use crate::convert::{list, to_send};
use crate::membership::{Membership, Memberships};
use crate::options::{KafkaOptions, RECORD_BYTES_MAX, TRANSACTION_TIMEOUT};
use crate::producer::Producer;

/// One call of librdkafka; it is made again until [`DECISION`].
const CALL: Duration = Duration::from_secs(5);
/// Longest time to open, to commit or to abort; after that the outcome is unknown.
const DECISION: Duration = Duration::from_secs(60);
/// Longest wait for one call that sends offsets, twice what it is given: its own limit does not hold while it waits for a
/// connection to a coordinator that has moved (ADR 51).
const OFFSETS_MAX: Duration = CALL.saturating_mul(2);
/// The error of a call that has not come back.
const UNDER_WAY: KafkaError = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
/// Pause before it is looked again whether the records of a transaction have arrived.
const DELIVERED: Duration = Duration::from_millis(1);

/// What every transactor is made of.
pub(crate) struct Transactors {
    pub options: KafkaOptions,
    pub asker: Arc<Asker>,
    pub appends: Arc<Appends>,
    pub memberships: Arc<Memberships>,
}

/// A transactor over Kafka.
pub(crate) struct KafkaTransactor {
    id: String,
    asker: Arc<Asker>,
    appends: Arc<Appends>,
    memberships: Arc<Memberships>,
    /// Held for as long as a transaction is under way, even if nobody waits for it any more.
    line: Arc<Mutex<Line>>,
}

/// The producer, and why it is closed.
struct Line {
    producer: Arc<Producer<Delivering>>,
    closed: Option<TransactError>,
}

/// A transaction that can be sent.
struct Work {
    id: String,
    records: Arc<[Outgoing]>,
    partitions: Vec<Partition>,
    offsets: Option<Offsets>,
}

/// Offsets to commit, for a member that gives nothing up meanwhile.
struct Offsets {
    next: Vec<Position>,
    membership: Arc<Membership>,
    _standing: OwnedRwLockReadGuard<()>,
}

impl Transactors {
    /// As the port promises. [`TransactError::Aborted`] if the cluster does not answer.
    pub async fn open(&self, id: &str) -> Result<KafkaTransactor, TransactError> {
        let voice = self.asker.voice().clone();
        let context = |voice| Delivering::new(voice, Some(self.asker.clone()), Arc::new(AtomicBool::new(false)));
        let aborted = |reason: String| TransactError::Aborted { reason };
        let made = self.asker.clients().open(&self.options.transactor(id), context);
        let producer: Arc<Producer<Delivering>> = made.map_err(|error| aborted(error.to_string()))?;
        let opened = blocking(move || persist(|| producer.init_transactions(CALL)).map(|()| producer)).await;
        let producer = opened.map_err(|error| aborted(voice.explain(words(&error))))?;
        Ok(KafkaTransactor {
            id: id.to_owned(),
            asker: self.asker.clone(),
            appends: self.appends.clone(),
            memberships: self.memberships.clone(),
            line: Arc::new(Mutex::new(Line { producer, closed: None })),
        })
    }
}

impl KafkaTransactor {
    async fn offsets(
        &self,
        offsets: Option<(drover_bus::Membership, Vec<Position>)>,
    ) -> Result<Option<Offsets>, TransactError> {
        let Some((proof, next)) = offsets else { return Ok(None) };
        let rebalanced = || TransactError::Rebalanced { group: proof.group.clone() };
        let membership = self.memberships.find(&proof).ok_or_else(rebalanced)?;
        let standing = membership.moving.clone().read_owned().await;
        if !membership.proves(&proof) || !membership.holds(next.iter()) {
            return Err(rebalanced());
        }
        Ok(Some(Offsets { next, membership, _standing: standing }))
    }
}

#[async_trait]
impl Transactor for KafkaTransactor {
    async fn commit(&mut self, transaction: Transaction) -> Result<Vec<Position>, TransactError> {
        let Transaction { records, offsets } = transaction;
        let partitions = self.appends.place(&records).await?;
        let mut line = self.line.clone().lock_owned().await;
        if let Some(closed) = &line.closed {
            return Err(closed.clone());
        }
        let offsets = self.offsets(offsets).await?;
        let work = Work { id: self.id.clone(), records, partitions, offsets };
        let asker = self.asker.clone();
        blocking(move || {
            let outcome = line.run(&work, &asker);
            match &outcome {
                Err(error @ TransactError::Fenced { .. }) => line.closed = Some(error.clone()),
                Err(TransactError::Unknown { reason }) => {
                    let reason = format!("an earlier commit stayed undecided: {reason}");
                    line.closed = Some(TransactError::Unknown { reason });
                }
                Ok(_)
                | Err(TransactError::Rebalanced { .. } | TransactError::Refused(_) | TransactError::Aborted { .. }) => {
                }
            }
            outcome
        })
        .await
    }
}

impl Line {
    fn run(&self, work: &Work, asker: &Asker) -> Result<Vec<Position>, TransactError> {
        let begun = Instant::now();
        let (tickets, mut outcome) = Batch::tracked(&work.records, &work.partitions, None);
        let mut known = None;
        let committed = self.producer.begin_transaction().and_then(|()| {
            for ((outgoing, partition), ticket) in work.records.iter().zip(&work.partitions).zip(tickets) {
                let sent = match self.producer.send(to_send(outgoing, *partition, Box::new(ticket))) {
                    Err((error, back)) if is_no_partition(&error) && self.looks_at(&outgoing.topic) => {
                        self.producer.send(to_send(outgoing, *partition, back.delivery_opaque))
                    }
                    sent => sent,
                };
                if let Err((error, back)) = sent {
                    back.delivery_opaque.failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
                    return Err(error);
                }
            }
            if let Some(offsets) = &work.offsets {
                persist(|| self.send_offsets(offsets))?;
            }
            known = self.wait_delivered(&mut outcome);
            persist(|| self.producer.commit_transaction(CALL))
        });
        let known = move || known.or_else(|| outcome.try_recv().ok());
        match committed {
            // All deliveries were reported before the commit was sent.
            Ok(()) => match known() {
                Some(Ok(positions)) => {
                    asker.voice().all_well();
                    asker.wait_visible(&positions);
                    Ok(positions)
                }
                Some(Err(_)) | None => {
                    let reason = "committed, but positions are missing".to_owned();
                    Err(TransactError::Unknown { reason })
                }
            },
            Err(error) => {
                let undone = self.undo(work, &error, begun, asker)?;
                let failed = known().and_then(Result::err);
                Err(work.verdict(undone, failed))
            }
        }
    }

    /// Sends the offsets of a transaction. A call that does not come back is left alone, with [`UNDER_WAY`]: until it does, the
    /// producer refuses every other.
    fn send_offsets(&self, offsets: &Offsets) -> Result<(), KafkaError> {
        let metadata = offsets.membership.committer().ok_or(KafkaError::Canceled)?;
        let (producer, next) = (self.producer.clone(), list(&offsets.next));
        let (told, outcome) = sync_channel(1);
        // Nobody listens any more to what comes too late.
        let send = move || drop(told.send(producer.send_offsets_to_transaction(&next, &metadata, CALL)));
        let sending = std::thread::Builder::new().name("kafka-offsets".to_owned()).spawn(send);
        sending.map_err(|_| KafkaError::Canceled)?;
        outcome.recv_timeout(OFFSETS_MAX).unwrap_or(Err(UNDER_WAY))
    }

    /// Has the producer look at a topic, which may have grown since it did so last; whether it could.
    fn looks_at(&self, topic: &str) -> bool {
        self.producer.client().fetch_metadata(Some(topic), PATIENCE).is_ok()
    }

    /// Waits until no record is under way, so that the flush of a commit has nothing to wait for: its looks at the queue are
    /// 100 ms apart, as the thread of the producer takes the reports away. What has become of the records, if it is known.
    #[expect(clippy::disallowed_methods, reason = "runs on a thread that may block")]
    fn wait_delivered(&self, outcome: &mut oneshot::Receiver<Outcome>) -> Option<Outcome> {
        let until = Instant::now() + CALL;
        let known = Handle::current().block_on(timeout_at(until, outcome)).ok().and_then(Result::ok);
        // The last report is still being taken away.
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            std::thread::sleep(DELIVERED);
        }
        known
    }

    /// Aborts; returns why, once it is certain that nothing is visible.
    fn undo(
        &self,
        work: &Work,
        error: &KafkaError,
        begun: Instant,
        asker: &Asker,
    ) -> Result<(RDKafkaErrorCode, String), TransactError> {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let reason = asker.voice().explain(words(error));
        if *error == UNDER_WAY {
            return Err(TransactError::Unknown { reason });
        }
        let aborted = match fatal(error).or_else(|| self.producer.client().fatal_error().map(|(code, _)| code)) {
            Some(code) => Err(code),
            None => persist(|| self.producer.abort_transaction(CALL)).map_err(|error| {
                fatal(&error)
                    .or_else(|| self.producer.client().fatal_error().map(|(code, _)| code))
                    .unwrap_or(RDKafkaErrorCode::Fail)
            }),
        };
        match aborted {
            Ok(()) => Ok((code, reason)),
            // The coordinator fences a transaction that took too long just as it fences an older holder.
            Err(code) if is_fence(code) && begun.elapsed() < TRANSACTION_TIMEOUT => {
                Err(TransactError::Fenced { transactional_id: work.id.clone() })
            }
            Err(_) => Err(TransactError::Unknown { reason }),
        }
    }
}

impl Work {
    /// What an aborted transaction means for its sender.
    fn verdict(
        &self,
        (code, reason): (RDKafkaErrorCode, String),
        failed: Option<(usize, RDKafkaErrorCode)>,
    ) -> TransactError {
        if let Some((index, code)) = failed
            && let Some(refusal) = refusal(&self.records[index], code)
        {
            return TransactError::Refused(refusal);
        }
        let Some(Offsets { next, membership, .. }) = &self.offsets else { return TransactError::Aborted { reason } };
        if matches!(code, RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::FencedInstanceId) {
            membership.fence();
        }
        if membership.holds(next.iter()) {
            // A generation that was only outdated: the group has moved on without moving these partitions.
            return TransactError::Aborted { reason };
        }
        TransactError::Rebalanced { group: membership.group.clone() }
    }
}

/// A record that the cluster will never take; `None`: it may, later.
fn refusal(outgoing: &Outgoing, code: RDKafkaErrorCode) -> Option<AppendError> {
    let topic = outgoing.topic.to_string();
    match code {
        code if is_unknown(code) => Some(AppendError::UnknownTopic { topic }),
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => {
            Some(AppendError::TooLarge { bytes: outgoing.record.bytes(), limit: RECORD_BYTES_MAX })
        }
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::InvalidRecord
        | RDKafkaErrorCode::InvalidTimestamp
        | RDKafkaErrorCode::PolicyViolation => Some(AppendError::Refused { topic, reason: code.to_string() }),
        _ => None,
    }
}

/// Whether the producer does not know the partition, which somebody has seen.
fn is_no_partition(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition)
}

/// Makes a call again for as long as that may help, up to [`DECISION`].
fn persist(mut call: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let since = Instant::now();
    loop {
        match call() {
            Err(error) if passing(&error) && since.elapsed() < DECISION => {}
            decided => return decided,
        }
    }
}

fn passing(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort(),
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}

fn fatal(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(error) => error.is_fatal().then(|| RDKafkaError::code(error)),
        _ => None,
    }
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}
