//! Republish: through the outbox to the ingress, at least once with one id per output, never lost.

use std::sync::{Arc, Mutex};

use drover_bus::Outgoing;
use drover_host::{Shutdown, Sockets, grpc};
use drover_proto::ingress::v1::ingress_server::{Ingress, IngressServer};
use drover_proto::ingress::v1::{
    ClaimRequest, ClaimResponse, DeliverRequest, DeliverResponse, FlushRequest, FlushResponse, ForwardRequest,
    ForwardResponse, IdentifyRequest, IdentifyResponse, InheritRequest, InheritResponse, PublishRequest,
    PublishResponse, RevokeRequest, RevokeResponse, TakeOverRequest, TakeOverResponse,
};
use drover_rules::{ERRORS_TOPIC, OUTBOX_TOPIC};
use drover_types::Telemetry;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::world::{World, header, largest, message, text, until};

/// Remembers what it was asked to publish, and refuses topics under `forbidden`.
#[derive(Clone, Default)]
pub struct FakeIngress(Arc<Mutex<Vec<PublishRequest>>>);

#[tonic::async_trait]
impl Ingress for FakeIngress {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let request = request.into_inner();
        if request.topic.starts_with("forbidden") {
            return Err(Status::permission_denied("not there"));
        }
        self.0.lock().expect("not poisoned").push(request);
        Ok(Response::new(PublishResponse {}))
    }

    async fn deliver(&self, _: Request<DeliverRequest>) -> Result<Response<DeliverResponse>, Status> {
        Err(Status::unimplemented("nobody delivers here"))
    }

    async fn revoke(&self, _: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn take_over(&self, _: Request<TakeOverRequest>) -> Result<Response<TakeOverResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn forward(&self, _: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn claim(&self, _: Request<ClaimRequest>) -> Result<Response<ClaimResponse>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }

    async fn inherit(&self, _: Request<InheritRequest>) -> Result<Response<InheritResponse>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

impl FakeIngress {
    pub fn serve(&self, world: &World) {
        let (routes, network) = (grpc::Routes::new(IngressServer::new(self.clone())), world.network.clone());
        tokio::spawn(async move {
            grpc::serve(routes, "ingress", &Sockets::default(), &network, Shutdown::new()).await.expect("served");
        });
    }

    pub fn published(&self) -> Vec<PublishRequest> {
        self.0.lock().expect("not poisoned").clone()
    }
}

fn alerts() -> serde_json::Value {
    json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"republish": {"topic": "${target}/${topic(2)}", "qos": 1}}]})
}

fn targeted(number: u16, target: &str) -> Telemetry {
    message("d", number, &format!("{{\"n\":{number},\"target\":\"{target}\"}}"))
}

#[tokio::test]
async fn republished_messages_wait_for_the_ingress_and_reach_it_once_per_id_in_order() {
    let (world, _dir) = World::embedded().await;
    world.rule("alerts", 1, Some(alerts())).await;
    world.publish((0..50).map(|n| targeted(n, "alerts"))).await;
    let running = world.start("a");
    world.drained().await;
    let ingress = FakeIngress::default();
    ingress.serve(&world);
    until("all republished", async || ingress.published().len() >= 50).await;
    let published = ingress.published();
    let ids: Vec<Vec<u8>> = (0..50).map(|n| targeted(n, "alerts").id.derived("alerts", 0).0.to_vec()).collect();
    assert_eq!(published.iter().map(|p| p.id.clone()).collect::<Vec<_>>(), ids);
    let first = &published[0];
    assert_eq!((first.client.as_str(), first.topic.as_str(), first.qos, first.hops), ("rule/alerts", "alerts/d", 1, 1));
    assert_eq!((first.tenant.as_str(), first.device.as_str(), &first.payload[..]), ("home", "d", &b"{\"n\":0}"[..]));
    running.stop().await;
}

#[tokio::test]
async fn what_the_ingress_refuses_or_has_hopped_too_often_becomes_a_dead_letter() {
    let (world, _dir) = World::embedded().await;
    let ingress = FakeIngress::default();
    ingress.serve(&world);
    world.rule("alerts", 1, Some(alerts())).await;
    world
        .publish([
            targeted(0, "forbidden"),
            Telemetry { hops: 5, ..targeted(1, "alerts") },
            targeted(2, "al+erts"),
            Telemetry { hops: 4, ..targeted(3, "alerts") },
        ])
        .await;
    let running = world.start("a");
    until("the good one", async || ingress.published().len() == 1).await;
    assert_eq!(ingress.published()[0].hops, 5);
    let mut errors: Vec<String> = world.read(ERRORS_TOPIC).await.iter().map(|l| header(l, "error")).collect();
    errors.sort_unstable();
    assert_eq!(
        errors,
        [
            "action 0: message was republished 5 times, limit is 5",
            "action 0: not there",
            "action 0: topic \"al+erts/d\": topic name contains the wildcard '+'",
        ]
    );
    running.stop().await;
}

#[tokio::test]
async fn an_entry_at_the_limit_of_the_log_becomes_a_dead_letter_without_it() {
    let (world, _dir) = World::embedded().await;
    let ingress = FakeIngress::default();
    ingress.serve(&world);
    world.rule("alerts", 1, Some(alerts())).await;
    let running = world.start("a");
    until("the outbox", async || {
        let topics = world.bus.topics().await.expect("topics");
        topics.iter().any(|config| &*config.topic == OUTBOX_TOPIC)
    })
    .await;
    world.append(vec![Outgoing::keyed(OUTBOX_TOPIC, largest("home/d"))]).await;
    world.publish([targeted(1, "alerts")]).await;
    until("the entry behind it", async || ingress.published().len() == 1).await;
    let letters = world.read(ERRORS_TOPIC).await;
    assert_eq!((letters.len(), text(&letters[0]).as_str()), (1, ""));
    assert!(header(&letters[0], "source").starts_with("drover.rules.outbox/"));
    assert!(header(&letters[0], "left-out").parse::<usize>().is_ok_and(|bytes| bytes > largest("home/d").bytes()));
    running.stop().await;
}
