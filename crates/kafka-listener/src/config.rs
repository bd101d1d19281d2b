//! What can be set, and why a listener does not start.
//!
//! Every limit is one a test can reach.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::ports::Authenticator;

/// Most groups with committed offsets, those of the platform aside: what is kept of them is kept in memory as well.
pub const OFFSET_GROUPS_MAX: usize = 10_000;

/// What a client has to do before it is served.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Nothing. Whoever reaches the port is served as the administrator: loopback only.
    #[default]
    Plaintext,
    /// TLS, then SASL/PLAIN; it gets what is its own.
    SaslSsl(SaslSsl),
}

/// Where certificates are, and who knows the passwords.
#[derive(Clone)]
pub struct SaslSsl {
    /// The settings of TLS for a connection that comes now.
    pub tls: Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>,
    pub authenticator: Arc<dyn Authenticator>,
}

impl fmt::Debug for SaslSsl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaslSsl")
    }
}

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub security: Security,
    /// Host and port named in Metadata; `None`: the name each client asked for in its TLS handshake, else the local address it
    /// connected to.
    pub advertised: Option<(String, u16)>,
    /// Largest request, bytes.
    pub frame_bytes_max: usize,
    /// Largest body of a fetch response, bytes; a client may ask for less. One record beyond it still passes.
    pub fetch_bytes_max: usize,
    /// Most connections at a time; further ones are closed at once.
    pub connections_max: usize,
    /// Longest a started request may take to arrive, and an answer to be taken.
    pub stall_timeout: Duration,
    /// Longest that a client may take until it is known, handshake of TLS and all.
    pub authentication_timeout: Duration,
    /// How often a client that is connected is verified again.
    pub verify_interval: Duration,
    /// Partitions of a topic that comes into being because a client asks for it; `None`: it does not.
    pub auto_create_partitions: Option<u32>,
    /// How long committed offsets stay when their group has neither members nor commits: Kafka's
    /// `offsets.retention.minutes`. Counted anew from each start.
    pub offsets_retention: Duration,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            security: Security::Plaintext,
            advertised: None,
            // Kafka's clients send at most 1 MiB a batch; one request may hold several partitions.
            frame_bytes_max: 16 * 1024 * 1024,
            // Enough to stream at full speed; with 1,000 connections still a bounded amount of memory.
            fetch_bytes_max: 8 * 1024 * 1024,
            connections_max: 1_000,
            stall_timeout: Duration::from_secs(30),
            authentication_timeout: Duration::from_secs(10),
            verify_interval: Duration::from_secs(10),
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
