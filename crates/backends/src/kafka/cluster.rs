//! Three nodes, each of them broker and controller, that can be harmed one by one.
//!
//! Two of them are a quorum: with one node away the cluster chooses other leaders within seconds, with two it chooses none.

use super::{Kafka, started};
use crate::ports;

/// Nodes of a cluster.
pub const NODES: usize = 3;
/// How many copies there are of what Kafka keeps for itself: its own defaults, which a single node cannot have.
const COPIES: &str = "\
    offsets.topic.replication.factor=3\n\
    transaction.state.log.replication.factor=3\n\
    transaction.state.log.min.isr=2\n\
    share.coordinator.state.topic.replication.factor=3\n\
    share.coordinator.state.topic.min.isr=2\n";

/// A cluster of its own; killed, and what it keeps removed, when dropped or when the process ends.
pub struct Cluster {
    nodes: Vec<Kafka>,
}

impl Cluster {
    /// A new cluster, all of whose nodes serve. `None`, after one line that says why, where Kafka cannot be had.
    pub fn start() -> anyhow::Result<Option<Self>> {
        started(Self::try_start)
    }

    fn try_start() -> anyhow::Result<Self> {
        let controllers = (0..NODES).map(|_| ports::free()).collect::<anyhow::Result<Vec<_>>>()?;
        let voter = |(number, port): (usize, &u16)| format!("{}@127.0.0.1:{port}", number + 1);
        let voters = controllers.iter().enumerate().map(voter).collect::<Vec<_>>().join(",");
        let node = |(number, controller): (usize, &u16)| {
            let id = number + 1;
            let properties = format!("node.id={id}\ncontroller.quorum.voters={voters}\n{COPIES}");
            Kafka::new(&properties, ports::free()?, *controller)
        };
        let cluster = Self { nodes: controllers.iter().enumerate().map(node).collect::<anyhow::Result<_>>()? };
        cluster.restore()?;
        Ok(cluster)
    }

    /// `bootstrap.servers`, one by one.
    pub fn brokers(&self) -> Vec<String> {
        self.nodes.iter().map(Kafka::brokers).collect()
    }

    /// The node with this `node.id`, from 1 to [`NODES`].
    pub fn node(&self, id: i32) -> anyhow::Result<&Kafka> {
        let place = usize::try_from(id - 1)?;
        self.nodes.get(place).ok_or_else(|| anyhow::anyhow!("there is no node {id}"))
    }

    /// Brings back every node that does not run or is paused, all at the same time: a node serves when two are there.
    pub fn restore(&self) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let nodes: Vec<_> = self.nodes.iter().map(|node| scope.spawn(move || node.restore())).collect();
            nodes.into_iter().try_for_each(|node| node.join().expect("restoring a node does not panic"))
        })
    }
}
