//! The suite every Bus adapter must pass: one function per promise, run for an adapter by [`conformance_suite!`].
//!
//! A case knows the port only. It works in topics, groups and transactional ids of its own, so cases may share a server
//! and run side by side, and it waits for states within [`PATIENCE`], never for a fixed time.
//!
//! [`conformance_suite!`]: crate::conformance_suite

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Bounds, Bus, Consumer, GroupConfig, Offset, Outgoing, Partition, Polled, Position, Record, Start, Stored, Topic,
    TopicConfig, TopicPartition,
};

pub mod groups;
pub mod log;
pub mod topics;
pub mod transactions;

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Wait for something that must not happen: long enough for a wrong adapter to show it.
const MOMENT: Duration = Duration::from_millis(200);
/// Bytes per read: more than any case writes.
const BYTES: usize = 16 * 1024 * 1024;

/// Tells the fixtures of one process apart.
static FIXTURES: AtomicU32 = AtomicU32::new(0);

/// A bus under test and names nobody else uses.
pub struct Fixture {
    /// The adapter.
    pub bus: Arc<dyn Bus>,
    prefix: String,
    /// Whether it compacts what a case writes within [`PATIENCE`].
    compacts: bool,
    /// What must outlive the case, such as a directory.
    _kept: Box<dyn Any + Send>,
}

/// Defines one test per case. `$fixture` is an expression that makes a [`Fixture`]; it may await.
///
/// ```text
/// drover_bus::conformance_suite!(Fixture::new(open_my_bus().await, ()));
/// ```
#[macro_export]
macro_rules! conformance_suite {
    ($fixture:expr) => {
        $crate::conformance_suite!(@cases $fixture;
            log::keyed_records_keep_their_order
            log::records_go_where_the_partitioner_says
            log::a_receipt_means_readable
            log::records_read_back_as_they_were_written
            log::positions_come_in_the_order_given
            log::appends_keep_the_order_of_their_calls
            log::times_are_found
            log::bounds_follow_the_records
            log::offsets_out_of_range_are_refused
            log::unknown_topics_and_partitions_are_refused
            log::records_are_taken_up_to_the_limit
            log::topics_are_created_once
            log::bad_topics_are_refused
            log::deleted_topics_are_gone
            log::reads_honour_their_byte_limit
            log::a_read_wakes_when_a_record_comes
            log::a_read_without_records_ends_with_its_wait
            topics::a_topic_is_listed_with_what_it_was_made_with
            topics::the_newest_record_of_each_key_stays_in_a_compacted_topic
            groups::a_single_member_gets_everything
            groups::two_members_share_evenly_without_overlap
            groups::three_members_share_and_leavers_are_replaced
            groups::a_group_resumes_where_it_committed
            groups::a_group_starts_at_the_end_if_told_so
            groups::a_member_that_comes_back_gets_its_partitions
            groups::a_member_that_ends_while_it_gives_up_leaves_nothing_behind
            groups::a_silent_member_is_fenced
            groups::commits_for_partitions_of_others_are_fenced
            groups::revoked_partitions_can_be_committed_until_the_next_poll
            groups::seeking_reads_again
            groups::groups_of_unknown_topics_are_refused
            groups::a_dropped_poll_loses_nothing
            transactions::a_transaction_shows_records_and_offsets_together
            transactions::a_refused_transaction_shows_nothing
            transactions::a_rebalance_aborts_the_transaction
            transactions::an_older_holder_is_fenced
            transactions::a_new_holder_does_not_disturb_other_ids
            transactions::what_is_committed_can_be_read_once_it_is_settled
            transactions::consume_transform_produce_is_exactly_once_across_members
        );
    };
    (@cases $fixture:expr; $($module:ident::$case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$module::$case(&$fixture).await;
            }
        )*
    };
}

impl Fixture {
    /// A fixture for `bus`; `kept` is dropped after it.
    pub fn new(bus: Arc<dyn Bus>, kept: impl Any + Send) -> Self {
        let number = FIXTURES.fetch_add(1, Ordering::Relaxed);
        Self {
            bus,
            prefix: format!("conformance-{}-{number}", std::process::id()),
            compacts: false,
            _kept: Box::new(kept),
        }
    }

    /// Of a bus that is made to compact a topic of a few MB within [`PATIENCE`].
    pub fn compacting(self) -> Self {
        Self { compacts: true, ..self }
    }

    /// A name nobody else uses.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Configuration of a plain topic.
    pub fn config(&self, what: &str, partitions: u32) -> TopicConfig {
        let topic = self.name(what).into();
        TopicConfig { topic, partitions, compact: false, retention_ms: None, retention_bytes: None }
    }

    /// A new topic.
    pub async fn topic(&self, what: &str, partitions: u32) -> Topic {
        let config = self.config(what, partitions);
        assert_eq!(self.bus.create_topic(config.clone()).await, Ok(true));
        config.topic
    }

    /// Appends and waits for the receipt.
    pub async fn append(&self, batch: Vec<Outgoing>) -> Vec<Position> {
        let receipt = self.bus.append(batch).await.expect("append is taken");
        within(receipt).await.expect("append is acknowledged")
    }

    /// Appends one value to a partition.
    pub async fn put(&self, topic: &Topic, partition: Partition, value: &str) -> Position {
        self.append(vec![outgoing(topic, partition, record(value))]).await.remove(0)
    }

    /// Everything in a partition.
    pub async fn all(&self, topic: &Topic, partition: Partition) -> Vec<Stored> {
        let at = TopicPartition::new(topic.clone(), partition);
        let bounds = self.bus.bounds(&at).await.expect("partition exists");
        self.between(&at, bounds, MOMENT).await
    }

    /// Everything between two ends of a partition, in reads that wait so long.
    pub async fn between(&self, at: &TopicPartition, bounds: Bounds, wait: Duration) -> Vec<Stored> {
        let (mut from, mut all) = (bounds.earliest, Vec::new());
        while from < bounds.end {
            let read = within(self.bus.read(at, from, BYTES, wait)).await.expect("reads");
            let Some(last) = read.last() else { break };
            from = last.position.offset + 1;
            all.extend(read);
        }
        all
    }

    /// Values of everything in a partition.
    pub async fn values(&self, topic: &Topic, partition: Partition) -> Vec<String> {
        self.all(topic, partition).await.iter().map(value).collect()
    }

    /// Configuration of a member of the group `group`.
    pub fn member(&self, group: &str, member: &str, topics: &[&Topic]) -> GroupConfig {
        GroupConfig {
            group: self.name(group),
            member: member.to_owned(),
            topics: topics.iter().map(|topic| (*topic).clone()).collect(),
            start: Start::Earliest,
            session_timeout: Duration::from_secs(20),
            max_poll_interval: Duration::from_secs(20),
        }
    }

    /// Joins with a configuration.
    pub async fn join(&self, config: GroupConfig) -> Member {
        let consumer = self.bus.join(config).await.expect("joins");
        Member { consumer, held: BTreeMap::new(), records: Vec::new() }
    }
}

/// A consumer and what it was told.
pub struct Member {
    pub consumer: Box<dyn Consumer>,
    /// Partitions held, each with the offset it started from.
    pub held: BTreeMap<TopicPartition, Offset>,
    /// Records it got, in order.
    pub records: Vec<Stored>,
}

impl Member {
    /// Polls once and books what came; `None` if nothing did.
    pub async fn poll(&mut self, wait: Duration) -> Option<()> {
        match self.consumer.poll(100, wait).await.expect("polls") {
            Polled::Assigned(positions) => self.held.extend(positions.into_iter().map(|p| (p.at, p.offset))),
            Polled::Revoked(partitions) => self.held.retain(|at, _| !partitions.contains(at)),
            Polled::Records(records) => {
                let foreign = records.iter().find(|r| !self.held.contains_key(&r.position.at));
                assert_eq!(foreign, None, "records come only of assigned partitions");
                self.records.extend(records);
            }
            Polled::Idle => return None,
        }
        Some(())
    }

    /// Polls until it holds `count` partitions.
    pub async fn hold(&mut self, count: usize) {
        within(async {
            while self.held.len() != count {
                self.poll(MOMENT).await;
            }
        })
        .await;
    }

    /// Polls until it has `count` records.
    pub async fn receive(&mut self, count: usize) {
        within(async {
            while self.records.len() < count {
                self.poll(MOMENT).await;
            }
        })
        .await;
    }

    /// Values it got.
    pub fn values(&self) -> Vec<String> {
        self.records.iter().map(value).collect()
    }

    /// Commits everything it got.
    pub async fn commit(&mut self) {
        let next = self.next();
        self.consumer.commit(next).await.expect("commits");
    }

    /// Next offsets behind everything it got.
    pub fn next(&self) -> Vec<Position> {
        behind(&self.records)
    }
}

/// Next offsets behind `records`.
fn behind(records: &[Stored]) -> Vec<Position> {
    let newest: BTreeMap<_, _> = records.iter().map(|r| (r.position.at.clone(), r.position.offset + 1)).collect();
    newest.into_iter().map(|(at, offset)| Position { at, offset }).collect()
}

/// Polls members in turn until each holds as many partitions as told.
async fn settle(members: &mut [&mut Member], counts: &[usize]) {
    within(async {
        while members.iter().zip(counts).any(|(member, count)| member.held.len() != *count) {
            for member in members.iter_mut() {
                member.poll(Duration::from_millis(20)).await;
            }
        }
    })
    .await;
}

/// Fails the case if `future` takes longer than [`PATIENCE`].
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("happens within the patience of the suite")
}

fn record(value: &str) -> Record {
    Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), timestamp_ms: 1, ..Record::default() }
}

fn keyed(topic: &Topic, key: &str, value: &str) -> Outgoing {
    let key = Some(Bytes::copy_from_slice(key.as_bytes()));
    Outgoing::keyed(topic.clone(), Record { key, ..record(value) })
}

fn outgoing(topic: &Topic, partition: Partition, record: Record) -> Outgoing {
    Outgoing { topic: topic.clone(), partition: Some(partition), record }
}

fn value(stored: &Stored) -> String {
    String::from_utf8_lossy(stored.record.value.as_deref().unwrap_or_default()).into_owned()
}
