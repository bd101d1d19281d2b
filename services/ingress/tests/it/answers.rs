//! What other services answer one connection: it reaches that one or nobody, also where the next has its session.

use drover_mqtt::Packet;
use drover_proto::ingress::v1::DeliverRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::Qos;

use crate::stage::Stage;

/// Hands `payload` to the client `d` if the connection of `epoch` holds its session; how many took it.
async fn deliver(stage: &Stage, epoch: u64, payload: &str) -> u32 {
    let request = DeliverRequest {
        tenant: "default".into(),
        topic: "answers".into(),
        payload: payload.as_bytes().to_vec(),
        qos: 1,
        client: "d".into(),
        epoch,
    };
    let mut ingress = IngressClient::new(stage.network.client("ingress"));
    ingress.deliver(request).await.expect("answered").into_inner().delivered
}

/// The first epoch of the client `d` that is reported beyond `former`.
async fn epoch_after(stage: &Stage, former: u64) -> u64 {
    let mut seen = 1;
    loop {
        let reports = stage.reports(seen).await;
        let later = reports.iter().filter(|report| report.client == "d" && report.epoch > former);
        if let Some(epoch) = later.map(|report| report.epoch).min() {
            return epoch;
        }
        seen = reports.len();
    }
}

#[tokio::test]
async fn an_answer_to_a_connection_is_not_given_to_the_next_one_of_the_same_session() {
    let stage = Stage::new().await;
    let (mut first, _) = stage.resume("d").await;
    first.subscribe("answers", Qos::AtLeastOnce).await;
    let former = epoch_after(&stage, 0).await;
    assert_eq!(deliver(&stage, former, "to the first").await, 1);
    assert_eq!(first.message().await, "to the first");
    // That it was acknowledged is known before the session moves on.
    first.send(&Packet::PingReq).await;
    first.expect(|packet| matches!(packet, Packet::PingResp)).await;

    let (mut second, present) = stage.resume("d").await;
    assert!(present, "it has the subscription of the first");
    let epoch = epoch_after(&stage, former).await;
    assert_eq!(deliver(&stage, former, "too late").await, 0);
    assert_eq!(deliver(&stage, epoch + 1, "too early").await, 0);
    assert_eq!(deliver(&stage, epoch, "to the second").await, 1);
    assert_eq!(deliver(&stage, 0, "to whoever it is").await, 1);
    assert_eq!(second.message().await, "to the second", "and nothing before it");
    assert_eq!(second.message().await, "to whoever it is");
}
