//! What a gRPC listener serves: services and their names, so that reflection tells of these and of no others.

use std::convert::Infallible;

use axum::http::Request;
use axum::response::IntoResponse;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service;
use tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME as REFLECTION;
use tower::Service;

/// gRPC services by path, as tonic's routes, which do not say what they are.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    inner: service::Routes,
    names: Vec<&'static str>,
}

impl Routes {
    /// Of one service.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        Self::default().add_service(service)
    }

    /// These, and one more.
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        Self { inner: self.inner.add_service(service), names: self.names }
    }

    /// As tonic serves them.
    pub(crate) fn plain(&self) -> service::Routes {
        self.inner.clone()
    }

    /// With what tells of them by the reflection protocol, and of itself.
    pub(crate) fn with_reflection(self) -> service::Routes {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(drover_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(REFLECTION);
        let builder = self.names.into_iter().fold(builder, |builder, name| builder.with_service_name(name));
        self.inner.add_service(builder.build_v1().expect("the descriptors are those of the build"))
    }
}
