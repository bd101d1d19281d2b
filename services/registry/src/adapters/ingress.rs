//! Revocations by gRPC to every ingress node, each within a deadline.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::ingress::v1::RevokeRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::DeviceKey;
use tokio::task::JoinSet;

use crate::ports::{IngressNodes, Whose};

/// The ingress nodes a configuration names.
pub struct GrpcNodes {
    nodes: Vec<(String, IngressClient<grpc::Client>)>,
    deadline: Duration,
}

impl GrpcNodes {
    /// Connects to each node when it is first needed.
    pub fn new(network: &Network, nodes: &[String], deadline: Duration) -> Self {
        let client = |node: &String| (node.clone(), IngressClient::new(network.client(node)));
        Self { nodes: nodes.iter().map(client).collect(), deadline }
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
        let mut calls = JoinSet::new();
        for (node, client) in &self.nodes {
            let (node, mut client, request, deadline) = (node.clone(), client.clone(), request.clone(), self.deadline);
            calls.spawn(async move {
                match tokio::time::timeout(deadline, client.revoke(request)).await {
                    Ok(Ok(_)) => None,
                    Ok(Err(status)) => {
                        tracing::warn!(node, %status, "ingress node did not confirm a revocation");
                        Some(node)
                    }
                    Err(_) => {
                        tracing::warn!(node, ?deadline, "ingress node did not confirm a revocation in time");
                        Some(node)
                    }
                }
            });
        }
        let mut unconfirmed: Vec<String> = calls.join_all().await.into_iter().flatten().collect();
        unconfirmed.sort();
        unconfirmed
    }
}
