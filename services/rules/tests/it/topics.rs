//! The topics that the service lives on: those of others are waited for, what does not fit ends it.

use drover_bus::TopicConfig;
use drover_rules::STATE_TOPIC;
use drover_types::TELEMETRY_TOPIC;

use crate::world::{World, until};

fn config(topic: &str, partitions: u32, compact: bool) -> TopicConfig {
    TopicConfig { topic: topic.into(), partitions, compact, retention_ms: None, retention_bytes: None }
}

#[tokio::test]
async fn a_topic_of_another_service_that_is_missing_is_waited_for_by_its_name() {
    let (world, _dir) = World::embedded().await;
    world.bus.delete_topic(TELEMETRY_TOPIC).await.expect("deleted");
    let running = world.start("a");
    let told = [("rules", "topic drover.telemetry does not exist yet".to_owned())];
    until("told what is missing", async || running.health.obstacles() == told).await;
    world.bus.create_topic(config(TELEMETRY_TOPIC, 4, false)).await.expect("made");
    until("ready", async || running.health.obstacles().is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn states_in_another_number_of_partitions_end_the_service_with_one_line() {
    let (world, _dir) = World::embedded().await;
    world.bus.create_topic(config(STATE_TOPIC, 3, true)).await.expect("made");
    let error = format!("{:#}", world.start("a").failed().await);
    let why = "topic drover.rules.state exists with 3 partitions, 4 were asked for";
    assert_eq!(error, format!("the topics of the rules service cannot be made: {why}"));
}
