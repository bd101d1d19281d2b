//! The configuration section `gateway`: every key with its default, unit and range.

use std::net::SocketAddr;

use drover_host::proxy::Balancers;
use drover_host::{ByteSize, ListenSpec, ServiceConfig, TlsConfig, Transport};
use drover_types::ApiError;
use serde::{Deserialize, Serialize};

use crate::domain::tail::TailLimits;

/// Name of the HTTP listener.
pub const HTTP: &str = "gateway.http";
/// Name of the listener of HTTP over TLS.
pub const HTTPS: &str = "gateway.https";

/// Section `gateway`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Addresses of the REST interface.
    pub listen: Vec<SocketAddr>,
    pub https: HttpsConfig,
    /// Certificate and key of `https`; in the same file as `[ingress.tls]` those, unless others are named.
    pub tls: TlsConfig,
    /// Host names besides `localhost` and loopback addresses by which a loopback listener may be called.
    pub allowed_hosts: Vec<String>,
    /// Load balancers in front, by prefixes of their addresses, such as `10.0.0.0/8`: they begin each connection with a
    /// header of the PROXY protocol, version 2.
    pub proxy_protocol_from: Vec<String>,
    /// Where devices connect, told to whoever creates one: `host:port` of MQTT.
    pub mqtt_endpoint: String,
    /// The same for MQTT over TLS.
    pub mqtts_endpoint: String,
    /// The same for plain HTTP.
    pub http_endpoint: String,
    /// Connections at once; more wait to be accepted. 1 to 100,000.
    pub connections_max: usize,
    /// Live streams at once. 1 to 10,000.
    pub streams_max: usize,
    /// Messages waiting for the client of one live stream. 1 to 100,000.
    pub stream_queue_messages: usize,
    /// Records of one partition a live stream may be behind before it jumps to the end. At least 1.
    pub stream_lag_records_max: u64,
    /// Largest request body, 1 KiB to 16 MiB. The default holds a function with the longest script, escaped.
    pub body_max: ByteSize,
    /// Most objects on one page of a list, 1 to 1,000.
    pub page_items_max: u32,
}

/// `[gateway.https]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpsConfig {
    /// Addresses of the same over TLS. In one process with the ingress (`drover up`) those of `ingress.https`, and both share
    /// the listener; else none.
    pub listen: Vec<SocketAddr>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 8080))],
            https: HttpsConfig::default(),
            tls: TlsConfig::default(),
            allowed_hosts: Vec::new(),
            proxy_protocol_from: Vec::new(),
            mqtt_endpoint: "127.0.0.1:1883".into(),
            mqtts_endpoint: "127.0.0.1:8883".into(),
            http_endpoint: "127.0.0.1:8080".into(),
            connections_max: 1_024,
            streams_max: 64,
            stream_queue_messages: 256,
            stream_lag_records_max: 100_000,
            body_max: ByteSize::from_bytes(512 * 1024),
            page_items_max: 1_000,
        }
    }
}

impl GatewayConfig {
    /// The load balancers in front.
    pub fn balancers(&self) -> Result<Balancers, ApiError> {
        Balancers::parse("gateway.proxy_protocol_from", &self.proxy_protocol_from)
    }

    /// Bounds of each live stream.
    pub fn tail_limits(&self) -> TailLimits {
        TailLimits { queue_messages: self.stream_queue_messages, lag_records_max: self.stream_lag_records_max }
    }
}

impl ServiceConfig for GatewayConfig {
    fn listeners(&self) -> Vec<ListenSpec> {
        let tcp = |name, key, addresses: &[SocketAddr]| ListenSpec {
            name,
            key,
            transport: Transport::Tcp,
            addresses: addresses.to_vec(),
        };
        let mut listeners = vec![tcp(HTTP, "gateway.listen", &self.listen)];
        if self.tls.certificate.is_some() {
            listeners.push(tcp(HTTPS, "gateway.https.listen", &self.https.listen));
        }
        listeners
    }

    fn check(&self) -> Result<(), ApiError> {
        let as_u64 = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (key, value, least, most) in [
            ("connections_max", as_u64(self.connections_max), 1, 100_000),
            ("streams_max", as_u64(self.streams_max), 1, 10_000),
            ("stream_queue_messages", as_u64(self.stream_queue_messages), 1, 100_000),
            ("stream_lag_records_max", self.stream_lag_records_max, 1, u64::MAX),
            ("body_max", self.body_max.bytes(), 1024, 16 * 1024 * 1024),
            ("page_items_max", self.page_items_max.into(), 1, 1_000),
        ] {
            if !(least..=most).contains(&value) {
                let message = format!("is out of range {least} to {most}");
                return Err(ApiError::invalid(format!("gateway.{key}"), message).over(most, value));
            }
        }
        self.tls.check("gateway.tls")?;
        if self.tls.certificate.is_none() && !self.https.listen.is_empty() {
            return Err(ApiError::invalid("gateway.https.listen", "is of no use without gateway.tls.certificate"));
        }
        self.balancers().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_unknown_keys_are_refused() {
        assert_eq!(GatewayConfig::default().check(), Ok(()));
        let unknown = serde_json::from_str::<GatewayConfig>(r#"{"listn": []}"#);
        assert!(unknown.expect_err("refused").to_string().contains("unknown field `listn`"));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let none = GatewayConfig { streams_max: 0, ..GatewayConfig::default() };
        let refused = none.check().expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("gateway.streams_max"));
        let nowhere = GatewayConfig { proxy_protocol_from: vec!["here".into()], ..GatewayConfig::default() };
        assert_eq!(nowhere.check().expect_err("refused").field.as_deref(), Some("gateway.proxy_protocol_from"));
        let mut unsealed = GatewayConfig::default();
        unsealed.https.listen = unsealed.listen.clone();
        assert_eq!(unsealed.check().expect_err("refused").field.as_deref(), Some("gateway.https.listen"));
        unsealed.tls.certificate = Some("c.pem".into());
        assert_eq!(unsealed.check().expect_err("refused").field.as_deref(), Some("gateway.tls"));
        unsealed.tls.key = Some("k.pem".into());
        assert_eq!(unsealed.check(), Ok(()));
        let large = GatewayConfig { page_items_max: 1_001, ..GatewayConfig::default() };
        assert_eq!(large.check().expect_err("refused").limit.as_deref(), Some("1000"));
    }
}
