//! What a member of a group holds, shared with the transactions that commit for it.
//!
//! A partition is given up only while nobody commits for it: [`Membership::moving`] is read by commits and written by
//! the one who gives up. What Kafka itself takes away, it also fences, by generation and member id; but librdkafka may take
//! new ones of these without a word, so that they are compared with those of before (ADR 45).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use drover_bus::{ConsumeError, Position, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol, StreamConsumer,
};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{Notify, RwLock};

use crate::voice::Voice;

/// What the group has decided, until the member is told.
#[derive(Debug)]
pub(crate) enum Decision {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
    /// These, all there were, are others' already.
    Lost(Vec<TopicPartition>),
}

/// Callbacks of a member: decisions wait for its next poll, and until then nothing moves.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    voice: Voice,
    waiting: Mutex<VecDeque<Decision>>,
    pub decided: Notify,
    /// Nobody polls any more: decisions are carried out at once.
    leaving: AtomicBool,
}

impl Decisions {
    pub fn new(voice: Voice) -> Self {
        Self { voice, ..Self::default() }
    }

    pub fn next(&self) -> Option<Decision> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on decisions are carried out at once; those that wait are returned.
    pub fn leave(&self) -> VecDeque<Decision> {
        self.leaving.store(true, Ordering::Release);
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Decisions {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(&error, reason);
    }
}

impl ConsumerContext for Decisions {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let done = match (consumer.rebalance_protocol(), assigned) {
                (RebalanceProtocol::Cooperative, true) => consumer.incremental_assign(list),
                (RebalanceProtocol::Cooperative, false) => consumer.incremental_unassign(list),
                (RebalanceProtocol::None | RebalanceProtocol::Eager, _) => consumer.unassign(),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "kafka: partitions not given back");
            }
            return;
        }
        let partitions = crate::convert::partitions(list);
        let decision = match assigned {
            true => Decision::Assign(partitions),
            false if consumer.assignment_lost() => Decision::Lost(partitions),
            false => Decision::Revoke(partitions),
        };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(decision);
        self.decided.notify_one();
    }
}

/// What one member holds, and as who.
pub(crate) struct Membership {
    pub group: String,
    pub member: String,
    pub consumer: Arc<StreamConsumer<Decisions>>,
    state: Mutex<State>,
    pub moving: Arc<RwLock<()>>,
}

struct State {
    /// Changes when partitions are given up; never the same for two members of one bus.
    generation: u64,
    held: BTreeSet<TopicPartition>,
    /// Its member id when it gained what it holds; `None`: it holds nothing.
    id: Option<String>,
    fenced: bool,
}

impl State {
    fn fence(&mut self) {
        self.fenced = true;
        self.held.clear();
    }
}

/// The live members of one bus.
#[derive(Default)]
pub(crate) struct Memberships {
    members: Mutex<HashMap<(String, String), Weak<Membership>>>,
    generation: AtomicU64,
}

impl Memberships {
    /// A generation nobody has had.
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a member; an earlier one of its name is not found any more.
    pub fn add(&self, membership: &Arc<Membership>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, member| member.strong_count() > 0);
        members.insert((membership.group.clone(), membership.member.clone()), Arc::downgrade(membership));
    }

    /// The live member this proof is of.
    pub fn find(&self, proof: &drover_bus::Membership) -> Option<Arc<Membership>> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.get(&(proof.group.clone(), proof.member.clone()))?.upgrade()
    }
}

impl Membership {
    pub fn new(group: String, member: String, consumer: Arc<StreamConsumer<Decisions>>, generation: u64) -> Arc<Self> {
        let state = Mutex::new(State { generation, held: BTreeSet::new(), id: None, fenced: false });
        Arc::new(Self { group, member, consumer, state, moving: Arc::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The proof of now.
    pub fn proof(&self) -> drover_bus::Membership {
        let generation = self.state().generation;
        drover_bus::Membership { group: self.group.clone(), member: self.member.clone(), generation }
    }

    /// Its partitions are others' now, for good.
    pub fn fence(&self) {
        self.state().fence();
    }

    /// Whether everything was lost; librdkafka may know before the member was told.
    pub fn is_fenced(&self) -> bool {
        if !self.state().fenced && self.consumer.assignment_lost() {
            self.fence();
        }
        self.state().fenced
    }

    /// The error of a fenced member.
    pub fn fenced(&self) -> ConsumeError {
        ConsumeError::Fenced { group: self.group.clone(), member: self.member.clone() }
    }

    /// Takes partitions; `false`, and fenced, if it is not in the group, or not as the one who took what it holds.
    pub fn gain(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> bool {
        let now = drover_rdkafka_calls::in_group(self.consumer.client());
        let mut state = self.state();
        let may = now.is_some() && (state.id.is_none() || state.id == now);
        if may {
            state.id = now;
            state.held.extend(partitions);
        } else {
            state.fence();
        }
        may
    }

    /// Whether it is in the group as the one who took what it holds; fenced if not. Waits for a thread of the client.
    pub fn is_itself(&self) -> bool {
        let now = drover_rdkafka_calls::in_group(self.consumer.client());
        let mut state = self.state();
        if state.id.is_some() && state.id != now {
            state.fence();
        }
        !state.fenced
    }

    /// Who a transaction commits offsets for: the one who holds the partitions, or nobody. Waits for a thread of the client.
    pub fn committer(&self) -> Option<ConsumerGroupMetadata> {
        let metadata = self.consumer.group_metadata()?;
        // An id does not come back: who is itself afterwards was so when the metadata were taken.
        (self.is_itself() && !self.is_fenced()).then_some(metadata)
    }

    /// Gives partitions up; proofs of before are no good any more.
    pub fn give_up(&self, partitions: &[TopicPartition], generation: u64) {
        let mut state = self.state();
        state.held.retain(|at| !partitions.contains(at));
        if state.held.is_empty() {
            state.id = None;
        }
        state.generation = generation;
    }

    /// Whether all of these are the member's.
    pub fn holds<'a>(&self, mut positions: impl Iterator<Item = &'a Position>) -> bool {
        if self.is_fenced() {
            return false;
        }
        let state = self.state();
        positions.all(|position| state.held.contains(&position.at))
    }

    /// Whether `proof` is of now.
    pub fn proves(&self, proof: &drover_bus::Membership) -> bool {
        self.state().generation == proof.generation
    }
}
