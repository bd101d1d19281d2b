//! CoAP by the datagram: publishing, blocks, repeats, observing, and whatever should not be answered.

use std::net::SocketAddr;
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};
use drover_host::ByteSize;
use drover_ingress::config::IngressConfig;
use drover_mqtt::{Packet as Mqtt, PacketId, Publish, Version};
use drover_proto::ingress::v1::presence_report::What;
use drover_types::Qos;
use tokio::net::UdpSocket;

use crate::bus::Gate;
use crate::http::{TOKEN, records};
use crate::stage::Stage;

/// Number of the option that holds the token.
const TOKEN_OPTION: u16 = 65_003;

async fn stage(change: impl FnOnce(&mut IngressConfig)) -> Stage {
    let stage = Stage::with(change).await;
    stage.registry.credential(TOKEN, "d");
    stage
}

/// A device that speaks CoAP.
struct Peer {
    socket: UdpSocket,
    last_id: u16,
}

impl Peer {
    async fn new(stage: &Stage) -> Self {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("port 0 is free");
        socket.connect(stage.coap.expect("bound")).await.expect("an address");
        Self { socket, last_id: 100 }
    }

    /// A confirmable request with the device's token.
    fn request(&mut self, method: RequestType, path: &str) -> Packet {
        let mut packet = self.anonymous(method, path);
        packet.add_option(CoapOption::Unknown(TOKEN_OPTION), TOKEN.as_bytes().to_vec());
        packet
    }

    fn anonymous(&mut self, method: RequestType, path: &str) -> Packet {
        self.last_id += 1;
        let mut packet = Packet::new();
        packet.header.code = MessageClass::Request(method);
        packet.header.message_id = self.last_id;
        packet.set_token(vec![0xca, self.last_id as u8]);
        path.split('/').for_each(|segment| packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec()));
        packet
    }

    fn post(&mut self, path: &str, payload: &str) -> Packet {
        let mut packet = self.request(RequestType::Post, path);
        packet.payload = payload.as_bytes().to_vec();
        packet
    }

    fn observe(&mut self, path: &str) -> Packet {
        let mut packet = self.request(RequestType::Get, path);
        packet.add_option(CoapOption::Observe, Vec::new());
        packet
    }

    async fn send(&self, packet: &Packet) {
        self.socket.send(&packet.to_bytes().expect("small")).await.expect("sent");
    }

    /// The next datagram.
    async fn datagram(&self) -> Vec<u8> {
        let mut bytes = vec![0; 65_535];
        let received = tokio::time::timeout(Duration::from_secs(10), self.socket.recv(&mut bytes)).await;
        bytes.truncate(received.expect("in time").expect("a datagram"));
        bytes
    }

    async fn receive(&self) -> Packet {
        Packet::from_bytes(&self.datagram().await).expect("a message")
    }

    /// Sends and returns the answer.
    async fn ask(&self, packet: &Packet) -> Packet {
        self.send(packet).await;
        self.receive().await
    }

    /// Whether nothing comes for a while.
    async fn hears_nothing(&self) -> bool {
        let mut bytes = [0; 64];
        tokio::time::timeout(Duration::from_millis(200), self.socket.recv(&mut bytes)).await.is_err()
    }

    async fn answer(&self, kind: MessageType, to: &Packet) {
        let mut packet = Packet::new();
        packet.header.code = MessageClass::Empty;
        packet.header.set_type(kind);
        packet.header.message_id = to.header.message_id;
        self.send(&packet).await;
    }

    /// The next message, which is a notification for `token`; acknowledged.
    async fn notified(&self, token: &[u8]) -> Packet {
        let packet = self.receive().await;
        assert_eq!((packet.header.get_type(), code(&packet)), (MessageType::Confirmable, ResponseType::Content));
        assert_eq!(packet.get_token(), token);
        self.answer(MessageType::Acknowledgement, &packet).await;
        packet
    }
}

fn code(packet: &Packet) -> ResponseType {
    match packet.header.code {
        MessageClass::Response(code) => code,
        other => panic!("{other} is no response: {packet:?}"),
    }
}

fn text(packet: &Packet) -> &str {
    std::str::from_utf8(&packet.payload).expect("text")
}

fn option(packet: &Packet, option: CoapOption) -> Option<&[u8]> {
    packet.get_first_option(option).map(Vec::as_slice)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_in_the_log_and_at_subscribers_when_it_is_answered() {
    let stage = stage(|_| ()).await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("a/+", Qos::AtLeastOnce).await;
    let mut peer = Peer::new(&stage).await;
    let mut post = peer.post("t/a/b", "{\"t\": 1.50}");
    post.add_option(CoapOption::ContentFormat, vec![50]);
    let answer = peer.ask(&post).await;
    assert_eq!((answer.header.get_type(), code(&answer)), (MessageType::Acknowledgement, ResponseType::Changed));
    assert_eq!((answer.header.message_id, answer.get_token()), (post.header.message_id, post.get_token()));
    let kept = records(&stage).await;
    assert_eq!((kept[0].topic.as_str(), kept[0].device.as_str(), kept[0].client.as_str()), ("a/b", "d", "coap:d"));
    assert_eq!((&kept[0].payload[..], kept[0].qos), (&b"{\"t\": 1.50}"[..], Qos::AtLeastOnce));
    assert_eq!(
        (kept[0].content_type.as_deref(), kept[0].packet_id),
        (Some("application/json"), Some(post.header.message_id))
    );
    assert_eq!(subscriber.message().await, "{\"t\": 1.50}");

    let mut by_query = peer.anonymous(RequestType::Post, "t/a/c");
    by_query.add_option(CoapOption::UriQuery, format!("token={TOKEN}").into_bytes());
    by_query.add_option(CoapOption::UriQuery, b"id=m-7".to_vec());
    by_query.header.set_type(MessageType::NonConfirmable);
    let answer = peer.ask(&by_query).await;
    assert_eq!((answer.header.get_type(), code(&answer)), (MessageType::NonConfirmable, ResponseType::Changed));
    assert_eq!(answer.get_token(), by_query.get_token());
    let kept = records(&stage).await;
    assert_eq!((kept[1].qos, kept[1].packet_id), (Qos::AtMostOnce, None));
    assert_eq!(kept[1].properties, [("drover-id".to_owned(), "m-7".to_owned())]);
    stage.metric("drover_ingress_coap_requests_total{code=\"2.04\"} 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_again_is_answered_again_and_not_carried_out_again() {
    let stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    let post = peer.post("t/a", "once");
    let first = peer.ask(&post).await;
    for _ in 0..3 {
        assert_eq!(peer.ask(&post).await, first);
    }
    let mut other = Peer::new(&stage).await;
    let same_id = other.post("t/a", "of another peer");
    assert_eq!(same_id.header.message_id, post.header.message_id);
    assert_eq!(code(&other.ask(&same_id).await), ResponseType::Changed);
    let mut non = peer.post("t/a", "non");
    non.header.set_type(MessageType::NonConfirmable);
    peer.ask(&non).await;
    peer.send(&non).await;
    assert!(peer.hears_nothing().await, "nobody waits for its answer");
    assert_eq!(stage.payloads().await, ["once", "of another peer", "non"]);
    stage.metric("drover_ingress_coap_repeats_total 4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_no_answer_gets_none() {
    let stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    let mut silent = peer.post("t/a", "1");
    silent.add_option(CoapOption::NoResponse, vec![2]);
    let answer = peer.ask(&silent).await;
    assert_eq!((answer.header.code, answer.header.get_type()), (MessageClass::Empty, MessageType::Acknowledgement));
    let mut non = peer.post("t/a", "2");
    non.header.set_type(MessageType::NonConfirmable);
    non.add_option(CoapOption::NoResponse, vec![26]);
    peer.send(&non).await;
    assert!(peer.hears_nothing().await);
    assert_eq!(stage.payloads().await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_with_its_code_and_in_words() {
    let stage = stage(|config| config.limits.payload = ByteSize::from_bytes(16)).await;
    stage.registry.allow(&["ok/#", "ok/+"], &["ok"]);
    let mut peer = Peer::new(&stage).await;
    let mut requests = Vec::new();
    let mut add = |packet, code, said: &'static str| requests.push((packet, code, said));
    add(peer.post("t/other", "1"), ResponseType::Forbidden, "topic: the policies of d");
    add(peer.post("t/ok/#", "1"), ResponseType::BadRequest, "topic: ");
    add(peer.post("t/ok/a", "12345678901234567"), ResponseType::RequestEntityTooLarge, "at most 16 bytes");
    add(peer.post("nothing", "1"), ResponseType::NotFound, "/t/{topic}");
    add(peer.post("t", "1"), ResponseType::NotFound, "/t/{topic}");
    add(peer.request(RequestType::Put, "t/ok/a"), ResponseType::MethodNotAllowed, "GET and POST");
    add(peer.request(RequestType::Get, "t/ok"), ResponseType::NotFound, "retained");
    add(peer.request(RequestType::Get, "t/ok/a"), ResponseType::Forbidden, "filter: ");
    add(peer.observe("t/ok/+"), ResponseType::Forbidden, "filter: ");
    let mut qos = peer.post("t/ok/a", "1");
    qos.add_option(CoapOption::UriQuery, b"qos=2".to_vec());
    add(qos, ResponseType::BadRequest, "qos is 0 or 1");
    let mut unknown = peer.post("t/ok/a", "1");
    unknown.add_option(CoapOption::Unknown(65_001), b"x".to_vec());
    add(unknown, ResponseType::BadOption, "65001");
    let mut proxy = peer.post("t/ok/a", "1");
    proxy.add_option(CoapOption::ProxyUri, b"coap://a/b".to_vec());
    add(proxy, ResponseType::ProxyingNotSupported, "no proxy");
    for (packet, expected, said) in requests {
        let answer = peer.ask(&packet).await;
        assert_eq!((answer.header.get_type(), code(&answer)), (MessageType::Acknowledgement, expected), "{answer:?}");
        assert!(text(&answer).contains(said), "{:?} does not say {said:?}", text(&answer));
        if expected == ResponseType::RequestEntityTooLarge {
            assert_eq!(option(&answer, CoapOption::Size1), Some(&[16][..]));
        }
    }
    let at_the_limit = peer.post("t/ok/a", "1234567890123456");
    assert_eq!(code(&peer.ask(&at_the_limit).await), ResponseType::Changed);
    assert_eq!(stage.payloads().await, ["1234567890123456"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_show_who_it_is_gets_little() {
    let stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    let missing = peer.anonymous(RequestType::Post, "t/a");
    let mut wrong = peer.anonymous(RequestType::Post, "t/a");
    wrong.add_option(CoapOption::Unknown(TOKEN_OPTION), b"wrong".to_vec());
    let mut observe = peer.anonymous(RequestType::Get, "t/#");
    observe.add_option(CoapOption::Observe, Vec::new());
    for packet in [missing, wrong, observe] {
        let request = packet.to_bytes().expect("small");
        peer.send(&packet).await;
        let datagram = peer.datagram().await;
        assert!(datagram.len() <= 3 * request.len(), "{} for {}", datagram.len(), request.len());
        assert_eq!(code(&Packet::from_bytes(&datagram).expect("a message")), ResponseType::Unauthorized);
    }
    let links = peer.anonymous(RequestType::Get, ".well-known/core");
    let answer = peer.ask(&links).await;
    assert_eq!((code(&answer), option(&answer, CoapOption::ContentFormat)), (ResponseType::Content, Some(&[40][..])));
    assert_eq!(text(&answer), "</t>;rt=\"drover.topics\";obs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_reset_or_ignored() {
    let stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    for ignored in
        [&[][..], &[0x40], &[0x00, 1, 0, 1], &[0x51, 1, 0, 1], &[0x60, 0, 0, 9], &[0x70, 0, 0, 9], &[0xff; 100]]
    {
        peer.socket.send(ignored).await.expect("sent");
    }
    assert!(peer.hears_nothing().await);
    for reset in
        [&[0x40, 0, 0, 1][..], &[0x4f, 1, 0, 1], &[0x40, 1, 0, 1, 0xff], &[0x40, 0x45, 0, 1], &[0x40, 1, 0, 1, 0xf0]]
    {
        peer.socket.send(reset).await.expect("sent");
        assert_eq!(peer.datagram().await, [0x70, 0, 0, 1], "{reset:x?}");
    }
    let post = peer.post("t/a", "still here");
    assert_eq!(code(&peer.ask(&post).await), ResponseType::Changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_blocks_is_one_message() {
    let stage = stage(|config| config.limits.payload = ByteSize::from_bytes(5_000)).await;
    let mut peer = Peer::new(&stage).await;
    let upload = |peer: &mut Peer, number: u32, more: bool, bytes: usize| {
        let mut packet = peer.post("t/firmware", &"x".repeat(bytes));
        let value = number << 4 | u32::from(more) << 3 | 2; // blocks of 64 bytes
        let option = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        packet.add_option(CoapOption::Block1, option);
        packet
    };
    for number in 0..78 {
        let block = upload(&mut peer, number, true, 64);
        let answer = peer.ask(&block).await;
        assert_eq!(code(&answer), ResponseType::Continue, "{number}");
        assert_eq!(option(&answer, CoapOption::Block1), option(&block, CoapOption::Block1));
    }
    let last = upload(&mut peer, 78, false, 8);
    assert_eq!(code(&peer.ask(&last).await), ResponseType::Changed, "5,000 bytes, the limit");
    assert_eq!(code(&peer.ask(&last).await), ResponseType::Changed, "it has come again");
    let kept = records(&stage).await;
    assert_eq!((kept.len(), kept[0].payload.len()), (1, 5_000));

    let gap = upload(&mut peer, 1, true, 64);
    assert_eq!(code(&peer.ask(&gap).await), ResponseType::RequestEntityIncomplete);
    for number in 0..78 {
        let block = upload(&mut peer, number, true, 64);
        assert_eq!(code(&peer.ask(&block).await), ResponseType::Continue);
    }
    let over = upload(&mut peer, 78, false, 9);
    let answer = peer.ask(&over).await;
    assert_eq!(
        (code(&answer), option(&answer, CoapOption::Size1)),
        (ResponseType::RequestEntityTooLarge, Some(&[0x13, 0x88][..]))
    );
    let mut declared = upload(&mut peer, 0, true, 64);
    declared.add_option(CoapOption::Size1, vec![0x13, 0x89]);
    assert_eq!(code(&peer.ask(&declared).await), ResponseType::RequestEntityTooLarge, "said before it is sent");
    assert_eq!(records(&stage).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_log_is_answered_separately_and_only_when_it_has_the_message() {
    let stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    stage.bus.set(Gate::Hanging);
    let post = peer.post("t/a", "1");
    let told = peer.ask(&post).await;
    assert_eq!((told.header.code, told.header.get_type()), (MessageClass::Empty, MessageType::Acknowledgement));
    assert_eq!(told.header.message_id, post.header.message_id);
    assert_eq!(peer.ask(&post).await, told, "it has come, and is not answered yet");
    assert!(peer.hears_nothing().await);
    stage.bus.set(Gate::Open);
    let answer = peer.receive().await;
    assert_eq!((answer.header.get_type(), code(&answer)), (MessageType::Confirmable, ResponseType::Changed));
    assert_eq!(answer.get_token(), post.get_token());
    assert_eq!(peer.receive().await, answer, "sent again until it is acknowledged");
    peer.answer(MessageType::Acknowledgement, &answer).await;
    assert_eq!(stage.payloads().await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_does_not_answer_nothing_is_acknowledged() {
    let stage = stage(|config| config.coap.request = drover_host::Duration::from_millis(200)).await;
    let mut peer = Peer::new(&stage).await;
    stage.bus.set(Gate::Hanging);
    let post = peer.post("t/a", "1");
    assert_eq!(code(&peer.ask(&post).await), ResponseType::GatewayTimeout);
    stage.bus.set(Gate::Failing);
    let post = peer.post("t/a", "2");
    let answer = peer.ask(&post).await;
    assert_eq!(
        (code(&answer), option(&answer, CoapOption::MaxAge)),
        (ResponseType::ServiceUnavailable, Some(&[2][..]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_requests_under_way_and_others_have_theirs() {
    let stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    stage.bus.set(Gate::Hanging);
    for _ in 0..64 {
        let mut post = peer.post("t/a", "1");
        post.header.set_type(MessageType::NonConfirmable);
        peer.send(&post).await;
    }
    let one_more = peer.post("t/a", "1");
    let answer = peer.ask(&one_more).await;
    assert_eq!((code(&answer), option(&answer, CoapOption::MaxAge)), (ResponseType::TooManyRequests, Some(&[2][..])));
    let mut other = Peer::new(&stage).await;
    let post = other.post("t/a", "2");
    other.send(&post).await;
    stage.bus.set(Gate::Open);
    assert_eq!(other.receive().await.get_token(), post.get_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_gets_messages_one_after_the_other_until_it_wants_no_more() {
    let stage = stage(|_| ()).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    let mut peer = Peer::new(&stage).await;
    let register = peer.observe("t/a/+");
    let answer = peer.ask(&register).await;
    assert_eq!((code(&answer), answer.payload.len()), (ResponseType::Content, 0));
    let first = answer.get_observe_value().expect("an observation").expect("a number");
    let reports = stage.reports(2).await;
    let connected = reports.iter().find(|report| report.client == "coap:d").expect("a report");
    assert!(matches!(&connected.what, Some(What::Connected(connected)) if connected.protocol == "coap"));

    for (id, payload) in [(1, "one"), (2, "two")] {
        publisher.publish(id, "a/b", payload).await;
    }
    publisher.expect_acks([1, 2]).await;
    let notification = peer.receive().await;
    assert_eq!((text(&notification), notification.get_token()), ("one", register.get_token()));
    assert!(notification.get_observe_value().expect("an observation").expect("a number") > first);
    let location: Vec<&[u8]> =
        notification.get_option(CoapOption::LocationPath).expect("a path").iter().map(Vec::as_slice).collect();
    assert_eq!(location, [&b"t"[..], b"a", b"b"]);
    assert!(peer.hears_nothing().await, "the second waits for the first");
    peer.answer(MessageType::Acknowledgement, &notification).await;
    assert_eq!(text(&peer.notified(register.get_token()).await), "two");

    let again = peer.observe("t/a/+");
    assert!(peer.ask(&again).await.get_observe_value().is_some());
    publisher.publish(3, "a/b", "three").await;
    assert_eq!(text(&peer.notified(again.get_token()).await), "three", "the newer token counts");

    let mut cancel = peer.request(RequestType::Get, "t/a/+");
    cancel.set_token(again.get_token().to_vec());
    cancel.add_option(CoapOption::Observe, vec![1]);
    let answer = peer.ask(&cancel).await;
    assert!(code(&answer) == ResponseType::Content && answer.get_observe_value().is_none());
    stage.metric("drover_ingress_coap_observers 0").await;
    publisher.publish(4, "a/b", "four").await;
    publisher.expect_acks([3, 4]).await;
    assert!(peer.hears_nothing().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_is_reset_ends_its_observation_and_no_other() {
    let stage = stage(|_| ()).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    let mut peer = Peer::new(&stage).await;
    let (one, two) = (peer.observe("t/a"), peer.observe("t/b"));
    for register in [&one, &two] {
        assert!(peer.ask(register).await.get_observe_value().is_some());
    }
    publisher.publish(1, "a", "unknown").await;
    let notification = peer.receive().await;
    peer.answer(MessageType::Reset, &notification).await;
    publisher.expect_acks([1]).await;
    publisher.publish(2, "a", "nobody").await;
    publisher.publish(3, "b", "other").await;
    publisher.expect_acks([2, 3]).await;
    let next = peer.notified(two.get_token()).await;
    assert_eq!((text(&next), next.get_option(CoapOption::LocationPath)), ("other", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_notification_is_fetched_in_blocks_before_the_next_one_comes() {
    let stage = stage(|_| ()).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    let mut peer = Peer::new(&stage).await;
    let register = peer.observe("t/#");
    assert!(peer.ask(&register).await.get_observe_value().is_some());
    let large: String = (0..2_500).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    publisher.publish(1, "big", &large).await;
    publisher.publish(2, "small", "next").await;
    publisher.expect_acks([1, 2]).await;
    let first = peer.notified(register.get_token()).await;
    assert_eq!((first.payload.len(), option(&first, CoapOption::Block2)), (1_024, Some(&[0x0e][..])));
    assert_eq!(option(&first, CoapOption::Size2), Some(&[0x09, 0xc4][..]));
    let mut body = first.payload.clone();
    assert!(peer.hears_nothing().await, "the next waits until this one is fetched");
    for (number, more) in [(1_u8, true), (2, false)] {
        let mut get = peer.request(RequestType::Get, "t/#");
        get.add_option(CoapOption::Block2, vec![number << 4 | 6]);
        let answer = peer.ask(&get).await;
        assert_eq!(option(&answer, CoapOption::Block2), Some(&[number << 4 | u8::from(more) << 3 | 6][..]));
        assert_eq!(option(&answer, CoapOption::ETag), option(&first, CoapOption::ETag), "of the same body");
        body.extend_from_slice(&answer.payload);
    }
    assert_eq!(body, large.as_bytes());
    assert_eq!(text(&peer.notified(register.get_token()).await), "next");
    let mut beyond = peer.request(RequestType::Get, "t/#");
    beyond.add_option(CoapOption::Block2, vec![0x36]);
    assert_eq!(code(&peer.ask(&beyond).await), ResponseType::BadRequest);
    let mut unknown = peer.request(RequestType::Get, "t/other");
    unknown.add_option(CoapOption::Block2, vec![0x16]);
    assert_eq!(code(&peer.ask(&unknown).await), ResponseType::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_as_it_is_retained() {
    let stage = stage(|_| ()).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    let mut peer = Peer::new(&stage).await;
    let publish = Publish {
        retain: true,
        qos: Qos::AtLeastOnce,
        packet_id: PacketId::new(1),
        ..Publish::new("set/point", b"21.5")
    };
    publisher.send(&Mqtt::Publish(publish)).await;
    publisher.expect_acks([1]).await;
    let get = peer.request(RequestType::Get, "t/set/point");
    let answer = peer.ask(&get).await;
    assert_eq!(
        (code(&answer), text(&answer), option(&answer, CoapOption::Block2)),
        (ResponseType::Content, "21.5", None)
    );
    let exact = peer.observe("t/set/point");
    let answer = peer.ask(&exact).await;
    assert!(answer.get_observe_value().is_some() && text(&answer) == "21.5", "{answer:?}");
    let wildcard = peer.observe("t/set/#");
    assert_eq!(text(&peer.ask(&wildcard).await), "");
    assert_eq!(text(&peer.notified(wildcard.get_token()).await), "21.5");
    let get = peer.request(RequestType::Get, "t/set/+");
    assert_eq!(code(&peer.ask(&get).await), ResponseType::BadRequest, "a filter is no topic");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_is_told_why_it_observes_no_more() {
    let mut stage = stage(|_| ()).await;
    let mut peer = Peer::new(&stage).await;
    let withdrawn = peer.observe("t/a");
    let kept = peer.observe("t/b");
    for register in [&withdrawn, &kept] {
        assert!(peer.ask(register).await.get_observe_value().is_some());
    }
    stage.registry.allow(&["#"], &["b"]);
    stage.policy_changed().await;
    let told = peer.receive().await;
    assert_eq!(
        (told.get_token(), code(&told), told.get_observe_value()),
        (withdrawn.get_token(), ResponseType::Forbidden, None)
    );

    let mut elsewhere = Peer::new(&stage).await;
    let register = elsewhere.observe("t/b");
    assert!(elsewhere.ask(&register).await.get_observe_value().is_some());
    let told = peer.receive().await;
    assert_eq!((told.get_token(), code(&told)), (kept.get_token(), ResponseType::Conflict));
    stage.metric("drover_ingress_coap_observers 1").await;

    stage.stop().await;
    let told = elsewhere.receive().await;
    assert_eq!((told.get_token(), code(&told)), (register.get_token(), ResponseType::ServiceUnavailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_devices_observe() {
    let stage = stage(|config| config.coap.observers = 1).await;
    stage.registry.credential("other", "e");
    let mut peer = Peer::new(&stage).await;
    let first = peer.observe("t/a");
    assert!(peer.ask(&first).await.get_observe_value().is_some());
    let mut second = Peer::new(&stage).await;
    let mut register = second.anonymous(RequestType::Get, "t/a");
    register.add_option(CoapOption::Observe, Vec::new());
    register.add_option(CoapOption::Unknown(TOKEN_OPTION), b"other".to_vec());
    let answer = second.ask(&register).await;
    assert_eq!((code(&answer), answer.get_observe_value()), (ResponseType::TooManyRequests, None));
    assert!(text(&answer).contains("ingress.coap.observers"));
}
