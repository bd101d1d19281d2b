//! Two members of a group that copy what a load appends, exactly once, while the cluster is harmed.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, Topic};
use drover_bus_kafka::KafkaBus;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::load::{Load, PARTITIONS, check};
use super::turn::Turn;
use crate::broker::{topic, within};
use crate::exactly_once::Copier;

/// Their names.
const MEMBERS: [&str; 2] = ["a", "b"];
/// Pause before it is looked again how far they are.
const LOOK: Duration = Duration::from_millis(200);

/// The copies of a load's records.
pub struct Copies {
    bus: KafkaBus,
    group: String,
    input: Topic,
    output: Topic,
    alive: watch::Sender<bool>,
    members: Vec<JoinHandle<()>>,
}

impl Copies {
    /// Begins to copy into a topic of this name, each member on a bus of its own.
    pub async fn start(turn: &Turn, load: &Load, name: &str) -> Self {
        let bus = turn.bus();
        let (group, input, output) = (name.to_owned(), load.topic.clone(), topic(&bus, name, PARTITIONS).await);
        let alive = watch::channel(true).0;
        let member = |name| {
            let (group, input, output) = (group.clone(), input.clone(), output.clone());
            tokio::spawn(Arc::new(Copier { bus: turn.bus(), name, group, input, output }).run(alive.subscribe()))
        };
        let members = MEMBERS.into_iter().map(member).collect();
        Self { bus, group, input, output, alive, members }
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    /// That of one of them.
    pub fn transactional_id(&self) -> String {
        format!("{}-{}", self.group, MEMBERS[0])
    }

    /// Returns when all that is acknowledged by now is copied, and some more; how long that took.
    pub async fn go_on(&self, load: &Load) -> Duration {
        let since = Instant::now();
        self.reach(load.acknowledged() + 1).await;
        since.elapsed()
    }

    /// Returns when so many records are copied: their offsets are committed with their copies.
    async fn reach(&self, count: usize) {
        within(async {
            loop {
                let committed = self.bus.committed(&self.group, &self.input).await.unwrap_or_default();
                if committed.iter().map(|next| next.offset).sum::<u64>() >= count as u64 {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
    }

    /// Ends the load, and when all of it is copied the members; fails unless everything is there in order, each once.
    pub async fn end(self, load: Load) {
        let counts = load.end().await;
        self.reach(counts.iter().sum()).await;
        self.alive.send_replace(false);
        for member in self.members {
            within(member).await.expect("no panic");
        }
        // Nobody copies any more: what came twice is there.
        check(&self.bus, &self.output, &counts).await;
    }
}
