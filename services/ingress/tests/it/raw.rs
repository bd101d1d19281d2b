//! Bytes in, bytes out: what a client sends, valid or not, and the exact answer of the specification.
//!
//! Every case is a connection of its own. A fault ends MQTT 5 with the reason code in a DISCONNECT or CONNACK and MQTT
//! 3.1.1 by closing; one line of the log names client and cause, and a counter counts it.

use drover_mqtt::Version;
use drover_types::hex;
use drover_types::limits::PAYLOAD_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::counted::Log;
use crate::stage::Stage;

/// A packet with this first byte and these fields.
fn packet(first: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    let (mut bytes, mut length) = (vec![first], body.len());
    loop {
        let more = if length > 0x7f { 0x80 } else { 0 };
        bytes.push((length & 0x7f) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    [bytes, body].concat()
}

/// Text with its length.
fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

const LEVEL_4: &[u8] = b"\0\x04MQTT\x04";
const LEVEL_5: &[u8] = b"\0\x04MQTT\x05";

/// A clean CONNECT of client `d`.
fn connect(version: Version) -> Vec<u8> {
    connect_as(version, 2, 0, &text("d"))
}

fn connect_as(version: Version, flags: u8, keep_alive_s: u16, rest: &[u8]) -> Vec<u8> {
    let keep_alive = keep_alive_s.to_be_bytes();
    match version {
        Version::V311 => packet(0x10, &[LEVEL_4, &[flags], &keep_alive, rest]),
        Version::V5 => packet(0x10, &[LEVEL_5, &[flags], &keep_alive, b"\0", rest]),
    }
}

/// The answer to a CONNECT that is accepted: receive maximum 100, packets up to 299,008 bytes, 16 aliases.
fn accepted(version: Version) -> Vec<u8> {
    match version {
        Version::V311 => vec![0x20, 2, 0, 0],
        Version::V5 => packet(0x20, &[b"\0\0", b"\x0b", b"\x21\0\x64", b"\x27\0\x04\x90\0", b"\x22\0\x10"]),
    }
}

/// A packet of MQTT 5 that ends in a reason code and the reason in words.
fn with_reason(first: u8, before: &[u8], reason: u8, words: &str) -> Vec<u8> {
    let string = [b"\x1f".as_slice(), &text(words)].concat();
    packet(first, &[before, &[reason], &[string.len() as u8], &string])
}

fn goodbye(reason: u8, words: &str) -> Vec<u8> {
    with_reason(0xe0, b"", reason, words)
}

fn refused(reason: u8, words: &str) -> Vec<u8> {
    with_reason(0x20, b"\0", reason, words)
}

/// One connection.
struct Case {
    name: &'static str,
    sent: Vec<u8>,
    answer: Vec<u8>,
    /// Whether the server closes; else a ping is answered then, and by nothing else.
    closes: bool,
}

/// The connection ends with this.
fn ends(name: &'static str, sent: Vec<u8>, answer: Vec<u8>) -> Case {
    Case { name, sent, answer, closes: true }
}

/// A connected client of MQTT 5 is told goodbye.
fn ends_5(name: &'static str, sent: Vec<u8>, reason: u8, words: &str) -> Case {
    let (connect, accepted) = (connect(Version::V5), accepted(Version::V5));
    ends(name, [connect, sent].concat(), [accepted, goodbye(reason, words)].concat())
}

/// A connected client of MQTT 3.1.1 is closed.
fn ends_4(name: &'static str, sent: Vec<u8>) -> Case {
    ends(name, [connect(Version::V311), sent].concat(), accepted(Version::V311))
}

/// A connected client gets this answer, and goes on.
fn goes_on(name: &'static str, version: Version, sent: &[Vec<u8>], answer: &[Vec<u8>]) -> Case {
    let sent = [connect(version), sent.concat()].concat();
    let answer = [accepted(version), answer.concat()].concat();
    Case { name, sent, answer, closes: false }
}

async fn run(stage: &Stage, cases: Vec<Case>) {
    for Case { name, sent, answer, closes } in cases {
        let mut socket = TcpStream::connect(stage.mqtt).await.expect("listening");
        let (mut read, mut write) = socket.split();
        let send = async {
            // The server may close while the last bytes are on their way.
            let sent = write.write_all(&sent).await;
            assert!(sent.is_ok() || closes, "{name}");
        };
        let receive = async {
            let mut received = Vec::new();
            while closes || received.len() < answer.len() {
                if !read_some(&mut read, &mut received).await {
                    break;
                }
            }
            received
        };
        let ((), received) = tokio::join!(send, receive);
        assert_eq!(hex(&received), hex(&answer), "{name}");
        if !closes {
            write.write_all(&[0xc0, 0]).await.expect("open");
            let mut pong = Vec::new();
            while pong.len() < 2 && read_some(&mut read, &mut pong).await {}
            assert_eq!(hex(&pong), "d000", "{name}");
        }
    }
}

/// Whether there was more.
async fn read_some(read: &mut (impl AsyncRead + Unpin), received: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4_096];
    let count = read.read(&mut bytes).await.unwrap_or(0);
    received.extend_from_slice(&bytes[..count]);
    count > 0
}

#[tokio::test]
async fn before_a_connect_is_accepted() {
    let stage = Stage::new().await;
    let (v4, v5) = (Version::V311, Version::V5);
    let level = |level: u8| packet(0x10, &[b"\0\x04MQTT", &[level], b"\x02\0\0", &text("d")]);
    let long = text(vec![b'x'; 65_535]);
    let words = "client id has 65535 bytes, limit is 128";
    run(
        &stage,
        vec![
            ends("publish before connect [MQTT-3.1.0-1]", b"\x30\x03\0\x01a".to_vec(), vec![]),
            ends("ping before connect", b"\xc0\0".to_vec(), vec![]),
            ends("packet type 0", b"\0\0".to_vec(), vec![]),
            ends("reserved flags of connect [MQTT-2.1.3-1]", b"\x11\0".to_vec(), vec![]),
            ends("a length of five bytes", b"\x10\xff\xff\xff\xff\x01".to_vec(), vec![]),
            ends("a connect over the limit", b"\x10\xff\xff\xff\x7f".to_vec(), vec![]),
            ends("another protocol [MQTT-3.1.2-1]", packet(0x10, &[b"\0\x04HTTP\x04\x02\0\0\0\x01d"]), vec![]),
            ends("level 3 [3.1.1 MQTT-3.1.2-2]", level(3), vec![0x20, 2, 0, 1]),
            ends(
                "level 6 [MQTT-3.1.2-2]",
                level(6),
                refused(0x84, "malformed packet: protocol level is 6, supported are 4 and 5"),
            ),
            ends("the reserved flag [MQTT-3.1.2-3]", connect_as(v4, 3, 0, &text("d")), vec![]),
            ends(
                "will qos 3 [MQTT-3.1.2-12]",
                connect_as(v5, 0b0001_1110, 0, &text("d")),
                refused(0x81, "malformed packet: connect flags 0b00011110 are not allowed"),
            ),
            ends("password without user name [3.1.1 MQTT-3.1.2-22]", connect_as(v4, 0x42, 0, &text("d")), vec![]),
            ends(
                "a client id that is no utf-8 [MQTT-1.5.4-1]",
                connect_as(v5, 2, 0, &text(b"\xff")),
                refused(0x81, "malformed packet: text is not utf-8"),
            ),
            ends("a client id that is no utf-8 in 3.1.1", connect_as(v4, 2, 0, &text(b"\xff")), vec![]),
            ends("an id of 65535 bytes in 3.1.1", connect_as(v4, 2, 0, &long), vec![0x20, 2, 0, 2]),
            ends("an id of 65535 bytes in 5", connect_as(v5, 2, 0, &long), refused(0x85, words)),
            ends("no id and a session [3.1.1 MQTT-3.1.3-8]", connect_as(v4, 0, 0, &text("")), vec![0x20, 2, 0, 2]),
            ends(
                "an unknown authentication method [MQTT-4.12.0-1]",
                packet(0x10, &[LEVEL_5, b"\x02\0\0", b"\x04\x15\0\x01x", &text("d")]),
                refused(0x8c, "authentication method is not supported"),
            ),
            ends(
                "a property twice",
                packet(0x10, &[LEVEL_5, b"\x02\0\0", b"\x06\x21\0\x01\x21\0\x01", &text("d")]),
                refused(0x82, "malformed packet: property 0x21 appears twice"),
            ),
            Case {
                name: "no id and no session [3.1.1 MQTT-3.1.3-7]",
                sent: connect_as(v4, 2, 0, &text("")),
                answer: accepted(v4),
                closes: false,
            },
            goes_on("keep alive 0", v4, &[], &[]),
            Case {
                name: "keep alive 65535",
                sent: connect_as(v5, 2, 65_535, &text("d")),
                answer: accepted(v5),
                closes: false,
            },
            Case {
                name: "an id of 128 bytes",
                sent: connect_as(v4, 2, 0, &text([b'x'; 128])),
                answer: accepted(v4),
                closes: false,
            },
        ],
    )
    .await;
    stage.metric("drover_ingress_protocol_errors_total{reason=\"unsupported protocol version\"} 3").await;
}

#[tokio::test]
async fn malformed_packets() {
    let stage = Stage::new().await;
    let both: &[(&'static str, &[u8], u8, &str)] = &[
        ("packet type 0", b"\0\0", 0x81, "packet type 0 is reserved"),
        ("a connack of a client", b"\x20\x02\0\0", 0x82, "a client does not send CONNACK in mqtt 5.0"),
        ("reserved flags of subscribe [MQTT-3.8.1-1]", b"\x80\0", 0x81, "SUBSCRIBE has the reserved flags 0b0000"),
        ("reserved flags of pubrel [MQTT-3.6.1-1]", b"\x60\x02\0\x01", 0x81, "PUBREL has the reserved flags 0b0000"),
        ("a ping with a body", b"\xc0\x01\0", 0x81, "packet has 1 bytes after its last field"),
        ("packet id 0 [MQTT-2.2.1-3]", b"\x32\x05\0\x01a\0\0", 0x82, "packet identifier is 0"),
        ("qos 3 [MQTT-3.3.1-4]", b"\x36\x05\0\x01a\0\x01", 0x81, "qos is 3, limit is 2"),
        ("dup at qos 0 [MQTT-3.3.1-2]", b"\x38\x03\0\x01a", 0x82, "dup is set at qos 0"),
        ("a wildcard in a topic name [MQTT-3.3.2-2]", b"\x30\x03\0\x01#", 0x90, "topic name contains a wildcard"),
        ("a topic that is no utf-8", b"\x30\x03\0\x01\xff", 0x81, "text is not utf-8"),
        ("a surrogate in a topic [MQTT-1.5.4-1]", b"\x30\x05\0\x03\xed\xa0\x80", 0x81, "text is not utf-8"),
        ("a null character [MQTT-1.5.4-2]", b"\x30\x03\0\x01\0", 0x81, "text contains the null character"),
        ("a topic beyond its packet", b"\x30\x02\0\x01", 0x81, "packet ends within a field"),
    ];
    let mut cases = Vec::new();
    for &(name, sent, reason, words) in both {
        cases.push(ends_5(name, sent.to_vec(), reason, &format!("malformed packet: {words}")));
        cases.push(ends_4(name, sent.to_vec()));
    }
    cases.extend([
        ends_5(
            "a length in a longer form [MQTT-1.5.5-1]",
            b"\xc0\x80\0".to_vec(),
            0x81,
            "malformed packet: variable byte integer is not the shortest form of at most 268435455",
        ),
        ends_5("no topic and no alias", b"\x30\x03\0\0\0".to_vec(), 0x82, "malformed packet: topic is empty"),
        ends_5(
            "alias 0 [MQTT-3.3.2-8]",
            b"\x30\x07\0\x01a\x03\x23\0\0".to_vec(),
            0x94,
            "malformed packet: topic alias is 0",
        ),
        ends_5(
            "alias over the limit [MQTT-3.3.2-9]",
            b"\x30\x07\0\x01a\x03\x23\0\x11".to_vec(),
            0x94,
            "topic alias is 17, limit is 16",
        ),
        ends_5(
            "an alias that stands for nothing",
            b"\x30\x06\0\0\x03\x23\0\x01".to_vec(),
            0x82,
            "topic alias 1 stands for nothing",
        ),
        ends_5(
            "a subscription identifier from a client [MQTT-3.3.4-6]",
            b"\x30\x06\0\x01a\x02\x0b\x01".to_vec(),
            0x81,
            "malformed packet: property 0x0b is not allowed in PUBLISH",
        ),
        ends_5(
            "subscribe without a filter [MQTT-3.8.3-2]",
            b"\x82\x03\0\x01\0".to_vec(),
            0x82,
            "malformed packet: SUBSCRIBE has no filter",
        ),
        ends_4("subscribe without a filter", b"\x82\x02\0\x01".to_vec()),
        ends_5(
            "reserved subscription options [MQTT-3.8.3-5]",
            b"\x82\x07\0\x01\0\0\x01a\xc0".to_vec(),
            0x81,
            "malformed packet: subscription options 0b11000000 are not allowed",
        ),
        ends_5(
            "no-local on a shared subscription [MQTT-3.8.3-4]",
            packet(0x82, &[b"\0\x01\0", &text("$share/g/a"), b"\x04"]),
            0x82,
            "malformed packet: no-local is set on a shared subscription",
        ),
        ends_5(
            "unsubscribe without a filter [MQTT-3.10.3-2]",
            b"\xa2\x03\0\x01\0".to_vec(),
            0x82,
            "malformed packet: UNSUBSCRIBE has no filter",
        ),
        ends_5(
            "a packet over the limit [MQTT-3.2.2-15]",
            b"\x30\x80\xa0\x12".to_vec(),
            0x95,
            "malformed packet: packet has 299012 bytes, limit is 299008",
        ),
        ends_4("a packet over the limit", b"\x30\x80\xa0\x12".to_vec()),
        ends_5("a second connect [MQTT-3.1.0-2]", connect(Version::V5), 0x82, "a second connect"),
        ends_4("a second connect", connect(Version::V311)),
        ends_5("auth without a method [MQTT-4.12.0-7]", b"\xf0\0".to_vec(), 0x82, "AUTH has no place here"),
        ends_4("auth in 3.1.1", b"\xf0\0".to_vec()),
        ends_5(
            "session expiry that was 0 (section 3.14.2.2.2)",
            b"\xe0\x07\0\x05\x11\0\0\0\x01".to_vec(),
            0x82,
            "session expiry was 0 at connect and is not at disconnect",
        ),
        ends("goodbye", [connect(Version::V5), b"\xe0\0".to_vec()].concat(), accepted(Version::V5)),
    ]);
    run(&stage, cases).await;
}

#[tokio::test]
async fn messages_and_their_limits() {
    let stage = Stage::new().await;
    stage.registry.allow(&["a", "b"], &["a", "b", "c/#"]);
    let (v4, v5) = (Version::V311, Version::V5);
    let long = [text(vec![b'x'; 65_535]), b"\0\x01\0".to_vec()].concat();
    let filled = |first: u8, bytes: usize| packet(first, &[b"\0\x01a\0\x01\0", &vec![b'.'; bytes]]);
    let over = format!("payload has {} bytes, limit is {PAYLOAD_BYTES_MAX}", PAYLOAD_BYTES_MAX + 1);
    run(
        &stage,
        vec![
            goes_on("qos 0 has no answer [MQTT-4.3.1-1]", v4, &[b"\x30\x03\0\x01a".to_vec()], &[]),
            goes_on("qos 1 [MQTT-4.3.2-4]", v4, &[b"\x32\x05\0\x01a\0\x01".to_vec()], &[b"\x40\x02\0\x01".to_vec()]),
            goes_on(
                "qos 2 [MQTT-4.3.3-8, MQTT-4.3.3-11]",
                v5,
                &[b"\x34\x06\0\x01a\0\x01\0".to_vec(), b"\x34\x06\0\x01b\0\x02\0".to_vec()],
                &[b"\x50\x02\0\x01".to_vec(), b"\x50\x02\0\x02".to_vec()],
            ),
            goes_on("pubrel of nothing in 5", v5, &[b"\x62\x02\0\x07".to_vec()], &[b"\x70\x03\0\x07\x92".to_vec()]),
            goes_on("pubrel of nothing in 3.1.1", v4, &[b"\x62\x02\0\x07".to_vec()], &[b"\x70\x02\0\x07".to_vec()]),
            goes_on("pubrec of nothing", v5, &[b"\x50\x02\0\x07".to_vec()], &[b"\x62\x03\0\x07\x92".to_vec()]),
            goes_on("puback and pubcomp of nothing", v5, &[b"\x40\x02\0\x07\x70\x02\0\x07".to_vec()], &[]),
            goes_on("an empty payload", v5, &[b"\x32\x06\0\x01a\0\x01\0".to_vec()], &[b"\x40\x02\0\x01".to_vec()]),
            goes_on(
                "a payload below the limit",
                v5,
                &[filled(0x32, PAYLOAD_BYTES_MAX - 1)],
                &[b"\x40\x02\0\x01".to_vec()],
            ),
            goes_on("a payload at the limit", v5, &[filled(0x32, PAYLOAD_BYTES_MAX)], &[b"\x40\x02\0\x01".to_vec()]),
            ends_5("a payload over the limit", filled(0x32, PAYLOAD_BYTES_MAX + 1), 0x95, &over),
            ends_4("a payload over the limit", packet(0x32, &[b"\0\x01a\0\x01", &vec![b'.'; PAYLOAD_BYTES_MAX + 1]])),
            goes_on(
                "a forbidden topic in 5 [MQTT-3.3.5-2]",
                v5,
                &[b"\x32\x06\0\x01c\0\x01\0".to_vec()],
                &[b"\x40\x03\0\x01\x87".to_vec()],
            ),
            goes_on(
                "a forbidden topic at qos 2",
                v5,
                &[b"\x34\x06\0\x01c\0\x01\0".to_vec()],
                &[b"\x50\x03\0\x01\x87".to_vec()],
            ),
            goes_on("a forbidden topic at qos 0", v5, &[b"\x30\x04\0\x01c\0".to_vec()], &[]),
            ends_4("a forbidden topic in 3.1.1 [3.1.1 MQTT-3.3.5-2]", b"\x32\x05\0\x01c\0\x01".to_vec()),
            goes_on(
                "a topic of 65535 bytes in 5",
                v5,
                &[packet(0x32, &[&long])],
                &[with_reason(0x40, b"\0\x01", 0x90, "topic name is not valid: topic has 65535 bytes, limit is 4096")],
            ),
            ends_4("a topic of 65535 bytes in 3.1.1", packet(0x32, &[&long])),
            goes_on(
                "an alias stands for its topic [MQTT-3.3.2-12]",
                v5,
                &[b"\x32\x09\0\x01a\0\x01\x03\x23\0\x01".to_vec(), b"\x32\x08\0\0\0\x02\x03\x23\0\x01".to_vec()],
                &[b"\x40\x02\0\x01".to_vec(), b"\x40\x02\0\x02".to_vec()],
            ),
        ],
    )
    .await;
    stage.metric("drover_ingress_messages_refused_total{reason=\"not authorized\"} 3").await;
    stage.metric("drover_ingress_messages_refused_total{reason=\"topic name invalid\"} 1").await;
    stage.metric("drover_ingress_protocol_errors_total{reason=\"packet too large\"} 2").await;
}

#[tokio::test]
async fn subscriptions_and_their_limits() {
    let change = |config: &mut drover_ingress::config::IngressConfig| config.limits.filters = 2;
    let stage = Stage::with(change).await;
    stage.registry.allow(&["a", "b"], &["a", "b", "c/#"]);
    let (v4, v5) = (Version::V311, Version::V5);
    let long = text(vec![b'x'; 65_535]);
    let filters = |options: u8, filters: &[&str]| -> Vec<u8> {
        filters.iter().flat_map(|filter| [text(filter), vec![options]].concat()).collect()
    };
    run(
        &stage,
        vec![
            goes_on(
                "each filter by itself in 5 [MQTT-3.8.4-6]",
                v5,
                &[packet(0x82, &[b"\0\x09\0", &filters(2, &["a", "d", "a/#b", "$share/g/c/+", "b"])])],
                &[packet(0x90, &[b"\0\x09\0", b"\x02\x87\x8f\x02\x97"])],
            ),
            goes_on(
                "each filter by itself in 3.1.1 [3.1.1 MQTT-3.9.3-2]",
                v4,
                &[packet(0x82, &[b"\0\x09", &filters(1, &["a", "d", "a/#b", "c/+", "b"])])],
                &[packet(0x90, &[b"\0\x09", b"\x01\x80\x80\x01\x80"])],
            ),
            goes_on(
                "a filter of 65535 bytes in 5",
                v5,
                &[packet(0x82, &[b"\0\x09\0", &long, b"\x01"])],
                &[packet(0x90, &[b"\0\x09\0", b"\x8f"])],
            ),
            goes_on(
                "a filter of 65535 bytes in 3.1.1",
                v4,
                &[packet(0x82, &[b"\0\x09", &long, b"\x01"])],
                &[packet(0x90, &[b"\0\x09", b"\x80"])],
            ),
            goes_on(
                "unsubscribe [MQTT-3.10.4-4, MQTT-3.11.3-1]",
                v5,
                &[
                    packet(0x82, &[b"\0\x01\0", &filters(0, &["a"])]),
                    packet(0xa2, &[b"\0\x02\0", &text("a"), &text("x")]),
                ],
                &[packet(0x90, &[b"\0\x01\0\0"]), packet(0xb0, &[b"\0\x02\0", b"\0\x11"])],
            ),
            goes_on(
                "unsubscribe in 3.1.1",
                v4,
                &[packet(0xa2, &[b"\0\x02", &text("x")])],
                &[b"\xb0\x02\0\x02".to_vec()],
            ),
            goes_on(
                "a message comes back with its subscription identifier [MQTT-3.3.4-3]",
                v5,
                &[packet(0x82, &[b"\0\x01", b"\x02\x0b\x05", &filters(0, &["a"])]), b"\x30\x05\0\x01a\0x".to_vec()],
                &[packet(0x90, &[b"\0\x01\0\0"]), b"\x30\x07\0\x01a\x02\x0b\x05x".to_vec()],
            ),
        ],
    )
    .await;
    stage.metric("drover_ingress_subscriptions_refused_total{reason=\"quota exceeded\"} 2").await;
    stage.metric("drover_ingress_subscriptions_refused_total{reason=\"topic filter invalid\"} 4").await;
}

#[tokio::test]
async fn more_in_flight_than_allowed() {
    let change = |config: &mut drover_ingress::config::IngressConfig| config.limits.receive_maximum = 2;
    let stage = Stage::with(change).await;
    let accepted = packet(0x20, &[b"\0\0", b"\x0b", b"\x21\0\x02", b"\x27\0\x04\x90\0", b"\x22\0\x10"]);
    // Of QoS 2, so that they are in flight until the client itself releases them.
    let messages = [1, 2, 3].map(|id| packet(0x34, &[b"\0\x01a\0", &[id], b"\0"]));
    let mut socket = TcpStream::connect(stage.mqtt).await.expect("listening");
    socket.write_all(&[connect(Version::V5), messages[0].clone(), messages[1].clone()].concat()).await.expect("open");
    let mut received = vec![0; accepted.len() + 8];
    socket.read_exact(&mut received).await.expect("answered");
    assert_eq!(hex(&received), hex(&[accepted, b"\x50\x02\0\x01\x50\x02\0\x02".to_vec()].concat()));
    socket.write_all(&messages[2]).await.expect("open");
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.expect("closed");
    assert_eq!(hex(&rest), hex(&goodbye(0x93, "more than 2 messages are unacknowledged"))); // [MQTT-3.3.4-9]
}

#[tokio::test]
async fn a_connection_that_is_closed_for_a_fault_is_one_line_that_names_client_and_cause() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let stage = Stage::new().await;
    run(&stage, vec![ends_4("qos 3", b"\x36\x05\0\x01a\0\x01".to_vec())]).await;
    stage.metric("drover_ingress_protocol_errors_total{reason=\"malformed packet\"} 1").await;
    let lines = log.lines("connection closed");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for part in ["client=\"d\"", "peer=127.0.0.1", "protocol_error", "qos is 3, limit is 2"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
