//! What can be set, and why a listener does not start.
//!
//! Every limit is one a test can reach.

use std::net::SocketAddr;
use std::time::Duration;

/// Most groups with committed offsets, those of the platform aside: what is kept of them is kept in memory as well.
pub const OFFSET_GROUPS_MAX: usize = 10_000;

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Host and port named in Metadata; `None`: the local address each client connected to.
    pub advertised: Option<(String, u16)>,
    /// Largest request, bytes.
    pub frame_bytes_max: usize,
    /// Largest body of a fetch response, bytes; a client may ask for less. One record beyond it still passes.
    pub fetch_bytes_max: usize,
    /// Most connections at a time; further ones are closed at once.
    pub connections_max: usize,
    /// Longest a started request may take to arrive, and an answer to be taken.
    pub stall_timeout: Duration,
    /// Partitions of a topic that comes into being because a client asks for it; `None`: it does not.
    pub auto_create_partitions: Option<u32>,
    /// How long committed offsets stay when their group has neither members nor commits: Kafka's
    /// `offsets.retention.minutes`. Counted anew from each start.
    pub offsets_retention: Duration,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            advertised: None,
            // Kafka's clients send at most 1 MiB a batch; one request may hold several partitions.
            frame_bytes_max: 16 * 1024 * 1024,
            // Enough to stream at full speed; with 1,000 connections still a bounded amount of memory.
            fetch_bytes_max: 8 * 1024 * 1024,
            connections_max: 1_000,
            stall_timeout: Duration::from_secs(30),
            auto_create_partitions: Some(8),
            offsets_retention: Duration::from_secs(7 * 24 * 3_600),
        }
    }
}

/// Why the listener did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Everyone who can reach the port reads and writes all tenants' data, so only this machine may.
    #[error("kafka listener is bound to {address}, without authentication only loopback addresses are allowed")]
    NotLoopback { address: SocketAddr },
    #[error("kafka listener has no socket to listen on")]
    NoSocket,
    #[error("kafka listener cannot read its own address: {0}")]
    Address(#[source] std::io::Error),
}
