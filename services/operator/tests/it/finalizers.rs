//! Objects are let go where no operator runs any more.

use axum::http::Method;
use drover_operator::finalizers::remove;
use serde_json::{Value, json};

use crate::cluster::{Cluster, refusal};

const RULES: &str = "/apis/drover.dev/v1alpha1/namespaces/home/rules";
const RULE: &str = "/apis/drover.dev/v1alpha1/namespaces/home/rules/hot";

/// The metadata of a Rule.
fn rule(name: &str, finalizers: &[&str]) -> Value {
    let metadata = json!({"name": name, "namespace": "home", "resourceVersion": "7", "finalizers": finalizers});
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
}

/// A cluster with these Rules in the namespace `home`, and no other kind.
fn cluster(rules: &[Value]) -> Cluster {
    let cluster = Cluster::default();
    let metadata = json!({"resourceVersion": "9"});
    let list = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": metadata, "items": rules,
    });
    cluster.answers(Method::GET, RULES, 200, list);
    cluster
}

#[tokio::test]
async fn the_operators_finalizer_is_taken_off_and_those_of_others_stay() {
    let held = rule("hot", &["a.example/b", "drover.dev/registry"]);
    let cluster = cluster(&[held, rule("cold", &["a.example/b"])]);
    let removed = remove(&cluster.client(), &["home".to_owned()]).await.unwrap();
    let (writes, _) = cluster.writes();
    assert_eq!((removed, writes.len(), writes[0].path.as_str()), (1, 1, RULE));
    let expected = json!({"metadata": {"resourceVersion": "7", "finalizers": ["a.example/b"]}});
    assert_eq!(writes[0].body, expected);
    // What is in other namespaces is another's.
    assert_eq!(remove(&cluster.client(), &["lab".to_owned()]).await.unwrap(), 0);
    assert!(cluster.calls().iter().all(|call| call.path.contains("/namespaces/lab/")));
}

#[tokio::test]
async fn an_object_that_others_change_is_read_again_and_given_up_at_a_bound() {
    let held = rule("hot", &["drover.dev/registry"]);
    let cluster = cluster(std::slice::from_ref(&held));
    cluster.answers(Method::PATCH, RULE, 409, refusal(409, "Conflict"));
    // Gone when it is read again.
    assert_eq!(remove(&cluster.client(), &["home".to_owned()]).await.unwrap(), 1);
    cluster.calls();
    cluster.answers(Method::GET, RULE, 200, held);
    let contended = remove(&cluster.client(), &["home".to_owned()]).await.unwrap_err();
    assert!(contended.to_string().contains("Rule home/hot was changed by others at each of 5 tries"), "{contended}");
    assert_eq!(cluster.writes().0.len(), 5);
    cluster.answers(Method::PATCH, RULE, 403, refusal(403, "Forbidden"));
    remove(&cluster.client(), &["home".to_owned()]).await.unwrap_err();
}
