//! The suite that every store adapter must pass.
//!
//! An adapter's test gives a [`Factory`]; each function here is one promise of [`RegistryStore`].

mod audit;
mod kinds;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use drover_types::object::{CertificateAuthoritySpec, DeviceSpec, PolicySpec};
use drover_types::{ClientId, DeviceId, DeviceKey, TenantId};
use tokio::task::JoinSet;

use crate::object::{
    ApiToken, Credential, CredentialKind, Kind, Meta, NONCE_BYTES, Object, ObjectKey, Role, Sealed, Spec,
};
use crate::ports::{
    Found, Lookups, Mutation, PresenceChange, PresenceView, RegistryStore, Session, SessionKey, StoreError, TopicClaim,
};

/// Makes stores for the suite.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A store with nothing in it.
    async fn empty(&self) -> Arc<dyn RegistryStore>;
    /// The same store after its process has died and come back; nobody else holds `store`.
    async fn reopened(&self, store: Arc<dyn RegistryStore>) -> Arc<dyn RegistryStore>;
}

/// Runs every promise.
pub async fn suite(factory: &dyn Factory) {
    a_write_reads_back_and_takes_the_expected_revision_only(factory).await;
    revisions_grow_across_deletion(factory).await;
    of_many_concurrent_creations_one_wins(factory).await;
    pages_are_ordered_and_keep_to_their_kind_and_tenant(factory).await;
    credentials_are_found_by_digest_and_by_device_until_deleted(factory).await;
    a_sealed_secret_is_kept_and_stays_found_when_it_is_sealed_anew(factory).await;
    a_device_that_had_credentials_is_known_after_they_are_gone(factory).await;
    what_is_looked_up_at_once_is_what_is_looked_up_alone(factory).await;
    an_api_token_is_found_by_its_key_and_is_no_credential(factory).await;
    a_certificate_authority_is_kept_and_told_as_it_is(factory).await;
    kinds::types_and_groups_are_kept_and_told_as_they_are(factory).await;
    kinds::types_and_groups_are_listed_by_kind_and_tenant(factory).await;
    every_write_leaves_one_outbox_row_in_order_until_forgotten(factory).await;
    writes_and_outbox_survive_reopening(factory).await;
    a_write_is_told_with_who_asked_for_it_and_a_revision_that_grows(factory).await;
    audit::suite(factory).await;
    presence_is_kept_by_partition_and_device(factory).await;
    a_topic_is_its_first_tenants_until_its_last_rule_goes(factory).await;
    of_many_tenants_that_claim_a_topic_at_once_one_gets_it(factory).await;
}

/// A device object of the tenant `default`.
pub fn device(name: &str) -> Object {
    object(&TenantId::default_tenant(), name, Spec::Device(DeviceSpec::default()))
}

/// The creation of an object.
pub fn creation(object: Object) -> Mutation {
    Mutation::new(object.key(), None, Some(object), 7)
}

fn object(tenant: &TenantId, name: &str, spec: Spec) -> Object {
    let meta = Meta {
        tenant: tenant.clone(),
        name: name.to_owned(),
        labels: BTreeMap::new(),
        generation: 1,
        revision: 0,
        created_ms: 7,
        updated_ms: 7,
        owner: String::new(),
    };
    Object { meta, spec }
}

async fn create(store: &dyn RegistryStore, object: Object) -> Object {
    store.write(creation(object)).await.expect("nothing is in its way").expect("something was written")
}

async fn delete(store: &dyn RegistryStore, object: &Object) {
    let mutation = Mutation::new(object.key(), Some(object.meta.revision), None, 8);
    assert_eq!(store.write(mutation).await, Ok(None));
}

async fn a_write_reads_back_and_takes_the_expected_revision_only(factory: &dyn Factory) {
    let store = factory.empty().await;
    let first = create(&*store, device("a")).await;
    assert_eq!(store.get(&first.key()).await, Ok(Some(first.clone())));
    let found = Some(first.meta.revision);
    for expected in [None, Some(first.meta.revision + 1)] {
        let refused = store.write(Mutation { expected, ..creation(device("a")) }).await;
        assert_eq!(refused, Err(StoreError::Conflict { expected, found }));
    }
    let second = store.write(Mutation { expected: found, ..creation(device("a")) }).await.expect("expected");
    assert!(second.as_ref().is_some_and(|second| second.meta.revision > first.meta.revision));
    assert_eq!(store.get(&first.key()).await, Ok(second));
}

async fn revisions_grow_across_deletion(factory: &dyn Factory) {
    let store = factory.empty().await;
    let first = create(&*store, device("a")).await;
    delete(&*store, &first).await;
    assert_eq!(store.get(&first.key()).await, Ok(None));
    let again = create(&*store, device("a")).await;
    assert!(again.meta.revision > first.meta.revision);
}

async fn of_many_concurrent_creations_one_wins(factory: &dyn Factory) {
    let store = factory.empty().await;
    let mut writes = JoinSet::new();
    for _ in 0..50 {
        let store = Arc::clone(&store);
        writes.spawn(async move { store.write(creation(device("one"))).await });
    }
    let outcomes = writes.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(store.outbox(100).await.expect("readable").len(), 1);
}

async fn pages_are_ordered_and_keep_to_their_kind_and_tenant(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (tenant, other) = (TenantId::default_tenant(), TenantId::new("default-2").expect("valid"));
    for name in ["b", "a", "a.b", "B", "c"] {
        create(&*store, device(name)).await;
    }
    create(&*store, object(&other, "z", Spec::Device(DeviceSpec::default()))).await;
    create(&*store, object(&tenant, "p", Spec::Policy(PolicySpec::default()))).await;
    let names = |page: Vec<Object>| page.into_iter().map(|object| object.meta.name).collect::<Vec<_>>();
    let page = |after: &'static str, limit| store.page(Kind::Device, &tenant, after, limit);
    assert_eq!(names(page("", 3).await.expect("readable")), ["B", "a", "a.b"]);
    assert_eq!(names(page("a.b", 3).await.expect("readable")), ["b", "c"]);
    assert_eq!(names(page("c", 3).await.expect("readable")), Vec::<String>::new());
    assert_eq!(names(store.page(Kind::Policy, &tenant, "", 9).await.expect("readable")), ["p"]);
}

async fn credentials_are_found_by_digest_and_by_device_until_deleted(factory: &dyn Factory) {
    let store = factory.empty().await;
    let tenant = TenantId::default_tenant();
    let credential = |id: &str, device: &str, byte: u8| {
        let device = DeviceId::new(device).expect("valid");
        let kind = CredentialKind::Token;
        let digest = [byte; 32];
        object(&tenant, id, Spec::Credential(Credential { device, kind, expires_ms: Some(9), digest, sealed: None }))
    };
    let first = create(&*store, credential("1", "d", 1)).await;
    let second = create(&*store, credential("2", "d", 2)).await;
    create(&*store, credential("3", "d2", 3)).await;
    let d = DeviceKey { tenant: tenant.clone(), device: DeviceId::new("d").expect("valid") };
    assert_eq!(store.credential_by_digest(&[1; 32]).await, Ok(Some(first.clone())));
    assert_eq!(store.credential_by_digest(&[9; 32]).await, Ok(None));
    assert_eq!(store.credentials_of(&d).await, Ok(vec![first.clone(), second.clone()]));
    delete(&*store, &first).await;
    assert_eq!(store.credential_by_digest(&[1; 32]).await, Ok(None));
    assert_eq!(store.credentials_of(&d).await, Ok(vec![second]));
}

async fn a_sealed_secret_is_kept_and_stays_found_when_it_is_sealed_anew(factory: &dyn Factory) {
    let store = factory.empty().await;
    let tenant = TenantId::default_tenant();
    let d = DeviceKey { tenant: tenant.clone(), device: DeviceId::new("d").expect("valid") };
    let sealed = |byte: u8| Some(Sealed { master_key: "k".into(), nonce: [byte; NONCE_BYTES], secret: vec![byte; 48] });
    let credential = |byte| {
        let (device, kind) = (d.device.clone(), CredentialKind::PreSharedKey);
        let digest = [1; 32];
        Spec::Credential(Credential { device, kind, expires_ms: None, digest, sealed: sealed(byte) })
    };
    let first = create(&*store, object(&tenant, "1", credential(1))).await;
    assert_eq!(store.credentials_of(&d).await, Ok(vec![first.clone()]));
    let after = Some(Object { spec: credential(2), ..first.clone() });
    let anew = Mutation::new(first.key(), Some(first.meta.revision), after, 8);
    let second = store.write(anew).await.expect("written").expect("it is there");
    let store = factory.reopened(store).await;
    assert_eq!(store.credentials_of(&d).await, Ok(vec![second.clone()]));
    assert_eq!(store.credential_by_digest(&[1; 32]).await, Ok(Some(second.clone())));
    let rows = store.outbox(9).await.expect("readable");
    let told = rows.iter().flat_map(|row| [&row.change.before, &row.change.after]).flatten();
    let sealed = told.filter_map(Object::credential).filter(|(credential, _)| credential.sealed.is_some()).count();
    assert_eq!((rows.len(), sealed), (2, 0), "it does not leave the store");
    delete(&*store, &second).await;
    assert_eq!(store.credentials_of(&d).await, Ok(vec![]));
}

async fn a_device_that_had_credentials_is_known_after_they_are_gone(factory: &dyn Factory) {
    let store = factory.empty().await;
    let key =
        |name: &str| DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new(name).expect("valid") };
    let (d, dd) = (key("d"), key("dd"));
    let (kind, device) = (CredentialKind::Token, dd.device.clone());
    let spec = Spec::Credential(Credential { device, kind, expires_ms: None, digest: [1; 32], sealed: None });
    let credential = create(&*store, object(&dd.tenant, "1", spec)).await;
    assert_eq!(store.has_had_credentials(&dd).await, Ok(true));
    delete(&*store, &credential).await;
    let store = factory.reopened(store).await;
    assert_eq!(store.has_had_credentials(&dd).await, Ok(true));
    assert_eq!(store.credentials_of(&dd).await, Ok(vec![]));
    assert_eq!(store.has_had_credentials(&d).await, Ok(false));
}

async fn what_is_looked_up_at_once_is_what_is_looked_up_alone(factory: &dyn Factory) {
    let store = factory.empty().await;
    let named = |name: &str| DeviceId::new(name).expect("valid");
    let tenant = TenantId::default_tenant();
    let kind = CredentialKind::Token;
    let (device_a, digest) = (named("a"), [1; 32]);
    let spec = Spec::Credential(Credential { device: device_a, kind, expires_ms: None, digest, sealed: None });
    let credential = create(&*store, object(&tenant, "1", spec)).await;
    let (a, b) = (create(&*store, device("a")).await, create(&*store, device("b")).await);
    let missing = ObjectKey::new(Kind::Device, &tenant, "c");
    let wanted = Lookups {
        objects: vec![b.key(), missing, credential.key(), b.key(), a.key()],
        digests: vec![[9; 32], [1; 32]],
        had_credentials: ["b", "a"].map(|name| DeviceKey { tenant: tenant.clone(), device: named(name) }).to_vec(),
    };
    let found = Found {
        objects: vec![Ok(Some(b.clone())), Ok(None), Ok(Some(credential.clone())), Ok(Some(b)), Ok(Some(a))],
        by_digest: vec![Ok(None), Ok(Some(credential))],
        had_credentials: vec![Ok(false), Ok(true)],
    };
    assert_eq!(store.look_up(Arc::new(wanted)).await, Ok(found));
    assert_eq!(store.look_up(Arc::default()).await, Ok(Found::default()));
}

async fn an_api_token_is_found_by_its_key_and_is_no_credential(factory: &dyn Factory) {
    let store = factory.empty().await;
    let token = |tenant: &TenantId, name: &str, expires_ms| {
        let (role, created_by) = (Role::Admin, "administrator".to_owned());
        object(tenant, name, Spec::ApiToken(ApiToken { role, expires_ms, created_by, digest: [7; 32] }))
    };
    let (tenant, other) = (TenantId::default_tenant(), TenantId::new("default-2").expect("valid"));
    let b = create(&*store, token(&tenant, "b", Some(9))).await;
    let a = create(&*store, token(&tenant, "a.c", None)).await;
    create(&*store, token(&other, "b", None)).await;
    let store = factory.reopened(store).await;
    assert_eq!(store.get(&b.key()).await, Ok(Some(b.clone())));
    assert_eq!(store.page(Kind::ApiToken, &tenant, "", 9).await, Ok(vec![a.clone(), b.clone()]));
    assert_eq!(store.credential_by_digest(&[7; 32]).await, Ok(None));
    let outbox = store.outbox(9).await.expect("readable");
    assert_eq!(outbox[0].change.after, Some(b.clone()));
    delete(&*store, &b).await;
    assert_eq!(store.get(&b.key()).await, Ok(None));
    assert_eq!(store.page(Kind::ApiToken, &tenant, "", 9).await, Ok(vec![a]));
}

async fn a_certificate_authority_is_kept_and_told_as_it_is(factory: &dyn Factory) {
    let store = factory.empty().await;
    let authority = |name: &str| {
        let attributes = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        let template = DeviceSpec { device_type: Some("lamp".into()), attributes, ..DeviceSpec::default() };
        let labels = BTreeMap::from([("room".to_owned(), "hall".to_owned())]);
        let spec = CertificateAuthoritySpec { certificate: "pem".into(), labels, template };
        object(&TenantId::default_tenant(), name, Spec::CertificateAuthority(spec))
    };
    let b = create(&*store, authority("b")).await;
    let a = create(&*store, authority("a.c")).await;
    let store = factory.reopened(store).await;
    assert_eq!(store.get(&b.key()).await, Ok(Some(b.clone())));
    assert_eq!(store.page(Kind::CertificateAuthority, &b.meta.tenant, "", 9).await, Ok(vec![a, b.clone()]));
    assert_eq!(store.outbox(9).await.expect("readable")[0].change.after, Some(b.clone()));
    delete(&*store, &b).await;
    assert_eq!(store.get(&b.key()).await, Ok(None));
}

async fn every_write_leaves_one_outbox_row_in_order_until_forgotten(factory: &dyn Factory) {
    let store = factory.empty().await;
    let a = create(&*store, device("a")).await;
    let b = create(&*store, device("b")).await;
    delete(&*store, &a).await;
    let rows = store.outbox(10).await.expect("readable");
    let seen: Vec<_> = rows.iter().map(|row| (row.change.before.clone(), row.change.after.clone())).collect();
    assert_eq!(seen, [(None, Some(a.clone())), (None, Some(b)), (Some(a.clone()), None)]);
    assert_eq!(rows[2].change.key, a.key());
    assert!(rows.is_sorted_by_key(|row| row.sequence));
    assert_eq!(store.outbox(2).await.expect("readable"), rows[..2]);
    store.forget(&[rows[0].sequence, rows[1].sequence]).await.expect("writable");
    assert_eq!(store.outbox(10).await.expect("readable"), rows[2..]);
    store.forget(&[rows[0].sequence]).await.expect("forgetting twice is nothing");
}

async fn writes_and_outbox_survive_reopening(factory: &dyn Factory) {
    let store = factory.empty().await;
    let a = create(&*store, device("a")).await;
    let rows = store.outbox(10).await.expect("readable");
    let store = factory.reopened(store).await;
    assert_eq!(store.get(&a.key()).await, Ok(Some(a.clone())));
    assert_eq!(store.outbox(10).await.expect("readable"), rows);
    store.forget(&[rows[0].sequence]).await.expect("writable");
    delete(&*store, &a).await;
    let store = factory.reopened(store).await;
    assert_eq!(store.get(&ObjectKey::new(Kind::Device, &a.meta.tenant, "a")).await, Ok(None));
    assert!(create(&*store, device("a")).await.meta.revision > a.meta.revision);
}

async fn a_write_is_told_with_who_asked_for_it_and_a_revision_that_grows(factory: &dyn Factory) {
    let store = factory.empty().await;
    let by = |actor: &str, mutation: Mutation| Mutation { actor: actor.to_owned(), ..mutation };
    let made = store.write(by("token ci", creation(device("a")))).await.expect("written").expect("it is there");
    delete(&*store, &made).await;
    store.write(by("administrator", creation(device("a")))).await.expect("written");
    let store = factory.reopened(store).await;
    let rows = store.outbox(9).await.expect("readable");
    let actors: Vec<&str> = rows.iter().map(|row| row.change.actor.as_str()).collect();
    assert_eq!(actors, ["token ci", "", "administrator"]);
    assert_eq!(rows[0].change.revision, made.meta.revision);
    assert!(rows.windows(2).all(|pair| pair[0].change.revision < pair[1].change.revision), "{rows:?}");
}

async fn presence_is_kept_by_partition_and_device(factory: &dyn Factory) {
    let store = factory.empty().await;
    let device =
        |device: &str| DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new(device).expect("valid") };
    let key =
        |name: &str, client: &str| SessionKey { device: device(name), client: ClientId::new(client).expect("valid") };
    let session = Session { connected: true, epoch: 3, changed_ms: 5, node: "n".into(), boot: 2 };
    assert_eq!(store.presence(1).await, Ok(PresenceView::default()));
    let sessions = [key("a", "x"), key("a", "y/z"), key("ab", "x")].map(|key| (key, Some(session.clone())));
    let change = |partition, next, sessions| PresenceChange { partition, next, sessions };
    let both = vec![change(1, 11, sessions.to_vec()), change(3, 5, sessions[..1].to_vec())];
    store.put_presence(both).await.expect("writable");
    let of_a = store.presence_of(1, &device("a")).await.expect("readable");
    assert_eq!(of_a, [(key("a", "x"), session.clone()), (key("a", "y/z"), session.clone())]);
    assert_eq!(store.presence_of(2, &device("a")).await, Ok(vec![]));
    assert_eq!(store.presence_of(3, &device("a")).await, Ok(vec![(key("a", "x"), session)]));
    store.put_presence(vec![change(1, 12, vec![(key("a", "x"), None)])]).await.expect("writable");
    let (first, third) = (store.presence(1).await.expect("readable"), store.presence(3).await.expect("readable"));
    assert_eq!((first.next, first.sessions.len()), (Some(12), 2));
    assert_eq!((third.next, third.sessions.len()), (Some(5), 1));
    assert_eq!(store.presence(2).await, Ok(PresenceView::default()));
}

fn rule_of(tenant: &str, name: &str) -> ObjectKey {
    ObjectKey::new(Kind::Rule, &TenantId::new(tenant).expect("valid"), name)
}

async fn a_topic_is_its_first_tenants_until_its_last_rule_goes(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (a1, a2, b) = (rule_of("a", "1"), rule_of("a", "2"), rule_of("b", "1"));
    let of_a = |rules: &[&str], claimed_ms| {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        Ok(TopicClaim { tenant: a1.tenant.clone(), rules, claimed_ms })
    };
    assert_eq!(store.topic_claim("t").await, Ok(None));
    assert_eq!(store.claim_topic("t", &a2, 1).await, of_a(&["2"], 1));
    assert_eq!(store.claim_topic("t", &a1, 2).await, of_a(&["1", "2"], 2));
    assert_eq!(store.claim_topic("t", &b, 3).await, of_a(&["1", "2"], 2), "nothing changes");
    assert_eq!(store.claim_topic("t", &a1, 4).await, of_a(&["1", "2"], 4), "claiming twice is claiming once");
    store.release_topic("t", &b).await.expect("it was not among them");
    store.release_topic("t", &a1).await.expect("writable");
    store.release_topic("t", &a1).await.expect("releasing twice is nothing");
    let store = factory.reopened(store).await;
    assert_eq!(store.claim_topic("t", &b, 5).await, of_a(&["2"], 4), "also after a restart");
    assert_eq!(store.topic_claim("t").await, of_a(&["2"], 4).map(Some));
    store.release_topic("t", &a2).await.expect("writable");
    assert_eq!(store.topic_claim("t").await, Ok(None));
    let of_b = TopicClaim { tenant: b.tenant.clone(), rules: vec!["1".to_owned()], claimed_ms: 6 };
    assert_eq!(store.claim_topic("t", &b, 6).await, Ok(of_b.clone()));
    let store = factory.reopened(store).await;
    assert_eq!(store.claim_topic("t", &a1, 7).await, Ok(of_b), "also after a restart");
    assert_eq!(store.claim_topic("u", &a1, 8).await, of_a(&["1"], 8), "each topic for itself");
}

async fn of_many_tenants_that_claim_a_topic_at_once_one_gets_it(factory: &dyn Factory) {
    let store = factory.empty().await;
    let mut claims = JoinSet::new();
    for tenant in 0..20 {
        let (store, rule) = (store.clone(), rule_of(&format!("t{tenant}"), "r"));
        claims.spawn(async move { store.claim_topic("t", &rule, 1).await.expect("writable") });
    }
    let answers = claims.join_all().await;
    assert!(answers.iter().all(|claim| *claim == answers[0]), "{answers:?}");
}
