//! A run of `drover-load` as objects of Kubernetes: before a real API server, and, called by `cluster`, on a real node with
//! workers in pods.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use drover_tests::{Kubernetes, KubernetesNode, generator, lines_of};

use crate::chart::NAMESPACE;

/// The image that `drover-load kubernetes` names.
const IMAGE: &str = "localhost/drover-load:0.1.0";
/// Four devices that show the token of `deploy/examples/device.yaml` over HTTP.
const SCENARIO: &str = r#"
title = "jobs"
duration = "10s"
thresholds = ["acknowledged_share == 1", "errors == 0", "acknowledged > 40"]

[[fleet]]
name = "devices"
devices = 4
device = "job-{i}"
protocol = "http"
password_file = "token"

[fleet.publish]
topic = "load/{i}"
every = "500ms"
payload = '{"n":{n},"sent_us":{sent_us}}'
"#;

/// What `drover-load kubernetes` prints for it.
fn objects() -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("jobs.toml");
    std::fs::write(&file, SCENARIO)?;
    let mut command = Command::new(generator()?);
    command.arg("kubernetes").arg(&file).args(["--workers", "2", "--name", "load", "--secret", "thermo-1"]);
    let output = command.args(["--", "--target", "drover-http:8080"]).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "drover-load kubernetes: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_api_server_takes_the_jobs_of_a_run_and_finds_their_pods_restricted() -> anyhow::Result<()> {
    let Some(cluster) = Kubernetes::start_own()? else { return Ok(()) };
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    cluster.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=restricted"])?;
    let arguments = ["--namespace", NAMESPACE, "apply", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
    let taken = lines_of(&mut cluster.tool(cluster.kubectl_program(), &arguments), objects()?.as_bytes())?;
    ensure!(taken.iter().filter(|line| line.starts_with("job.batch/load-")).count() == 2, "{taken:?}");
    Ok(())
}

/// Runs it against the platform that the chart has installed there, with the examples of `deploy`.
pub fn run(node: &KubernetesNode) -> anyhow::Result<()> {
    node.load_image_of(&generator()?, "drover-load", IMAGE)?;
    let cluster = &node.cluster;
    let arguments = ["apply", "-f", "-"];
    lines_of(&mut cluster.tool(cluster.kubectl_program(), &arguments), objects()?.as_bytes())?;
    let log = || cluster.kubectl(&["logs", "job/load-controller"]).unwrap_or_else(|error| format!("{error:#}"));
    let done = cluster.wait_for("default", "condition=complete", &["job/load-controller", "job/load-worker"]);
    done.with_context(log)?;
    let said = log();
    ensure!(said.contains("worker 2 of 2 is there") && !said.contains("FAILED"), "{said}");
    Ok(())
}
