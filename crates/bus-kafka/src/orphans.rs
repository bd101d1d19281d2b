//! Partitions that a group has given to nobody.
//!
//! The cooperative protocol moves a partition in two steps: its holder gives it up and joins again, then the group gives
//! it to another (KIP-429). A static member that ends between the two and comes back is let in without a new generation
//! (KIP-345): nobody joins again, and what it was to give up stays with nobody. So each member looks at its group now
//! and then, and where that is so, a visitor who joins and leaves makes the group decide anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, TryGetError};
use drover_bus::{GroupConfig, Partition, Topic, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::time::Instant;

use crate::ask::{Asker, blocking, words};
use crate::options::KafkaOptions;
use crate::voice::Plain;

/// Between two looks at a group; what nobody has at two looks in a row is an orphan, and not just on its way.
const LOOK: Duration = Duration::from_secs(5);
/// The longest, after looks that failed and visits that did not help: each doubles the time to the next.
const LOOK_MAX: Duration = Duration::from_secs(320);
/// Longest wait for the answer about a group, which every broker is asked for.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a visitor stays at most.
const VISIT: Duration = Duration::from_secs(5);
/// Wait of one poll of a visitor.
const VISIT_POLL: Duration = Duration::from_millis(100);
/// State of a group in which every member knows what it has.
const STABLE: &str = "Stable";

/// Looks after the group of a member, for as long as there is the member.
pub(crate) async fn watch(options: KafkaOptions, asker: Arc<Asker>, of: GroupConfig) {
    let (mut before, mut pause) = (BTreeSet::new(), LOOK);
    loop {
        tokio::time::sleep(pause).await;
        let now = match look(&asker, &of).await {
            Ok(now) => now,
            Err(reason) => {
                tracing::debug!(group = of.group, reason, "kafka: the group cannot be looked at");
                before.clear();
                pause = LOOK_MAX.min(pause * 2);
                continue;
            }
        };
        let orphans = before.intersection(&now).count();
        if now.is_empty() {
            pause = LOOK;
        }
        before = now;
        if orphans > 0 {
            tracing::warn!(group = of.group, orphans, "kafka: nobody has these partitions; the group decides anew");
            before.clear();
            pause = LOOK_MAX.min(pause * 2);
            if let Err(error) = visit(&options, &asker, &of).await {
                tracing::debug!(group = of.group, %error, "kafka: no visit");
            }
        }
    }
}

/// Partitions of the group's topics that no member has, while the group is at rest.
async fn look(asker: &Arc<Asker>, of: &GroupConfig) -> Result<BTreeSet<TopicPartition>, String> {
    let mut all = BTreeSet::new();
    for topic in &of.topics {
        let partitions = asker.look(topic).await?.unwrap_or_default(); // it may have been made anew
        all.extend((0..partitions).map(|partition| TopicPartition::new(topic.clone(), partition)));
    }
    let (asking, group) = (asker.clone(), of.group.clone());
    let given = blocking(move || given(&asking, &group)).await.map_err(|error| words(&error))?;
    Ok(given.map(|given| all.difference(&given).cloned().collect()).unwrap_or_default())
}

/// What the members of a group have; `None` while that is being decided. Blocks.
fn given(asker: &Asker, group: &str) -> Result<Option<BTreeSet<TopicPartition>>, KafkaError> {
    let list = asker.client().fetch_group_list(Some(group), ANSWER)?;
    let Some(group) = list.groups().iter().find(|found| found.name() == group && found.state() == STABLE) else {
        return Ok(None);
    };
    let mut given = BTreeSet::new();
    for member in group.members() {
        match assignment(member.assignment().unwrap_or_default()) {
            Ok(partitions) => given.extend(partitions),
            Err(error) => {
                tracing::debug!(%error, member = member.id(), "kafka: an assignment that cannot be read");
                return Ok(None);
            }
        }
    }
    Ok(Some(given))
}

/// Reads a `ConsumerProtocolAssignment` of Kafka's protocol guide: version, topics with partitions, data of the assignor.
fn assignment(mut bytes: &[u8]) -> Result<Vec<TopicPartition>, TryGetError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut partitions = Vec::new();
    let _version = bytes.try_get_i16()?;
    for _ in 0..bytes.try_get_i32()? {
        let mut name = vec![0; usize::try_from(bytes.try_get_i16()?).unwrap_or_default()];
        bytes.try_copy_to_slice(&mut name)?;
        let topic = Topic::from(&*String::from_utf8_lossy(&name));
        for _ in 0..bytes.try_get_i32()? {
            let partition = Partition::try_from(bytes.try_get_i32()?).unwrap_or_default();
            partitions.push(TopicPartition::new(topic.clone(), partition));
        }
    }
    Ok(partitions)
}

/// Joins the group for a moment, as a member of no name.
async fn visit(options: &KafkaOptions, asker: &Asker, of: &GroupConfig) -> Result<(), KafkaError> {
    let (config, voice) = (options.visitor(&of.group), Plain(asker.voice().clone()));
    let topics = of.topics.clone();
    blocking(move || {
        let visitor: BaseConsumer<Plain> = config.create_with_context(voice)?;
        visitor.subscribe(&topics.iter().map(|topic| &**topic).collect::<Vec<_>>())?;
        let until = Instant::now() + VISIT;
        while Instant::now() < until && visitor.assignment()?.count() == 0 {
            if let Some(Err(error)) = visitor.poll(VISIT_POLL) {
                tracing::debug!(%error, "kafka: visitor");
            }
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_reads_as_topics_and_partitions_and_a_torn_one_not_at_all() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 2];
        bytes.extend(b"ab");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]);
        let expected = [0, 7].map(|partition| TopicPartition::new("ab", partition));
        assert_eq!(assignment(&bytes).expect("reads"), expected);
        assert_eq!(assignment(&[]).expect("nothing is assigned"), []);
        for end in 1..bytes.len() - 4 {
            assert!(assignment(&bytes[..end]).is_err(), "{end}");
        }
    }
}
