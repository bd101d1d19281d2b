//! Every service by itself on a real node, by the chart, with a real Kafka and a real Cassandra beside it.

use std::process::Command;

use anyhow::Context;
use drover_backends::cassandra::{self, Cassandra};
use drover_backends::kafka::Kafka;
use drover_backends::ports;
use tempfile::TempDir;

use crate::kubernetes_node::{IMAGE, KubernetesNode, NODE};
use crate::platform::executable;
use crate::tools::lines_of;

/// What the chart is told, in this order.
const VALUES: [&str; 2] = ["helm/drover/values-ha.yaml", "tests/e2e/cluster-ha.yaml"];
/// How long all pods together may take to be ready.
const READY: &str = "15m";

/// The cluster, and what runs beside it.
pub struct SeparateCluster {
    pub node: KubernetesNode,
    pub kafka: Kafka,
    /// Where the node's network finds that Kafka.
    brokers: String,
    _cassandra: Cassandra,
    directory: TempDir,
}

impl SeparateCluster {
    /// Installs the chart as release `drover`, with further settings, and waits until every pod is ready. `None`, after one line
    /// that says why, where a part of it cannot be had. With `metrics` autoscalers know what pods use.
    pub fn start(settings: &[&str], metrics: bool) -> anyhow::Result<Option<Self>> {
        if !KubernetesNode::can_be_had() {
            return Ok(None);
        }
        // Clients are led to where a broker says that it is: to the pods it says another address than to this machine.
        let port = ports::free()?;
        let properties = format!(
            "listeners=PLAINTEXT://127.0.0.1:PORT,CONTROLLER://127.0.0.1:CONTROLLER_AT,NODE://127.0.0.1:{port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:PORT,NODE://{NODE}:{port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,NODE:PLAINTEXT\n"
        );
        let Some(kafka) = Kafka::start_with(&properties)? else { return Ok(None) };
        let Some(cassandra) = Cassandra::start(cassandra::Options::default()) else { return Ok(None) };
        let address = cassandra.address();
        let cassandra_port = address.rsplit_once(':').context("a port")?.1.parse()?;
        let Some(node) = KubernetesNode::start_beside(&[port, cassandra_port], metrics)? else { return Ok(None) };
        let (brokers, directory) = (format!("{NODE}:{port}"), tempfile::tempdir()?);
        let started = Self { node, kafka, brokers, _cassandra: cassandra, directory };
        started.install(cassandra_port, settings).with_context(|| started.node.explain())?;
        Ok(Some(started))
    }

    /// `host:port` for whoever is in the node's network.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    fn install(&self, cassandra_port: u16, settings: &[&str]) -> anyhow::Result<()> {
        self.node.load_image(IMAGE)?;
        let data = self.directory.path().join("init");
        lines_of(Command::new(executable()?).args(["init", "--hostname", "localhost", "--data"]).arg(&data), b"")?;
        let data = data.display();
        for (name, from) in
            [("drover-pki", format!("{data}/pki")), ("drover-admin", format!("token={data}/admin.token"))]
        {
            let from = format!("--from-file={from}");
            self.node.cluster.kubectl(&["create", "secret", "generic", name, &from])?;
        }
        let brokers = format!("kafka.brokers={}", self.brokers);
        let hosts = format!("cassandra.hosts={{{NODE}:{cassandra_port}}}");
        let mut arguments = vec!["install", "drover", "helm/drover", "--wait", "--timeout", READY];
        arguments.extend(VALUES.iter().flat_map(|file| ["--values", *file]));
        arguments.extend(["--set", &brokers, "--set", &hosts]);
        arguments.extend(settings.iter().flat_map(|setting| ["--set", *setting]));
        self.node.helm(&arguments).map(drop)
    }
}
