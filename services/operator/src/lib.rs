//! The operator: custom resources of Kubernetes become objects of the registry, and credentials become Secrets.
//!
//! One process of all leads and works; what it knows is in Kubernetes and in the registry, so it may be killed at any time.
//! `domain` decides, `controller` reads and writes, `adapters` are the platform's services.

mod adapters;
mod config;
pub mod controller;
pub mod crd;
mod domain;
#[doc(hidden)]
pub mod finalizers;
mod install;
mod leader;
pub mod ports;
mod telemetry;
pub mod webhook;

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_host::{Ports, Service, Shutdown, grpc};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Client, CustomResourceExt};

pub use config::{LeaseConfig, OperatorConfig, WebhookConfig};
pub use telemetry::Telemetry;

use adapters::{GrpcRegistry, GrpcRules, GrpcShadows};
use controller::{Context, Parts};
use leader::Elector;

/// Random bytes that tell this process from others, and from itself before a restart.
const IDENTITY_BYTES: usize = 4;

/// The service.
pub struct Operator;

#[async_trait]
impl Service for Operator {
    const NAME: &'static str = "operator";
    type Config = OperatorConfig;
    const NEEDS: &'static [&'static str] = &["registry"];

    async fn run(config: OperatorConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        run_with(config, ports, shutdown, client().await?).await
    }
}

/// The way to the API server of the pod's cluster, or of the kubeconfig's.
async fn client() -> anyhow::Result<Client> {
    // The client asks for the process's provider; one that is there already is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cluster = kube::Config::infer().await.context(
        "no way to a Kubernetes API server: neither a pod's service account nor a kubeconfig (KUBECONFIG) can be used",
    )?;
    Ok(Client::try_from(cluster)?)
}

/// [`Operator::run`] with a way to the API server.
#[doc(hidden)]
pub async fn run_with(config: OperatorConfig, ports: Ports, shutdown: Shutdown, client: Client) -> anyhow::Result<()> {
    let serving = async {
        grpc::serve(grpc::Routes::default(), Operator::NAME, &ports.sockets, &ports.network, shutdown.clone()).await?;
        anyhow::Ok(())
    };
    let telemetry = ports.metrics.register(Telemetry::register);
    let namespace = match config.lease.namespace.as_str() {
        "" => client.default_namespace().to_owned(),
        namespace => namespace.to_owned(),
    };
    let admitting = async {
        let parts = webhook::Parts {
            config: config.webhook.clone(),
            namespace: namespace.clone(),
            client: client.clone(),
            clock: ports.clock.clone(),
            ready: ports.ready.clone(),
            telemetry: telemetry.clone(),
        };
        webhook::run(parts, ports.sockets.take_tcp(config::WEBHOOK)?, shutdown.clone()).await?;
        anyhow::Ok(())
    };
    let working = async {
        Box::pin(work(config.clone(), &ports, &shutdown, client.clone(), &namespace, telemetry.clone())).await;
        anyhow::Ok(())
    };
    tokio::try_join!(serving, admitting, working)?;
    Ok(())
}

/// Leads whenever it may, and reconciles while it leads.
async fn work(
    config: OperatorConfig,
    ports: &Ports,
    shutdown: &Shutdown,
    client: Client,
    namespace: &str,
    telemetry: Telemetry,
) {
    let mut random = [0; IDENTITY_BYTES];
    ports.random.fill(&mut random);
    let identity = format!("{}_{:08x}", config.member, u32::from_be_bytes(random));
    let mut elector = Elector::new(client.clone(), namespace, &config.lease.name, identity.clone());
    let context = Arc::new(Context::new(Parts {
        client,
        identity,
        config,
        registry: Arc::new(GrpcRegistry::new(&ports.network)),
        shadows: Arc::new(GrpcShadows::new(&ports.network)),
        rules: Arc::new(GrpcRules::new(&ports.network)),
        clock: ports.clock.clone(),
        random: ports.random.clone(),
        telemetry: telemetry.clone(),
    }));
    while elector.lead(&ports.ready, shutdown).await.is_some() {
        telemetry.leads(true);
        let stopped = tokio::select! {
            () = controller::run(context.clone(), shutdown.clone()) => true,
            () = elector.hold() => false,
        };
        telemetry.leads(false);
        if stopped {
            elector.release().await;
        }
    }
}

/// Applies the CRDs to the pod's cluster, or to the kubeconfig's; answers their names.
pub async fn apply_crds() -> anyhow::Result<Vec<String>> {
    Ok(install::apply(client().await?, &crds()).await?)
}

/// Takes the operator's finalizer off the objects of these namespaces, of all where none is named, in the pod's cluster or the
/// kubeconfig's; answers how many had it.
pub async fn remove_finalizers(namespaces: &[String]) -> anyhow::Result<usize> {
    Ok(finalizers::remove(&client().await?, namespaces).await?)
}

fn crds() -> [CustomResourceDefinition; 5] {
    [crd::Device::crd(), crd::DeviceFleet::crd(), crd::Function::crd(), crd::Policy::crd(), crd::Rule::crd()]
}

/// The CRDs, one YAML document each; the checked-in copy is `deploy/crds/drover.yaml`.
pub fn crds_yaml() -> String {
    crds()
        .iter()
        .map(|crd| serde_yaml_ng::to_string(crd).expect("a CRD is plain YAML"))
        .map(|document| format!("---\n{document}"))
        .collect()
}
