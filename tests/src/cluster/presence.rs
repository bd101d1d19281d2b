//! Clients that go from node to node and fight for their sessions while nodes and the registry die: what is told of their
//! presence never contradicts itself, in the end it is true, and no client is at two nodes (P4).

use std::time::Duration;

use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_sim::BusFaults;

use super::events::Events;
use super::roamer::{Order, Roamer};
use super::{Cluster, Flaws, LOOK, NODES, within};
use crate::virtual_time;

/// Client ids; each has two clients that do not know of each other.
const CLIENTS: usize = 6;
/// Faults, and longest time between two, milliseconds.
const FAULTS: usize = 12;
const PAUSE_MS_MAX: u64 = 2_500;
/// How long it may take until everybody who is to be connected is, when nothing breaks any more.
const ARRIVAL: Duration = Duration::from_secs(120);
/// How long it may take until what is told is true: leases end, and sessions that are gone are claimed.
const TRUTH: Duration = Duration::from_secs(60);
/// How long a client may be at two nodes.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// What the books say of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lifecycle events.
    pub events: usize,
    /// Those that contradict what was told before.
    pub contradictions: usize,
    /// Clients of which something else is told in the end than what is so.
    pub untrue: usize,
    /// Clients that could not connect although nothing was broken any more.
    pub absent: usize,
    /// Clients that were at two nodes for longer than they may be.
    pub at_two_nodes: usize,
}

impl Verdict {
    /// Whether the promise is kept.
    pub fn is_clean(&self) -> bool {
        (self.contradictions, self.untrue, self.absent, self.at_two_nodes) == (0, 0, 0, 0)
    }
}

/// Runs one world to its end and checks its books. The error says what did not come to rest.
pub fn run(seed: u64, flaws: Flaws) -> anyhow::Result<Verdict> {
    virtual_time::run(async move {
        let mut cluster = Cluster::new(seed, flaws).await?;
        let twins: Vec<[Roamer; 2]> = (0..CLIENTS).map(|number| [(); 2].map(|()| client(&cluster, number))).collect();
        twins.iter().flatten().for_each(|client| client.order(Order::Roam));
        cluster.worsen(BusFaults {
            lost_acknowledgement: 30,
            lost_write: 30,
            hang: 10,
            hang_ms_max: 5_000,
            delay_ms_max: 20,
            rebalance: 10,
        });
        for _ in 0..FAULTS {
            tokio::time::sleep(Duration::from_millis(cluster.random.below(PAUSE_MS_MAX))).await;
            cluster.harm()?;
        }
        cluster.mend()?;
        end(&cluster, &twins).await
    })
}

fn client(cluster: &Cluster, number: usize) -> Roamer {
    let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let clean_start = number.is_multiple_of(3);
    let options = ClientOptions {
        clean_start,
        session_expiry_s: if clean_start { 0 } else { 3_600 },
        ..ClientOptions::new(version, format!("dev-{number}"))
    };
    cluster.client(options)
}

/// Half of the clients stay, all others leave; then those who stay are taken over by their twins at the other node.
async fn end(cluster: &Cluster, twins: &[[Roamer; 2]]) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    twins.iter().flatten().for_each(|client| client.order(Order::Leave));
    let staying = || twins.iter().step_by(2).enumerate();
    for (number, [first, _]) in staying() {
        first.order(Order::Stay(number % NODES.len()));
    }
    within(ARRIVAL, async || Ok(staying().all(|(_, [first, _])| first.seen().connected))).await?;
    verdict.absent = staying().filter(|(_, [first, _])| !first.seen().connected).count();
    verdict.untrue = untrue(cluster, twins).await?;

    for (number, twins) in staying() {
        twins.iter().for_each(Roamer::settle);
        twins[1].order(Order::Stay((number + 1) % NODES.len()));
    }
    let taken = |twins: &[Roamer; 2]| twins[1].seen().connected && !twins[0].seen().connected;
    within(ARRIVAL, async || Ok(staying().all(|(_, twins)| twins[1].seen().connected))).await?;
    within(TAKE_OVER, async || Ok(staying().all(|(_, twins)| taken(twins)))).await?;
    let at_both = |twins: &[Roamer; 2]| twins.iter().all(|client| client.seen().connected);
    verdict.at_two_nodes = staying().filter(|(_, twins)| at_both(twins)).count();
    verdict.absent += staying().filter(|(_, [_, second])| !second.seen().connected).count();
    verdict.untrue += untrue(cluster, twins).await?;

    let events = Events::read(&cluster.bus).await?;
    (verdict.events, verdict.contradictions) = (events.count, events.contradictions);
    Ok(verdict)
}

/// Of how many clients something is told that is not so, when there was time to tell the truth.
async fn untrue(cluster: &Cluster, twins: &[[Roamer; 2]]) -> anyhow::Result<usize> {
    let wrong = async || {
        let events = Events::read(&cluster.bus).await?;
        let is_wrong = |twins: &&[Roamer; 2]| {
            let connected = twins.iter().any(|client| client.seen().connected);
            events.is_connected(&twins[0].client_id) != connected
        };
        anyhow::Ok(twins.iter().filter(is_wrong).count())
    };
    within(TRUTH, async || Ok(wrong().await? == 0)).await?;
    tokio::time::sleep(LOOK * 20).await; // and it stays so
    wrong().await
}
