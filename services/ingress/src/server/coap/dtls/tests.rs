//! Handshakes with the library's own client, over loopback.

use dimpl::Output;
use dimpl::crypto::{Dtls12CipherSuite, rust_crypto};
use drover_host::Metrics;
use drover_types::{DeviceId, TenantId};

use super::table::UNPROVEN_MAX;
use super::*;
use crate::domain::authorize::Policy;
use crate::domain::identity::Identity;
use crate::domain::revocations::{Revocation, Whose};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(10);

async fn server(associations: usize) -> Dtls {
    server_telling(associations, Arc::default()).await
}

async fn server_telling(associations: usize, telemetry: Arc<Telemetry>) -> Dtls {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("port 0 is free");
    socket.writable().await.expect("open"); // known to the runtime only once it was asked for
    let bounds = Bounds { associations, idle: Duration::from_secs(60) };
    Dtls::new(socket, bounds, telemetry).expect("the suite is there")
}

/// A device that begins a handshake.
struct Client {
    socket: UdpSocket,
    dtls: dimpl::Dtls,
    connected: bool,
    closed: bool,
    messages: Vec<Vec<u8>>,
}

impl Client {
    async fn new(key: &[u8]) -> Self {
        let known = Arc::<KeyAtHand>::default();
        known.put(Some((b"d".to_vec(), key.to_vec())));
        let config = Config::builder()
            .with_crypto_provider(rust_crypto::default_provider())
            .dtls12_cipher_suites(&[Dtls12CipherSuite::PSK_AES128_CCM_8])
            .dtls13_cipher_suites(&[])
            .with_psk_client(b"d".to_vec(), known);
        let now = Instant::now().into_std();
        let mut dtls = dimpl::Dtls::new_12_psk(Arc::new(config.build().expect("valid")), now);
        dtls.set_active(true);
        dtls.handle_timeout(now).expect("it begins");
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("port 0 is free");
        Self { socket, dtls, connected: false, closed: false, messages: Vec::new() }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// What it sends.
    fn packets(&mut self) -> Vec<Vec<u8>> {
        let (mut packets, mut buffer) = (Vec::new(), vec![0; 4_096]);
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => packets.push(packet.to_vec()),
                Output::ApplicationData(message) => self.messages.push(message.to_vec()),
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.closed = true,
                Output::KeyingMaterial(..) => {}
                Output::Timeout(_) => return packets,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Hands over what it sends.
    fn tell(&mut self, server: &Dtls) -> Vec<Event> {
        let (packets, address) = (self.packets(), self.address());
        packets.iter().flat_map(|packet| server.receive(packet, address, Instant::now())).collect()
    }

    /// The next datagram, which it takes as far as it can.
    async fn hear(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4_096];
        let heard = tokio::time::timeout(PATIENCE, self.socket.recv(&mut bytes)).await;
        bytes.truncate(heard.expect("in time").expect("a datagram"));
        self.dtls.handle_timeout(Instant::now().into_std()).expect("in time");
        self.dtls.handle_packet(&bytes).ok(); // a refusal ends it
        bytes
    }

    /// Goes on until its key is asked for.
    async fn asked(&mut self, server: &Dtls) -> Question {
        loop {
            if let Some(event) = self.tell(server).pop() {
                let Event::Asks(question) = event else { panic!("it has said nothing yet") };
                assert_eq!((question.address, question.identity.as_slice()), (self.address(), b"d".as_slice()));
                return question;
            }
            self.hear().await;
        }
    }

    /// Goes on until it is associated.
    async fn connected(&mut self, server: &Dtls) {
        let question = self.asked(server).await;
        assert!(server.answered(&question, known(KEY), Instant::now()).is_empty());
        while !self.connected {
            self.hear().await;
            assert!(self.tell(server).is_empty());
        }
    }

    async fn hears_the_end(&mut self) {
        while !self.closed {
            self.hear().await;
            self.packets();
        }
    }
}

fn proof() -> Proof {
    let (tenant, device) = (TenantId::default_tenant(), DeviceId::new("d").expect("valid"));
    Proof::PreSharedKey { tenant, device, credential: "c".into() }
}

fn known(key: &[u8]) -> Answer {
    let who = Identity {
        tenant: TenantId::default_tenant(),
        device: DeviceId::new("d").expect("valid"),
        credential: "c".into(),
        policy: Policy::compile(Box::default(), &[]),
        expires_ms: 0,
        generation: 0,
    };
    let (identity, key) = (b"d".to_vec(), key.to_vec());
    Answer::Known(Box::new(Shown { identity, key, proof: proof(), who: Arc::new(who) }))
}

#[tokio::test]
async fn a_flight_waits_for_its_key_and_its_association_says_who_sends() {
    let (server, mut client) = (server(8).await, Client::new(KEY).await);
    client.connected(&server).await;
    client.dtls.send_application_data(b"message").expect("associated");
    let mut events = client.tell(&server);
    let Some(Event::Message { peer, proof: shown, message }) = events.pop() else { panic!("a message") };
    assert_eq!((peer.address, shown, &*message), (client.address(), proof(), b"message".as_slice()));

    server.send(peer, b"answer", Instant::now());
    server.send(Peer { association: peer.association + 1, ..peer }, b"of another", Instant::now());
    client.hear().await;
    client.packets();
    assert_eq!(client.messages, [b"answer".to_vec()]);

    client.dtls.close().expect("associated");
    assert!(client.tell(&server).is_empty() && server.table().associations.is_empty());
}

#[tokio::test]
async fn a_wrong_key_and_an_identity_that_nobody_has_are_told_apart_by_nobody() {
    let server = server(8).await;
    for answer in [known(b"another key"), Answer::Nobodys] {
        let mut client = Client::new(KEY).await;
        let question = client.asked(&server).await;
        assert!(server.answered(&question, answer, Instant::now()).is_empty());
        assert_eq!(client.hear().await, records::REFUSAL);
        let table = server.table();
        assert!(table.handshakes.is_empty() && table.associations.is_empty());
    }
}

#[tokio::test]
async fn a_key_that_nobody_could_tell_is_asked_for_again_when_the_flight_comes_again() {
    let (server, mut client) = (server(8).await, Client::new(KEY).await);
    let question = client.asked(&server).await;
    assert!(server.answered(&question, Answer::Unknown, Instant::now()).is_empty());
    let again = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.dtls.handle_timeout(Instant::now().into_std()).expect("it tries again");
            if let Some(Event::Asks(question)) = client.tell(&server).pop() {
                return question;
            }
        }
    };
    let question = tokio::time::timeout(PATIENCE, again).await.expect("the flight comes again");
    assert!(server.answered(&question, known(KEY), Instant::now()).is_empty());
    // The server's own flight is due again by now and comes with its last one, which the client may have to ask for.
    let completed = async {
        while !client.connected {
            tokio::time::timeout(Duration::from_millis(200), client.hear()).await.ok();
            client.dtls.handle_timeout(Instant::now().into_std()).expect("it tries again");
            assert!(client.tell(&server).is_empty());
        }
    };
    tokio::time::timeout(PATIENCE, completed).await.expect("the handshake is completed");
}

#[tokio::test]
async fn a_question_ends_with_its_handshake() {
    let server = server(8).await;
    let (mut late, mut drained) = (Client::new(KEY).await, Client::new(KEY).await);
    let question = late.asked(&server).await;
    server.tick(Instant::now(), false, &Sessions::new(1), 0);
    assert!(!question.ended.is_cancelled());
    server.tick(Instant::now() + HANDSHAKE, false, &Sessions::new(1), 0);
    assert!(question.ended.is_cancelled(), "it took too long");
    let question = drained.asked(&server).await;
    server.end_handshakes();
    assert!(question.ended.is_cancelled(), "the node drains");
}

#[tokio::test]
async fn a_datagram_that_is_too_large_for_a_handshake_is_lost_and_the_handshake_goes_on() {
    let (server, mut client) = (server(8).await, Client::new(KEY).await);
    let question = client.asked(&server).await;
    let [high, low] = u16::try_from(FLIGHT_BYTES_MAX).expect("a record").to_be_bytes();
    let mut large = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, high, low];
    large.resize(large.len() + FLIGHT_BYTES_MAX, 0);
    assert!(server.receive(&large, client.address(), Instant::now()).is_empty());
    server.answered(&question, known(KEY), Instant::now());
    while !client.connected {
        client.hear().await;
        client.tell(&server);
    }
}

#[tokio::test]
async fn what_waits_for_a_key_is_bounded_and_what_is_beyond_that_is_counted() {
    let metrics = Metrics::default();
    let (server, mut client) = (server_telling(8, Arc::new(Telemetry::new(&metrics))).await, Client::new(KEY).await);
    client.asked(&server).await;
    let address = client.address();
    let waiting = || {
        let table = server.table();
        let handshake = table.handshakes.get(&address).expect("its key is asked for");
        let Stage::Asking { held, .. } = &handshake.stage else { panic!("its key is asked for") };
        held.len()
    };
    let flight = waiting();
    // Alerts in plain, as anybody can send them.
    let alert = [21_u8, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 90];
    for _ in flight..HELD_MAX + 3 {
        assert!(server.receive(&alert, address, Instant::now()).is_empty());
    }
    assert_eq!(waiting(), HELD_MAX);
    let lost = "drover_ingress_coap_datagrams_lost_total{reason=\"crowded_out\"} 3";
    let told = metrics.encode();
    assert!(told.lines().any(|line| line == lost), "{told}");
}

#[tokio::test]
async fn an_association_ends_with_its_credential_and_when_it_was_silent() {
    let (server, sessions) = (server(8).await, Sessions::new(1));
    let mut client = Client::new(KEY).await;
    client.connected(&server).await;
    let revocation = |credential: &str| {
        let (tenant, device) = (TenantId::default_tenant(), "d".to_owned());
        Revocation { tenant, device, whose: Whose::Credential(credential.to_owned()) }
    };
    sessions.revoke(revocation("another"));
    server.tick(Instant::now(), false, &sessions, 0);
    assert_eq!(server.table().associations.len(), 1);
    sessions.revoke(revocation("c"));
    server.tick(Instant::now(), false, &sessions, 0);
    assert!(server.table().associations.is_empty());
    client.hears_the_end().await;

    let mut silent = Client::new(KEY).await;
    silent.connected(&server).await;
    let later = Instant::now() + Duration::from_secs(60);
    server.tick(later, true, &Sessions::new(1), 0);
    silent.hears_the_end().await;
}

#[tokio::test]
async fn one_more_association_than_there_may_be_ends_the_longest_silent() {
    let server = server(1).await;
    let (mut first, mut second) = (Client::new(KEY).await, Client::new(KEY).await);
    first.connected(&server).await;
    second.connected(&server).await;
    first.hears_the_end().await;
    let table = server.table();
    assert_eq!(table.associations.keys().collect::<Vec<_>>(), [&second.address()]);
}

#[tokio::test]
async fn hellos_from_anywhere_take_bounded_room_and_disturb_nobody() {
    let (server, mut client) = (server(8).await, Client::new(KEY).await);
    let question = client.asked(&server).await;
    let hello = Client::new(KEY).await.packets().remove(0);
    for n in 0..2_000_u16 {
        let [high, low] = n.to_be_bytes();
        let anywhere = SocketAddr::from(([127, 1, high, low], 9));
        assert!(server.receive(&hello, anywhere, Instant::now()).is_empty());
    }
    assert_eq!(server.table().handshakes.len(), UNPROVEN_MAX + 1);
    server.answered(&question, known(KEY), Instant::now());
    while !client.connected {
        client.hear().await;
        client.tell(&server);
    }
    server.tick(Instant::now() + HANDSHAKE, false, &Sessions::new(1), 0);
    let table = server.table();
    assert_eq!((table.handshakes.len(), table.associations.len()), (0, 1));
}
