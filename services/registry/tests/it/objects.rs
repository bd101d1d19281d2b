//! Devices, policies and rules: created, read, changed, listed, deleted, and refused.

use drover_proto::from_status;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{
    Action, Device, Effect, KafkaAction, Meta, Policy, PolicyAction, Rule, Statement, action,
};
use drover_registry::object::{Kind, ObjectKey};
use drover_registry::ports::RegistryStore as _;
use drover_registry::{Embedded, EmbeddedLimits, RegistryConfig};
use drover_types::{ErrorCode, TenantId};

use crate::stage::{NOW_MS, Stage, config, device, meta};

fn get(name: &str) -> GetDeviceRequest {
    GetDeviceRequest { tenant: String::new(), name: name.into() }
}

fn rule(name: &str, sql: &str) -> PutRuleRequest {
    let kafka = KafkaAction { topic: "out".into(), key: Some("${device}".into()), ..KafkaAction::default() };
    let actions = vec![Action { action: Some(action::Action::Kafka(kafka)) }];
    PutRuleRequest { rule: Some(Rule { meta: meta(name), sql: sql.into(), actions, error_action: None }) }
}

#[tokio::test]
async fn a_device_is_created_read_changed_and_deleted() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    let created = stage.create_device("d").await.expect("created");
    let created_meta = created.meta.clone().expect("meta");
    assert_eq!((created_meta.tenant.as_str(), created_meta.generation), ("default", 1));
    let read = client.get_device(get("d")).await.expect("there").into_inner();
    assert_eq!(read.device, Some(created.clone()));
    assert_eq!(read.presence, Some(Presence::default()));
    assert_eq!(stage.create_device("d").await.expect_err("twice").code, ErrorCode::AlreadyExists);

    let labelled = Device { attributes: [("serial".into(), "A-17".into())].into(), ..created.clone() };
    let update = UpdateDeviceRequest { device: Some(labelled) };
    let changed = client.update_device(update.clone()).await.expect("changed").into_inner().device.expect("device");
    let changed_meta = changed.meta.clone().expect("meta");
    assert_eq!(changed_meta.generation, 2);
    assert!(changed_meta.revision > created_meta.revision);
    let stale = from_status(&client.update_device(update).await.expect_err("the revision is old"));
    assert_eq!((stale.code, stale.field.as_deref()), (ErrorCode::Aborted, Some("metadata.resourceVersion")));
    let any = Device { meta: meta("d"), ..created };
    let again = client.update_device(UpdateDeviceRequest { device: Some(any) }).await.expect("unconditional");
    assert_eq!(again.into_inner().device.and_then(|device| device.meta).map(|meta| meta.generation), Some(3));

    client.delete_device(DeleteDeviceRequest { name: "d".into(), ..Default::default() }).await.expect("deleted");
    let gone = from_status(&client.get_device(get("d")).await.expect_err("deleted"));
    assert_eq!(gone.code, ErrorCode::NotFound);
    let recreated = stage.create_device("d").await.expect("created");
    assert!(recreated.meta.expect("meta").revision > changed_meta.revision);
}

#[tokio::test]
async fn pages_follow_each_other_without_gaps_or_repeats() {
    let stage = Stage::new().await;
    for i in 0..7 {
        stage.create_device(&format!("d{i}")).await.expect("created");
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDevicesRequest { page_size: 3, page_token, ..Default::default() };
        let page = stage.client.clone().list_devices(request).await.expect("listed").into_inner();
        names.extend(page.devices.into_iter().filter_map(|d| Some(d.device?.meta?.name)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..7).map(|i| format!("d{i}")).collect::<Vec<_>>());
    let request = ListDevicesRequest { page_size: 1_001, ..Default::default() };
    let refused = from_status(&stage.client.clone().list_devices(request).await.expect_err("too large"));
    assert_eq!((refused.field.as_deref(), refused.limit.as_deref()), (Some("page_size"), Some("1000")));
}

#[tokio::test]
async fn pages_of_the_largest_devices_are_bounded_by_bytes() {
    let stage = Stage::new().await;
    let entries = |bytes: usize| (0..64).map(|i| (format!("{i:0128}"), "v".repeat(bytes))).collect();
    for i in 0..40 {
        let meta = Some(Meta { labels: entries(256), ..meta(&format!("d{i:02}")).expect("meta") });
        let largest = Device { meta, attributes: entries(1_024), ..device("d") };
        let request = CreateDeviceRequest { device: Some(largest) };
        stage.client.clone().create_device(request).await.expect("within the limits");
    }
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListDevicesRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = stage.client.clone().list_devices(request).await.expect("it fits into a message").into_inner();
        names.extend(page.devices.into_iter().filter_map(|d| Some(d.device?.meta?.name)));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..40).map(|i| format!("d{i:02}")).collect::<Vec<_>>());
    // One has 64 × (128 + 256 + 128 + 1,024) bytes: 21 are within 2 MiB.
    assert_eq!(pages, 2);
}

#[tokio::test]
async fn of_fifty_creations_of_one_name_one_wins() {
    let stage = Stage::new().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut client = stage.client.clone();
        calls.spawn(async move { client.create_device(CreateDeviceRequest { device: Some(device("one")) }).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    let codes = lost.iter().filter_map(|lost| lost.as_ref().err().map(tonic::Status::code));
    assert_eq!(codes.filter(|code| *code == tonic::Code::AlreadyExists).count(), 49);
}

#[tokio::test]
async fn what_a_device_may_not_be_is_refused_by_field() {
    let stage = Stage::new().await;
    let table = [
        (Device { meta: meta("a b"), ..device("d") }, "metadata.name"),
        (Device { policies: vec!["unknown".into()], ..device("d") }, "spec.policies"),
        (Device { attributes: [("k".into(), "v".repeat(1_025))].into(), ..device("d") }, "spec.attributes.k"),
        (Device { r#type: "a b".into(), ..device("d") }, "spec.type"),
        (Device { meta: None, ..device("d") }, "meta"),
    ];
    for (device, field) in table {
        let request = CreateDeviceRequest { device: Some(device) };
        let refused = from_status(&stage.client.clone().create_device(request).await.expect_err(field));
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
    }
}

#[tokio::test]
async fn the_policy_default_is_built_in_and_listed_in_its_place() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    let statements = vec![Statement {
        effect: Effect::Allow.into(),
        actions: vec![PolicyAction::Publish.into()],
        resources: vec!["a/#".into()],
    }];
    let put =
        |name: &str| PutPolicyRequest { policy: Some(Policy { meta: meta(name), statements: statements.clone() }) };
    for name in ["zeta", "alpha"] {
        client.put_policy(put(name)).await.expect("written");
    }
    let refused = from_status(&client.put_policy(put("default")).await.expect_err("built in"));
    assert_eq!(refused.code, ErrorCode::FailedPrecondition);
    let delete = DeletePolicyRequest { name: "default".into(), ..Default::default() };
    let refused = from_status(&client.delete_policy(delete).await.expect_err("built in"));
    assert_eq!(refused.code, ErrorCode::FailedPrecondition);
    for (page_size, page_token, expected, next) in [
        (0, "", vec!["alpha", "default", "zeta"], ""),
        (1, "alpha", vec!["default"], "default"),
        (9, "default", vec!["zeta"], ""),
    ] {
        let request = ListPoliciesRequest { tenant: String::new(), page_size, page_token: page_token.into() };
        let page = client.list_policies(request).await.expect("listed").into_inner();
        let names: Vec<_> = page.policies.into_iter().filter_map(|policy| Some(policy.meta?.name)).collect();
        assert_eq!((names, page.next_page_token.as_str()), (expected.into_iter().map(String::from).collect(), next));
    }
}

#[tokio::test]
async fn the_number_of_policies_is_bounded_and_those_there_can_be_changed() {
    let config = RegistryConfig { policies_per_tenant_max: 2, ..config() };
    let stage = Stage::with(config, tempfile::tempdir().expect("a directory")).await;
    let mut client = stage.client.clone();
    let put = |tenant: &str, name: &str, resource: &str| {
        let statement = Statement {
            effect: Effect::Allow.into(),
            actions: vec![PolicyAction::Publish.into()],
            resources: vec![resource.into()],
        };
        let meta = meta(name).map(|meta| Meta { tenant: tenant.into(), ..meta });
        PutPolicyRequest { policy: Some(Policy { meta, statements: vec![statement] }) }
    };
    for name in ["a", "b"] {
        client.put_policy(put("home", name, "a/#")).await.expect("the built-in one does not count");
    }
    let full = from_status(&client.put_policy(put("home", "c", "a/#")).await.expect_err("a third"));
    assert_eq!((full.code, full.message.as_str()), (ErrorCode::ResourceExhausted, "the tenant has too many policies"));
    assert_eq!((full.limit.as_deref(), full.value.as_deref()), (Some("2"), Some("3")));
    client.put_policy(put("home", "a", "b/#")).await.expect("replaced");
    client.put_policy(put("work", "c", "a/#")).await.expect("another tenant has room of its own");
    let delete = DeletePolicyRequest { tenant: "home".into(), name: "b".into() };
    client.delete_policy(delete).await.expect("deleted");
    client.put_policy(put("home", "c", "a/#")).await.expect("there is room again");
}

#[tokio::test]
async fn a_rule_compiles_or_is_refused_and_their_number_is_bounded() {
    let config = RegistryConfig { rules_per_tenant_max: 2, ..config() };
    let stage = Stage::with(config, tempfile::tempdir().expect("a directory")).await;
    let mut client = stage.client.clone();
    let sql = "SELECT temperature FROM 'sensors/temperature' WHERE temperature > 20";
    for name in ["a", "b"] {
        client.put_rule(rule(name, sql)).await.expect("written");
    }
    let full = from_status(&client.put_rule(rule("c", sql)).await.expect_err("a third"));
    assert_eq!((full.code, full.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("2")));
    let replaced = client.put_rule(rule("a", "SELECT * FROM 'x'")).await.expect("replaced").into_inner();
    assert_eq!(replaced.rule.and_then(|rule| rule.meta).map(|meta| meta.generation), Some(2));
    let unchanged = client.put_rule(rule("a", "SELECT * FROM 'x'")).await.expect("the same again").into_inner();
    assert_eq!(unchanged.rule.and_then(|rule| rule.meta).map(|meta| meta.generation), Some(2));
    for (request, field) in [
        (rule("a", "SELEKT"), "spec.sql"),
        (rule("A", sql), "metadata.name"),
        (rule(&"a".repeat(254), sql), "metadata.name"),
    ] {
        let refused = from_status(&client.put_rule(request).await.expect_err(field));
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
    }
    client.delete_rule(DeleteRuleRequest { name: "b".into(), ..Default::default() }).await.expect("deleted");
    client.put_rule(rule("c", sql)).await.expect("there is room again");
}

pub fn rule_to(tenant: &str, name: &str, topics: &[&str], error_topic: Option<&str>) -> PutRuleRequest {
    let action = |topic: &str| {
        let kafka = KafkaAction { topic: topic.into(), key: None, ..KafkaAction::default() };
        Action { action: Some(action::Action::Kafka(kafka)) }
    };
    let meta = Meta { tenant: tenant.into(), ..meta(name).expect("meta") };
    let actions = topics.iter().copied().map(action).collect();
    let (sql, error_action) = ("SELECT * FROM 'x'".into(), error_topic.map(action));
    PutRuleRequest { rule: Some(Rule { meta: Some(meta), sql, actions, error_action }) }
}

#[tokio::test]
async fn a_topic_belongs_to_the_first_tenant_that_claims_it_until_its_last_rule_goes() {
    let mut stage = Stage::new().await;
    let delete = |tenant: &str, name: &str| DeleteRuleRequest { tenant: tenant.into(), name: name.into() };
    stage.client.put_rule(rule_to("a", "one", &["own", "shared"], Some("errors"))).await.expect("free");
    stage.client.put_rule(rule_to("a", "two", &["shared"], None)).await.expect("the tenant's own");
    for (request, field, topic) in [
        (rule_to("b", "r", &["free", "shared"], None), "spec.actions[1].kafka.topic", "shared"),
        (rule_to("b", "r", &["free"], Some("errors")), "spec.errorAction.kafka.topic", "errors"),
    ] {
        let refused = from_status(&stage.client.put_rule(request).await.expect_err("taken"));
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::AlreadyExists, Some(field)));
        assert_eq!((refused.value.as_deref(), refused.limit), (Some(topic), None));
        assert_eq!(refused.message, format!("topic {topic} belongs to another tenant"), "which is nobody's business");
    }
    stage.client.put_rule(rule_to("c", "r", &["free"], None)).await.expect("a refused rule claims nothing");

    stage.restart().await;
    stage.client.delete_rule(delete("a", "one")).await.expect("deleted");
    stage.client.put_rule(rule_to("b", "r", &["own"], Some("errors"))).await.expect("both are free again");
    stage.client.put_rule(rule_to("b", "s", &["shared"], None)).await.expect_err("rule two still writes to it");
    stage.client.put_rule(rule_to("a", "two", &["other"], None)).await.expect("moved");
    stage.client.put_rule(rule_to("b", "s", &["shared"], None)).await.expect("nobody writes to it any more");
}

#[tokio::test]
async fn where_tenants_have_topics_of_their_own_a_rule_writes_to_no_other() {
    let kafka_topics = [("home".to_owned(), vec!["billing".to_owned(), "shared.*".to_owned()])].into();
    let config = RegistryConfig { own_topics_only: true, kafka_topics, ..config() };
    let stage = Stage::with(config, tempfile::tempdir().expect("a directory")).await;
    let mut client = stage.client.clone();
    let own = rule_to("home", "r", &["home.hot", "billing", "shared.a"], Some("home.errors"));
    client.put_rule(own).await.expect("all its own");
    let others = ["homely.hot", "home", "billing.x", "shared", "work.hot"].map(|topic| ("home", topic));
    for (tenant, topic) in others.into_iter().chain([("work", "billing"), ("work", "home.cold")]) {
        let refused = from_status(&client.put_rule(rule_to(tenant, "other", &[topic], None)).await.expect_err(topic));
        let field = Some("spec.actions[0].kafka.topic");
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::PermissionDenied, field), "{topic}");
        assert_eq!(refused.value.as_deref(), Some(topic));
    }
}

#[tokio::test]
async fn of_many_tenants_that_want_a_topic_at_once_one_gets_it() {
    let stage = Stage::new().await;
    let mut calls = tokio::task::JoinSet::new();
    for tenant in 0..20 {
        let (mut client, request) = (stage.client.clone(), rule_to(&format!("t{tenant}"), "r", &["wanted"], None));
        calls.spawn(async move { client.put_rule(request).await });
    }
    let codes: Vec<_> =
        calls.join_all().await.into_iter().map(|answer| answer.map(drop).map_err(|e| e.code())).collect();
    assert_eq!(codes.iter().filter(|code| code.is_ok()).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == Err(tonic::Code::AlreadyExists)).count(), 19);
}

#[tokio::test]
async fn a_claim_that_a_crash_has_left_over_does_not_keep_the_topic() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(&directory.path().join("registry/store"), EmbeddedLimits::default()).expect("opens");
    let left_over = ObjectKey::new(Kind::Rule, &TenantId::new("a").expect("valid"), "never-written");
    store.claim_topic("wanted", &left_over, NOW_MS).await.expect("written");
    drop(store);
    let stage = Stage::with(config(), directory).await;
    let mut client = stage.client.clone();
    let refused = client.put_rule(rule_to("b", "r", &["wanted"], None)).await.expect_err("it may be on its way");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
    stage.clock.advance(60_000);
    client.put_rule(rule_to("b", "r", &["wanted"], None)).await.expect("nobody writes to it");
}
