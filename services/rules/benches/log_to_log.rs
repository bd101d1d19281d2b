//! What a core does of messages from log to log: 256 bytes of JSON through one rule, filter and project, into a topic; and
//! the same with 10,000 other rules in force. Prints, and judges nothing but that each message comes out once.
//!
//! The embedded log is filled first. Counted is the processor time of the whole process from the first commit of the
//! engine to the last: reading, repeats, evaluation, and transactions with their syncs.

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/it/world.rs"]
mod world;

use std::ops::Range;
use std::time::Duration;

use cpu_time::ProcessTime;
use drover_bus::Outgoing;
use drover_types::TELEMETRY_TOPIC;
use drover_types::limits::RULES_PER_TENANT_MAX;
use serde_json::{Value, json};
use tokio::time::Instant;

use world::{World, message, outgoing, rule_change, until};

const MESSAGES: u64 = 300_000;
const DEVICES: u64 = 200;
/// Of each message, in bytes.
const PAYLOAD_BYTES: usize = 256;
/// Records of one append.
const APPENDED: u64 = 1_000;
/// Tenants with as many other rules as a tenant may have: the one whose messages they are, and nine more.
const TENANTS: Range<usize> = 0..10;
/// Runs of which the fastest counts: others of this machine are not what is measured.
const RUNS: usize = 3;
const OUTPUT: &str = "home.out";

/// What a run came to.
struct Cost {
    messages: u64,
    processor: Duration,
    wall: Duration,
}

impl Cost {
    /// Messages a second of one core.
    fn per_core(&self) -> f64 {
        self.messages as f64 / self.processor.as_secs_f64()
    }

    fn tell(&self, what: &str) {
        let us = self.processor.as_secs_f64() * 1e6 / self.messages as f64;
        let wall = self.messages as f64 / self.wall.as_secs_f64();
        println!("{what}: {:.0} msg/s a core, {us:.2} µs of processor a message, {wall:.0} msg/s", self.per_core());
    }
}

fn rule(filter: &str, topic: &str) -> Value {
    let sql = format!(
        "SELECT temperature, battery.volts AS volts, topic(2) AS device, timestamp() AS at FROM '{filter}' \
         WHERE temperature > 30"
    );
    json!({"sql": sql, "actions": [{"kafka": {"topic": topic}}]})
}

/// The other rules of a tenant: beside the topics that are published to, as near as may be.
fn others(tenant: usize) -> Vec<Outgoing> {
    let name = if tenant == 0 { "home".to_owned() } else { format!("away-{tenant}") };
    let one = |n: usize| {
        let spec = rule(&format!("sensors/other-{n}/+"), &format!("{name}.other"));
        rule_change((&name, &format!("other-{n}")), 1, 1, Some(spec))
    };
    // One place of the first tenant is that of the rule whose messages these are.
    (usize::from(tenant == 0)..RULES_PER_TENANT_MAX).map(one).collect()
}

/// Message `n` of all.
fn payload(n: u64) -> String {
    let begun = format!(
        "{{\"temperature\":31.25,\"humidity\":48.5,\"pressure\":1013.25,\"battery\":{{\"volts\":3.71,\"percent\":88}},\
         \"firmware\":\"1.4.2-rc1\",\"seq\":{n},\"tags\":[\"roof\",\"north\"],\"note\":\""
    );
    let left = PAYLOAD_BYTES - begun.len() - "\"}".len();
    format!("{begun}{}\"}}", "x".repeat(left))
}

async fn fill(world: &World) {
    for first in (0..MESSAGES).step_by(APPENDED as usize) {
        let one = |n: u64| {
            let number = u16::try_from(n / DEVICES + 1).expect("a packet id");
            outgoing(message(&format!("dev-{:03}", n % DEVICES), number, &payload(n)))
        };
        world.append((first..first + APPENDED).map(one).collect()).await;
    }
}

/// Messages that the engine is through with.
async fn done(world: &World) -> u64 {
    let committed = world.bus.committed(drover_rules::GROUP, TELEMETRY_TOPIC).await.expect("offsets");
    committed.iter().map(|position| position.offset).sum()
}

/// One run over a log of its own.
async fn measure(tenants: Range<usize>) -> Cost {
    let (world, _directory) = World::embedded().await;
    world.append(vec![rule_change(("home", "wanted"), 1, 1, Some(rule("sensors/+", OUTPUT)))]).await;
    for tenant in tenants {
        world.append(others(tenant)).await;
    }
    fill(&world).await;
    let running = world.start("a");
    until("the first commit", async || done(&world).await > 0).await;
    let (before, processor, wall) = (done(&world).await, ProcessTime::now(), Instant::now());
    world.drained().await;
    let (processor, wall) = (processor.elapsed(), wall.elapsed());
    running.stop().await;
    let written = drover_bus::bounds(&*world.bus, OUTPUT).await.expect("bounds").expect("the topic is there");
    let written: u64 = written.iter().map(|(_, bounds)| bounds.end).sum();
    assert_eq!(written, MESSAGES, "each message comes out once");
    Cost { messages: MESSAGES - before, processor, wall }
}

/// The run that cost least.
fn fastest(runtime: &tokio::runtime::Runtime, tenants: &Range<usize>) -> Cost {
    let runs = (0..RUNS).map(|_| runtime.block_on(measure(tenants.clone())));
    runs.max_by(|a, b| a.per_core().total_cmp(&b.per_core())).expect("there is a run")
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let alone = fastest(&runtime, &(0..0));
    alone.tell("log to log, one rule");
    let among = fastest(&runtime, &TENANTS);
    among.tell("log to log, with 10,000 other rules");
    println!("that is {:.1} % less", 100.0 * (1.0 - among.per_core() / alone.per_core()));
}
