//! The audit trail: who changed what, once each, also after a kill, and in the order of the writes.

use std::path::Path;

use drover_host::actor::acting;
use drover_host::grpc;
use drover_proto::from_status;
use drover_proto::registry::v1::audit_client::AuditClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::Device;
use drover_registry::audit::{Action, Entry};
use drover_registry::object::Kind;
use drover_registry::ports::{Mutation, RegistryStore};
use drover_registry::{Embedded, EmbeddedLimits, conformance};
use drover_types::{ErrorCode, TenantId};

use crate::stage::{NOW_MS, Stage, config, device, until};

fn client(stage: &Stage) -> AuditClient<grpc::Client> {
    AuditClient::new(stage.network.client("registry"))
}

async fn list(stage: &Stage, request: ListAuditRequest) -> ListAuditResponse {
    client(stage).list_audit(request).await.expect("listed").into_inner()
}

/// Entries of the tenant `default` as `action kind name by actor`, oldest first, once there are `count`.
async fn told(stage: &Stage, count: usize) -> Vec<String> {
    let mut entries = Vec::new();
    until(async || {
        entries = list(stage, ListAuditRequest::default()).await.entries;
        entries.len() >= count
    })
    .await;
    entries.reverse();
    let action = |entry: &AuditEntry| entry.action().as_str_name().trim_start_matches("AUDIT_ACTION_").to_lowercase();
    entries.iter().map(|e| format!("{} {} {} by {}", action(e), e.kind, e.name, e.actor)).collect()
}

fn update(name: &str, change: impl FnOnce(&mut Device)) -> UpdateDeviceRequest {
    let mut device = device(name);
    change(&mut device);
    UpdateDeviceRequest { device: Some(device) }
}

#[tokio::test]
async fn an_entry_says_who_did_what_and_what_an_update_has_changed() {
    let stage = Stage::new().await;
    let mut client = stage.client.clone();
    acting("token ci", stage.create_device("d")).await.expect("created");
    stage.clock.advance(1);
    let disabled = update("d", |device| device.enabled = false);
    acting("administrator", client.update_device(disabled.clone())).await.expect("updated");
    acting("administrator", client.update_device(disabled)).await.expect("nothing changes");
    let made = stage.issue_token("d", 0).await.credential.expect("a credential");
    stage.clock.advance(1);
    let delete = DeleteDeviceRequest { tenant: String::new(), name: "d".into() };
    acting("operator", client.delete_device(delete)).await.expect("deleted");
    let id = made.id;
    let expected = [
        "created device d by token ci".to_owned(),
        "updated device d by administrator".to_owned(),
        format!("created credential {id} by unknown"),
        format!("deleted credential {id} by operator"),
        "deleted device d by operator".to_owned(),
    ];
    assert_eq!(told(&stage, expected.len()).await, expected);

    let entries = list(&stage, ListAuditRequest::default()).await.entries;
    assert_eq!(entries[3].changed, ["spec.enabled"]);
    assert_eq!((entries[3].time_ms, entries[2].device.as_str()), (NOW_MS + 1, "d"));
    assert!(entries.windows(2).all(|pair| pair[0].revision > pair[1].revision), "{entries:?}");
}

#[tokio::test]
async fn filters_and_pages_narrow_what_is_seen() {
    let stage = Stage::new().await;
    for i in 0..5 {
        let actor = if i % 2 == 0 { "token even" } else { "token odd" };
        acting(actor, stage.create_device(&format!("d{i}"))).await.expect("created");
        stage.clock.advance(1_000);
    }
    stage.issue_token("d0", 0).await;
    told(&stage, 6).await;
    let names = async |request: ListAuditRequest| {
        let entries = list(&stage, request).await.entries;
        entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    let any = ListAuditRequest { kind: "device".into(), ..Default::default() };
    assert_eq!(names(ListAuditRequest { actor: "token odd".into(), ..any.clone() }).await, ["d3", "d1"]);
    let span = ListAuditRequest { from_ms: NOW_MS + 1_000, to_ms: NOW_MS + 3_000, ..any.clone() };
    assert_eq!(names(span).await, ["d2", "d1"]);
    let of_d0 = ListAuditRequest { name: "d0".into(), ..Default::default() };
    assert_eq!(names(of_d0).await.len(), 2, "the device, and its credential");
    let elsewhere = ListAuditRequest { tenant: "home".into(), ..Default::default() };
    assert_eq!(names(elsewhere).await, Vec::<String>::new());

    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(&stage, ListAuditRequest { page_size: 2, page_token, ..any.clone() }).await;
        pages.push(page.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec!["d4", "d3"], vec!["d2", "d1"], vec!["d0"]]);
    for (field, wrong) in [
        ("kind", ListAuditRequest { kind: "lamp".into(), ..Default::default() }),
        ("page_token", ListAuditRequest { page_token: "d3".into(), ..Default::default() }),
        ("page_size", ListAuditRequest { page_size: 1_001, ..Default::default() }),
        ("actor", ListAuditRequest { actor: "a".repeat(201), ..Default::default() }),
    ] {
        let refused = from_status(&client(&stage).list_audit(wrong).await.expect_err("refused"));
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
    }
}

fn open(directory: &Path) -> Embedded {
    Embedded::open(&directory.join("registry/store"), EmbeddedLimits::default()).expect("opens")
}

#[tokio::test]
async fn a_kill_between_the_trail_and_the_outbox_leaves_one_entry_a_write_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let creation = Mutation { time_ms: NOW_MS, ..conformance::creation(conformance::device("d")) };
    let made = store.write(creation).await.expect("written").expect("there");
    // As time stands still, order is that of the writes alone.
    let mut changed = made.clone();
    changed.meta.labels.insert("room".into(), "hall".into());
    let update = Mutation::new(made.key(), Some(made.meta.revision), Some(changed), NOW_MS);
    let updated = store.write(Mutation { actor: "token ci".into(), ..update }).await.expect("written").expect("there");
    // What the relay had put into the trail before it was killed: the rows of the outbox are there still.
    let first = Entry {
        tenant: TenantId::default_tenant(),
        time_ms: NOW_MS,
        actor: "unknown".into(),
        action: Action::Created,
        kind: Kind::Device,
        name: "d".into(),
        device: None,
        revision: made.meta.revision,
        changed: Vec::new(),
    };
    store.put_audit(vec![first]).await.expect("writable");
    store.write(Mutation::new(made.key(), Some(updated.meta.revision), None, NOW_MS)).await.expect("deleted");
    drop(store);

    let mut stage = Stage::with(config(), directory).await;
    let expected = ["created device d by unknown", "updated device d by token ci", "deleted device d by unknown"];
    assert_eq!(told(&stage, 3).await, expected);
    stage.restart().await;
    assert_eq!(told(&stage, 3).await, expected, "nothing is told twice");
}
