//! What the chart renders, before a real API server: it takes every object, and finds the pods restricted. Needs `helm`.

use anyhow::Context;
use drover_tests::{Kubernetes, lines_of, tool};

use crate::chart::{NAMESPACE, template};

#[test]
fn the_api_server_takes_what_the_chart_renders_and_finds_its_pods_restricted() -> anyhow::Result<()> {
    let (Some(helm), Some(cluster)) = (tool("helm"), Kubernetes::start_own()?) else { return Ok(()) };
    cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    cluster.kubectl(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=restricted"])?;
    let everything =
        ["operator.webhook.enabled=true", "service.coap=true", "service.type=LoadBalancer", "web.enabled=true"];
    for (values, settings) in
        [("standalone", &[][..]), ("ha", &[][..]), ("standalone", &everything[..]), ("ha", &everything[..])]
    {
        let settings = [&["hostnames={iot.example.org}"], settings].concat();
        let rendered = template(&helm, &[&format!("helm/drover/values-{values}.yaml")], &settings)?;
        let arguments = ["--namespace", NAMESPACE, "apply", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
        let taken = lines_of(&mut cluster.tool(cluster.kubectl_program(), &arguments), rendered.as_bytes());
        taken.with_context(|| format!("values-{values}.yaml with {settings:?}"))?;
    }
    Ok(())
}
