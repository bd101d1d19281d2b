//! What an API server counts, and whom it knows: its metrics, and kubeconfigs of service accounts.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use crate::Kubernetes;

/// Verbs by which objects are changed, as the metrics have them.
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
/// How long a token of an account holds; longer than any test.
const HOLDS: &str = "4h";

impl Kubernetes {
    /// Writes that the API server has carried out, by resource and verb, as in `devices/status APPLY`; dry runs aside.
    pub fn writes(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut writes = BTreeMap::new();
        for line in self.kubectl(&["get", "--raw", "/metrics"])?.lines() {
            let Some(labels) = line.strip_prefix("apiserver_request_total{") else { continue };
            let (labels, count) = labels.rsplit_once("} ").with_context(|| line.to_owned())?;
            let (code, verb) = (label(labels, "code"), label(labels, "verb"));
            if !code.starts_with('2') || !WRITES.contains(&verb) || !label(labels, "dry_run").is_empty() {
                continue;
            }
            let (resource, subresource) = (label(labels, "resource"), label(labels, "subresource"));
            let slash = if subresource.is_empty() { "" } else { "/" };
            let count: f64 = count.parse().with_context(|| line.to_owned())?;
            *writes.entry(format!("{resource}{slash}{subresource} {verb}")).or_default() += count as u64;
        }
        Ok(writes)
    }

    /// Memory that the API server has, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        const METRIC: &str = "process_resident_memory_bytes ";
        let metrics = self.kubectl(&["get", "--raw", "/metrics"])?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(METRIC)).context(METRIC)?;
        Ok(line.parse::<f64>()? as u64)
    }

    /// The kubeconfig of whoever runs the tests, as JSON.
    pub fn kubeconfig(&self) -> anyhow::Result<String> {
        self.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"])
    }

    /// The kubeconfig of a service account: its rights, and no others.
    pub fn account(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let token = self.kubectl(&["-n", namespace, "create", "token", name, "--duration", HOLDS])?;
        let mut config: Value = serde_json::from_str(&self.kubeconfig()?)?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        // What is not said otherwise is looked for where the account is.
        config["contexts"][0]["context"]["namespace"] = json!(namespace);
        Ok(config.to_string())
    }
}

/// What has been written between two looks at [`Kubernetes::writes`].
pub fn written(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = |(what, count): (&String, &u64)| {
        let more = count - before.get(what).unwrap_or(&0);
        (more > 0).then(|| (what.clone(), more))
    };
    after.iter().filter_map(grown).collect()
}

/// The value of a label; empty where there is none.
fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let part = labels.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    part.map_or("", |value| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_their_whole_names() {
        let labels = r#"code="201",dry_run="",group="",resource="secrets",subresource="",verb="POST""#;
        assert_eq!(
            (label(labels, "resource"), label(labels, "subresource"), label(labels, "none")),
            ("secrets", "", "")
        );
    }

    #[test]
    fn only_what_has_grown_was_written() {
        let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect();
        let (before, after) =
            (counts(&[("a POST", 1), ("b PUT", 2)]), counts(&[("a POST", 1), ("b PUT", 5), ("c PUT", 1)]));
        assert_eq!(written(&before, &after), counts(&[("b PUT", 3), ("c PUT", 1)]));
    }
}
