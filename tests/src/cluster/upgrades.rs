//! A node that is stopped in good order and started again, with clients connected to it: they are sent away at a bounded rate, and
//! find their sessions when they come back (P8).

use std::time::Duration;

use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use tokio::time::Instant;

use super::roamer::{Order, Roamer};
use super::{CLOSES, Cluster, Flaws, within};
use crate::virtual_time;

/// Clients, all at the node that is upgraded: as many as it closes in half the time it has to drain.
const CLIENTS: usize = 25;
/// How long they have to connect.
const ARRIVAL: Duration = Duration::from_secs(60);

/// What the books say of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Most connections that were closed within a second.
    pub closed_at_once: usize,
    /// Clients that could not connect, before or after.
    pub absent: usize,
    /// Clients whose sessions were gone when they came back.
    pub forgotten: usize,
}

impl Verdict {
    /// Whether the promise is kept. Of a rate of so many a second one more may fall into a second.
    pub fn is_clean(&self) -> bool {
        self.closed_at_once <= CLOSES as usize + 1 && (self.absent, self.forgotten) == (0, 0)
    }
}

/// Runs one world to its end and checks its books. The error says what did not come to rest, or that the node failed.
pub fn run(seed: u64, flaws: Flaws) -> anyhow::Result<Verdict> {
    virtual_time::run(async move {
        let mut cluster = Cluster::new(seed, flaws).await?;
        let clients: Vec<Roamer> = (0..CLIENTS).map(|number| client(&cluster, number)).collect();
        let absent = || clients.iter().filter(|client| !client.seen().connected).count();
        clients.iter().for_each(|client| client.order(Order::Stay(0)));
        within(ARRIVAL, async || Ok(absent() == 0)).await?;
        let mut verdict = Verdict { absent: absent(), ..Verdict::default() };

        cluster.stop_node(0).await?;
        verdict.closed_at_once = most_within_a_second(clients.iter().filter_map(|client| client.seen().out).collect());
        cluster.start_node(0)?;
        within(ARRIVAL, async || Ok(absent() == 0)).await?;
        verdict.absent += absent();
        verdict.forgotten = clients.iter().filter(|client| !client.seen().session_present).count();
        Ok(verdict)
    })
}

fn client(cluster: &Cluster, number: usize) -> Roamer {
    let version = if number.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let options = ClientOptions {
        clean_start: false,
        session_expiry_s: 3_600,
        ..ClientOptions::new(version, format!("dev-{number}"))
    };
    cluster.client(options)
}

fn most_within_a_second(mut times: Vec<Instant>) -> usize {
    times.sort_unstable();
    let until = |first: Instant| times.partition_point(|time| *time < first + Duration::from_secs(1));
    times.iter().enumerate().map(|(at, first)| until(*first) - at).max().unwrap_or(0)
}
