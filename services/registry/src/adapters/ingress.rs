//! Revocations by gRPC to every ingress node, each within a deadline.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::ingress::v1::RevokeRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::DeviceKey;
use tokio::task::JoinSet;

use crate::ports::IngressNodes;

/// The ingress nodes a configuration names, every replica of each.
pub struct GrpcNodes {
    nodes: Vec<(String, IngressClient<grpc::Client>)>,
    deadline: Duration,
}

impl GrpcNodes {
    /// Connects to each node when it is first needed.
    pub fn new(network: &Network, nodes: &[String], deadline: Duration) -> Self {
        let replicas = nodes.iter().flat_map(|node| network.replicas(node));
        let nodes = replicas.map(|(name, client)| (name, IngressClient::new(client))).collect();
        Self { nodes, deadline }
    }
}

#[async_trait]
impl IngressNodes for GrpcNodes {
    async fn revoke(&self, device: &DeviceKey, credential: Option<&str>) -> Vec<String> {
        let request = RevokeRequest {
            tenant: device.tenant.to_string(),
            device: device.device.to_string(),
            credential_id: credential.unwrap_or_default().to_owned(),
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
