//! Revocations across processes: every replica of the ingress hears of them, and who does not is named (P5).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use drover_host::{AdminToken, Calling, ListenSpec, Network, NetworkParts, Shutdown, Sockets, Transport, grpc};
use drover_proto::ingress::v1::ingress_server::{Ingress, IngressServer};
use drover_proto::ingress::v1::*;
use drover_proto::registry::v1::RevokeCredentialRequest;
use drover_registry::RegistryConfig;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::stage::{Stage, config};

const TOKEN: &str = "s3cret";

/// An ingress process that only remembers what was revoked.
#[derive(Clone, Default)]
struct Node(Arc<Mutex<Vec<RevokeRequest>>>);

#[tonic::async_trait]
impl Ingress for Node {
    async fn publish(&self, _: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        Err(Status::unimplemented("only revocations here"))
    }

    async fn deliver(&self, _: Request<DeliverRequest>) -> Result<Response<DeliverResponse>, Status> {
        Err(Status::unimplemented("only revocations here"))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        self.0.lock().expect("no panic").push(request.into_inner());
        Ok(Response::new(RevokeResponse { closed: 1 }))
    }
}

impl Node {
    /// Serves over TCP until `stop`.
    fn start(&self, stop: &Shutdown) -> SocketAddr {
        let any = vec!["127.0.0.1:0".parse().expect("an address")];
        let spec = ListenSpec { name: grpc::SOCKET, key: "listen", transport: Transport::Tcp, addresses: any };
        let sockets = Sockets::bind(&[spec]).expect("port 0 is free");
        let address = sockets.addresses(grpc::SOCKET)[0];
        let (routes, stop) = (Routes::new(IngressServer::new(self.clone())), stop.clone());
        tokio::spawn(async move {
            let network = Network::with_admin_token(HashMap::new(), AdminToken::new(TOKEN));
            grpc::serve(routes, "ingress", &sockets, &network, stop).await.expect("serves");
        });
        address
    }

    fn heard(&self) -> Vec<String> {
        let heard = self.0.lock().expect("no panic");
        // A device's first credential ends its connections without one: that is told too, and not asked for here.
        heard.iter().filter(|request| !request.anonymous).map(|request| request.credential_id.clone()).collect()
    }
}

/// Issues a credential and revokes it; its id, and who did not confirm.
async fn revoke(stage: &Stage, device: &str) -> (String, Vec<String>) {
    stage.create_device(device).await.expect("made");
    let id = stage.issue_token(device, 0).await.credential.expect("a credential").id;
    let request = RevokeCredentialRequest { tenant: String::new(), id: id.clone() };
    let revoked = stage.client.clone().revoke_credential(request).await.expect("revoked").into_inner();
    (id, revoked.unconfirmed_nodes)
}

#[tokio::test]
async fn a_revocation_reaches_every_ingress_process_and_names_the_one_that_is_gone() {
    let (one, two) = (Node::default(), Node::default());
    let (first, second) = (Shutdown::new(), Shutdown::new());
    let addresses = [one.start(&first), two.start(&second)];
    let parts = NetworkParts {
        services: HashMap::from([(
            "ingress".to_owned(),
            addresses.iter().map(|address| format!("http://{address}").parse().expect("a URI")).collect(),
        )]),
        admin_token: Some(AdminToken::new(TOKEN)),
        tls: None,
        calling: Calling::default(),
    };
    let network = Network::new(parts).expect("no certificates");
    let config = RegistryConfig { ingress_nodes: vec!["ingress".to_owned()], ..config() };
    let stage = Stage::on(network, config, tempfile::tempdir().expect("a directory")).await;

    let (id, unconfirmed) = revoke(&stage, "d-1").await;
    assert_eq!((one.heard(), two.heard(), unconfirmed), (vec![id.clone()], vec![id.clone()], vec![]));
    second.cancel();
    let mut last = revoke(&stage, "d-2").await;
    for n in 3.. {
        if !last.1.is_empty() {
            break;
        }
        last = revoke(&stage, &format!("d-{n}")).await; // it still answered on an open connection
    }
    assert_eq!(last.1, [addresses[1].to_string()]);
    assert!(one.heard().contains(&last.0), "the other one heard of it");
}
