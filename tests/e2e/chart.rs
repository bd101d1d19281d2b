//! The chart: what it renders is what the executable accepts, what it promises of pods holds for each of them, and what it
//! refuses is named. Needs `helm`, no cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use drover_tests::{executable, lines_of, tool};
use serde_json::Value;

/// The version of Kubernetes that is rendered for.
const KUBERNETES: &str = "1.34.0";
pub const NAMESPACE: &str = "drover";

/// A way to install the chart: files of values, from the root of the repository, and the workloads they make.
struct Installation {
    values: &'static [&'static str],
    workloads: &'static [&'static str],
}

const INSTALLATIONS: [Installation; 4] = [
    Installation { values: &[], workloads: &["drover"] },
    Installation { values: &["helm/drover/values-standalone.yaml"], workloads: &["drover"] },
    Installation { values: &["helm/drover/values-ha.yaml"], workloads: &SEPARATE },
    Installation { values: &["tests/e2e/chart-everything.yaml"], workloads: &SEPARATE },
];
const SEPARATE: [&str; 7] = [
    "drover-registry",
    "drover-ingress",
    "drover-shadow",
    "drover-rules",
    "drover-storage",
    "drover-gateway",
    "drover-operator",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// The objects of an installation, as Helm would send them to a cluster.
pub fn rendered(program: &Path, values: &[&str]) -> anyhow::Result<Vec<Value>> {
    rendered_with(program, values, &[])
}

/// The same, with single values, `NAME=VALUE`, that go before those of the files.
pub fn rendered_with(program: &Path, values: &[&str], settings: &[&str]) -> anyhow::Result<Vec<Value>> {
    let text = template(program, values, settings)?;
    let documents = text.split("\n---\n").filter(|part| part.lines().any(|line| line.contains(": ")));
    documents.map(|document| serde_yaml_ng::from_str(document).with_context(|| document.to_owned())).collect()
}

/// The same as the text that Helm prints.
pub fn template(program: &Path, values: &[&str], settings: &[&str]) -> anyhow::Result<String> {
    let mut command = helm(program, &["template", "drover", "helm/drover", "--namespace", NAMESPACE]);
    command.args(["--kube-version", KUBERNETES]);
    for file in values {
        command.args(["--values", file]);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    Ok(lines_of(&mut command, b"")?.join("\n"))
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn named<'a>(objects: &'a [Value], kind: &'a str, wanted: &str) -> anyhow::Result<&'a Value> {
    of_kind(objects, kind).find(|object| name(object) == wanted).with_context(|| format!("no {kind} {wanted}"))
}

pub fn workloads(objects: &[Value]) -> impl Iterator<Item = &Value> {
    of_kind(objects, "StatefulSet").chain(of_kind(objects, "Deployment"))
}

/// The specifications of all pods, that of `helm test` among them.
fn pods(objects: &[Value]) -> impl Iterator<Item = &Value> {
    let templates = workloads(objects).map(|workload| &workload["spec"]["template"]["spec"]);
    templates.chain(of_kind(objects, "Pod").map(|pod| &pod["spec"]))
}

pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The configuration file of a workload's pods.
pub fn configuration<'a>(objects: &'a [Value], workload: &Value) -> anyhow::Result<&'a str> {
    let volumes = &workload["spec"]["template"]["spec"]["volumes"];
    let volume = items(volumes).find(|volume| volume["name"] == "config").context("a volume `config`")?;
    let map = named(objects, "ConfigMap", volume["configMap"]["name"].as_str().context("a ConfigMap")?)?;
    map["data"]["drover.toml"].as_str().context("drover.toml")
}

/// What a process is told on its command line first: `up`, or the service.
fn command_word(workload: &Value) -> anyhow::Result<&str> {
    workload["spec"]["template"]["spec"]["containers"][0]["args"][0].as_str().context("an argument")
}

/// The variables of a workload's pods: of each Secret some text, of a field the name of a pod.
fn environment(workload: &Value) -> impl Iterator<Item = (&str, String)> {
    items(&workload["spec"]["template"]["spec"]["containers"][0]["env"]).filter_map(move |variable| {
        let is_field = variable["valueFrom"]["fieldRef"].is_object();
        let value = if is_field { format!("{}-0", name(workload)) } else { "some-secret".to_owned() };
        Some((variable["name"].as_str()?, value))
    })
}

#[test]
fn every_configuration_of_the_chart_is_accepted_by_its_process() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for Installation { values, workloads: expected } in INSTALLATIONS {
        let objects = rendered(&program, values)?;
        let mut names: Vec<&str> = workloads(&objects).map(name).collect();
        names.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected, "{values:?}");
        let directory = tempfile::tempdir()?;
        for workload in workloads(&objects) {
            let file = directory.path().join("drover.toml");
            let text = configuration(&objects, workload)?;
            std::fs::write(&file, text)?;
            let mut command = Command::new(executable()?);
            command.arg(command_word(workload)?).arg("--config").arg(&file).arg("--data").arg(directory.path());
            command.envs(environment(workload));
            let said = lines_of(command.arg("--check-config"), b"");
            let said = said.with_context(|| format!("{} of {values:?}:\n{text}", name(workload)))?;
            assert_eq!(said, ["the configuration is valid"], "{}", name(workload));
        }
    }
    Ok(())
}

#[test]
fn every_pod_is_restricted_keeps_its_secrets_in_secrets_and_has_time_to_drain() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for Installation { values, .. } in INSTALLATIONS {
        let objects = rendered(&program, values)?;
        for pod in pods(&objects) {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
            // Only who runs the operator has rights in the cluster.
            assert_eq!(pod["automountServiceAccountToken"], runs_operator(pod), "{pod}");
            for container in items(&pod["containers"]) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{container}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
                assert_eq!(security["capabilities"]["drop"][0], "ALL", "{container}");
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{container}");
                assert!(items(&container["env"]).all(|variable| variable["value"].is_null()), "{container}");
            }
        }
        for workload in workloads(&objects) {
            let (pod, text) = (&workload["spec"]["template"]["spec"], configuration(&objects, workload)?);
            let container = &pod["containers"][0];
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert_eq!(container[probe]["httpGet"]["port"], "admin", "{}", name(workload));
            }
            let waits = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().context("a preStop")?;
            let drains = setting(text, "process", "drain").context("process.drain")?;
            let drains: u64 = drains.trim_matches('"').trim_end_matches('s').parse()?;
            let grace = pod["terminationGracePeriodSeconds"].as_u64().context("a grace period")?;
            assert!(waits + drains < grace, "{}: {waits} s and {drains} s, of {grace} s", name(workload));
            for secret in ["admin_token ", "password ", "authorization "] {
                assert!(!text.contains(secret), "{} has a secret in its ConfigMap: {text}", name(workload));
            }
        }
    }
    Ok(())
}

/// Whether the operator runs in a pod.
fn runs_operator(pod: &Value) -> bool {
    items(&pod["containers"][0]["args"]).any(|argument| argument == "operator" || argument == "--operator")
}

#[test]
fn the_operator_has_the_rights_it_needs_where_it_needs_them() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let (standalone, ha) = ("helm/drover/values-standalone.yaml", "helm/drover/values-ha.yaml");
    let by_default: [(&str, &str, &[&str]); 3] = [
        // Devices speak to the pod that has these rights.
        (standalone, "ClusterRole", &[]),
        (standalone, "Role", &["drover-operator", "drover-operator-lease"]),
        (ha, "ClusterRole", &["drover-drover-operator", "drover-drover-operator-webhook"]),
    ];
    for (values, kind, expected) in by_default {
        let objects = rendered_with(&program, &[values], &[])?;
        let mut names: Vec<&str> = lasting(&objects, kind).map(name).collect();
        names.sort_unstable();
        assert_eq!(names, expected, "{values}: {kind}");
        let outside = of_kind(&objects, "Role")
            .find(|role| role["metadata"]["namespace"].as_str().is_some_and(|n| n != NAMESPACE));
        assert!(outside.is_none(), "{outside:?}");
    }
    let cases: [(&[&str], &str, &[&str]); 3] = [
        (&["operator.namespaces={*}"], "ClusterRole", &["drover-drover-operator"]),
        (&["operator.namespaces={home,lab}"], "Role", &["drover-operator", "drover-operator", "drover-operator-lease"]),
        (&["operator.enabled=false"], "Role", &[]),
    ];
    for values in [standalone, ha] {
        for (settings, kind, expected) in &cases {
            let settings = [&["operator.webhook.enabled=false"][..], *settings].concat();
            let objects = rendered_with(&program, &[values], &settings)?;
            let mut names: Vec<&str> = lasting(&objects, kind).map(name).collect();
            names.sort_unstable();
            assert_eq!(names, *expected, "{values}: {settings:?}");
            let roles = of_kind(&objects, "Role").chain(of_kind(&objects, "ClusterRole"));
            for rule in roles.flat_map(|role| items(&role["rules"])) {
                let words = ["apiGroups", "resources", "verbs"].map(|part| items(&rule[part]).collect::<Vec<_>>());
                assert!(words.iter().flatten().all(|word| *word != "*"), "{rule}");
                let reads_all =
                    words[1].iter().any(|r| *r == "secrets") && words[2].iter().any(|v| *v == "list" || *v == "watch");
                assert!(!reads_all, "{rule}");
            }
            let operating = pods(&objects).filter(|pod| runs_operator(pod)).count();
            assert_eq!(operating, usize::from(!settings.contains(&"operator.enabled=false")), "{values}: {settings:?}");
        }
    }
    Ok(())
}

/// Objects that are there for longer than an upgrade takes.
fn lasting<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    of_kind(objects, kind).filter(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null())
}

/// The value of a key as it stands in the file.
pub fn setting<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let section = text.split_once(&format!("[{section}]\n"))?.1;
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// `http://POD.SERVICE.NAMESPACE.svc:PORT` in the section `network`.
fn uris(text: &str) -> anyhow::Result<Vec<&str>> {
    let Some((_, section)) = text.split_once("[network]\n") else { return Ok(Vec::new()) };
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let quoted = lines.flat_map(|line| line.split('"')).filter(|part| part.contains("://"));
    quoted.map(|uri| uri.split_once("://").map(|(_, address)| address).context("a URI")).collect()
}

#[test]
fn services_call_pods_that_there_are() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for Installation { values, .. } in INSTALLATIONS {
        let objects = rendered(&program, values)?;
        for workload in workloads(&objects) {
            for uri in uris(configuration(&objects, workload)?)? {
                let (host, port) = uri.split_once(':').context("a port")?;
                let [pod, service, namespace, "svc"] = host.split('.').collect::<Vec<_>>()[..] else {
                    anyhow::bail!("{uri} is not POD.SERVICE.NAMESPACE.svc");
                };
                assert_eq!(namespace, NAMESPACE, "{uri}");
                let (set, number) = pod.rsplit_once('-').context("a number")?;
                let set = named(&objects, "StatefulSet", set)?;
                assert_eq!(set["spec"]["serviceName"], service, "{uri}");
                let most = match named(&objects, "HorizontalPodAutoscaler", name(set)) {
                    Ok(scaler) => &scaler["spec"]["maxReplicas"],
                    Err(_) => &set["spec"]["replicas"],
                };
                assert!(number.parse::<u64>()? < most.as_u64().context("a number of pods")?, "{uri}");
                let service = named(&objects, "Service", service)?;
                assert_eq!(service["spec"]["clusterIP"], "None", "{uri}");
                assert!(
                    items(&service["spec"]["ports"]).any(|open| open["port"].as_u64() == port.parse().ok()),
                    "{uri}"
                );
            }
        }
    }
    Ok(())
}

/// Names of Services, of a type that reaches beyond the cluster or not, with their ports.
fn services(objects: &[Value], are_outside: bool) -> Vec<(&str, Vec<u64>)> {
    let wanted = of_kind(objects, "Service")
        .filter(|service| matches!(service["spec"]["type"].as_str(), Some("LoadBalancer" | "NodePort")) == are_outside);
    let ports = |service: &Value| items(&service["spec"]["ports"]).filter_map(|open| open["port"].as_u64()).collect();
    wanted.map(|service| (name(service), ports(service))).collect()
}

#[test]
fn what_has_no_tls_is_outside_the_cluster_only_if_it_is_turned_on() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let cases: [(&[&str], &[u64]); 4] = [
        (&["service.mqtt=false"], &[8883]),
        (&[], &[1883, 8883]),
        (&["service.mqtt=false", "service.http=true"], &[8883, 8080]),
        (&["service.mqtt=false", "service.https=true"], &[8883, 8443]),
    ];
    for (values, rest) in [("standalone", "drover-http"), ("ha", "drover-gateway")] {
        let file = format!("helm/drover/values-{values}.yaml");
        for kind in ["LoadBalancer", "NodePort"] {
            let of_type = format!("service.type={kind}");
            for (settings, ports) in cases {
                let common = [of_type.as_str(), "web.enabled=true", "web.host=iot.example.org"];
                let settings = [&common[..], settings].concat();
                let objects = rendered_with(&program, &[&file], &settings)?;
                assert_eq!(services(&objects, true), [("drover", ports.to_vec())], "{values}: {settings:?}");
                let inside = services(&objects, false);
                for service in ["drover-http", rest] {
                    assert!(inside.contains(&(service, vec![8080])), "{values}: {service} of {inside:?}");
                }
                let web = &named(&objects, "Ingress", "drover")?["spec"]["rules"][0]["http"]["paths"];
                for path in items(web) {
                    let expected = if path["path"] == "/" { rest } else { "drover-http" };
                    assert_eq!(path["backend"]["service"]["name"], expected, "{values}: {path}");
                }
            }
        }
    }
    Ok(())
}

/// What the gateway tells devices under a key.
fn told<'a>(objects: &'a [Value], key: &str) -> anyhow::Result<&'a str> {
    let gateway = workloads(objects).find(|workload| ["drover", "drover-gateway"].contains(&name(workload)));
    let text = configuration(objects, gateway.context("a workload with the gateway")?)?;
    Ok(setting(text, "gateway", key).with_context(|| format!("gateway.{key}"))?.trim_matches('"'))
}

#[test]
fn devices_are_told_of_services_that_there_are() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for values in ["helm/drover/values-standalone.yaml", "helm/drover/values-ha.yaml"] {
        for (choice, http) in [("service.http=false", "drover-http"), ("service.http=true", "drover")] {
            let objects = rendered_with(&program, &[values], &[choice])?;
            let endpoints =
                [("mqtt_endpoint", "drover", 1883), ("mqtts_endpoint", "drover", 8883), ("http_endpoint", http, 8080)];
            for (key, service, port) in endpoints {
                let expected = format!("{service}.{NAMESPACE}.svc:{port}");
                assert_eq!(told(&objects, key)?, expected, "{values}, {choice}");
                let ports = &named(&objects, "Service", service)?["spec"]["ports"];
                assert!(items(ports).any(|open| open["port"].as_u64() == Some(port)), "{values}, {choice}: {expected}");
            }
        }
        let objects = rendered_with(&program, &[values], &["hostnames={iot.example.org}", "service.http=true"])?;
        assert_eq!(told(&objects, "http_endpoint")?, "iot.example.org:8080", "{values}");
        let objects = rendered_with(&program, &[values], &["hostnames={iot.example.org}"])?;
        assert_eq!(told(&objects, "mqtts_endpoint")?, "iot.example.org:8883", "{values}");
        assert_eq!(told(&objects, "http_endpoint")?, "drover-http.drover.svc:8080", "{values}");
    }
    Ok(())
}

/// All that makes a StatefulSet or a Deployment replace its pods, by its name.
fn templates(objects: &[Value]) -> Vec<(&str, &Value)> {
    workloads(objects).map(|workload| (name(workload), &workload["spec"]["template"])).collect()
}

#[test]
fn ingress_nodes_are_named_first_and_added_without_replacing_a_pod() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let ha: &[&str] = &["helm/drover/values-ha.yaml"];
    let replicas = |objects: &[Value]| -> anyhow::Result<Option<u64>> {
        Ok(named(objects, "StatefulSet", "drover-ingress")?["spec"]["replicas"].as_u64())
    };
    let named_only = rendered_with(&program, ha, &["ingress.nodes=5"])?;
    assert_eq!(replicas(&named_only)?, Some(3));
    let others = ["drover-gateway", "drover-operator"];
    for workload in workloads(&named_only).filter(|workload| !others.contains(&name(workload))) {
        let uris = uris(configuration(&named_only, workload)?)?;
        let of_ingress: Vec<&str> = uris.into_iter().filter(|uri| uri.contains("-ingress-pods.")).collect();
        let expected: Vec<String> =
            (0..5).map(|node| format!("drover-ingress-{node}.drover-ingress-pods.{NAMESPACE}.svc:7075")).collect();
        // Storage calls nobody.
        let expected = if name(workload) == "drover-storage" { Vec::new() } else { expected };
        assert_eq!(of_ingress, expected, "{}", name(workload));
    }
    let there = rendered_with(&program, ha, &["ingress.nodes=5", "ingress.replicas=5"])?;
    assert_eq!(replicas(&there)?, Some(5));
    assert_eq!(templates(&there), templates(&named_only));
    let as_many = rendered_with(&program, ha, &["ingress.replicas=5"])?;
    assert_eq!(templates(&as_many), templates(&named_only));
    Ok(())
}

/// Values that `helm upgrade --reuse-values` from an older chart does not have.
const NEWER: [&str; 11] = [
    "crds=null",
    "ingress.autoscaling=null",
    "operator.webhook=null",
    "service.coap=null",
    "service.nodePorts.coap=null",
    "service.coaps=null",
    "service.nodePorts.coaps=null",
    "service.https=null",
    "service.nodePorts.https=null",
    "pki.masterKeysSecret=null",
    "tls.ticketKeysSecret=null",
];

#[test]
fn the_values_of_an_older_chart_are_enough() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for values in ["helm/drover/values-standalone.yaml", "helm/drover/values-ha.yaml"] {
        let objects = rendered_with(&program, &[values], &NEWER)?;
        // The CRDs are upgraded all the same; what was not asked for is not there.
        named(&objects, "Job", "drover-crds").context(values)?;
        assert_eq!(of_kind(&objects, "ValidatingWebhookConfiguration").count(), 0, "{values}");
    }
    Ok(())
}

#[test]
fn metrics_are_for_pods_of_the_cluster_or_for_whom_they_are_said_to_be() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for Installation { values, .. } in INSTALLATIONS {
        let objects = rendered(&program, values)?;
        let rules = of_kind(&objects, "NetworkPolicy").flat_map(|policy| items(&policy["spec"]["ingress"]));
        let of_metrics: Vec<&Value> = rules.filter(|rule| rule["ports"][0]["port"] == "admin").collect();
        assert_eq!(of_metrics.len(), workloads(&objects).count(), "{values:?}");
        for rule in of_metrics {
            assert!(rule["from"][0]["namespaceSelector"].is_object(), "{values:?}: {rule}");
        }
    }
    Ok(())
}

#[test]
fn wrong_values_are_refused_by_their_names() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    let ha = "helm/drover/values-ha.yaml";
    let cases: [(&[&str], &str); 18] = [
        (&["--set", "mod=ha"], "mod"),
        (&["--set", "mode=cluster"], "mode"),
        (&["--set", "service.type=Public"], "service/type"),
        (&["--set", "standalone.persistence.siez=1Gi"], "siez"),
        (
            &["--values", ha, "--set", "ingress.autoscaling.enabled=true"],
            "ingress.nodes: is 0, with ingress.autoscaling more than ingress.replicas (3)",
        ),
        (&["--values", ha, "--set", "kafka.partitions=0"], "kafka/partitions"),
        (&["--values", ha, "--set", "kafka.brokers="], "kafka.brokers: "),
        (&["--values", ha, "--set", "cassandra.hosts=null"], "cassandra.hosts: "),
        (&["--values", ha, "--set", "pki.existingSecret="], "pki.existingSecret: "),
        (&["--values", ha, "--set", "shadow.replicas=9"], "shadow.autoscaling.maxReplicas: is 8, at least "),
        (&["--set", "pki.existingSecret=drover-pki"], "pki.existingSecret: "),
        (&["--set", "kafka.options.ssl\\.key\\.password=s3cret"], "kafka.options: ssl.key.password is a secret"),
        (&["--set", "kafka.options.ssl\\.key\\.pem=s3cret"], "kafka.options: ssl.key.pem is a secret"),
        (
            &["--set", "kafka.options.sasl\\.oauthbearer\\.config=s3cret"],
            "kafka.options: sasl.oauthbearer.config is a secret",
        ),
        (&["--values", ha, "--set", "ingress.nodes=2"], "ingress.nodes: is 2, at least ingress.replicas (3)"),
        (&["--set", "operator.namespaces={Not A Namespace}"], "operator/namespaces"),
        (&["--set", "service.http=plain"], "service/http"),
        (&["--set", "config.security.admin_token=s3cret"], "config.security.admin_token: is a secret"),
    ];
    for (arguments, expected) in cases {
        let mut command = helm(&program, &["template", "drover", "helm/drover", "--kube-version", KUBERNETES]);
        let output = command.args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} is accepted");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    Ok(())
}

#[test]
fn the_chart_is_clean_and_the_plain_manifests_are_what_it_renders() -> anyhow::Result<()> {
    let Some(program) = tool("helm") else { return Ok(()) };
    for Installation { values, .. } in INSTALLATIONS {
        let mut command = helm(&program, &["lint", "--strict", "--kube-version", KUBERNETES, "helm/drover"]);
        for file in values {
            command.args(["--values", file]);
        }
        lines_of(&mut command, b"")?;
    }
    let directory = tempfile::tempdir()?;
    lines_of(Command::new(root().join("deploy/manifests/render")).arg(directory.path()), b"")?;
    for file in ["standalone.yaml", "ha.yaml"] {
        let there = std::fs::read_to_string(root().join("deploy/manifests").join(file))?;
        let made = std::fs::read_to_string(directory.path().join(file))?;
        ensure!(there == made, "deploy/manifests/{file} is not what the chart renders; run deploy/manifests/render");
    }
    Ok(())
}
