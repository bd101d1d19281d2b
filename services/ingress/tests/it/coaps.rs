//! CoAP over DTLS: the association is the proof, a wrong key none, a revoked one no more; and handshakes that stay half.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};
use dimpl::crypto::{Dtls12CipherSuite, rust_crypto};
use dimpl::{Config, Dtls, Output, PskResolver};
use drover_ingress::config::IngressConfig;
use drover_mqtt::Version;
use drover_proto::ingress::v1::RevokeRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tonic::Status;

use crate::stage::Stage;

/// A key as devices have them.
pub const KEY: &str = "hB0-m4dXqDe6S9nJwVtYxLc2RkzA_u1F";
/// For one datagram; associations that are silent are looked for every ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

struct Key(&'static str);

impl PskResolver for Key {
    fn resolve(&self, _identity: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.as_bytes().to_vec())
    }
}

fn config(identity: &str, key: &'static str) -> Arc<Config> {
    let config = Config::builder()
        .with_crypto_provider(rust_crypto::default_provider())
        .dtls12_cipher_suites(&[Dtls12CipherSuite::PSK_AES128_CCM_8])
        .dtls13_cipher_suites(&[])
        .with_psk_client(identity.as_bytes().to_vec(), Arc::new(Key(key)));
    Arc::new(config.build().expect("valid"))
}

/// A device that speaks CoAP over DTLS.
struct Device {
    socket: UdpSocket,
    dtls: Dtls,
    connected: bool,
    closed: bool,
    messages: Vec<Packet>,
    last_id: u16,
}

impl Device {
    async fn new(stage: &Stage, config: &Arc<Config>) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("port 0 is free");
        socket.connect(stage.coaps.expect("bound")).await.expect("an address");
        Self { dtls: begun(config), socket, connected: false, closed: false, messages: Vec::new(), last_id: 7 }
    }

    /// One that has completed its handshake.
    async fn connected(stage: &Stage, identity: &str) -> Self {
        let mut device = Self::new(stage, &config(identity, KEY)).await;
        device.connect().await;
        device
    }

    /// Goes on until its handshake is complete.
    async fn connect(&mut self) {
        while !self.connected {
            self.tell().await;
            if !self.connected {
                assert!(self.hear().await, "it is let in");
            }
        }
    }

    /// Goes on until its handshake is refused.
    async fn refused(&mut self) {
        self.tell().await;
        while self.hear().await {
            self.tell().await;
        }
    }

    /// Sends what it has to send.
    async fn tell(&mut self) {
        let (mut packets, mut buffer) = (Vec::new(), vec![0; 20_000]);
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => packets.push(packet.to_vec()),
                Output::ApplicationData(message) => self.messages.push(Packet::from_bytes(message).expect("CoAP")),
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.closed = true,
                Output::KeyingMaterial(..) => {}
                Output::Timeout(_) => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        for packet in packets {
            self.socket.send(&packet).await.expect("sent");
        }
    }

    /// Takes the next datagram; whether its handshake or association goes on.
    async fn hear(&mut self) -> bool {
        let mut bytes = vec![0; 20_000];
        let heard = tokio::time::timeout(PATIENCE, self.socket.recv(&mut bytes)).await;
        bytes.truncate(heard.expect("in time").expect("a datagram"));
        let now = Instant::now().into_std();
        self.dtls.handle_timeout(now).and_then(|()| self.dtls.handle_packet(&bytes)).is_ok()
    }

    /// The next message.
    async fn message(&mut self) -> Packet {
        loop {
            self.tell().await;
            if !self.messages.is_empty() {
                return self.messages.remove(0);
            }
            assert!(self.hear().await, "it goes on");
        }
    }

    fn request(&mut self, method: RequestType, path: &str) -> Packet {
        self.last_id += 1;
        let mut packet = Packet::new();
        packet.header.code = MessageClass::Request(method);
        packet.header.message_id = self.last_id;
        packet.set_token(vec![9]);
        path.split('/').for_each(|segment| packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec()));
        packet
    }

    async fn send(&mut self, packet: &Packet) {
        self.dtls.send_application_data(&packet.to_bytes().expect("small")).expect("associated");
        self.tell().await;
    }

    /// Publishes and returns the code of the answer.
    async fn post(&mut self, path: &str, payload: &str) -> MessageClass {
        let mut packet = self.request(RequestType::Post, path);
        packet.payload = payload.as_bytes().to_vec();
        self.send(&packet).await;
        self.message().await.header.code
    }

    async fn hears_the_end(&mut self) {
        while !self.closed {
            assert!(self.hear().await, "the end is told");
            self.tell().await;
        }
    }
}

fn begun(config: &Arc<Config>) -> Dtls {
    let now = Instant::now().into_std();
    let mut dtls = Dtls::new_12_psk(config.clone(), now);
    dtls.set_active(true);
    dtls.handle_timeout(now).expect("it begins");
    dtls
}

async fn stage(change: impl FnOnce(&mut IngressConfig)) -> Stage {
    let stage = Stage::with(change).await;
    stage.registry.key("d", KEY);
    stage
}

/// Handshakes that have come to this.
pub fn count(stage: &Stage, outcome: &str) -> u64 {
    let name = format!("drover_ingress_coap_handshakes_total{{outcome=\"{outcome}\"}} ");
    let metrics = stage.metrics.encode();
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// Takes the credential back, as the registry tells it.
async fn revoke(stage: &Stage, credential_id: &str) {
    let (tenant, device) = ("default".into(), "d".into());
    let request = RevokeRequest { tenant, device, credential_id: credential_id.into(), anonymous: false };
    IngressClient::new(stage.network.client("ingress")).revoke(request).await.expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_its_key_publishes_durably_and_observes_without_a_token() {
    let stage = stage(|_| ()).await;
    let mut device = Device::connected(&stage, "d").await;
    let changed = MessageClass::Response(ResponseType::Changed);
    assert_eq!(device.post("t/a/b", "21.5").await, changed);
    assert_eq!(stage.payloads().await, ["21.5"]);
    let large = "x".repeat(1_200);
    assert_eq!(device.post("t/a/b", &large).await, changed, "longer than the messages of a handshake may be");

    let mut observe = device.request(RequestType::Get, "t/down");
    observe.add_option(CoapOption::Observe, Vec::new());
    device.send(&observe).await;
    assert!(device.message().await.get_observe_value().is_some());
    let mut publisher = stage.connect(Version::V5, "p").await;
    publisher.publish(1, "down", "to the device").await;
    publisher.expect_acks([1]).await;
    let notification = device.message().await;
    assert_eq!(notification.payload, b"to the device");
    let mut acknowledgement = Packet::new();
    acknowledgement.header.code = MessageClass::Empty;
    acknowledgement.header.set_type(MessageType::Acknowledgement);
    acknowledgement.header.message_id = notification.header.message_id;
    device.send(&acknowledgement).await;
    stage.metric("drover_ingress_coap_associations 1").await;
    stage.metric("drover_ingress_coap_handshakes_total{outcome=\"completed\"} 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_device_without_one_are_refused_alike() {
    let stage = stage(|_| ()).await;
    for (identity, key) in [("d", "another"), ("nobody", KEY), ("d/d/d", KEY)] {
        let mut device = Device::new(&stage, &config(identity, key)).await;
        device.refused().await;
        assert!(!device.connected, "{identity}");
    }
    assert_eq!(count(&stage, "refused"), 3);
    assert!(stage.payloads().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_its_association_and_opens_no_other() {
    let stage = stage(|_| ()).await;
    let mut device = Device::connected(&stage, "d").await;
    revoke(&stage, "another").await;
    assert_eq!(device.post("t/a", "1").await, MessageClass::Response(ResponseType::Changed));
    stage.registry.keys.lock().expect("not poisoned").clear();
    revoke(&stage, "key-of-d").await;
    let revoked = Instant::now();
    device.hears_the_end().await;
    assert!(revoked.elapsed() < Duration::from_secs(1), "P5: {:?}", revoked.elapsed());
    stage.metric("drover_ingress_coap_associations 0").await;
    let mut again = Device::new(&stage, &config("d", KEY)).await;
    again.refused().await;
    assert!(!again.connected);
    assert_eq!(stage.payloads().await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_whose_revocation_was_missed_ends_when_its_device_is_refused() {
    let stage = stage(|_| ()).await;
    let mut device = Device::connected(&stage, "d").await;
    revoke(&stage, "another").await; // what is known of the device is asked for again
    let verdicts = [Status::unavailable("away"), Status::unauthenticated("revoked")];
    stage.registry.verdicts.lock().expect("not poisoned").extend(verdicts);
    assert_eq!(device.post("t/a", "1").await, MessageClass::Response(ResponseType::ServiceUnavailable));
    assert_eq!(device.post("t/a", "2").await, MessageClass::Response(ResponseType::Unauthorized));
    device.hears_the_end().await;
    stage.metric("drover_ingress_coap_associations 0").await;
    assert!(stage.payloads().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_begins_anew_from_the_same_port_takes_the_place_of_its_association() {
    let stage = stage(|_| ()).await;
    let mut device = Device::connected(&stage, "d").await;
    assert_eq!(device.post("t/a", "before").await, MessageClass::Response(ResponseType::Changed));
    let id = device.last_id;
    device.dtls = begun(&config("d", KEY));
    (device.connected, device.last_id) = (false, id - 1);
    device.connect().await;
    // The message id of before is another message now.
    assert_eq!(device.post("t/a", "after").await, MessageClass::Response(ResponseType::Changed));
    assert_eq!(stage.payloads().await, ["before", "after"]);
    stage.metric("drover_ingress_coap_associations 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_half_handshakes_are_bounded_and_cost_nobody_else() {
    let stage = stage(|_| ()).await;
    let (config, mut half) = (config("d", KEY), Vec::new());
    for _ in 0..2_000 {
        let mut device = Device::new(&stage, &config).await;
        device.tell().await;
        assert!(device.hear().await); // HelloVerifyRequest
        device.tell().await;
        assert!(device.hear().await); // ServerHello: and now it is silent
        half.push(device);
    }
    // The oldest have given way, or their time was over: at most 1,024 wait.
    assert!(count(&stage, "crowded_out") + count(&stage, "late") >= 2_000 - 1_024);
    let mut device = Device::connected(&stage, "d").await;
    assert_eq!(device.post("t/a", "1").await, MessageClass::Response(ResponseType::Changed));
    assert_eq!(stage.payloads().await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_association_ends_in_time() {
    let stage = stage(|config| config.coaps.idle = drover_host::Duration::from_secs(1)).await;
    let mut device = Device::connected(&stage, "d").await;
    device.hears_the_end().await;
}
