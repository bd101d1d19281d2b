//! A context over a scripted API server and a platform in memory; objects as the API server would hand them over.

use std::sync::Arc;

use axum::http::Method;
use drover_host::{Metrics, SystemRandom};
use drover_operator::controller::{Context, Kind, Parts};
use drover_operator::{OperatorConfig, Telemetry};
use drover_types::FixedClock;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Call, Cluster};
use crate::platform::Platform;

/// When it is, milliseconds since the Unix epoch.
pub const NOW_MS: u64 = 1_700_000_000_000;

pub struct Stage {
    pub cluster: Cluster,
    pub platform: Arc<Platform>,
    pub clock: Arc<FixedClock>,
    pub context: Arc<Context>,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(OperatorConfig::default())
    }

    pub fn with(config: OperatorConfig) -> Self {
        let (cluster, platform, clock) =
            (Cluster::default(), Arc::new(Platform::default()), Arc::new(FixedClock::at(NOW_MS)));
        *platform.now_ms.lock().unwrap() = NOW_MS;
        let context = Arc::new(Context::new(Parts {
            client: cluster.client(),
            identity: "operator-0".into(),
            config,
            registry: platform.clone(),
            shadows: platform.clone(),
            rules: platform.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            telemetry: Metrics::default().register(Telemetry::register),
        }));
        Self { cluster, platform, clock, context }
    }

    /// One turn of an object, and what it wrote: its status last, if that was written.
    pub async fn turn<K: Kind>(&self, object: &K) -> (Vec<Call>, Vec<Call>) {
        let path = format!("{}/{}/status", K::url_path(&(), Some("home")), object.name_any());
        self.cluster.answers(Method::PATCH, &path, 200, serde_json::to_value(object).expect("JSON"));
        object.apply(&self.context).await.expect("nothing is away");
        self.cluster.writes()
    }
}

/// An object of the namespace `home` as it is after its first write.
pub fn object<K: DeserializeOwned>(api_version: &str, kind: &str, name: &str, spec: Value) -> K {
    let metadata = json!({"name": name, "namespace": "home", "uid": format!("uid-{name}"), "generation": 1});
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).expect(kind)
}

/// The object with the status that was last written.
pub fn with_status<K: Kind>(object: &K, writes: &[Call]) -> K {
    let status = status(writes).expect("a status was written");
    let mut value = serde_json::to_value(object).expect("JSON");
    value["status"] = status;
    serde_json::from_value(value).expect("the object")
}

/// The status among what was written.
pub fn status(writes: &[Call]) -> Option<Value> {
    let write = writes.iter().rfind(|call| call.path.ends_with("/status"))?;
    assert!(write.query.contains("fieldManager=drover-operator"), "{write:?}");
    Some(write.body["status"].clone())
}

/// Status and reason of a condition.
pub fn condition(status: &Value, kind: &str) -> (String, String) {
    let conditions = status["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|condition| condition["type"] == kind).expect(kind);
    let text = |field: &str| found[field].as_str().expect("text").to_owned();
    (text("status"), text("reason"))
}

/// What a condition says to people.
pub fn message(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().expect("conditions");
    let found = conditions.iter().find(|condition| condition["type"] == kind).expect(kind);
    found["message"].as_str().expect("text").to_owned()
}

/// A pair of texts, to compare with.
pub fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}
