//! Parts of the chart that are on or off: CoAP, the webhook, the job before an upgrade. Needs `helm`, no cluster.

use std::process::Command;

use anyhow::{Context, ensure};
use drover_tests::{executable, lines_of, tool};
use serde_json::{Value, json};

use crate::chart::{
    NAMESPACE, configuration, items, name, named, of_kind, rendered, rendered_with, setting, template, workloads,
};

#[test]
fn coap_listens_and_is_let_in_only_if_it_is_turned_on() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for (values, edge) in [("standalone", "drover"), ("ha", "drover-ingress")] {
        let file = format!("helm/drover/values-{values}.yaml");
        let off = rendered_with(&program, &[&file], &[])?;
        assert!(named(&off, "Service", "drover-coap").is_err(), "{values}");
        let listen = |objects: &[Value]| -> anyhow::Result<Option<String>> {
            let text = configuration(objects, named(objects, "StatefulSet", edge)?)?;
            Ok(setting(text, "ingress", "coap").map(str::to_owned))
        };
        assert_eq!(listen(&off)?.as_deref(), Some("{listen = []}"), "{values}");

        let on = rendered_with(&program, &[&file], &["service.coap=true", "service.type=LoadBalancer"])?;
        assert_eq!(listen(&on)?.as_deref(), Some(r#"{listen = ["[::]:5683"]}"#), "{values}");
        let service = &named(&on, "Service", "drover-coap")?["spec"];
        assert_eq!(service["type"], "LoadBalancer", "{values}");
        assert_eq!(service["sessionAffinity"], "ClientIP", "{values}: a device stays with its pod");
        assert_eq!(service["ports"][0]["protocol"], "UDP", "{values}");
        let pod = &named(&on, "StatefulSet", edge)?["spec"]["template"]["spec"]["containers"][0];
        let opened = items(&pod["ports"]).find(|port| port["name"] == "coap").context("a port")?;
        assert_eq!(opened["containerPort"], 5683, "{values}");
        assert_eq!(opened["protocol"], "UDP", "{values}");
        let rules = &named(&on, "NetworkPolicy", edge)?["spec"]["ingress"];
        let let_in = items(rules).flat_map(|rule| items(&rule["ports"])).find(|port| port["port"] == "coap");
        assert_eq!(let_in.context("a rule")?["protocol"], "UDP", "{values}");
    }
    Ok(())
}

#[test]
fn https_listens_and_is_let_in_only_if_it_is_turned_on() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for (values, edge) in [("standalone", "drover"), ("ha", "drover-ingress")] {
        let file = format!("helm/drover/values-{values}.yaml");
        for (value, listen, opened) in [
            ("service.https=false", "{listen = []}", false),
            ("service.https=true", r#"{listen = ["[::]:8443"]}"#, true),
        ] {
            let objects = rendered_with(&program, &[&file], &[value])?;
            let workload = named(&objects, "StatefulSet", edge)?;
            let text = configuration(&objects, workload)?;
            assert_eq!(setting(text, "ingress", "https"), Some(listen), "{values}");
            let pod = &workload["spec"]["template"]["spec"]["containers"][0];
            let is_open = items(&pod["ports"]).any(|port| port["name"] == "https" && port["containerPort"] == 8443);
            assert_eq!(is_open, opened, "{values}");
            let rules = &named(&objects, "NetworkPolicy", edge)?["spec"]["ingress"];
            let is_let_in = items(rules).flat_map(|rule| items(&rule["ports"])).any(|port| port["port"] == "https");
            assert_eq!(is_let_in, opened, "{values}");
        }
    }
    Ok(())
}

#[test]
fn coap_over_dtls_shares_the_service_and_its_master_keys_go_to_the_registry_alone() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for (values, edge, registry) in [("standalone", "drover", "drover"), ("ha", "drover-ingress", "drover-registry")] {
        let file = format!("helm/drover/values-{values}.yaml");
        let settings = ["service.coaps=true", "pki.masterKeysSecret=keys"];
        let on = rendered_with(&program, &[&file], &settings)?;
        let of = |workload: &str, section: &str, key: &str| -> anyhow::Result<Option<String>> {
            let text = configuration(&on, named(&on, "StatefulSet", workload)?)?;
            Ok(setting(text, section, key).map(str::to_owned))
        };
        assert_eq!(of(edge, "ingress", "coap")?.as_deref(), Some("{listen = []}"), "{values}");
        assert_eq!(of(edge, "ingress", "coaps")?.as_deref(), Some(r#"{listen = ["[::]:5684"]}"#), "{values}");
        assert_eq!(
            of(registry, "registry", "master_keys")?.as_deref(),
            Some(r#""/etc/drover/master-keys""#),
            "{values}"
        );
        let ports = &named(&on, "Service", "drover-coap")?["spec"]["ports"];
        let ports: Vec<_> = items(ports).map(|port| (&port["name"], &port["port"], &port["protocol"])).collect();
        assert_eq!(ports, [(&json!("coaps"), &json!(5684), &json!("UDP"))], "{values}");
        for workload in workloads(&on) {
            let volumes = &workload["spec"]["template"]["spec"]["volumes"];
            let has = items(volumes).any(|volume| volume["secret"]["secretName"] == "keys");
            assert_eq!(has, name(workload) == registry, "{values}: {}", name(workload));
        }
    }
    Ok(())
}

#[test]
fn ingress_nodes_are_added_by_an_autoscaler_up_to_those_that_are_named() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let settings = ["ingress.autoscaling.enabled=true", "ingress.replicas=2", "ingress.nodes=4"];
    let objects = rendered_with(&program, &["helm/drover/values-ha.yaml"], &settings)?;
    let scaler = &named(&objects, "HorizontalPodAutoscaler", "drover-ingress")?["spec"];
    assert_eq!((&scaler["minReplicas"], &scaler["maxReplicas"]), (&json!(2), &json!(4)));
    assert_eq!(scaler["scaleTargetRef"]["kind"], "StatefulSet");
    let set = named(&objects, "StatefulSet", "drover-ingress")?;
    assert!(set["spec"]["replicas"].is_null(), "nothing is there, so the autoscaler says how many");
    // Values of an older chart may say that it is on, and nothing else.
    let bare = ["ingress.autoscaling.cpu=null", "ingress.autoscaling.metrics=null"];
    let reused = rendered_with(&program, &["helm/drover/values-ha.yaml"], &[&settings[..], &bare].concat())?;
    let scaler = &named(&reused, "HorizontalPodAutoscaler", "drover-ingress")?["spec"];
    assert_eq!(scaler["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let others = configuration(&objects, named(&objects, "StatefulSet", "drover-registry")?)?;
    assert!(others.contains("drover-ingress-3.") && !others.contains("drover-ingress-4."), "{others}");
    Ok(())
}

/// What an autoscaler looks at.
fn metrics<'a>(objects: &'a [Value], scaler: &'a str) -> anyhow::Result<&'a Value> {
    Ok(&named(objects, "HorizontalPodAutoscaler", scaler)?["spec"]["metrics"])
}

#[test]
fn autoscalers_look_at_connections_and_lag_where_they_are_told_to() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let ha = ["helm/drover/values-ha.yaml"];
    let on = ["ingress.nodes=8", "ingress.autoscaling.enabled=true", "rules.autoscaling.enabled=true"];
    let told = ["ingress.autoscaling.connections=50000", "rules.autoscaling.lagSeconds=30"];
    let without = rendered_with(&program, &ha, &on)?;
    let with = rendered_with(&program, &ha, &[&on[..], &told].concat())?;
    let exported = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"))?;
    for (scaler, metric, value) in
        [("drover-ingress", "drover_ingress_connections", "50000"), ("drover-rules", "drover_rules_lag_seconds", "30")]
    {
        assert_eq!(items(metrics(&without, scaler)?).count(), 1, "{scaler}: CPU alone");
        let pods = &metrics(&with, scaler)?[1]["pods"];
        assert_eq!((&pods["metric"]["name"], &pods["target"]["averageValue"]), (&json!(metric), &json!(value)));
        ensure!(exported.contains(&format!("`{metric}`")), "no pod exports {metric}");
    }
    Ok(())
}

#[test]
fn rules_of_a_namespace_have_topics_of_their_own_where_the_kafka_is_one_of_others() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let listed = "config.registry.kafka_topics.home={billing,shared.*}";
    for (values, workload, own) in [("standalone", "drover", None), ("ha", "drover-registry", Some("true"))] {
        let objects = rendered_with(&program, &[&format!("helm/drover/values-{values}.yaml")], &[listed])?;
        let text = configuration(&objects, named(&objects, "StatefulSet", workload)?)?;
        assert_eq!(setting(text, "registry", "own_topics_only"), own, "{values}");
        let topics = Some(r#"{home = ["billing", "shared.*"]}"#);
        assert_eq!(setting(text, "registry", "kafka_topics"), topics, "{values}");
    }
    Ok(())
}

#[test]
fn the_webhook_hangs_nobody_and_may_change_only_what_is_its_own() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for (values, settings, pods) in [
        ("standalone", ["operator.webhook.enabled=true"], "drover"),
        ("ha", ["operator.namespaces={home,lab}"], "drover-operator"),
    ] {
        let file = format!("helm/drover/values-{values}.yaml");
        let objects = rendered_with(&program, &[&file], &settings)?;
        let asked = named(&objects, "ValidatingWebhookConfiguration", "drover-drover-operator")?;
        let webhook = &asked["webhooks"][0];
        assert_eq!(webhook["failurePolicy"], "Ignore", "{values}");
        assert!(webhook["timeoutSeconds"].as_u64().is_some_and(|seconds| seconds <= 3), "{values}");
        let selected = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
        let expected = if values == "ha" { json!(["home", "lab"]) } else { json!([NAMESPACE]) };
        assert_eq!(*selected, expected, "{values}: nobody else's Rules are asked about");

        let service = webhook["clientConfig"]["service"]["name"].as_str().context("a Service")?;
        assert_eq!(named(&objects, "Service", service)?["spec"]["ports"][0]["targetPort"], "webhook", "{values}");
        let workload = workloads(&objects).find(|workload| name(workload) == pods).context("pods")?;
        let ports = &workload["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert!(items(ports).any(|port| port["name"] == "webhook"), "{values}: {ports}");
        let text = configuration(&objects, workload)?;
        let host = format!("host = \"{service}.{NAMESPACE}.svc\"");
        assert!(setting(text, "operator", "webhook").is_some_and(|table| table.contains(&host)), "{values}: {text}");

        let secret = named(&objects, "Secret", service)?;
        assert!(secret["data"].is_null() && secret["stringData"].is_null(), "{values}: an upgrade would empty it");
        for (kind, role, resource) in
            [("Role", service, service), ("ClusterRole", "drover-drover-operator-webhook", "drover-drover-operator")]
        {
            let rules = &named(&objects, kind, role)?["rules"];
            assert_eq!(items(rules).count(), 1, "{values}: {rules}");
            assert_eq!(rules[0]["resourceNames"], json!([resource]), "{values}: {rules}");
        }
    }
    let without = rendered_with(&program, &["helm/drover/values-standalone.yaml"], &[])?;
    assert_eq!(of_kind(&without, "ValidatingWebhookConfiguration").count(), 0, "devices speak to that pod");
    Ok(())
}

#[test]
fn an_upgrade_begins_with_the_crds_of_the_new_version() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let objects = rendered(&program, &[])?;
    let job = named(&objects, "Job", "drover-crds")?;
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-upgrade");
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["crd", "--apply"]));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    // It may change those that there are, by name.
    let printed = lines_of(Command::new(executable()?).arg("crd"), b"")?.join("\n");
    let crds = printed.split("---\n").filter(|document| document.contains("kind: CustomResourceDefinition"));
    let mut names = Vec::new();
    for crd in crds {
        let crd: Value = serde_yaml_ng::from_str(crd)?;
        names.push(crd["metadata"]["name"].clone());
    }
    let role = named(&objects, "ClusterRole", "drover-drover-operator-crds")?;
    assert_eq!(role["rules"][0]["resourceNames"], Value::Array(names));
    let without = rendered_with(&program, &[], &["crds.upgrade=false"])?;
    assert!(named(&without, "Job", "drover-crds").is_err());
    Ok(())
}

#[test]
fn an_uninstallation_ends_with_the_finalizers_of_the_objects_that_were_taken_care_of() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let cases: [(&str, &[&str], &str); 3] = [
        ("operator.enabled=true", &["--namespace=drover"], "Role"),
        ("operator.namespaces={home,lab}", &["--namespace=home", "--namespace=lab"], "Role"),
        ("operator.namespaces={*}", &[], "ClusterRole"),
    ];
    for (setting, namespaces, kind) in cases {
        let objects = rendered_with(&program, &[], &[setting])?;
        let job = named(&objects, "Job", "drover-finalizers")?;
        let arguments = [&["crd", "--remove-finalizers"][..], namespaces].concat();
        assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"], json!(arguments), "{setting}");
        // Whatever there is of it is gone with it, and is not there before the operator is gone.
        let hooked = |kind| {
            let all = of_kind(&objects, kind).filter(|object| name(object).ends_with("-finalizers"));
            all.inspect(|object| assert_eq!(object["metadata"]["annotations"]["helm.sh/hook"], "post-delete"))
        };
        assert_eq!((hooked("Job").count(), hooked("ServiceAccount").count()), (1, 1), "{setting}");
        assert_eq!(hooked(kind).count(), namespaces.len().max(1), "{setting}");
        for rule in hooked(kind).flat_map(|role| items(&role["rules"])) {
            assert_eq!(rule["verbs"], json!(["get", "list", "patch"]), "{setting}");
        }
    }
    let without = rendered_with(&program, &[], &["operator.enabled=false"])?;
    assert_eq!(of_kind(&without, "Job").count(), 0, "there is no operator");
    Ok(())
}

/// What a GitOps tool is told to leave alone: a kind, and the name of one object where it is only that.
fn left_alone(manifest: &Value) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let argo = items(&manifest["spec"]["ignoreDifferences"]);
    let flux = items(&manifest["spec"]["driftDetection"]["ignore"]).map(|ignored| &ignored["target"]);
    argo.chain(flux).filter_map(|target| Some((text(&target["kind"])?, text(&target["name"])))).collect()
}

#[test]
fn what_gitops_tools_are_told_to_leave_alone_is_in_the_chart() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let objects = rendered_with(&program, &["helm/drover/values-ha.yaml"], &["crds.upgrade=false"])?;
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/gitops.md"))?;
    let blocks = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut kinds = Vec::new();
    for block in blocks {
        let manifest: Value = serde_yaml_ng::from_str(block).with_context(|| block.to_owned())?;
        for (kind, name) in left_alone(&manifest) {
            match name {
                Some(name) => {
                    named(&objects, &kind, &name)?;
                }
                None => ensure!(of_kind(&objects, &kind).count() > 0, "the chart has no {kind}"),
            }
            kinds.push(kind);
        }
    }
    // The operator's certificate is known in two places, which both tools have to spare.
    for kind in ["ValidatingWebhookConfiguration", "Secret"] {
        assert_eq!(kinds.iter().filter(|told| *told == kind).count(), 2, "{kind}");
    }
    Ok(())
}

#[test]
fn the_chart_by_itself_is_the_standalone_installation() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    // So deploy/manifests has the golden files of all three sets of values.
    let token = ["adminToken.existingSecret=drover-admin"];
    let by_itself = template(&program, &[], &token)?;
    let standalone = template(&program, &["helm/drover/values-standalone.yaml"], &token)?;
    ensure!(by_itself == standalone, "values.yaml and values-standalone.yaml make other objects");
    Ok(())
}
