//! Ingress nodes in other processes: every replica hears of revocations, and who does not is named (P5); the sessions of
//! one that is silent for too long end (P4).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use drover_bus::{Outgoing, Record};
use drover_host::{AdminToken, Calling, ListenSpec, Network, NetworkParts, Shutdown, Sockets, Transport, grpc};
use drover_proto::ingress::v1::ingress_server::{Ingress, IngressServer};
use drover_proto::ingress::v1::*;
use drover_proto::registry::v1::RevokeCredentialRequest;
use drover_registry::{NODES_TOPIC, RegistryConfig};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::presence::{connected, event, events, send};
use crate::stage::{Stage, config, until};

const TOKEN: &str = "s3cret";
/// How long a node may be silent.
const LEASE: std::time::Duration = std::time::Duration::from_secs(3);

/// An ingress process that only remembers what was revoked, and who it is.
#[derive(Clone, Default)]
pub struct Node {
    revoked: Arc<Mutex<Vec<RevokeRequest>>>,
    /// `None`: it does not say.
    name: Arc<Mutex<Option<String>>>,
}

#[tonic::async_trait]
impl Ingress for Node {
    async fn publish(&self, _: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        Err(Status::unimplemented("only revocations here"))
    }

    async fn take_over(&self, _: Request<TakeOverRequest>) -> Result<Response<TakeOverResponse>, Status> {
        Err(Status::unimplemented("only revocations here"))
    }

    async fn forward(&self, _: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        Err(Status::unimplemented("only revocations here"))
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
        let name = self.name.lock().expect("no panic").clone();
        let node = name.ok_or_else(|| Status::unavailable("it is gone"))?;
        Ok(Response::new(IdentifyResponse { node, boot: 0 }))
    }

    async fn deliver(&self, _: Request<DeliverRequest>) -> Result<Response<DeliverResponse>, Status> {
        Err(Status::unimplemented("only revocations here"))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        self.revoked.lock().expect("no panic").push(request.into_inner());
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
        let (routes, stop) = (grpc::Routes::new(IngressServer::new(self.clone())), stop.clone());
        tokio::spawn(async move {
            let network = Network::with_admin_token(HashMap::new(), AdminToken::new(TOKEN));
            grpc::serve(routes, "ingress", &sockets, &network, stop).await.expect("serves");
        });
        address
    }

    /// What was revoked since this was asked last.
    pub fn take(&self) -> Vec<RevokeRequest> {
        std::mem::take(&mut *self.revoked.lock().expect("no panic"))
    }

    fn heard(&self) -> Vec<String> {
        let heard = self.revoked.lock().expect("no panic");
        // A device's first credential ends its connections without one: that is told too, and not asked for here.
        heard.iter().filter(|request| !request.anonymous).map(|request| request.credential_id.clone()).collect()
    }
}

/// A network in which the ingress is at these addresses.
fn network(addresses: &[SocketAddr]) -> Network {
    let uri = |address: &SocketAddr| format!("http://{address}").parse().expect("a URI");
    let parts = NetworkParts {
        services: HashMap::from([("ingress".to_owned(), addresses.iter().map(uri).collect())]),
        admin_token: Some(AdminToken::new(TOKEN)),
        tls: None,
        calling: Calling::default(),
    };
    Network::new(parts).expect("no certificates")
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
    let network = network(&addresses);
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

/// The node says that it is there.
async fn alive(stage: &Stage, node: &str) {
    let word = NodeAlive { node: node.to_owned(), boot: 1, time_ms: 7 };
    let record = Record { value: Some(word.encode_to_vec().into()), ..Record::default() };
    let receipt = stage.bus.append(vec![Outgoing::keyed(NODES_TOPIC, record)]).await.expect("taken");
    receipt.await.expect("durable");
}

#[tokio::test]
async fn the_sessions_of_a_node_end_when_it_is_silent_in_the_log_and_when_asked() {
    let node = Node::default();
    let stop = Shutdown::new();
    let network = network(&[node.start(&stop)]);
    let config = RegistryConfig { ingress_nodes: vec!["ingress".to_owned()], ..config() };
    let stage = Stage::on(network, config, tempfile::tempdir().expect("a directory")).await;
    stage.create_device("d").await.expect("created");
    send(&stage, vec![connected(1).encode_to_vec()]).await;
    until(async || events(&stage).await.len() == 1).await;

    // Heard in the log for longer than a lease, then only when asked.
    for _ in 0..8 {
        alive(&stage, "n1").await;
        tokio::time::sleep(LEASE / 6).await;
    }
    *node.name.lock().expect("no panic") = Some("n1".to_owned());
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(events(&stage).await.len(), 1, "it is there");

    *node.name.lock().expect("no panic") = Some("n2".to_owned());
    until(async || events(&stage).await.len() == 2).await;
    assert_eq!(events(&stage).await[1], event("disconnected", 1, Some("node_lost")));

    // It was not gone after all: what it says of new sessions counts.
    alive(&stage, "n1").await;
    send(&stage, vec![connected(1).encode_to_vec(), connected(2).encode_to_vec()]).await;
    until(async || events(&stage).await.len() == 3).await;
    assert_eq!(events(&stage).await[2], event("connected", 2, None));
}
