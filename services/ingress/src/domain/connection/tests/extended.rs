//! Extended authentication, with a method of the test's own.

use super::*;

/// Extended authentication whose challenge is a number, to be answered with the next one.
struct Counting;

impl AuthMethod for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn begin(&self) -> Box<dyn AuthExchange> {
        Box::new(Count(0))
    }
}

struct Count(u32);

impl AuthExchange for Count {
    fn answer(&mut self, data: &[u8]) -> AuthStep {
        let answered = String::from_utf8_lossy(data).parse::<u32>();
        let device = ClientId::new("c").expect("valid");
        match (self.0, answered) {
            (0, Err(_)) => {
                self.0 = 7;
                AuthStep::Challenge(b"7".to_vec())
            }
            (7, Ok(8)) => AuthStep::Done { proof: Proof::Anonymous { client: device }, data: b"well done".to_vec() },
            _ => AuthStep::Refused,
        }
    }
}

fn counting() -> Client {
    let methods: Vec<Arc<dyn AuthMethod>> = vec![Arc::new(Counting)];
    let environment = Environment { limits: LIMITS, random: Arc::new(Zeros), methods, quotas: Quotas::default() };
    let mut client = Client::within(Version::V5, peer(), environment);
    let list = properties(&[Property::AuthenticationMethod("counting")]);
    client.send(&Packet::Connect(Connect { properties: list.as_properties(), ..Connect::new(Version::V5, "c") }));
    assert_eq!(client.output(), ["AUTH 0x18 7"]); // [MQTT-4.12.0-2]
    client
}

fn auth(list: &PropertyList) -> Packet<'_> {
    let reason = ReasonCode::ContinueAuthentication;
    Packet::Auth(drover_mqtt::Auth { reason, properties: list.as_properties() })
}

#[test]
fn a_method_of_extended_authentication_turns_an_exchange_into_a_proof() {
    let mut client = counting();
    let answer = |data| properties(&[Property::AuthenticationMethod("counting"), Property::AuthenticationData(data)]);
    client.send(&auth(&answer(b"8")));
    assert!(matches!(client.effects[..], [Effect::Authenticate(Proof::Anonymous { .. })]));
    client.admit();
    only(&mut client, |packet| {
        let Packet::ConnAck(ack) = packet else { panic!("unexpected {packet:?}") };
        assert_eq!(ack.properties.authentication_method(), Some("counting")); // [MQTT-4.12.0-5]
        assert_eq!(ack.properties.authentication_data(), Some(&b"well done"[..]));
    });
    client.send(&auth(&answer(b"9")));
    assert_eq!(client.output(), ["DISCONNECT 0x82"], "nobody has asked");
    // [MQTT-4.12.0-3], [MQTT-4.12.0-4], [MQTT-4.12.0-5], [MQTT-4.12.0-6]
    let other = properties(&[Property::AuthenticationMethod("other"), Property::AuthenticationData(b"8")]);
    for (packet, answer) in [
        (auth(&answer(b"9")), "CONNACK 0x87 false"),
        (auth(&other), "CONNACK 0x82 false"),
        (Packet::PingReq, "CONNACK 0x82 false"),
    ] {
        let mut client = counting();
        client.send(&packet);
        assert_eq!(client.output(), [answer], "{packet:?}");
        assert!(client.closed().is_some());
    }
    let mut client = counting();
    client.connection.tick(at(LIMITS.connect_ms));
    client.go(0);
    assert!(client.closed().is_some(), "nobody is waited for without end");
    let mut client = Client::connected(Version::V5);
    client.send(&auth(&answer(b"8")));
    assert_eq!(client.output(), ["DISCONNECT 0x82"]); // [MQTT-4.12.0-7]
}
