//! What every ingress node is told or asked by gRPC, each within a deadline.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, Peers, grpc};
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::ingress::v1::{IdentifyRequest, RevokeRequest};
use drover_types::DeviceKey;

use crate::ports::{IngressNodes, Whose};

/// The ingress nodes a configuration names, every replica of each.
pub struct GrpcNodes {
    nodes: Peers<IngressClient<grpc::Client>>,
    deadline: Duration,
}

impl GrpcNodes {
    /// Connects to each node when it is first needed.
    pub fn new(network: &Network, nodes: &[String], deadline: Duration) -> Self {
        Self { nodes: Peers::new(network, nodes, IngressClient::new), deadline }
    }
}

#[async_trait]
impl IngressNodes for GrpcNodes {
    async fn revoke(&self, device: &DeviceKey, whose: Whose<'_>) -> Vec<String> {
        let (credential_id, anonymous) = match whose {
            Whose::All => ("", false),
            Whose::Credential(id) => (id, false),
            Whose::Anonymous => ("", true),
        };
        let request = RevokeRequest {
            tenant: device.tenant.to_string(),
            device: device.device.to_string(),
            credential_id: credential_id.to_owned(),
            anonymous,
        };
        let call = |mut node: IngressClient<grpc::Client>| {
            let request = request.clone();
            async move { node.revoke(request).await }
        };
        let answers = self.nodes.call(self.deadline, |_| true, call).await;
        let refused = answers.into_iter().filter_map(|(node, answer)| Some((node, answer.err()?)));
        let mut unconfirmed: Vec<String> = refused
            .map(|(node, status)| {
                tracing::warn!(node, %status, "ingress node did not confirm a revocation");
                node.to_owned()
            })
            .collect();
        unconfirmed.sort();
        unconfirmed
    }

    async fn names(&self) -> Vec<String> {
        let call = |mut node: IngressClient<grpc::Client>| async move { node.identify(IdentifyRequest {}).await };
        let answers = self.nodes.call(self.deadline, |_| true, call).await;
        answers.into_iter().filter_map(|(_, answer)| Some(answer.ok()?.node)).collect()
    }
}
