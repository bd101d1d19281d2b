//! Services in other processes that are reached by other wires than TCP.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use drover_host::{Network, NetworkParts, Shutdown, Sockets, Wires, grpc};
use tokio::io::DuplexStream;
use tonic::transport::Uri;

use crate::service::{GET, Thing, call};

/// Leads to what listens within another network.
struct Across(Network);

#[async_trait]
impl Wires for Across {
    async fn open(&self, uri: &Uri) -> io::Result<DuplexStream> {
        if uri.host() != Some("far") {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.0.open("thing").await
    }
}

#[tokio::test]
async fn a_service_elsewhere_is_called_by_the_wires_there_are() {
    let (thing, far, stop) = (Thing::default(), Network::default(), Shutdown::new());
    let serving = tokio::spawn({
        let (routes, far, stop) = (grpc::Routes::new(thing.clone()), far.clone(), stop.clone());
        async move { grpc::serve(routes, "thing", &Sockets::default(), &far, stop).await.expect("serves") }
    });
    let wires: Arc<dyn Wires> = Arc::new(Across(far));
    let near = |host: &str| {
        let uri = format!("http://{host}:1").parse().expect("a URI");
        let services = HashMap::from([("thing".to_owned(), vec![uri])]);
        Network::over(NetworkParts { services, ..NetworkParts::default() }, &wires).expect("no certificates")
    };
    assert!(near("far").is_remote("thing"));
    call(&near("far").client("thing"), GET).await.expect("answered");
    call(&near("nowhere").client("thing"), GET).await.expect_err("nobody is there");
    assert_eq!(thing.calls().len(), 1);
    stop.cancel();
    serving.await.expect("ends");
}
