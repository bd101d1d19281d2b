//! Three ingress nodes, of which the one that holds all persistent sessions is killed while messages come for them.
//!
//! `DROVER_NODES_SESSIONS=2000` is the full form.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use drover_load::client::{Client, ConnectionError, Publisher};
use drover_mqtt::{ReasonCode, Version};
use drover_tests::{number, options, pause};
use drover_types::Qos;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Event, NODES, PORTS, Stage, assert_never_contradicts, stage_of};

/// Persistent sessions of the node that is killed; every other one is connected then.
const SESSIONS: usize = 40;
/// Messages for each of them: before its node is killed, and while it is.
const BEFORE: u32 = 2;
const MEANWHILE: u32 = 20;
/// Unacknowledged messages of the publisher; of one session at most one is among them, as what is inherited may come behind
/// later ones.
const WINDOW: usize = 100;
/// Clients that connect at the same time.
const AT_ONCE: usize = 32;
/// Wait before a client that was refused tries again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long any step may take, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(180);

fn name(number: usize) -> String {
    format!("keeper-{number}")
}

fn topic(number: usize) -> String {
    format!("own/{number}")
}

/// Connects a client whose session outlives the connection, again for a while where it is refused; how often it was.
async fn resume(port: u16, number: usize) -> anyhow::Result<(Client, usize)> {
    let mut options = options(port, Version::V5, &name(number))?;
    options.reconnect_for = Duration::ZERO;
    (options.mqtt.clean_start, options.mqtt.session_expiry_s) = (false, 600);
    let (began, mut refused) = (tokio::time::Instant::now(), 0);
    loop {
        match Client::connect(options.clone()).await {
            Ok(client) => return Ok((client, refused)),
            Err(error) => ensure!(began.elapsed() < PATIENCE, "{}: {error}", name(number)),
        }
        refused += 1;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Opens the sessions `0..count`, at these ports in turn; the clients in their order, and how often any was refused.
async fn resume_all(count: usize, ports: Vec<u16>, subscribe: bool) -> anyhow::Result<(Vec<Client>, usize)> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut resuming = JoinSet::new();
    for number in 0..count {
        let (permits, port) = (permits.clone(), ports[number % ports.len()]);
        resuming.spawn(async move {
            let _permit = permits.acquire().await?;
            let (client, refused) = resume(port, number).await?;
            if subscribe {
                client.subscribe(&topic(number), Qos::AtLeastOnce).await?;
            }
            anyhow::Ok((number, client, refused))
        });
    }
    let (mut opened, mut refused) = (BTreeMap::new(), 0);
    while let Some(resumed) = resuming.join_next().await {
        let (number, client, times) = resumed??;
        opened.insert(number, client);
        refused += times;
    }
    Ok((opened.into_values().collect(), refused))
}

/// Publishes each number once to each session; returns when all are acknowledged, and counts them meanwhile.
async fn publish(
    publisher: Publisher,
    sessions: usize,
    numbers: std::ops::Range<u32>,
    acknowledged: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    let mut pending = VecDeque::new();
    for number in numbers {
        for session in 0..sessions {
            let payload = number.to_string();
            pending.push_back(publisher.start(&topic(session), payload.as_bytes(), Qos::AtLeastOnce).await?);
            if pending.len() >= WINDOW.min(sessions)
                && let Some(oldest) = pending.pop_front()
            {
                oldest.acknowledged().await?;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    for pending in pending {
        pending.acknowledged().await?;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What has come to a session, added to what came before, until it has all numbers below `end`, each first in its turn.
async fn receive(client: &mut Client, name: &str, mut got: Vec<u32>, end: u32) -> anyhow::Result<()> {
    while got.len() < end as usize {
        let message = tokio::time::timeout(PATIENCE, client.next_message()).await;
        let message = message.with_context(|| format!("{name} has {got:?} of {end}"))?.context("connected")?;
        let number = String::from_utf8(message.payload)?.parse()?;
        if !got.contains(&number) {
            got.push(number);
        }
    }
    ensure!(got.iter().copied().eq(0..end), "{name} has got {got:?}");
    Ok(())
}

impl Stage {
    fn ports(&self) -> [u16; 3] {
        PORTS.map(|port| self.processes.port(port))
    }

    /// Waits until the last event of each session is its disconnection from where it was resumed; all events.
    fn until_all_are_away(&self, sessions: usize) -> anyhow::Result<BTreeMap<String, Vec<Event>>> {
        let began = Instant::now();
        loop {
            let all = self.all_events()?;
            let is_away = |number: &usize| {
                let last = all.get(&name(*number)).and_then(|events| events.last());
                last.is_some_and(|last| !last.connected && last.node == NODES[number % 2])
            };
            let away = (0..sessions).filter(is_away).count();
            if away == sessions {
                return Ok(all);
            }
            ensure!(began.elapsed() < PATIENCE, "{away} of {sessions} are told to be away");
            pause();
        }
    }
}

/// What is published on the first node reaches the others, and a client that goes round all of them is at one of them.
fn three_nodes_work_together(stage: &Stage) -> anyhow::Result<()> {
    let subscribers =
        [stage.connect(1, Version::V5, "subscriber-1")?, stage.connect(2, Version::V311, "subscriber-2")?];
    for subscriber in &subscribers {
        stage.runtime.block_on(subscriber.subscribe("inbox/+", Qos::AtLeastOnce))?;
    }
    stage.publish(0, 0..100)?;
    for subscriber in subscribers {
        stage.receive(subscriber, 0..100)?;
    }
    let mut holder = stage.connect(0, Version::V5, "mover")?;
    for node in [1, 2, 0, 2] {
        let former = std::mem::replace(&mut holder, stage.connect(node, Version::V5, "mover")?);
        let end = stage.end(former)?;
        let told = matches!(end, ConnectionError::Disconnected(ReasonCode::SessionTakenOver));
        ensure!(told, "taken over by node {node}: {end}");
    }
    stage.runtime.block_on(holder.disconnect());
    Ok(())
}

#[test]
fn of_three_nodes_one_is_killed_and_all_its_sessions_go_on_elsewhere_with_every_acknowledged_message()
-> anyhow::Result<()> {
    let sessions = number("DROVER_NODES_SESSIONS", SESSIONS)?;
    let Some(mut stage) = stage_of(3)? else { return Ok(()) };
    stage.start_all()?;
    three_nodes_work_together(&stage)?;

    // All sessions are the third node's; when it is killed one half is away and the other is connected.
    let ports = stage.ports();
    let (keepers, _) = stage.runtime.block_on(resume_all(sessions, vec![ports[2]], true))?;
    let mut connected = Vec::new();
    for (number, keeper) in keepers.into_iter().enumerate() {
        if number % 2 == 0 {
            stage.runtime.block_on(keeper.disconnect());
        } else {
            connected.push((number, keeper));
        }
    }
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let publisher = stage.connect(0, Version::V5, "publisher")?;
    stage.runtime.block_on(publish(publisher.publisher(), sessions, 0..BEFORE, acknowledged.clone()))?;
    let end = BEFORE + MEANWHILE;
    let publishing = stage.runtime.spawn(publish(publisher.publisher(), sessions, BEFORE..end, acknowledged.clone()));
    let before = sessions * BEFORE as usize;
    while acknowledged.load(Ordering::Relaxed) < before + sessions / 2 {
        ensure!(!publishing.is_finished(), "the publisher ended early");
        pause();
    }
    stage.processes.kill(NODES[2])?;
    let (killed, then) = (Instant::now(), acknowledged.load(Ordering::Relaxed));

    // All of them go to the two that are left, at once, while messages come for them.
    let elsewhere = vec![ports[0], ports[1]];
    let mut got: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (number, keeper) in connected {
        got.insert(number, stage.drain(keeper)?);
    }
    let (mut keepers, refused) = stage.runtime.block_on(resume_all(sessions, elsewhere, false))?;
    println!(
        "kill -9 of a node with {sessions} sessions: all resumed after {:?}, {refused} refusals",
        killed.elapsed()
    );
    stage.runtime.block_on(publishing)??;
    let all = acknowledged.load(Ordering::Relaxed);
    println!("{all} messages acknowledged, {then} of them before; the last after {:?}", killed.elapsed());
    ensure!(all == sessions * end as usize && then < all, "{all} acknowledged, {then} before the node was killed");
    for (number, keeper) in keepers.iter_mut().enumerate() {
        let had = got.remove(&number).unwrap_or_default();
        stage.runtime.block_on(receive(keeper, &name(number), had, end))?;
    }
    println!("each session has all {end} of its messages, in order, after {:?}", killed.elapsed());

    for keeper in keepers {
        stage.runtime.block_on(keeper.disconnect());
    }
    stage.runtime.block_on(publisher.disconnect());
    let events = stage.until_all_are_away(sessions)?;
    for (client, events) in &events {
        assert_never_contradicts(client, events);
    }
    println!(
        "{} events of {} clients never contradict themselves",
        events.values().map(Vec::len).sum::<usize>(),
        events.len()
    );
    Ok(())
}
