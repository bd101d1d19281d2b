//! An ingress of a few lines: it remembers what it was asked to publish.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use drover_host::{Network, Shutdown, Sockets, grpc};
use drover_proto::ingress::v1::ingress_server::{Ingress, IngressServer};
use drover_proto::ingress::v1::{
    ClaimRequest, ClaimResponse, DeliverRequest, DeliverResponse, FlushRequest, FlushResponse, ForwardRequest,
    ForwardResponse, IdentifyRequest, IdentifyResponse, InheritRequest, InheritResponse, PublishRequest,
    PublishResponse, RevokeRequest, RevokeResponse, TakeOverRequest, TakeOverResponse,
};
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub struct FakeIngress {
    published: Arc<Mutex<Vec<PublishRequest>>>,
    is_away: Arc<AtomicBool>,
}

impl FakeIngress {
    /// Another node of the same ingress, which takes nothing before it has come.
    pub fn away(&self) -> Self {
        Self { published: Arc::clone(&self.published), is_away: Arc::new(AtomicBool::new(true)) }
    }

    /// Takes what it is asked to publish from now on.
    pub fn come(&self) {
        self.is_away.store(false, Ordering::Relaxed);
    }

    /// Is there from now on.
    pub fn serve(&self, network: &Network) {
        let (routes, network) = (grpc::Routes::new(IngressServer::new(self.clone())), network.clone());
        tokio::spawn(async move {
            grpc::serve(routes, "ingress", &Sockets::default(), &network, Shutdown::new()).await.expect("served");
        });
    }

    pub fn published(&self) -> Vec<PublishRequest> {
        self.published.lock().expect("not poisoned").clone()
    }
}

#[tonic::async_trait]
impl Ingress for FakeIngress {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(Status::unavailable("away"));
        }
        self.published.lock().expect("not poisoned").push(request.into_inner());
        Ok(Response::new(PublishResponse {}))
    }

    async fn deliver(&self, _: Request<DeliverRequest>) -> Result<Response<DeliverResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
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
        Err(Status::unimplemented("not asked here"))
    }

    async fn inherit(&self, _: Request<InheritRequest>) -> Result<Response<InheritResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn flush(&self, _: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn identify(&self, _: Request<IdentifyRequest>) -> Result<Response<IdentifyResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}
