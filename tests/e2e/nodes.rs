//! Two ingress nodes, and three in `killed`, over a real Kafka and a real Cassandra: one owner of each session, presence that never contradicts
//! itself (P4), messages that reach the subscribers of every node, and one member of a shared subscription.

#![expect(clippy::disallowed_methods, reason = "processes are waited for in real time, and there is no runtime here")]

mod killed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use drover_load::client::{Client, ConnectionError};
use drover_load::presence::{Told, contradiction};
use drover_mqtt::client::ClientError;
use drover_mqtt::{ReasonCode, Version};
use drover_tests::{Backends, Processes, options, read_committed};
use drover_types::Qos;
use serde_json::Value;
use tokio::runtime::Runtime;

const NODES: [&str; 3] = ["ingress-0", "ingress-1", "ingress-2"];
/// Their MQTT ports, as configured.
const PORTS: [u16; 3] = [1883, 1884, 1885];
/// Messages of the way from one node to the other.
const MESSAGES: u32 = 500;
/// Persistent sessions of a node that is killed.
const KEEPERS: usize = 40;
/// What a lease (3 s), the look for it and a loaded machine take.
const GONE_MAX: Duration = Duration::from_secs(30);

/// The platform, and what it stands on.
struct Stage {
    processes: Processes,
    backends: Backends,
    runtime: Runtime,
    /// Ingress nodes; two but for `killed`.
    nodes: u16,
}

/// Two nodes. `None` where a server cannot be had.
fn stage() -> anyhow::Result<Option<Stage>> {
    stage_of(2)
}

fn stage_of(nodes: u16) -> anyhow::Result<Option<Stage>> {
    let Some(backends) = Backends::start()? else { return Ok(None) };
    let settings = [
        ("DROVER_CASSANDRA__REPLICATION", "1"),
        ("DROVER_CASSANDRA__REQUEST_TIMEOUT", "10s"),
        ("DROVER_INGRESS__OWNERS__KIND", "cassandra"),
        ("DROVER_INGRESS__STORE__KIND", "cassandra"),
        ("DROVER_INGRESS__TIMEOUTS__OWNERSHIP", "2s"),
    ];
    let mut environment = backends.environment();
    environment.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let processes = Processes::prepare_nodes(environment, nodes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(Some(Stage { processes, backends, runtime, nodes }))
}

impl Stage {
    /// Starts the registry and all nodes.
    fn start_all(&mut self) -> anyhow::Result<()> {
        self.processes.start("registry")?;
        for name in &NODES[..usize::from(self.nodes)] {
            self.processes.start(name)?;
        }
        self.processes.until_ready()
    }

    fn start(&mut self, name: &str) -> anyhow::Result<()> {
        self.processes.start(name)?;
        self.processes.until_ready()
    }

    /// Connects once, and not again.
    fn connect(&self, node: usize, version: Version, client: &str) -> Result<Client, ConnectionError> {
        let mut options = options(self.processes.port(PORTS[node]), version, client).expect("a URL");
        options.reconnect_for = Duration::ZERO;
        self.runtime.block_on(Client::connect(options))
    }

    /// Connects a client whose session outlives the connection.
    fn resume(&self, node: usize, client: &str) -> Result<Client, ConnectionError> {
        let mut options = options(self.processes.port(PORTS[node]), Version::V5, client).expect("a URL");
        options.reconnect_for = Duration::ZERO;
        (options.mqtt.clean_start, options.mqtt.session_expiry_s) = (false, 600);
        self.runtime.block_on(Client::connect(options))
    }

    /// Publishes numbers to `inbox/n`; returns when all are acknowledged.
    fn publish(&self, node: usize, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
        let publisher = self.connect(node, Version::V311, "publisher")?;
        self.runtime.block_on(async {
            for n in numbers {
                publisher.publish("inbox/n", n.to_string().as_bytes(), Qos::AtLeastOnce).await?;
            }
            publisher.disconnect().await;
            Ok(())
        })
    }

    /// Receives these numbers in order, and goes; what came before may come again.
    fn receive(&self, mut client: Client, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut got: Vec<u32> = Vec::new();
            while got.len() < numbers.len() {
                let message = tokio::time::timeout(Duration::from_secs(30), client.next_message()).await;
                let message = message.with_context(|| format!("after {got:?}"))?.context("connected")?;
                let number = String::from_utf8(message.payload)?.parse()?;
                if number >= numbers.start && !got.contains(&number) {
                    got.push(number);
                }
            }
            assert_eq!(got, numbers.collect::<Vec<_>>());
            client.disconnect().await;
            Ok(())
        })
    }

    /// The numbers a client has got until its connection ended.
    fn drain(&self, mut client: Client) -> anyhow::Result<Vec<u32>> {
        self.runtime.block_on(async {
            let mut numbers = Vec::new();
            while let Some(message) = client.next_message().await {
                numbers.push(String::from_utf8(message.payload)?.parse()?);
            }
            Ok(numbers)
        })
    }

    /// Why the connection has ended.
    fn end(&self, client: Client) -> anyhow::Result<ConnectionError> {
        let ended = async { tokio::time::timeout(Duration::from_secs(30), client.closed()).await };
        self.runtime.block_on(ended).context("the connection stays open")
    }

    /// The lifecycle events so far by client: type, epoch, node and reason.
    fn all_events(&self) -> anyhow::Result<BTreeMap<String, Vec<Event>>> {
        let mut all: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for output in read_committed(&self.backends.kafka.brokers(), "drover.events")? {
            let event: Value = serde_json::from_str(&output.value)?;
            let client = event["clientId"].as_str().context("a client")?.to_owned();
            all.entry(client).or_default().push(Event::read(&event)?);
        }
        Ok(all)
    }

    /// Those of one client.
    fn events(&self, client: &str) -> anyhow::Result<Vec<Event>> {
        Ok(self.all_events()?.remove(client).unwrap_or_default())
    }

    /// Waits until the client's last event is of this type and node; how long that took.
    fn until_last(&mut self, client: &str, connected: bool, node: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let last = self.events(client)?.pop();
            if last.as_ref().is_some_and(|last| last.connected == connected && last.node == node) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < GONE_MAX, "{client}: the last event is {last:?}");
        }
    }
}

#[derive(Debug, PartialEq)]
struct Event {
    connected: bool,
    epoch: u64,
    node: String,
    reason: Option<String>,
}

impl Event {
    fn read(event: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            connected: event["eventType"] == "connected",
            epoch: event["epoch"].as_u64().context("an epoch")?,
            node: event["node"].as_str().context("a node")?.to_owned(),
            reason: event["disconnectReason"].as_str().map(str::to_owned),
        })
    }
}

/// No event contradicts the one before, and the first is a connection.
fn assert_never_contradicts(client: &str, events: &[Event]) {
    let mut before = None;
    for event in events {
        let now = Told { connected: event.connected, epoch: event.epoch };
        assert_eq!(contradiction(before, now), None, "{client}: {events:?}");
        before = Some(now);
    }
}

#[test]
fn a_device_that_moves_between_nodes_has_one_connection_and_presence_that_never_contradicts_itself()
-> anyhow::Result<()> {
    let Some(mut stage) = stage()? else { return Ok(()) };
    stage.start_all()?;
    // Of boot numbers alone, those of the first node would be higher from now on.
    for _ in 0..2 {
        stage.processes.kill("ingress-0")?;
        stage.start("ingress-0")?;
    }

    // Back and forth: each time the former connection is closed, in the words of its version.
    let mut holder: Option<Client> = None;
    for (turn, version) in [Version::V5, Version::V5, Version::V311, Version::V5, Version::V5].into_iter().enumerate() {
        let client = stage.connect(turn % 2, version, "mover")?;
        if let Some(former) = holder.replace(client) {
            let end = stage.end(former)?;
            let expected = match turn {
                3 => matches!(end, ConnectionError::Closed | ConnectionError::Io(_)), // 3.1.1 knows no DISCONNECT
                _ => matches!(end, ConnectionError::Disconnected(ReasonCode::SessionTakenOver)),
            };
            assert!(expected, "turn {turn}: {end}");
        }
    }
    stage.until_last("mover", true, NODES[0])?;

    // Its node is killed, and it goes to the other one at once.
    stage.processes.kill("ingress-0")?;
    let mover = stage.connect(1, Version::V5, "mover")?;
    stage.until_last("mover", true, NODES[1])?;
    stage.start("ingress-0")?;

    // A node that is killed and stays away: its sessions end by themselves.
    let silent = stage.connect(1, Version::V5, "silent")?;
    stage.until_last("silent", true, NODES[1])?;
    stage.processes.kill("ingress-1")?;
    let took = stage.until_last("silent", false, NODES[1])?;
    println!("kill -9 of a node to `disconnected` of its devices: {took:?}");
    for client in [mover, silent] {
        stage.end(client)?;
    }
    let last = stage.events("silent")?.pop().context("an event")?;
    assert_eq!(last.reason.as_deref(), Some("node_lost"));
    stage.until_last("mover", false, NODES[1])?;
    let mover = stage.connect(0, Version::V5, "mover")?;
    stage.until_last("mover", true, NODES[0])?;
    stage.start("ingress-1")?;

    // Without the database nobody is admitted, and who is connected stays so.
    stage.backends.cassandra.hang();
    let began = Instant::now();
    let refused = stage.connect(1, Version::V5, "mover").err().context("admitted without an owner")?;
    let unavailable = ConnectionError::Mqtt(ClientError::Refused(ReasonCode::ServerUnavailable)).to_string();
    assert_eq!(refused.to_string(), unavailable);
    println!("CONNECT while Cassandra hangs: refused after {:?}", began.elapsed());
    stage.runtime.block_on(mover.publish("still/there", b"x", Qos::AtLeastOnce))?;
    stage.backends.cassandra.resume();
    let began = Instant::now();
    let back = loop {
        match stage.connect(1, Version::V5, "mover") {
            Ok(back) => break back,
            Err(error) => ensure!(began.elapsed() < GONE_MAX, "{error}"),
        }
    };
    assert!(matches!(stage.end(mover)?, ConnectionError::Disconnected(ReasonCode::SessionTakenOver)));
    stage.until_last("mover", true, NODES[1])?;
    stage.runtime.block_on(back.disconnect());
    stage.until_last("mover", false, NODES[1])?;

    for client in ["mover", "silent"] {
        let events = stage.events(client)?;
        assert_never_contradicts(client, &events);
        println!("{client}: {} events", events.len());
    }
    stage.processes.stop()
}

#[test]
fn what_is_published_on_one_node_reaches_the_subscribers_of_the_other() -> anyhow::Result<()> {
    let Some(mut stage) = stage()? else { return Ok(()) };
    stage.start_all()?;
    let mut subscriber = stage.connect(1, Version::V5, "subscriber")?;
    stage.runtime.block_on(subscriber.subscribe("fleet/+", Qos::AtLeastOnce))?;
    let publishers = [stage.connect(0, Version::V5, "a")?, stage.connect(0, Version::V311, "b")?];
    stage.runtime.block_on(async {
        for (device, publisher) in ["a", "b"].into_iter().zip(&publishers) {
            let topic = format!("fleet/{device}");
            let mut pending = Vec::new();
            for n in 0..MESSAGES {
                let payload = n.to_string();
                pending.push(publisher.publisher().start(&topic, payload.as_bytes(), Qos::AtLeastOnce).await?);
            }
            for pending in pending {
                pending.acknowledged().await?;
            }
        }
        // All are acknowledged, so all are in the subscriber's session.
        let mut got: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for _ in 0..2 * MESSAGES {
            let message = tokio::time::timeout(Duration::from_secs(10), subscriber.next_message()).await;
            let message = message.context("a message is missing")?.context("connected")?;
            got.entry(message.topic).or_default().push(String::from_utf8(message.payload)?.parse()?);
        }
        let all: Vec<u32> = (0..MESSAGES).collect();
        let expected = ["fleet/a", "fleet/b"].map(|topic| (topic.to_owned(), all.clone()));
        assert_eq!(got, BTreeMap::from(expected), "each once and in order");
        anyhow::Ok(())
    })?;

    // The subscriber's node dies: publishers wait for its lease, and not beyond.
    stage.processes.kill("ingress-1")?;
    let began = Instant::now();
    stage.runtime.block_on(publishers[0].publish("fleet/a", b"0", Qos::AtLeastOnce))?;
    println!("PUBACK while another node dies: after {:?}", began.elapsed());
    let began = Instant::now();
    stage.runtime.block_on(publishers[0].publish("fleet/a", b"0", Qos::AtLeastOnce))?;
    println!("PUBACK when it is known to be away: after {:?}", began.elapsed());

    // It is back: who subscribes there has the very next message.
    stage.start("ingress-1")?;
    let mut subscriber = stage.connect(1, Version::V5, "subscriber")?;
    stage.runtime.block_on(async {
        subscriber.subscribe("fleet/+", Qos::AtMostOnce).await?;
        publishers[1].publish("fleet/b", b"back", Qos::AtLeastOnce).await?;
        let message = tokio::time::timeout(Duration::from_secs(10), subscriber.next_message()).await;
        assert_eq!(message.context("missing")?.context("connected")?.payload, b"back");
        anyhow::Ok(())
    })
}

#[test]
fn a_persistent_session_moves_with_its_client_and_outlives_its_nodes() -> anyhow::Result<()> {
    let Some(mut stage) = stage()? else { return Ok(()) };
    stage.start_all()?;
    let keeper = stage.resume(1, "keeper")?;
    stage.runtime.block_on(async {
        keeper.subscribe("inbox/#", Qos::AtLeastOnce).await?;
        keeper.disconnect().await;
        anyhow::Ok(())
    })?;
    stage.publish(0, 0..100)?;
    stage.receive(stage.resume(0, "keeper")?, 0..100)?;

    // Its node is killed while it is away: it has everything at the other one.
    stage.publish(1, 100..200)?;
    stage.processes.kill("ingress-0")?;
    stage.receive(stage.resume(1, "keeper")?, 100..200)?;

    // So has it when its node is back.
    stage.publish(1, 200..300)?;
    stage.processes.kill("ingress-1")?;
    stage.start("ingress-1")?;
    stage.publish(1, 300..400)?;
    stage.receive(stage.resume(1, "keeper")?, 200..400)
}

#[test]
fn what_is_published_while_a_node_is_gone_reaches_its_sessions_elsewhere() -> anyhow::Result<()> {
    let Some(mut stage) = stage()? else { return Ok(()) };
    stage.start_all()?;
    // When their node is killed one half is away and the other is connected.
    let names: Vec<String> = (0..KEEPERS).map(|n| format!("keeper-{n}")).collect();
    let mut connected = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let keeper = stage.resume(1, name)?;
        stage.runtime.block_on(async {
            keeper.subscribe("inbox/#", Qos::AtLeastOnce).await?;
            if n % 2 == 0 {
                keeper.disconnect().await;
            } else {
                connected.push(keeper);
            }
            anyhow::Ok(())
        })?;
    }
    stage.publish(0, 0..50)?;
    stage.processes.kill("ingress-1")?;
    let began = Instant::now();
    stage.publish(0, 50..51)?;
    println!("PUBACK until the {KEEPERS} sessions of a node that was killed are taken: after {:?}", began.elapsed());
    stage.publish(0, 51..100)?;
    for keeper in connected {
        stage.end(keeper)?;
    }
    for (n, name) in names.iter().enumerate() {
        // Those that were connected may have got the first.
        let first = if n % 2 == 0 { 0 } else { 50 };
        stage.receive(stage.resume(0, name)?, first..100)?;
    }
    // The node is back: it has none of them, and they can go there.
    stage.start("ingress-1")?;
    stage.publish(0, 100..150)?;
    for name in &names {
        stage.receive(stage.resume(1, name)?, 100..150)?;
    }
    Ok(())
}

#[test]
fn a_session_that_moves_back_and_forth_while_it_is_written_to_misses_nothing() -> anyhow::Result<()> {
    let Some(mut stage) = stage()? else { return Ok(()) };
    stage.start_all()?;
    let keeper = stage.resume(0, "keeper")?;
    stage.runtime.block_on(async {
        keeper.subscribe("inbox/#", Qos::AtLeastOnce).await?;
        keeper.disconnect().await;
        anyhow::Ok(())
    })?;
    let publisher = stage.connect(0, Version::V311, "publisher")?;
    let publishing = stage.runtime.spawn(async move {
        for n in 0..MESSAGES {
            publisher.publish("inbox/n", n.to_string().as_bytes(), Qos::AtLeastOnce).await?;
        }
        publisher.disconnect().await;
        anyhow::Ok(())
    });
    // Each time the former connection is taken over, and what it has got until then is looked at.
    let mut got = BTreeSet::new();
    let mut holder = stage.resume(1, "keeper")?;
    let mut turn = 0;
    while !publishing.is_finished() {
        let former = std::mem::replace(&mut holder, stage.resume(turn % 2, "keeper")?);
        got.extend(stage.drain(former)?);
        turn += 1;
    }
    stage.runtime.block_on(publishing)??;
    let former = std::mem::replace(&mut holder, stage.resume(turn % 2, "keeper")?);
    got.extend(stage.drain(former)?);
    println!("{MESSAGES} messages over {turn} moves");
    stage.runtime.block_on(async {
        while got.len() < MESSAGES as usize {
            let message = tokio::time::timeout(Duration::from_secs(30), holder.next_message()).await;
            let message = message.with_context(|| format!("{} of {MESSAGES}", got.len()))?.context("connected")?;
            got.insert(String::from_utf8(message.payload)?.parse()?);
        }
        anyhow::Ok(())
    })?;
    assert_eq!(got, (0..MESSAGES).collect::<BTreeSet<u32>>());
    Ok(())
}

#[test]
fn each_message_of_a_shared_subscription_reaches_one_member_of_all_nodes() -> anyhow::Result<()> {
    let Some(mut stage) = stage()? else { return Ok(()) };
    stage.start_all()?;
    let (here, there) = (stage.connect(0, Version::V5, "here")?, stage.connect(1, Version::V5, "there")?);
    for member in [&here, &there] {
        stage.runtime.block_on(member.subscribe("$share/group/inbox/n", Qos::AtLeastOnce))?;
    }
    stage.publish(0, 0..100)?;
    stage.publish(1, 100..200)?;
    stage.receive(here, 0..100)?;
    // Nobody is left on the publisher's node.
    stage.until_last("here", false, NODES[0])?;
    stage.publish(0, 200..300)?;
    stage.receive(there, 100..300)
}
