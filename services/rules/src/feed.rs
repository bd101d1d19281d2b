//! Rule definitions and functions from the registry's feed: read from the start, then followed while the engine runs.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use drover_bus::{AdminError, Bus, Offset, ReadError, Record, Stored, TopicPartition};
use drover_host::{Backoff, Ready, Shutdown};
use drover_proto::types::v1 as wire;
use drover_types::object::RuleSpec;
use drover_types::{ApiError, Clock, TenantId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::actions::Clusters;
use crate::config::RulesConfig;
use crate::domain::{Board, Condition, Definition, RuleKey, RuleSet, Views};
use crate::topics;
use crate::webhook::InternalHosts;
use record::{Word, function, in_order, key_of, word};

pub use drover_types::REGISTRY_CHANGES_TOPIC as CHANGES_TOPIC;

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Longest wait for a change before asking again.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How long a start waits for output topics that cannot be made now; the messages of that time are the rules' to evaluate.
const LOAD_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether that has been read.
const LOOK: Duration = Duration::from_millis(50);
/// How long after a rule could not come into force it is looked at again.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps the rule set as the feed says. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    views: Arc<Views>,
    create_topics: bool,
    /// Of the topics made here.
    output_retention_ms: u64,
    internal: InternalHosts,
    clusters: Arc<Clusters>,
    rules: watch::Sender<Arc<RuleSet>>,
    /// Held while a change is decided: two partitions may bring rules that want the same topic.
    deciding: Arc<tokio::sync::Mutex<()>>,
    state: Arc<Mutex<State>>,
    missing: Arc<AtomicBool>,
}

/// What the feed has said so far.
#[derive(Default)]
struct State {
    rules: RuleSet,
    /// Rules that wait for their topics, functions and look-ups, as declared; what was in force of their name stays so.
    waiting: BTreeMap<RuleKey, wire::Rule>,
    /// Told to the board once the engine has the rules: who sees a generation observed may rely on it.
    seen: Vec<Seen>,
}

/// News for the board.
enum Seen {
    Observed(RuleKey, u64, Condition),
    Removed(RuleKey),
}

/// Why a rule is not in force.
enum Obstacle {
    /// Until its declaration changes.
    Invalid(String),
    /// As long as its topics, functions or what it looks up are not there, or a topic is another's.
    Missing { reason: &'static str, message: String },
}

impl Feed {
    /// A feed that has read nothing.
    pub fn new(
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        board: Arc<Board>,
        views: Arc<Views>,
        config: &RulesConfig,
        (internal, clusters): (InternalHosts, Arc<Clusters>),
    ) -> Self {
        let (create_topics, output_retention_ms) = (config.create_topics, config.output_retention.as_millis());
        Self {
            bus,
            clock,
            board,
            views,
            create_topics,
            output_retention_ms,
            internal,
            clusters,
            rules: watch::Sender::new(Arc::new(RuleSet::default())),
            deciding: Arc::default(),
            state: Arc::default(),
            missing: Arc::default(),
        }
    }

    /// To be set when an output topic turns out to be gone.
    pub fn missing(&self) -> Arc<AtomicBool> {
        self.missing.clone()
    }

    /// The rules in force, as they change.
    pub fn rules(&self) -> watch::Receiver<Arc<RuleSet>> {
        self.rules.subscribe()
    }

    /// Returns when all that the feed holds now is in force, with the tasks that follow it. `None`: stopping.
    pub async fn start(&self, ready: &Ready, shutdown: &Shutdown) -> Option<JoinSet<anyhow::Result<()>>> {
        let mut backoff = Backoff::default();
        let positions = loop {
            match self.load().await {
                Ok(positions) => break positions,
                Err(error) => {
                    ready.waiting(format!("rule definitions: {error}"));
                    if !backoff.wait(shutdown).await {
                        return None;
                    }
                }
            }
        };
        // Who asks for their status sees what is waited for.
        self.publish();
        if !self.looked_up(ready, shutdown).await {
            return None;
        }
        // Their functions may have come behind them, in another partition.
        self.put_waiting().await;
        self.publish();
        let mut tails = JoinSet::new();
        let (feed, stop) = (self.clone(), shutdown.clone());
        tails.spawn(async move {
            feed.look_again(&stop).await;
            Ok(())
        });
        for (at, next) in positions {
            let (feed, shutdown) = (self.clone(), shutdown.clone());
            tails.spawn(async move {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = feed.follow(at, next, &shutdown) => {}
                }
                Ok(())
            });
        }
        Some(tails)
    }

    /// Returns when what rules look up is read, however long that takes: without them the engine would pass over their
    /// messages for good. Only rules that come later come into force while others work. False: stopping.
    async fn looked_up(&self, ready: &Ready, shutdown: &Shutdown) -> bool {
        let missing = || !self.views.devices.unknown().is_empty() || !self.views.shadows.unknown().is_empty();
        while missing() {
            ready.waiting("what rules look up is being read");
            if shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
                return false;
            }
        }
        true
    }

    /// Reads every partition up to its present end, and takes what is said in the order of [`in_order`].
    async fn load(&self) -> Result<Vec<(TopicPartition, Offset)>, ReadError> {
        let until = Instant::now() + LOAD_PATIENCE;
        let (mut positions, mut said) = (Vec::new(), HashMap::<Option<Bytes>, Vec<Record>>::new());
        for (at, bounds) in drover_bus::bounds(&*self.bus, CHANGES_TOPIC).await?.unwrap_or_default() {
            let mut next = bounds.earliest;
            while next < bounds.end {
                let records = self.bus.read(&at, next, READ_BYTES, Duration::ZERO).await?;
                let Some(end) = records.last() else { break };
                next = end.position.offset + 1;
                for Stored { record, .. } in records {
                    if key_of("function/", &record).is_some() || key_of("rule/", &record).is_some() {
                        said.entry(record.key.clone()).or_default().push(record);
                    }
                }
            }
            positions.push((at, next.max(bounds.end)));
        }
        // A former version stays in force where the last one has to wait.
        for record in in_order(said) {
            self.apply(&record, until).await;
        }
        Ok(positions)
    }

    async fn follow(&self, at: TopicPartition, mut next: Offset, shutdown: &Shutdown) {
        let mut backoff = Backoff::default();
        loop {
            match self.bus.read(&at, next, READ_BYTES, READ_WAIT).await {
                Ok(records) => {
                    backoff.reset();
                    for stored in &records {
                        self.apply(&stored.record, Instant::now()).await;
                        next = stored.position.offset + 1;
                    }
                    if !records.is_empty() {
                        self.publish();
                    }
                }
                Err(ReadError::OutOfRange { from, earliest, .. }) if from < earliest => next = earliest,
                Err(error) => {
                    tracing::debug!(%error, partition = at.partition, "rule definitions cannot be followed");
                    if !backoff.wait(shutdown).await {
                        return;
                    }
                }
            }
        }
    }

    /// Looks again at rules that wait for their topics, and at topics that are gone.
    async fn look_again(&self, shutdown: &Shutdown) {
        while shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_some() {
            if self.missing.swap(false, Ordering::Relaxed) && !self.make_missing().await {
                self.missing.store(true, Ordering::Relaxed);
            }
            if self.put_waiting().await {
                self.publish();
            }
        }
    }

    /// Decides again on rules that wait; whether there are any.
    async fn put_waiting(&self) -> bool {
        let waiting: Vec<RuleKey> = self.state().waiting.keys().cloned().collect();
        for key in &waiting {
            let _deciding = self.deciding.lock().await;
            let Some(rule) = self.state().waiting.get(key).cloned() else { continue };
            self.put(key.clone(), &rule, Instant::now()).await;
        }
        !waiting.is_empty()
    }

    /// Makes the topics of rules in force that are not there; whether all are there now.
    async fn make_missing(&self) -> bool {
        let outputs = self.state().rules.output_topics();
        let mut all = true;
        for (topic, partitions) in outputs {
            if let Err(message) = self.topic(&topic, partitions, Instant::now()).await {
                tracing::warn!(%topic, why = message, "rules have lost their topic; outputs become dead letters");
                all = false;
            }
        }
        all
    }

    fn publish(&self) {
        let (rules, seen) = {
            let mut state = self.state();
            (state.rules.clone(), std::mem::take(&mut state.seen))
        };
        self.rules.send_replace(Arc::new(rules));
        for seen in seen {
            match seen {
                Seen::Observed(key, generation, accepted) => self.board.observed(key, generation, accepted),
                Seen::Removed(key) => self.board.removed(&key),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one record of the feed; those about other objects are passed over. Topics that cannot be made are waited for
    /// until `until`.
    async fn apply(&self, record: &Record, until: Instant) {
        if let Some((tenant, name)) = key_of("function/", record) {
            return self.apply_function(&tenant, &name, record).await;
        }
        let Some(key) = key_of("rule/", record) else { return };
        let _deciding = self.deciding.lock().await;
        match word(record) {
            Err(error) => tracing::error!(rule = key.1, %error, "a change of the registry cannot be read"),
            Ok(Word::Gone) => {
                let mut state = self.state();
                state.rules.remove(&key.0, &key.1);
                state.waiting.remove(&key);
                state.seen.push(Seen::Removed(key));
            }
            Ok(Word::Put(rule)) => self.put(key, &rule, until).await,
        }
    }

    /// Takes a function, or its end; rules that have waited for it come into force.
    async fn apply_function(&self, tenant: &TenantId, name: &str, record: &Record) {
        match function(record) {
            Err(error) => {
                tracing::error!(%tenant, function = name, %error, "a change of the registry cannot be read");
            }
            Ok(None) => self.state().rules.remove_function(tenant, name),
            Ok(Some(spec)) => {
                {
                    // Not while a rule is decided, which would not find it and not be found waiting for it.
                    let _deciding = self.deciding.lock().await;
                    self.state().rules.put_function(tenant, name, spec);
                }
                self.put_waiting().await;
            }
        }
    }

    async fn put(&self, key: RuleKey, rule: &wire::Rule, until: Instant) {
        let generation = rule.meta.as_ref().map_or(0, |meta| meta.generation);
        let accepted = self.accept(&key, rule, until).await;
        let mut state = self.state();
        let waited = state.waiting.remove(&key).is_some();
        let (holds, reason, message) = match accepted {
            Ok(definition) => {
                state.rules.put(Definition { generation, ..definition });
                (true, "Accepted", String::new())
            }
            Err(Obstacle::Invalid(message)) => {
                state.rules.remove(&key.0, &key.1);
                (false, "Invalid", message)
            }
            Err(Obstacle::Missing { reason, message }) => {
                state.waiting.insert(key.clone(), rule.clone());
                state.rules.wait(key.clone());
                (false, reason, message)
            }
        };
        if !waited || holds {
            tracing::info!(tenant = %key.0, rule = key.1, generation, reason, why = message, "rule observed");
        }
        let accepted = Condition { holds, reason: reason.to_owned(), message, since_ms: self.clock.now_ms() };
        state.seen.push(Seen::Observed(key, generation, accepted));
    }

    /// Compiles the rule and makes its topics.
    async fn accept(&self, key: &RuleKey, rule: &wire::Rule, until: Instant) -> Result<Definition, Obstacle> {
        let invalid = |error: ApiError| {
            let field = error.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
            Obstacle::Invalid(format!("{field}{}", error.message))
        };
        let spec = RuleSpec::try_from(rule).map_err(invalid)?;
        let definition = Definition::compile(key.0.clone(), &key.1, &spec).map_err(invalid)?;
        if let Some(reason) = definition.webhooks().find_map(|url| self.internal.refuse(url)) {
            return Err(Obstacle::Invalid(format!("webhook: {reason}")));
        }
        if let Some(reason) = definition.clusters().find_map(|name| self.clusters.refuse(&key.0, name)) {
            return Err(Obstacle::Invalid(format!("kafka: {reason}")));
        }
        self.views.ask(&key.0, definition.asked).map_err(|missing| {
            let message = format!("{missing} of the tenant, which the rule looks up, are being read");
            Obstacle::Missing { reason: "LookupsMissing", message }
        })?;
        let of_sql = definition.rule.user_functions().iter().map(|function| function.name.as_str());
        for function in of_sql.chain(definition.called_functions()) {
            if self.state().rules.function(&key.0, function).is_none() {
                let message = format!("function {function} does not exist");
                return Err(Obstacle::Missing { reason: "FunctionMissing", message });
            }
        }
        for (topic, partitions) in definition.output_topics() {
            if self.state().rules.other_writer(&key.0, topic).is_some() {
                let message = format!("topic {topic} belongs to another tenant");
                return Err(Obstacle::Missing { reason: "TopicTaken", message });
            }
            let reason = if self.create_topics { "TopicFailed" } else { "TopicMissing" };
            self.topic(topic, partitions, until).await.map_err(|message| Obstacle::Missing { reason, message })?;
        }
        Ok(definition)
    }

    /// Returns when the topic is there, or why it is not at `until`.
    async fn topic(&self, topic: &str, partitions: u32, until: Instant) -> Result<(), String> {
        let never = Shutdown::new();
        let mut backoff = Backoff::default();
        loop {
            let failure = if self.create_topics {
                match topics::make(&*self.bus, topic, partitions, self.output_retention_ms).await {
                    // Who has made it may want the last record of each key only.
                    Ok(()) | Err(AdminError::Setting { .. }) => return Ok(()),
                    Err(error) => format!("topic {topic} cannot be made: {error}"),
                }
            } else {
                match self.bus.topics().await {
                    Ok(known) if known.iter().any(|config| &*config.topic == topic) => return Ok(()),
                    Ok(_) => return Err(format!("topic {topic} does not exist")),
                    Err(error) => format!("topic {topic} cannot be looked for: {error}"),
                }
            };
            if Instant::now() >= until {
                return Err(failure);
            }
            backoff.wait(&never).await;
        }
    }
}
