//! The ingress's section of the configuration.

mod coap;
mod coaps;
mod http;
mod quotas;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use drover_host::proxy::Balancers;
use drover_host::{ByteSize, Duration, ListenSpec, ServiceConfig, TlsConfig, Transport};
use drover_types::ApiError;
use drover_types::limits::{
    FILTERS_PER_CLIENT_MAX, PAYLOAD_BYTES_MAX, RECEIVE_MAXIMUM, SESSION_EXPIRY_SECONDS_MAX, TOPIC_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use crate::domain::connection::Limits;
use crate::ports::RetainedBounds;
pub use coap::{COAP, CoapConfig};
pub use coaps::{COAPS, CoapsConfig};
pub use http::{HTTP, HTTPS, HttpConfig};
pub use quotas::QuotasConfig;

/// Name of the socket for MQTT over TCP.
pub const MQTT: &str = "mqtt";
/// Name of the socket for MQTT over TLS.
pub const MQTTS: &str = "mqtts";
/// Room in a packet beside topic and payload: properties, among them those of the user.
const PROPERTIES_BYTES_MAX: usize = 32 * 1024;
/// How long a CONNECT may wait for the ownership of its session, at least and at most.
const OWNERSHIP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Bytes of the reference to another server.
const SERVER_REFERENCE_BYTES_MAX: usize = 256;
/// Topic aliases a client may set; each keeps a topic in memory while it is connected.
const TOPIC_ALIAS_MAX: u16 = 16;

/// `[ingress]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngressConfig {
    /// Addresses of the gRPC server.
    pub listen: Vec<SocketAddr>,
    pub mqtt: Listener,
    pub mqtts: Listener,
    pub http: HttpConfig,
    /// HTTP over TLS, and MQTT over WebSocket over TLS; with the bounds of `ingress.http`. Where the gateway of the same process
    /// has the same addresses (`gateway.https`), it shares its listener.
    pub https: Listener,
    pub coap: CoapConfig,
    pub coaps: CoapsConfig,
    pub tls: TlsConfig,
    /// Load balancers in front of MQTT, WebSocket and HTTP, by prefixes of their addresses, such as `10.0.0.0/8`: they begin
    /// each connection with a header of the PROXY protocol, version 2. Whoever else does is refused.
    pub proxy_protocol_from: Vec<String>,
    /// Where clients without credentials are admitted.
    pub anonymous: AnonymousAccess,
    /// Name of this node in presence reports; unique among replicas, the same after a restart.
    pub node: String,
    /// Where clients of MQTT 5 are sent when this node stops, such as `b.example.org:8883`: they are told 0x9C with it, else
    /// 0x8B. Nothing is to be said where they come back by the same name.
    pub server_reference: String,
    /// Whether a shadow service answers requests to shadows and takes answers to commands. Without one they are rejected here.
    pub shadows: bool,
    pub owners: OwnersConfig,
    pub store: StoreConfig,
    pub limits: LimitsConfig,
    pub quotas: QuotasConfig,
    pub timeouts: Timeouts,
    /// Filters that nobody may subscribe to, whatever the policies say; a wider filter that matches the same topics is
    /// another one.
    pub denied_filters: Vec<String>,
    pub denied_publishes: DeniedPublishes,
}

/// What a client of MQTT 3.1.1 gets for a publish that no policy allows: it has no negative acknowledgement
/// [3.1.1 MQTT-3.3.5-2]. MQTT 5 has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeniedPublishes {
    /// Its connection is closed, so that somebody notices.
    #[default]
    Close,
    /// An acknowledgement; the message is dropped, counted and logged.
    Acknowledge,
}

/// Addresses of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub listen: Vec<SocketAddr>,
}

/// Where clients without credentials are admitted; decided by the address a listener is bound to, never by the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnonymousAccess {
    /// By listeners bound to a loopback address.
    #[default]
    Loopback,
    Off,
    /// By all listeners.
    Everywhere,
}

impl AnonymousAccess {
    /// Whether a listener bound to `address` admits clients without credentials.
    pub fn at(self, address: SocketAddr) -> bool {
        match self {
            AnonymousAccess::Loopback => address.ip().to_canonical().is_loopback(),
            AnonymousAccess::Off => false,
            AnonymousAccess::Everywhere => true,
        }
    }
}

/// `[ingress.owners]`: who decides which node holds a client's session. Read by each node for itself: all have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OwnersConfig {
    /// This node, for there is no other.
    #[default]
    Embedded,
    /// The clocks of all nodes, which have to agree: a device that moves within the time they differ by may be refused,
    /// or its presence be wrong for that long.
    Clock,
    /// The database of section `[cassandra]`, by compare-and-set.
    Cassandra,
}

/// `[ingress.store]`: where retained messages, and sessions that outlive their connections, are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StoreConfig {
    /// In the service's own directory, by this node for itself.
    #[default]
    Embedded,
    /// In the database of section `[cassandra]`, shared with other nodes.
    Cassandra,
}

/// `[ingress.limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections of this node; 1 to 1,000,000. More are answered with 0x97.
    pub connections: usize,
    /// Payload of one message.
    pub payload: ByteSize,
    /// Subscriptions of one client.
    pub filters: usize,
    /// Messages of QoS 1 and 2 of a client that are not done, in each direction; 1 to 65,535.
    pub receive_maximum: u16,
    /// Longest a session outlives its connection.
    pub session_expiry: Duration,
    /// Sessions of this node that outlive their connection; they and what waits in them are in memory as well as in the
    /// store.
    pub persistent_sessions: usize,
    /// Retained messages of one tenant; more are delivered and not retained.
    pub retained_messages: usize,
    /// Their topics, payloads and properties.
    pub retained_bytes: ByteSize,
}

/// `[ingress.timeouts]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// TLS handshake, and then CONNECT with its authentication.
    pub connect: Duration,
    /// A peer that takes no byte for this long is gone.
    pub write: Duration,
    /// Longest keep alive of clients of MQTT 5, which are told so; up to 65,535 s, 0s: whatever they ask for.
    pub keep_alive: Duration,
    /// One question to the registry.
    pub authenticate: Duration,
    /// How long the registry's answer is kept; a revocation ends it at once.
    pub identity_cache: Duration,
    /// How long a CONNECT may wait for its session to be this node's; then it is answered with 0x88.
    pub ownership: Duration,
    /// From the request to stop until connections are cut.
    pub drain: Duration,
}

fn loopback(port: u16) -> Vec<SocketAddr> {
    [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(|ip| SocketAddr::new(ip, port)).to_vec()
}

impl Default for IngressConfig {
    fn default() -> Self {
        Self {
            listen: loopback(7075),
            mqtt: Listener { listen: loopback(1883) },
            mqtts: Listener { listen: loopback(8883) },
            http: HttpConfig::default(),
            https: Listener { listen: loopback(8443) },
            coap: CoapConfig::default(),
            coaps: CoapsConfig::default(),
            tls: TlsConfig::default(),
            proxy_protocol_from: Vec::new(),
            anonymous: AnonymousAccess::default(),
            node: "ingress-0".to_owned(),
            server_reference: String::new(),
            shadows: true,
            owners: OwnersConfig::default(),
            store: StoreConfig::default(),
            limits: LimitsConfig::default(),
            quotas: QuotasConfig::default(),
            timeouts: Timeouts::default(),
            denied_filters: Vec::new(),
            denied_publishes: DeniedPublishes::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 15_000,
            payload: ByteSize::from_bytes(PAYLOAD_BYTES_MAX as u64),
            filters: FILTERS_PER_CLIENT_MAX,
            receive_maximum: RECEIVE_MAXIMUM,
            session_expiry: Duration::from_secs(SESSION_EXPIRY_SECONDS_MAX as u64),
            persistent_sessions: 10_000,
            retained_messages: 10_000,
            retained_bytes: ByteSize::from_bytes(64 * 1024 * 1024),
        }
    }
}

impl LimitsConfig {
    /// What a tenant may have retained.
    pub fn retained_bounds(&self) -> RetainedBounds {
        RetainedBounds { messages: self.retained_messages, bytes: self.retained_bytes.as_len() }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            write: Duration::from_secs(30),
            keep_alive: Duration::from_secs(0),
            authenticate: Duration::from_secs(5),
            identity_cache: Duration::from_secs(5),
            ownership: Duration::from_secs(4),
            drain: Duration::from_secs(10),
        }
    }
}

impl IngressConfig {
    /// The load balancers in front.
    pub fn balancers(&self) -> Result<Balancers, ApiError> {
        Balancers::parse("ingress.proxy_protocol_from", &self.proxy_protocol_from)
    }

    /// The limits of each connection.
    pub fn connection_limits(&self) -> Limits {
        let payload_bytes_max = self.limits.payload.as_len();
        let packet_bytes_max = payload_bytes_max.saturating_add(TOPIC_BYTES_MAX + PROPERTIES_BYTES_MAX);
        let session_expiry_s = self.limits.session_expiry.as_millis() / 1_000;
        Limits {
            connect_ms: self.timeouts.connect.as_millis(),
            payload_bytes_max,
            packet_bytes_max: u32::try_from(packet_bytes_max).unwrap_or(u32::MAX),
            filters_max: self.limits.filters,
            receive_maximum: self.limits.receive_maximum,
            session_expiry_s_max: u32::try_from(session_expiry_s).unwrap_or(u32::MAX),
            topic_alias_max: TOPIC_ALIAS_MAX,
            keep_alive_s_max: u16::try_from(self.timeouts.keep_alive.as_millis() / 1_000).unwrap_or(u16::MAX),
            denied_filters: self.denied_filters.iter().map(|filter| filter.as_str().into()).collect(),
            acknowledge_denied: self.denied_publishes == DeniedPublishes::Acknowledge,
            shadows: self.shadows,
            server_reference: (!self.server_reference.is_empty()).then(|| self.server_reference.as_str().into()),
        }
    }
}

impl ServiceConfig for IngressConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let tcp = |name, key, listener: &[SocketAddr]| ListenSpec {
            name,
            key,
            transport: Transport::Tcp,
            addresses: listener.to_vec(),
        };
        let mut listeners = vec![
            tcp(drover_host::grpc::SOCKET, "ingress.listen", &self.listen),
            tcp(MQTT, "ingress.mqtt.listen", &self.mqtt.listen),
            tcp(HTTP, "ingress.http.listen", &self.http.listen),
        ];
        for (name, key, addresses) in
            [(COAP, "ingress.coap.listen", &self.coap.listen), (COAPS, "ingress.coaps.listen", &self.coaps.listen)]
        {
            listeners.push(ListenSpec { transport: Transport::Udp, ..tcp(name, key, addresses) });
        }
        if self.tls.certificate.is_some() {
            listeners.push(tcp(MQTTS, "ingress.mqtts.listen", &self.mqtts.listen));
            listeners.push(tcp(HTTPS, "ingress.https.listen", &self.https.listen));
        }
        listeners
    }

    fn check(&self) -> Result<(), ApiError> {
        self.tls.check("ingress.tls")?;
        let connections = self.limits.connections;
        if connections == 0 || connections > 1_000_000 {
            return Err(
                ApiError::invalid("ingress.limits.connections", "out of range").over("1 to 1000000", connections)
            );
        }
        let payload = self.limits.payload.as_len();
        if payload > PAYLOAD_BYTES_MAX {
            return Err(ApiError::invalid("ingress.limits.payload", "too large").over(PAYLOAD_BYTES_MAX, payload));
        }
        if self.store == StoreConfig::Cassandra && self.owners == OwnersConfig::Embedded {
            // Epochs tell there what was written before: they have to begin with the time.
            let message = "of kind cassandra needs ingress.owners of kind cassandra or clock";
            return Err(ApiError::invalid("ingress.store", message));
        }
        if self.node.is_empty() {
            return Err(ApiError::invalid("ingress.node", "is empty"));
        }
        let ownership = self.timeouts.ownership;
        let (least, most) = OWNERSHIP;
        if ownership < least || ownership > most {
            let limit = format!("{least} to {most}");
            return Err(ApiError::invalid("ingress.timeouts.ownership", "out of range").over(limit, ownership));
        }
        // The window that recognises what is sent again holds as many messages of a client.
        let receive_maximum = self.limits.receive_maximum;
        if receive_maximum == 0 || receive_maximum > RECEIVE_MAXIMUM {
            let limit = format!("1 to {RECEIVE_MAXIMUM}");
            return Err(
                ApiError::invalid("ingress.limits.receive_maximum", "out of range").over(limit, receive_maximum)
            );
        }
        let keep_alive = self.timeouts.keep_alive;
        if keep_alive.as_millis() > u64::from(u16::MAX) * 1_000 {
            return Err(ApiError::invalid("ingress.timeouts.keep_alive", "too long").over("65535s", keep_alive));
        }
        let reference = &self.server_reference;
        if reference.len() > SERVER_REFERENCE_BYTES_MAX {
            let error = ApiError::invalid("ingress.server_reference", "is too long");
            return Err(error.over(SERVER_REFERENCE_BYTES_MAX, reference.len()));
        }
        if reference.chars().any(char::is_control) {
            return Err(ApiError::invalid("ingress.server_reference", "has control characters"));
        }
        self.balancers()?;
        self.http.check()?;
        self.coap.check()?;
        self.coaps.check()?;
        if self.limits.session_expiry.as_millis() / 1_000 > u64::from(SESSION_EXPIRY_SECONDS_MAX) {
            let value = self.limits.session_expiry;
            return Err(ApiError::invalid("ingress.limits.session_expiry", "too long").over("7d", value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_clients_are_admitted_by_the_bound_address_alone() {
        let at = |access: AnonymousAccess, address: &str| access.at(address.parse().expect("an address"));
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.1.1:1", false),
        ] {
            assert_eq!(at(AnonymousAccess::Loopback, address), loopback, "{address}");
            assert!(!at(AnonymousAccess::Off, address));
            assert!(at(AnonymousAccess::Everywhere, address));
        }
    }

    #[test]
    fn limits_are_checked_at_their_bounds() {
        let check = |change: fn(&mut IngressConfig)| {
            let mut config = IngressConfig::default();
            change(&mut config);
            config.check().err().and_then(|e| e.field)
        };
        assert_eq!(check(|_| ()), None);
        assert_eq!(check(|c| c.tls.key = Some("k".into())).as_deref(), Some("ingress.tls"));
        assert_eq!(check(|c| c.tls.client_ca = Some("k".into())).as_deref(), Some("ingress.tls.client_ca"));
        assert_eq!(check(|c| c.tls.ticket_keys = Some("k".into())).as_deref(), Some("ingress.tls.ticket_keys"));
        assert_eq!(check(|c| c.limits.connections = 0).as_deref(), Some("ingress.limits.connections"));
        assert_eq!(check(|c| c.store = StoreConfig::Cassandra).as_deref(), Some("ingress.store"));
        assert_eq!(check(|c| c.http.connections = 0).as_deref(), Some("ingress.http.connections"));
        assert_eq!(check(|c| c.limits.receive_maximum = 0).as_deref(), Some("ingress.limits.receive_maximum"));
        assert_eq!(check(|c| c.http.batch_rows = 0).as_deref(), Some("ingress.http.batch_rows"));
        assert_eq!(check(|c| c.coap.observers = 100_001).as_deref(), Some("ingress.coap.observers"));
        assert_eq!(check(|c| c.coaps.associations = 0).as_deref(), Some("ingress.coaps.associations"));
        assert_eq!(check(|c| c.coaps.idle = Duration::from_secs(0)).as_deref(), Some("ingress.coaps.idle"));
        assert_eq!(check(|c| c.server_reference = "x".repeat(257)).as_deref(), Some("ingress.server_reference"));
        assert_eq!(check(|c| c.server_reference = "x\n".to_owned()).as_deref(), Some("ingress.server_reference"));
        let nowhere = |c: &mut IngressConfig| c.proxy_protocol_from = vec!["here".to_owned()];
        assert_eq!(check(nowhere).as_deref(), Some("ingress.proxy_protocol_from"));
        let payload = ByteSize::from_bytes(PAYLOAD_BYTES_MAX as u64 + 1);
        let mut config = IngressConfig::default();
        config.limits.payload = payload;
        assert_eq!(config.check().err().and_then(|e| e.field).as_deref(), Some("ingress.limits.payload"));
    }

    #[test]
    fn there_is_no_tls_listener_without_a_certificate() {
        let names = |config: &IngressConfig| config.listeners().iter().map(|l| l.name).collect::<Vec<_>>();
        let mut config = IngressConfig::default();
        assert_eq!(names(&config), ["grpc", MQTT, HTTP, COAP, COAPS]);
        config.tls.certificate = Some("c.pem".into());
        assert_eq!(names(&config), ["grpc", MQTT, HTTP, COAP, COAPS, MQTTS, HTTPS]);
    }
}
