//! Where nobody serves shadows and commands: what is for them is rejected, and the connection is kept.

use drover_mqtt::{Packet, ReasonCode, Version};
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::Qos;
use serde_json::{Value, json};
use tonic::Code;

use crate::stage::Stage;

const UPDATE: &str = "$aws/things/d/shadow/update";
const RESPONSE: &str = "$drover/commands/d/0190163d8694739ba6d6a7b7c2a00001/response/200";

async fn stage() -> Stage {
    let stage = Stage::with(|config| config.shadows = false).await;
    stage.registry.allow(&["#", "$aws/things/#", "$drover/commands/#"], &["#", "$aws/things/#"]);
    stage
}

#[tokio::test]
async fn a_request_to_a_shadow_is_rejected_as_aws_rejects_and_the_connection_goes_on() {
    let stage = stage().await;
    for version in [Version::V311, Version::V5] {
        let mut client = stage.connect(version, "d").await;
        client.subscribe("$aws/things/d/shadow/update/+", Qos::AtLeastOnce).await;
        client.publish(1, UPDATE, r#"{"state": {"reported": {"on": true}}, "clientToken": "t"}"#).await;
        let (mut reason, mut answer) = (None, None);
        while reason.is_none() || answer.is_none() {
            let see = |packet: Packet<'_>| match packet {
                Packet::PubAck(ack) => (Some(ack.reason), None),
                Packet::Publish(publish) => {
                    assert_eq!(publish.topic, "$aws/things/d/shadow/update/rejected");
                    (None, Some(serde_json::from_slice::<Value>(publish.payload).expect("JSON")))
                }
                other => panic!("unexpected {other:?}"),
            };
            let (acknowledged, answered) = client.read(see).await.expect("connected");
            (reason, answer) = (reason.or(acknowledged), answer.or(answered));
        }
        let said = if version == Version::V5 { ReasonCode::ImplementationSpecificError } else { ReasonCode::Success };
        assert_eq!(reason, Some(said));
        let expected = json!({"code": 403, "message": "Shadows are not served here", "clientToken": "t"});
        assert_eq!(answer, Some(expected));
        client.publish(2, "sensors/d", &format!("{version:?}")).await;
        let accepted = |packet: &Packet<'_>| matches!(packet, Packet::PubAck(ack) if ack.reason == ReasonCode::Success);
        loop {
            // The answer above has to be acknowledged by nobody; the next acknowledgement is that of the message.
            let done = client.read(|packet| accepted(&packet)).await.expect("connected");
            if done {
                break;
            }
        }
    }
    assert_eq!(stage.payloads().await, ["V311", "V5"], "nothing of the requests is in the log");
}

#[tokio::test]
async fn an_answer_to_a_command_is_refused_by_its_acknowledgement_alone() {
    let stage = stage().await;
    for version in [Version::V311, Version::V5] {
        let mut client = stage.connect(version, "d").await;
        client.publish(1, RESPONSE, "{}").await;
        client.publish(2, "sensors/d", &format!("{version:?}")).await;
        let mut reasons = Vec::new();
        while reasons.len() < 2 {
            let see = |packet: Packet<'_>| match packet {
                Packet::PubAck(ack) => ack.reason,
                other => panic!("unexpected {other:?}"),
            };
            reasons.push(client.read(see).await.expect("connected"));
        }
        let said = if version == Version::V5 { ReasonCode::ImplementationSpecificError } else { ReasonCode::Success };
        assert_eq!(reasons, [said, ReasonCode::Success]);
    }
    assert_eq!(stage.payloads().await, ["V311", "V5"], "nothing of the answers is in the log");
}

#[tokio::test]
async fn who_publishes_such_a_request_by_other_ways_is_told_that_it_is_not_there() {
    let stage = stage().await;
    let mut ingress = IngressClient::new(stage.network.client("ingress"));
    let request = PublishRequest {
        id: vec![7; 16],
        tenant: "default".into(),
        device: "d".into(),
        client: "rule/r".into(),
        topic: UPDATE.into(),
        payload: b"{}".to_vec(),
        qos: 1,
        ..PublishRequest::default()
    };
    for topic in [UPDATE, RESPONSE] {
        let refused = ingress.publish(PublishRequest { topic: topic.into(), ..request.clone() }).await;
        let refused = refused.expect_err("refused");
        assert_eq!(refused.code(), Code::Unimplemented, "for good: a rule makes a dead letter of it");
    }
    ingress.publish(PublishRequest { topic: "sensors/d".into(), ..request }).await.expect("taken");
}
