//! What the chart renders, before a real API server: it takes every object, and finds the pods restricted. Needs `helm`.

use anyhow::{Context, ensure};
use drover_tests::{Kubernetes, lines_of, tool};
use serde_json::Value;

use crate::chart::{NAMESPACE, named, rendered_with};

/// Kinds of others' CRDs, which an API server by itself does not know.
const FOREIGN: [&str; 2] = ["Certificate", "ServiceMonitor"];
/// All that is off by default.
const EVERYTHING: [&str; 4] =
    ["operator.webhook.enabled=true", "service.coap=true", "service.type=LoadBalancer", "web.enabled=true"];

#[test]
fn the_api_server_takes_what_the_chart_renders_and_finds_its_pods_restricted() -> anyhow::Result<()> {
    let (Some(helm), Some(cluster)) = (tool("helm"), Kubernetes::start_own()?) else { return Ok(()) };
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    for mode in ["warn", "enforce"] {
        let label = format!("pod-security.kubernetes.io/{mode}=restricted");
        cluster.kubectl(&["label", "namespace", NAMESPACE, &label])?;
    }
    let sets: [&[&str]; 4] = [
        &[],
        &["helm/drover/values-standalone.yaml"],
        &["helm/drover/values-ha.yaml"],
        &["tests/e2e/chart-everything.yaml"],
    ];
    // As `helm install` sends it, and as Argo CD and Flux do.
    for way in [&["apply"][..], &["apply", "--server-side"]] {
        for (values, settings) in sets.iter().flat_map(|values| [(values, &[][..]), (values, &EVERYTHING[..])]) {
            let settings = [&["hostnames={iot.example.org}"], settings].concat();
            let objects: Vec<Value> = rendered_with(&helm, values, &settings)?
                .into_iter()
                .filter(|object| !FOREIGN.iter().any(|kind| object["kind"] == *kind))
                .collect();
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
            let checked = ["--namespace", NAMESPACE, "--dry-run=server", "--warnings-as-errors", "-f", "-"];
            let arguments = [way, &checked].concat();
            let taken = lines_of(&mut cluster.tool(cluster.kubectl_program(), &arguments), list.as_bytes());
            taken.with_context(|| format!("{way:?} of {values:?} with {settings:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn an_autoscaler_that_is_turned_on_finds_the_pods_that_there_are() -> anyhow::Result<()> {
    let (Some(helm), Some(cluster)) = (tool("helm"), Kubernetes::start_own()?) else { return Ok(()) };
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    let ha = "helm/drover/values-ha.yaml";
    let objects = rendered_with(&helm, &[ha], &["ingress.replicas=5"])?;
    let set = named(&objects, "StatefulSet", "drover-ingress")?.to_string();
    let apply = ["--namespace", NAMESPACE, "apply", "-f", "-"];
    lines_of(&mut cluster.tool(cluster.kubectl_program(), &apply), set.as_bytes())?;

    for (replicas, expected) in [("3", 5), ("6", 6)] {
        let least = format!("ingress.replicas={replicas},ingress.nodes=8,ingress.autoscaling.enabled=true");
        // As an upgrade does, it asks the API server.
        let arguments = ["template", "drover", "helm/drover", "--namespace", NAMESPACE, "--dry-run=server"];
        let only = ["--show-only", "templates/statefulsets.yaml", "--values", ha, "--set", &least];
        let text = lines_of(&mut cluster.tool(&helm, &[&arguments[..], &only].concat()), b"")?.join("\n");
        let found = text.split("\n---\n").find(|part| part.contains("\n  name: drover-ingress\n"));
        let set: Value = serde_yaml_ng::from_str(found.context("the nodes of the ingress")?)?;
        ensure!(set["spec"]["replicas"] == expected, "{least}: {}", set["spec"]["replicas"]);
    }
    Ok(())
}

#[test]
fn the_api_server_takes_the_crds_the_examples_and_the_plain_manifests() -> anyhow::Result<()> {
    let Some(cluster) = Kubernetes::start_own()? else { return Ok(()) };
    let strictly = ["--dry-run=server", "--warnings-as-errors", "-f"];
    cluster.kubectl(&[&["apply", "--server-side"][..], &strictly, &["deploy/crds/drover.yaml"]].concat())?;
    cluster.kubectl(&["apply", "--server-side", "-f", "deploy/crds/drover.yaml"])?;
    cluster.wait_for("default", "condition=Established", &["crd", "--all"])?;
    cluster.kubectl(&[&["apply"][..], &strictly, &["deploy/examples"]].concat())?;
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    for file in ["standalone", "ha"] {
        let file = format!("deploy/manifests/{file}.yaml");
        cluster.kubectl(&[&["-n", NAMESPACE, "apply"][..], &strictly, &[file.as_str()]].concat())?;
    }
    Ok(())
}
