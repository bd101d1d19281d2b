//! Serves gRPC: to this process over the in-memory pipe, to others over TCP with the administrator's token, there with
//! reflection of what is served, so that `grpcurl` needs no files.
//!
//! The pipe is trusted because only this process can reach it. Every server also answers the standard question
//! (`grpc.health.v1`) whether it is there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, Request as HttpRequest, Response as HttpResponse};
use axum::middleware::map_response;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::service::{self, InterceptorLayer};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tower::ServiceExt;

use crate::actor;
use crate::remote::Remote;
use crate::skew::tell_time;
use crate::trace::{TRACEPARENT, continue_from, current_traceparent};
use crate::{AdminToken, Network, Shutdown, Sockets};

pub use crate::routes::Routes;

/// The [`ListenSpec::name`](crate::ListenSpec::name) of a service's gRPC listener.
pub const SOCKET: &str = "grpc";
/// Calls in progress on one connection; more wait.
const CALLS_PER_CONNECTION: usize = 1_024;
/// Streams open on one connection, those waiting for their turn among them.
const STREAMS_PER_CONNECTION: u32 = 2_048;
/// Bytes of a call's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// A peer that does not answer to pings within this time is gone.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(20);

/// Why a server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("gRPC socket of {service} cannot be used: {source}")]
    Socket { service: String, source: io::Error },
    #[error("gRPC server of {service} failed: {source}")]
    Server { service: String, source: tonic::transport::Error },
}

/// Serves `routes` as `service` until `shutdown`, then finishes calls in progress. TCP listeners are those bound under
/// [`SOCKET`]; they demand `authorization: Bearer ADMIN_TOKEN` and refuse everybody while the process has no token.
/// Messages over 4 MiB are refused by the generated services.
pub async fn serve(
    routes: Routes,
    service: &str,
    sockets: &Sockets,
    network: &Network,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let socket = |source| ServeError::Socket { service: service.to_owned(), source };
    let listeners = sockets.take_tcp(SOCKET).map_err(socket)?;
    let (_, health) = tonic_health::server::health_reporter();
    let routes = routes.add_service(health);
    let server = |source| ServeError::Server { service: service.to_owned(), source };
    let pipe = builder()
        .add_routes(routes.plain())
        .serve_with_incoming_shutdown(network.listen(service), shutdown.clone().cancelled_owned());
    let reflected = routes.with_reflection().into_axum_router().layer(map_response(tell_time));
    let reflected = service::Routes::from(reflected);
    let tcp = listeners
        .into_iter()
        .map(|listener| serve_tcp(listener, reflected.clone(), network, shutdown.clone().cancelled_owned()));
    let tcp = futures::future::try_join_all(tcp);
    futures::future::try_join(pipe, tcp).await.map_err(server)?;
    Ok(())
}

fn serve_tcp(
    listener: TcpListener,
    routes: service::Routes,
    network: &Network,
    stop: impl Future<Output = ()>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> {
    let (token, tls) = (network.admin_token(), network.server_tls());
    async move {
        let authorize = move |request: Request<()>| authorize(request, token.as_ref());
        let builder = match tls {
            Some(tls) => builder().tls_config(tls)?,
            None => builder(),
        };
        builder
            .layer(InterceptorLayer::new(authorize))
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
            .await
    }
}

fn builder() -> Server {
    Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .trace_fn(|call| {
            let span = tracing::debug_span!("grpc", method = call.uri().path());
            if let Some(parent) = call.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
                continue_from(&span, parent);
            }
            span
        })
}

#[allow(clippy::result_large_err, reason = "the interceptor's signature is tonic's")]
fn authorize(request: Request<()>, token: Option<&AdminToken>) -> Result<Request<()>, Status> {
    let presented = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    match (token, presented) {
        (Some(token), Some(presented)) if token.authorizes(presented) => Ok(request),
        _ => Err(Status::unauthenticated("send the admin token as `authorization: Bearer TOKEN`")),
    }
}

/// The way to one service. It sends the trace context of the calling span, in whose name the task works, and to other
/// processes the admin token; calls to them have a deadline, and another try where that does no harm. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    way: Way,
    token: Option<AdminToken>,
}

#[derive(Clone)]
enum Way {
    Pipe(Channel),
    Remote(Remote),
}

impl Client {
    pub(crate) fn pipe(channel: Channel) -> Self {
        Self { way: Way::Pipe(channel), token: None }
    }

    pub(crate) fn remote(remote: Remote, token: Option<AdminToken>) -> Self {
        Self { way: Way::Remote(remote), token }
    }

    fn stamp(&self, request: &mut HttpRequest<Body>) -> Result<(), Status> {
        if let Some(context) = current_traceparent() {
            let value = HeaderValue::from_str(context.as_str()).expect("a trace context is plain ASCII");
            request.headers_mut().insert(TRACEPARENT, value);
        }
        if let Some(actor) = actor::current() {
            let value = HeaderValue::from_str(&actor);
            let value = value.map_err(|_| Status::internal("the name of who asks is not plain ASCII"))?;
            request.headers_mut().insert(actor::ACTOR, value);
        }
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(token.bearer());
            let value = value.map_err(|_| Status::internal("the admin token is not plain ASCII"))?;
            request.headers_mut().insert("authorization", value);
        }
        Ok(())
    }
}

impl tower::Service<HttpRequest<Body>> for Client {
    type Response = HttpResponse<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: HttpRequest<Body>) -> Self::Future {
        let stamped = self.stamp(&mut request);
        let way = self.way.clone();
        Box::pin(async move {
            stamped?;
            match way {
                Way::Pipe(channel) => Ok(channel.oneshot(request).await?),
                Way::Remote(remote) => Ok(remote.call(request).await?),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use axum::http;
    use tonic::codegen::Service;
    use tonic::server::{Grpc, NamedService, UnaryService};
    use tonic::{Code, Response};
    use tonic_prost::ProstCodec;

    use super::*;
    use crate::{ListenSpec, NetworkParts, Transport};

    type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Infallible>> + Send>>;

    /// Answers every call with the trace context it came with.
    #[derive(Clone)]
    struct Echo;

    impl NamedService for Echo {
        const NAME: &'static str = "test.Echo";
    }

    impl UnaryService<()> for Echo {
        type Response = String;
        type Future = std::future::Ready<Result<Response<String>, Status>>;

        fn call(&mut self, request: Request<()>) -> Self::Future {
            let context = request.metadata().get(TRACEPARENT).and_then(|value| value.to_str().ok());
            std::future::ready(Ok(Response::new(context.unwrap_or("none").to_owned())))
        }
    }

    impl Service<http::Request<tonic::body::Body>> for Echo {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = Answer<Self::Response>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            Box::pin(async move { Ok(Grpc::new(ProstCodec::<String, ()>::default()).unary(Echo, request).await) })
        }
    }

    async fn echo(client: Client) -> Result<String, Status> {
        let mut grpc = tonic::client::Grpc::new(client);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static("/test.Echo/Echo");
        grpc.unary(Request::new(()), path, ProstCodec::<(), String>::default()).await.map(Response::into_inner)
    }

    /// A server with the token `right`, and the address of its TCP listener.
    async fn served(network: &Network) -> (std::net::SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
        let any = "127.0.0.1:0".parse().expect("an address");
        let spec =
            ListenSpec { name: SOCKET, key: "echo.grpc.listen", transport: Transport::Tcp, addresses: vec![any] };
        let sockets = Sockets::bind(&[spec]).expect("port 0 is free");
        let address = sockets.addresses(SOCKET)[0];
        let (network, shutdown) = (network.clone(), Shutdown::new());
        let stop = shutdown.clone();
        let server = tokio::spawn(async move {
            serve(Routes::new(Echo), "echo", &sockets, &network, stop).await.expect("serves until told to stop");
        });
        (address, shutdown, server)
    }

    fn at(address: std::net::SocketAddr) -> HashMap<String, tonic::transport::Uri> {
        let uri = format!("http://{address}").parse().expect("an address is a URI");
        HashMap::from([("echo".to_owned(), uri)])
    }

    fn knowing(token: &str, address: std::net::SocketAddr) -> Network {
        Network::with_admin_token(at(address), AdminToken::new(token))
    }

    #[tokio::test]
    async fn the_pipe_is_trusted_and_tcp_demands_the_admin_token() {
        let here = Network::with_admin_token(HashMap::new(), AdminToken::new("right"));
        let (address, shutdown, server) = served(&here).await;
        assert_eq!(echo(here.client("echo")).await.expect("the pipe needs no token"), "none");
        assert_eq!(echo(knowing("right", address).client("echo")).await.expect("authorized"), "none");
        let services = at(address).into_iter().map(|(name, uri)| (name, vec![uri])).collect();
        let tokenless = Network::new(NetworkParts { services, ..NetworkParts::default() }).expect("no certificates");
        for stranger in [knowing("wrong", address), tokenless] {
            let refused = echo(stranger.client("echo")).await.expect_err("no token, no service");
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
        shutdown.cancel();
        server.await.expect("ends on shutdown");
    }

    #[tokio::test]
    async fn over_tcp_the_services_of_the_port_are_told_by_reflection_to_who_has_the_token() {
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
        async fn ask(client: Client, question: MessageRequest) -> Result<ServerReflectionResponse, Status> {
            let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
            let asked = tokio_stream::once(request);
            let mut answers = ServerReflectionClient::new(client).server_reflection_info(asked).await?.into_inner();
            Ok(answers.message().await?.expect("an answer to the question"))
        }
        let here = Network::with_admin_token(HashMap::new(), AdminToken::new("right"));
        let (address, shutdown, server) = served(&here).await;
        let client = || knowing("right", address).client("echo");
        let listed = ask(client(), MessageRequest::ListServices(String::new())).await.expect("told");
        let Some(MessageResponse::ListServicesResponse(listed)) = listed.message_response else { panic!("{listed:?}") };
        let mut names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "test.Echo"]);
        for symbol in ["drover.storage.v1.Storage", "grpc.health.v1.Health"] {
            let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
            let found = ask(client(), question).await.expect("told").message_response;
            assert!(matches!(found, Some(MessageResponse::FileDescriptorResponse(_))), "{symbol}: {found:?}");
        }
        let stranger = knowing("wrong", address).client("echo");
        let refused = ask(stranger, MessageRequest::ListServices(String::new())).await.expect_err("no token");
        assert_eq!(refused.code(), Code::Unauthenticated);
        shutdown.cancel();
        server.await.expect("ends on shutdown");
    }

    #[tokio::test]
    async fn without_a_token_of_its_own_a_process_serves_nobody_over_tcp() {
        let (address, shutdown, server) = served(&Network::default()).await;
        let refused = echo(knowing("", address).client("echo")).await.expect_err("no token is no key");
        assert_eq!(refused.code(), Code::Unauthenticated);
        shutdown.cancel();
        server.await.expect("ends on shutdown");
    }

    #[tokio::test]
    async fn a_service_that_starts_anew_is_reached_by_the_same_client() {
        let network = Network::default();
        let client = network.client("echo");
        for _ in 0..3 {
            let (_, shutdown, server) = served(&network).await;
            let mut answer = echo(client.clone()).await;
            while answer.is_err() {
                tokio::task::yield_now().await;
                answer = echo(client.clone()).await;
            }
            shutdown.cancel();
            server.await.expect("ends on shutdown");
        }
    }

    #[test]
    fn a_call_carries_the_trace_context_of_its_span() {
        use opentelemetry::trace::TracerProvider;
        use tracing::Instrument;
        use tracing_subscriber::layer::SubscriberExt;
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let call = async {
            let network = Network::default();
            let (_, shutdown, server) = served(&network).await;
            let span = tracing::info_span!("caller");
            let context = crate::trace::traceparent_of(&span).expect("traced");
            let arrived = echo(network.client("echo")).instrument(span).await.expect("served");
            assert_eq!(arrived, context.as_str());
            shutdown.cancel();
            server.await.expect("ends on shutdown");
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || runtime.block_on(call));
    }
}
