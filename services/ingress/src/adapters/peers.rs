//! Other ingress nodes over gRPC.
//!
//! Adapter of [`PeerLink`].

use std::sync::Arc;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::ingress::v1::{
    ClaimRequest, FlushRequest, ForwardRequest, ForwardResponse, InheritRequest, TakeOverRequest,
};
use drover_types::{ClientId, TenantId};
use tonic::{Code, Status};

use crate::domain::message::Message;
use crate::domain::shares::Refused;
use crate::ports::{Answer, Batch, Claimed, Heir, PeerLink};
use crate::wire;

/// Name of the ingress in `[network]`.
const SERVICE: &str = "ingress";

/// One ingress node.
pub struct GrpcPeer {
    client: IngressClient<grpc::Client>,
    /// Of this node.
    node: String,
    boot: u32,
}

/// Links to all ingress nodes that `network` names, which may be this one among others; none where it names none.
pub fn links(network: &Network, node: &str, boot: u32) -> Vec<Arc<dyn PeerLink>> {
    if !network.is_remote(SERVICE) {
        return Vec::new();
    }
    let link = |(_, client)| -> Arc<dyn PeerLink> {
        Arc::new(GrpcPeer { client: IngressClient::new(client), node: node.to_owned(), boot })
    };
    network.replicas(SERVICE).into_iter().map(link).collect()
}

/// Whether a node has no part in what others leave: one of an earlier version, or with a store of its own.
fn cannot_inherit(status: &Status) -> bool {
    matches!(status.code(), Code::Unimplemented | Code::FailedPrecondition)
}

/// Whether asking again changes nothing: the node does not take these messages, whoever they are for.
fn stays(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted | Code::PermissionDenied | Code::DataLoss
    )
}

/// Why a node did not, as it says.
fn text(status: Status) -> String {
    status.message().to_owned()
}

#[async_trait]
impl Heir for GrpcPeer {
    async fn claim(&self, gone: &str, live: &[String]) -> Result<Claimed, String> {
        let request = ClaimRequest { gone: gone.to_owned(), live: live.to_vec() };
        match self.client.clone().claim(request).await {
            Ok(answer) if answer.get_ref().returned => Ok(Claimed::Returned),
            Ok(_) => Ok(Claimed::Done),
            Err(status) if cannot_inherit(&status) => Ok(Claimed::Never),
            Err(status) => Err(text(status)),
        }
    }

    async fn inherit(&self, messages: &[Arc<Message>]) -> Result<(), String> {
        let request = InheritRequest { messages: messages.iter().map(|message| wire::write(message)).collect() };
        match self.client.clone().inherit(request).await {
            Ok(_) => Ok(()),
            Err(status) if cannot_inherit(&status) => Ok(()),
            Err(status) if stays(&status) => {
                tracing::warn!(
                    messages = messages.len(),
                    error = status.message(),
                    "a node refuses to inherit messages"
                );
                Ok(())
            }
            Err(status) => Err(text(status)),
        }
    }
}

#[async_trait]
impl PeerLink for GrpcPeer {
    async fn forward(&self, batch: Batch<'_>) -> Result<Answer, String> {
        let Batch { sequence, hello, messages, shares, news, groups } = batch;
        let request = ForwardRequest {
            node: self.node.clone(),
            boot: u64::from(self.boot),
            sequence,
            hello,
            messages: messages.iter().zip(shares).map(|(message, shares)| wire::write_for(message, shares)).collect(),
            interest: Some(wire::write_news(news)),
            groups: groups.map(wire::write_groups),
        };
        let answer = self.client.clone().forward(request).await.map_err(text)?;
        let ForwardResponse { node, gapped, boot, refused, completed, starting } = answer.into_inner();
        let refused = refused
            .into_iter()
            .map(|refused| Refused { message: refused.message as usize, share: refused.share as usize });
        Ok(Answer { node, boot, gapped, refused: refused.collect(), completed, starting })
    }

    async fn take_over(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<Option<u64>, String> {
        let request = TakeOverRequest { tenant: tenant.to_string(), client: client.to_string(), epoch };
        let answer = self.client.clone().take_over(request).await.map_err(text)?;
        Ok(Some(answer.into_inner().newer_epoch).filter(|epoch| *epoch > 0))
    }

    async fn flush(&self) -> Result<(), String> {
        self.client.clone().flush(FlushRequest {}).await.map(drop).map_err(text)
    }
}
