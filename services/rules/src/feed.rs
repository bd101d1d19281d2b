//! Rule definitions from the registry's feed: read from the start, then followed while the engine runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_bus::{Bus, Offset, ReadError, Record, TopicPartition};
use drover_host::{Backoff, Ready, Shutdown};
use drover_proto::registry::v1::{Change, object};
use drover_proto::types::v1 as wire;
use drover_types::object::RuleSpec;
use drover_types::{ApiError, Clock, TenantId};
use prost::Message as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::domain::{Board, Condition, Definition, RuleKey, RuleSet};
use crate::topics;

/// The registry's feed: key `kind/tenant/name`, value a `Change`.
pub const CHANGES_TOPIC: &str = "drover.registry.changes";
/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Longest wait for a change before asking again.
const READ_WAIT: Duration = Duration::from_secs(5);
/// Tries to make an output topic before the rule is said to be not accepted.
const CREATE_TRIES: u32 = 5;

/// Keeps the rule set as the feed says. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    board: Arc<Board>,
    create_topics: bool,
    rules: watch::Sender<Arc<RuleSet>>,
    /// Held while a change is decided: two partitions may bring rules that want the same topic.
    deciding: Arc<tokio::sync::Mutex<()>>,
    wanted: Arc<Mutex<RuleSet>>,
}

/// What a record of the feed says about a rule.
enum Word {
    Put(Box<wire::Rule>),
    Gone,
}

impl Feed {
    /// A feed that has read nothing.
    pub fn new(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, board: Arc<Board>, create_topics: bool) -> Self {
        let rules = watch::Sender::new(Arc::new(RuleSet::default()));
        Self { bus, clock, board, create_topics, rules, deciding: Arc::default(), wanted: Arc::default() }
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
        self.publish();
        let mut tails = JoinSet::new();
        for (at, next) in positions {
            let (feed, shutdown) = (self.clone(), shutdown.clone());
            tails.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = feed.follow(at, next, &shutdown) => {}
                }
                Ok(())
            });
        }
        Some(tails)
    }

    /// Reads every partition up to its present end.
    async fn load(&self) -> Result<Vec<(TopicPartition, Offset)>, ReadError> {
        let unavailable = |error: drover_bus::AdminError| ReadError::Unavailable { reason: error.to_string() };
        let topics = self.bus.topics().await.map_err(unavailable)?;
        let partitions = topics.iter().find(|config| &*config.topic == CHANGES_TOPIC).map_or(0, |c| c.partitions);
        let mut positions = Vec::new();
        for partition in 0..partitions {
            let at = TopicPartition::new(CHANGES_TOPIC, partition);
            let bounds = self.bus.bounds(&at).await?;
            let mut next = bounds.earliest;
            while next < bounds.end {
                let records = self.bus.read(&at, next, READ_BYTES, Duration::ZERO).await?;
                let Some(last) = records.last() else { break };
                next = last.position.offset + 1;
                for stored in &records {
                    self.apply(&stored.record).await;
                }
            }
            positions.push((at, next.max(bounds.end)));
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
                        self.apply(&stored.record).await;
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

    fn publish(&self) {
        self.rules.send_replace(Arc::new(self.set(|rules| rules.clone())));
    }

    fn set<T>(&self, with: impl FnOnce(&mut RuleSet) -> T) -> T {
        with(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes one record of the feed; those about other objects are passed over.
    async fn apply(&self, record: &Record) {
        let Some((tenant, name)) = rule_key(record) else { return };
        let key: RuleKey = (tenant, name);
        let _deciding = self.deciding.lock().await;
        match word(record) {
            Err(error) => tracing::error!(rule = key.1, %error, "a change of the registry cannot be read"),
            Ok(Word::Gone) => {
                self.set(|rules| rules.remove(&key.0, &key.1));
                self.board.removed(&key);
            }
            Ok(Word::Put(rule)) => self.put(key, &rule).await,
        }
    }

    async fn put(&self, key: RuleKey, rule: &wire::Rule) {
        let generation = rule.meta.as_ref().map_or(0, |meta| meta.generation);
        let (holds, reason, message) = match self.accept(&key, rule).await {
            Ok(definition) => {
                self.set(|rules| rules.put(definition));
                (true, "Accepted", String::new())
            }
            Err((reason, message)) => {
                self.set(|rules| rules.remove(&key.0, &key.1));
                (false, reason, message)
            }
        };
        tracing::info!(tenant = %key.0, rule = key.1, generation, reason, message, "rule observed");
        let accepted = Condition { holds, reason: reason.to_owned(), message, since_ms: self.clock.now_ms() };
        self.board.observed(key, generation, accepted);
    }

    /// Compiles the rule and makes its topics; the error is a condition's reason and message.
    async fn accept(&self, key: &RuleKey, rule: &wire::Rule) -> Result<Definition, (&'static str, String)> {
        let invalid = |error: ApiError| {
            let field = error.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
            ("Invalid", format!("{field}{}", error.message))
        };
        let spec = RuleSpec::try_from(rule).map_err(invalid)?;
        let definition = Definition::compile(key.0.clone(), &key.1, &spec).map_err(invalid)?;
        for (topic, partitions) in definition.output_topics() {
            if self.set(|rules| rules.other_writer(&key.0, topic).is_some()) {
                return Err(("TopicTaken", format!("topic {topic} belongs to another tenant")));
            }
            self.topic(topic, partitions).await?;
        }
        Ok(definition)
    }

    async fn topic(&self, topic: &str, partitions: u32) -> Result<(), (&'static str, String)> {
        let never = Shutdown::new();
        let mut backoff = Backoff::default();
        let mut failure = String::new();
        for _ in 0..CREATE_TRIES {
            let outcome = if self.create_topics {
                topics::make(&*self.bus, topic, partitions, None).await.map(|()| true)
            } else {
                self.bus.topics().await.map(|known| known.iter().any(|config| &*config.topic == topic))
            };
            match outcome {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(("TopicMissing", format!("topic {topic} does not exist"))),
                Err(error) => failure = error.to_string(),
            }
            backoff.wait(&never).await;
        }
        Err(("TopicFailed", format!("topic {topic} cannot be made: {failure}")))
    }
}

/// Tenant and name, if the record is about a rule.
fn rule_key(record: &Record) -> Option<RuleKey> {
    let key = std::str::from_utf8(record.key.as_ref()?).ok()?;
    let (tenant, name) = key.strip_prefix("rule/")?.split_once('/')?;
    Some((TenantId::new(tenant).ok()?, name.to_owned()))
}

fn word(record: &Record) -> Result<Word, prost::DecodeError> {
    let Some(value) = &record.value else { return Ok(Word::Gone) };
    let after = Change::decode(value.clone())?.after.and_then(|after| after.object);
    Ok(match after {
        Some(object::Object::Rule(rule)) => Word::Put(Box::new(rule)),
        Some(
            object::Object::Device(_)
            | object::Object::Credential(_)
            | object::Object::Policy(_)
            | object::Object::ApiToken(_),
        )
        | None => Word::Gone,
    })
}
