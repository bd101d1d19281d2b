//! A run as objects of Kubernetes: the scenario as a ConfigMap, a Job for the controller, a Job for its workers, and a Service
//! by which they find it. JSON, which `kubectl apply -f -` takes.

use serde_json::{Value, json};

/// Where the scenario's file and its secrets lie in the containers, and where the report is written.
const SCENARIO_FOLDER: &str = "/scenario";
const REPORT_FOLDER: &str = "/report";
/// Where the controller listens for workers.
const PORT: u16 = 7_100;
/// The largest ConfigMap, in bytes (1 MiB, with room for the rest of the object).
const SCENARIO_BYTES_MAX: usize = 900 * 1024;
/// Objects are gone so long after the run, in seconds: a day.
const KEPT_SECONDS: u32 = 86_400;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Jobs<'a> {
    /// Of all objects: a name that Kubernetes takes.
    pub name: &'a str,
    pub image: &'a str,
    pub workers: u64,
    /// The scenario's file name and text.
    pub file: &'a str,
    pub text: &'a str,
    /// A Secret whose keys are files beside the scenario, such as tokens.
    pub secret: Option<&'a str>,
    /// Further arguments of `run`.
    pub arguments: &'a [String],
}

/// Why there can be no such objects.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    #[error("name must be 1 to 50 of a-z, 0-9 and -, with a letter first and no - last, but is {0:?}")]
    Name(String),
    #[error("scenario must have at most {SCENARIO_BYTES_MAX} bytes to fit a ConfigMap, but has {0}")]
    TooLarge(usize),
}

impl Jobs<'_> {
    /// The objects as a List.
    pub fn list(&self) -> Result<Value, JobsError> {
        let is_letter = |c: char| c.is_ascii_lowercase();
        let is_name = (1..=50).contains(&self.name.len())
            && self.name.starts_with(is_letter)
            && !self.name.ends_with('-')
            && self.name.chars().all(|c| is_letter(c) || c.is_ascii_digit() || c == '-');
        if !is_name {
            return Err(JobsError::Name(self.name.to_owned()));
        }
        if self.text.len() > SCENARIO_BYTES_MAX {
            return Err(JobsError::TooLarge(self.text.len()));
        }
        let scenario = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": self.metadata(""), "data": {(self.file): self.text},
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": self.metadata(""),
            // Headless: workers come once, and the name is known before the controller is ready.
            "spec": {
                "clusterIP": "None", "publishNotReadyAddresses": true, "selector": self.labels("controller"),
                "ports": [{"name": "workers", "port": PORT}],
            },
        });
        let mut run = vec![
            "run".to_owned(),
            format!("{SCENARIO_FOLDER}/{}", self.file),
            "--listen".to_owned(),
            format!("[::]:{PORT}"),
            "--workers".to_owned(),
            self.workers.to_string(),
            "--out".to_owned(),
            REPORT_FOLDER.to_owned(),
            "--quiet".to_owned(),
        ];
        run.extend_from_slice(self.arguments);
        let work = vec!["worker".to_owned(), "--controller".to_owned(), format!("{}:{PORT}", self.name)];
        let items = [scenario, service, self.job("controller", 1, &run), self.job("worker", self.workers, &work)];
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
    }

    fn labels(&self, part: &str) -> Value {
        json!({"app.kubernetes.io/name": "drover-load", "app.kubernetes.io/instance": self.name, "app.kubernetes.io/component": part})
    }

    fn metadata(&self, ending: &str) -> Value {
        let labels = json!({"app.kubernetes.io/name": "drover-load", "app.kubernetes.io/instance": self.name});
        json!({"name": format!("{}{ending}", self.name), "labels": labels})
    }

    /// A Job of `count` pods that each run once: a run that has lost a worker is no run.
    fn job(&self, part: &str, count: u64, arguments: &[String]) -> Value {
        let mut sources = vec![json!({"configMap": {"name": self.name}})];
        sources.extend(self.secret.map(|secret| json!({"secret": {"name": secret}})));
        let volumes = json!([
            {"name": "scenario", "projected": {"sources": sources}},
            {"name": "report", "emptyDir": {}},
        ]);
        let mounts = json!([
            {"name": "scenario", "mountPath": SCENARIO_FOLDER, "readOnly": true},
            {"name": "report", "mountPath": REPORT_FOLDER},
        ]);
        let container = json!({
            "name": part, "image": self.image, "imagePullPolicy": "IfNotPresent", "args": arguments, "volumeMounts": mounts,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65_532, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        });
        // Workers of one node would share its ports and its processor.
        let spread = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": self.labels(part)},
        }]);
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": self.metadata(&format!("-{part}")),
            "spec": {
                "parallelism": count, "completions": count, "backoffLimit": 0, "ttlSecondsAfterFinished": KEPT_SECONDS,
                "template": {
                    "metadata": {"labels": self.labels(part)},
                    "spec": {
                        "restartPolicy": "Never", "automountServiceAccountToken": false, "topologySpreadConstraints": spread,
                        "securityContext": {"fsGroup": 65_532, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [container], "volumes": volumes,
                    },
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs<'a>(name: &'a str, text: &'a str) -> Jobs<'a> {
        let (image, file) = ("localhost/drover-load:0.1.0", "shadow.toml");
        Jobs { name, image, workers: 8, file, text, secret: Some("tokens"), arguments: &[] }
    }

    #[test]
    fn workers_find_the_controller_by_the_services_name_and_both_see_the_scenario() {
        let list = jobs("load", "title = 1").list().expect("valid");
        let kinds: Vec<_> =
            list["items"].as_array().into_iter().flatten().filter_map(|item| item["kind"].as_str()).collect();
        assert_eq!(kinds, ["ConfigMap", "Service", "Job", "Job"]);
        let [scenario, service, controller, workers] = [0_usize, 1, 2, 3].map(|number| &list["items"][number]);
        assert_eq!(scenario["data"]["shadow.toml"], "title = 1");
        let template = |job: &Value| job["spec"]["template"].clone();
        assert_eq!(service["spec"]["selector"], template(controller)["metadata"]["labels"]);
        let container = |job: &Value| template(job)["spec"]["containers"][0].clone();
        assert_eq!(container(workers)["args"], json!(["worker", "--controller", "load:7100"]));
        assert_eq!(container(controller)["args"][1], "/scenario/shadow.toml");
        assert_eq!(
            (workers["spec"]["parallelism"].as_u64(), workers["spec"]["completions"].as_u64()),
            (Some(8), Some(8))
        );
        for job in [controller, workers] {
            let sources = template(job)["spec"]["volumes"][0]["projected"]["sources"].clone();
            assert_eq!(sources, json!([{"configMap": {"name": "load"}}, {"secret": {"name": "tokens"}}]));
        }
    }

    #[test]
    fn names_that_kubernetes_does_not_take_and_scenarios_that_do_not_fit_are_refused() {
        for name in ["", "Load", "1load", "load-", "load.x", "l".repeat(51).as_str()] {
            assert!(matches!(jobs(name, "").list(), Err(JobsError::Name(_))), "{name:?}");
        }
        let large = " ".repeat(SCENARIO_BYTES_MAX + 1);
        assert!(matches!(jobs("load", &large).list(), Err(JobsError::TooLarge(_))));
    }
}
