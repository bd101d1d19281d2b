//! Devices that number what they send, at a pace, and redeliver like paho: the sending side of the ledger.
//!
//! Each keeps to one ingress, as a device with one host name does; its session and packet ids outlive connections.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use drover_load::client::Client;
use drover_load::ledger::{Ledger, Totals};
use drover_mqtt::Version;
use drover_types::{Qos, TELEMETRY_TOPIC};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::read_committed;

/// How long a device tries to come back.
const RECONNECT_FOR: Duration = Duration::from_secs(600);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Who sends how much.
#[derive(Clone)]
pub struct Plan {
    /// Devices are named by it and a number.
    pub prefix: &'static str,
    /// MQTT ports; devices take them in turn.
    pub ports: Vec<u16>,
    pub devices: usize,
    pub messages: u64,
    /// Between two messages of a device; one that falls behind hurries.
    pub pace: Duration,
    /// Unacknowledged messages of a device.
    pub window: NonZeroU16,
    /// A server that is silent for twice as long is left.
    pub keep_alive_s: u16,
}

impl Plan {
    /// The window is paho's; the keep-alive is short, so that a hung ingress is left while it hangs.
    pub fn new(ports: Vec<u16>, devices: usize, messages: u64, pace: Duration) -> Self {
        let window = NonZeroU16::new(20).expect("20 is not 0");
        Self { prefix: "dev", ports, devices, messages, pace, window, keep_alive_s: 10 }
    }
}

/// A fleet on a thread of its own.
pub struct Fleet {
    ledger: Arc<Mutex<Ledger>>,
    /// Asked for often: counted beside the books.
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Fleet {
    /// How many records of `dev-N` the log holds, repeats among them.
    pub fn kept(brokers: &str) -> anyhow::Result<u64> {
        let records = read_committed(brokers, TELEMETRY_TOPIC)?;
        Ok(records.iter().filter(|record| record.key.starts_with("default/dev-")).count() as u64)
    }

    /// Starts all devices: `dev-N` publishes `{"device": "dev-N", "n": …}` to `fleet/dev-N` at QoS 1, if the prefix is
    /// `dev`.
    pub fn start(plan: Plan) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let books = Books { ledger: ledger.clone(), acknowledged: acknowledged.clone() };
        Self { ledger, acknowledged, thread: std::thread::spawn(move || run(&plan, &books)) }
    }

    /// What is sent and acknowledged so far.
    pub fn totals(&self) -> Totals {
        lock(&self.ledger).totals()
    }

    /// How many messages are acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether every message is acknowledged, or a device has failed.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The books, once all devices have ended; the first failure of one.
    pub fn finish(self) -> anyhow::Result<Ledger> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the fleet panicked"))??;
        Ok(lock(&self.ledger).clone())
    }
}

/// What devices book in.
#[derive(Clone)]
struct Books {
    ledger: Arc<Mutex<Ledger>>,
    acknowledged: Arc<AtomicU64>,
}

impl Books {
    fn sent(&self, device: &str) -> u64 {
        lock(&self.ledger).sent(device)
    }

    fn acknowledged(&self, device: &str, number: u64) {
        lock(&self.ledger).acknowledged(device, number);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(plan: &Plan, books: &Books) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut devices = JoinSet::new();
        for number in 0..plan.devices {
            let port = plan.ports[number % plan.ports.len()];
            devices.spawn(device(format!("{}-{number}", plan.prefix), port, plan.clone(), books.clone()));
        }
        while let Some(ended) = devices.join_next().await {
            ended??;
        }
        Ok(())
    })
}

async fn device(name: String, port: u16, plan: Plan, books: Books) -> anyhow::Result<()> {
    let client = connect(&name, port, &plan).await.with_context(|| name.clone())?;
    let (publisher, topic, mut pace) = (client.publisher(), format!("fleet/{name}"), interval(plan.pace));
    let mut acknowledgements = JoinSet::new();
    for _ in 0..plan.messages {
        pace.tick().await;
        let number = books.sent(&name);
        let payload = json!({"device": name, "n": number}).to_string();
        let pending =
            publisher.start(&topic, payload.as_bytes(), Qos::AtLeastOnce).await.with_context(|| name.clone())?;
        let (books, name) = (books.clone(), name.clone());
        acknowledgements.spawn(async move {
            pending.acknowledged().await.with_context(|| format!("{name} #{number}"))?;
            books.acknowledged(&name, number);
            anyhow::Ok(())
        });
        while let Some(settled) = acknowledgements.try_join_next() {
            settled??;
        }
    }
    while let Some(settled) = acknowledgements.join_next().await {
        settled??;
    }
    client.disconnect().await;
    Ok(())
}

async fn connect(name: &str, port: u16, plan: &Plan) -> anyhow::Result<Client> {
    let mut options = crate::options(port, Version::V311, name)?;
    let mqtt = &mut options.mqtt;
    (mqtt.window, mqtt.keep_alive_s, mqtt.clean_start) = (plan.window, plan.keep_alive_s, false);
    options.reconnect_for = RECONNECT_FOR;
    let since = Instant::now();
    loop {
        match Client::connect(options.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) => ensure!(since.elapsed() < RECONNECT_FOR, "could not connect: {error}"),
        }
        sleep(RECONNECT_PAUSE).await;
    }
}
