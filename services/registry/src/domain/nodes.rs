//! Which ingress nodes are lost: silent for a lease, in the log and when asked.
//!
//! Follows `drover.nodes`, where every node says each second that it is there. Time counts only while this process hears
//! the log: after a pause of the log, or of this process, every node has a whole lease to be heard again. A node whose
//! word is overdue is asked itself before it is given up, for the log may just be slow.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_bus::{Bus, Offset, ReadError, Stored, TopicPartition};
use drover_host::Shutdown;
use drover_proto::ingress::v1::NodeAlive;
use prost::Message;
use tokio::time::Instant;

use super::topics::NODES_TOPIC;
use crate::ports::IngressNodes;

/// How long a node may be silent.
const LEASE: Duration = Duration::from_secs(3);
/// Longest time between two answers of the log that counts as hearing it.
const HEARING: Duration = Duration::from_secs(2);
/// Wait of one read.
const WAIT: Duration = Duration::from_millis(500);
/// Wait after a read that failed.
const RETRY: Duration = Duration::from_millis(200);
/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;
/// Nodes remembered; a platform has some hundreds at most.
const NODES_MAX: usize = 10_000;

/// The nodes, as one process of the registry sees them.
pub struct Nodes {
    bus: Arc<dyn Bus>,
    nodes: Arc<dyn IngressNodes>,
    /// The zero of monotonic time.
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each was last heard, since `started`.
    heard: HashMap<String, Duration>,
    /// Since when the log is heard without a gap.
    hearing_since: Duration,
    /// When the log has last answered.
    answered: Duration,
    /// Those that hold sessions, as was last asked.
    watched: BTreeSet<String>,
    lost: BTreeSet<String>,
}

impl Nodes {
    /// Nobody is lost before a lease is over; `started` is the zero of monotonic time.
    pub fn new(bus: Arc<dyn Bus>, nodes: Arc<dyn IngressNodes>, started: Instant) -> Self {
        Self { bus, nodes, started, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of `holders` that are lost, as far as is known now.
    pub fn lost(&self, holders: impl IntoIterator<Item = String>) -> Vec<String> {
        let now = self.started.elapsed();
        let mut state = self.state();
        state.watched = holders.into_iter().take(NODES_MAX).collect();
        let hears = now.saturating_sub(state.answered) <= HEARING;
        if hears { state.watched.intersection(&state.lost).cloned().collect() } else { Vec::new() }
    }

    /// Listens until `shutdown`.
    pub async fn run(&self, shutdown: Shutdown) {
        shutdown.run_until_cancelled(self.listen()).await;
    }

    async fn listen(&self) {
        let at = TopicPartition::new(NODES_TOPIC, 0);
        let mut next = None;
        loop {
            match self.read(&at, next).await {
                Ok((records, after)) => {
                    next = Some(after);
                    self.answered(&records);
                    self.look_for_lost().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "nodes cannot be heard");
                    if let ReadError::OutOfRange { .. } = error {
                        next = None;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn read(&self, at: &TopicPartition, next: Option<Offset>) -> Result<(Vec<Stored>, Offset), ReadError> {
        let next = match next {
            Some(next) => next,
            None => self.bus.bounds(at).await?.end,
        };
        let records = self.bus.read(at, next, READ_BYTES, WAIT).await?;
        let after = records.last().map_or(next, |last| last.position.offset + 1);
        Ok((records, after))
    }

    fn answered(&self, records: &[Stored]) {
        let now = self.started.elapsed();
        let mut state = self.state();
        if now.saturating_sub(state.answered) > HEARING {
            state.hearing_since = now;
        }
        state.answered = now;
        for Stored { position, record } in records {
            match NodeAlive::decode(record.value.as_deref().unwrap_or_default()) {
                Ok(alive) => state.hear(alive.node, now),
                Err(error) => tracing::debug!(?position, %error, "not a word of a node"),
            }
        }
    }

    /// Asks those whose word is overdue; who does not answer under its name is lost.
    async fn look_for_lost(&self) {
        let now = self.started.elapsed();
        let overdue = self.state().overdue(now);
        if overdue.is_empty() {
            return;
        }
        let there = self.nodes.names().await;
        let mut state = self.state();
        for node in there {
            state.hear(node, now);
        }
        for node in overdue {
            if state.silent(&node, now) && state.lost.insert(node.clone()) {
                tracing::warn!(node, lease = ?LEASE, "ingress node is lost, its sessions end");
            }
        }
    }
}

impl State {
    fn hear(&mut self, node: String, now: Duration) {
        if self.lost.remove(&node) {
            tracing::info!(node, "ingress node is there again");
        }
        if self.heard.len() < NODES_MAX || self.heard.contains_key(&node) {
            self.heard.insert(node, now);
        }
    }

    fn silent(&self, node: &str, now: Duration) -> bool {
        let since = self.heard.get(node).copied().unwrap_or_default().max(self.hearing_since);
        now.saturating_sub(since) > LEASE
    }

    /// Nodes that hold sessions, are silent, and not known to be lost.
    fn overdue(&self, now: Duration) -> Vec<String> {
        let unknown = self.watched.difference(&self.lost);
        unknown.filter(|node| self.silent(node, now)).cloned().collect()
    }
}
