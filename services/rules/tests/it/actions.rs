//! Actions that leave the platform: at least once, in order per device, and each by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_bus::{Outgoing, Record};
use drover_host::{Shutdown, Sockets, SystemClock, grpc};
use drover_proto::rules::v1::{LaneProgress, OutboxEntry};
use drover_proto::shadow::v1::shadow_server::{Shadow, ShadowServer};
use drover_proto::shadow::v1::{
    DeleteShadowRequest, DeleteShadowResponse, GetShadowRequest, GetShadowResponse, ListOpenDeltasRequest,
    ListOpenDeltasResponse, ListShadowsRequest, ListShadowsResponse, UpdateShadowRequest, UpdateShadowResponse,
};
use drover_proto::storage::v1::storage_server::{Storage, StorageServer};
use drover_proto::storage::v1::{
    GetLastHeardRequest, GetLastHeardResponse, GetLatestRequest, GetLatestResponse, GetMessagesRequest,
    GetMessagesResponse, GetRangeRequest, GetRangeResponse, QueryRequest, QueryResponse, StoreRowRequest,
    StoreRowResponse,
};
use drover_rules::{ERRORS_TOPIC, OUTBOX_TOPIC, RETRY_TOPIC, RulesConfig};
use drover_types::{Clock, Telemetry};
use prost::Message as _;
use ring::hmac;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::lookups::device;
use crate::republish::FakeIngress;
use crate::target::{Manner, Target};
use crate::world::{Running, World, header, message, outgoing, text, until};

/// Longer than a test takes: who has to wait for a timeout is found out.
const TIMEOUT: &str = "30s";

fn config() -> RulesConfig {
    let internal_hosts = vec!["127.0.0.1".to_owned()];
    RulesConfig { member: "a".to_owned(), partitions: 2, internal_hosts, ..RulesConfig::default() }
}

fn start(world: &World) -> Running {
    world.start_with(config())
}

fn to(target: &Target) -> Value {
    json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"webhook": {"url": target.url(), "timeout": TIMEOUT}}]})
}

/// Messages of so many devices, one after the other, received now.
fn numbered(numbers: std::ops::Range<u16>, devices: u16) -> Vec<Telemetry> {
    let time_ms = SystemClock.now_ms();
    let one = |n: u16| Telemetry { time_ms, ..message(&format!("d{}", n % devices), n, &format!("{{\"n\":{n}}}")) };
    numbers.map(one).collect()
}

/// The numbers in bodies `{"n": …}`.
fn numbers(bodies: &[String]) -> Vec<u64> {
    bodies.iter().map(|body| serde_json::from_str::<Value>(body).expect("JSON")["n"].as_u64().expect("n")).collect()
}

/// Whether each device's numbers come in order.
fn is_in_order(numbers: &[u64], devices: u64) -> bool {
    (0..devices).all(|device| numbers.iter().filter(|n| **n % devices == device).is_sorted())
}

#[tokio::test]
async fn a_webhook_gets_each_row_with_its_id_and_signature_in_order() {
    let (world, dir) = World::embedded().await;
    let secret = dir.path().join("secrets/home/hooks");
    std::fs::create_dir_all(&secret).expect("made");
    std::fs::write(secret.join("authorization"), "Bearer sesame").expect("written");
    std::fs::write(secret.join("hmac"), "key").expect("written");
    let target = Target::start(Manner::Answers(200)).await;
    let url = format!("{}/${{topic(2)}}?n=${{n}}", target.url());
    let webhook = json!({"url": url, "headers": {"x-device": "${topic(2)}"},
        "headersFrom": {"secretRef": "hooks"}, "signature": {"secretRef": "hooks"}, "body": "n is ${n}"});
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"webhook": webhook}]});
    world.rule("hook", 1, Some(rule)).await;
    let running = world.start_with(RulesConfig { secrets: Some(dir.path().join("secrets")), ..config() });
    world.publish(numbered(0..100, 4)).await;
    until("all sent", async || target.seen().len() >= 100).await;
    let seen = target.seen();
    let ids: BTreeSet<&String> = seen.iter().map(|seen| &seen.headers["idempotency-key"]).collect();
    assert_eq!((seen.len(), ids.len()), (100, 100));
    let first = seen.iter().find(|seen| seen.path.ends_with("n=5")).expect("the fifth");
    assert_eq!((first.path.as_str(), first.body.as_str()), ("/hook/d1?n=5", "n is 5"));
    let sent = |name: &str| first.headers.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!((sent("x-device"), sent("authorization")), ("d1", "Bearer sesame"));
    assert_eq!(sent("idempotency-key"), message("d1", 5, "").id.derived("hook", 0).to_string());
    let signed = format!("{}.{}.n is 5", sent("webhook-id"), sent("webhook-timestamp"));
    let signature = STANDARD.decode(sent("webhook-signature").strip_prefix("v1,").expect("version")).expect("base64");
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), signed.as_bytes(), &signature).expect("it is signed");
    let sent: Vec<u64> = seen.iter().map(|seen| seen.body["n is ".len()..].parse().expect("a number")).collect();
    assert!(is_in_order(&sent, 4), "{sent:?}");
    until("counted", async || {
        world.status("hook").await.is_ok_and(|status| status.actions.iter().any(|action| action.delivered == 100))
    })
    .await;
    running.stop().await;
}

/// From publishing to the last of `count` requests.
async fn delivered(world: &World, target: &Target, messages: Vec<Telemetry>) -> Duration {
    let (before, count) = (target.accepted().len(), messages.len());
    let started = tokio::time::Instant::now();
    world.publish(messages).await;
    until("all delivered", async || target.accepted().len() >= before + count).await;
    started.elapsed()
}

/// The median time from publishing a message by itself to its request.
async fn latency(world: &World, target: &Target, numbers: std::ops::Range<u16>) -> Duration {
    let mut took = Vec::new();
    for n in numbers {
        took.push(delivered(world, target, numbered(n..n + 1, 50)).await);
    }
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test]
async fn a_webhook_that_hangs_delays_itself_and_no_other_action() {
    let (world, _dir) = World::embedded().await;
    let (alive, dead) = (Target::start(Manner::Answers(200)).await, Target::start(Manner::Hangs).await);
    let ingress = FakeIngress::default();
    ingress.serve(&world);
    let again = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [
        {"webhook": {"url": alive.url(), "timeout": TIMEOUT}}, {"republish": {"topic": "again", "qos": 1}}]});
    world.rule("alive", 1, Some(again)).await;
    let running = start(&world);
    let alone = delivered(&world, &alive, numbered(0..1_500, 50)).await;
    let one_alone = latency(&world, &alive, 1_500..1_521).await;
    world.rule("dead", 1, Some(to(&dead))).await;
    until("in force", async || world.status("dead").await.is_ok()).await;
    // More than a lane holds in memory.
    let beside = delivered(&world, &alive, numbered(1_521..3_000, 50)).await;
    let one_beside = latency(&world, &alive, 3_000..3_021).await;
    until("all republished", async || ingress.published().len() >= 3_021).await;
    println!("1,500 requests: {alone:?} alone, {beside:?} beside a webhook that hangs");
    println!("one request: {one_alone:?} alone, {one_beside:?} beside it");
    assert!(beside < Duration::from_secs(30), "somebody has waited for the timeout: {beside:?}");
    assert!(one_beside < Duration::from_secs(5), "a request takes {one_beside:?}, and took {one_alone:?}");
    assert_eq!(dead.seen().len(), 8, "of the one that hangs, as many as may be under way");
    let numbers = numbers(&alive.accepted());
    assert_eq!(numbers.len(), 3_021, "each once");
    assert!(is_in_order(&numbers, 50));
    running.stop().await;
}

#[tokio::test]
async fn after_a_crash_only_what_waits_is_done_again() {
    let (world, _dir) = World::embedded().await;
    let (alive, dead) = (Target::start(Manner::Answers(200)).await, Target::start(Manner::Hangs).await);
    world.rule("alive", 1, Some(to(&alive))).await;
    world.rule("dead", 1, Some(to(&dead))).await;
    let running = start(&world);
    world.publish(numbered(0..1_000, 1)).await;
    until("all delivered", async || alive.accepted().len() == 1_000).await;
    // The one device's 2,000 entries are in one partition, those of the dead one behind those of the other.
    until("written down", async || {
        let kept = world.compacted(RETRY_TOPIC).await;
        let at = kept.iter().find(|(key, _)| key.ends_with("/home/alive/0"));
        at.is_some_and(|(_, value)| LaneProgress::decode(&value[..]).expect("progress").offset >= 1_999)
    })
    .await;
    running.kill().await;
    dead.becomes(Manner::Answers(200));
    let running = start(&world);
    world.publish(numbered(1_000..1_001, 1)).await;
    until("the dead one has caught up", async || dead.accepted().len() == 1_001).await;
    until("and the other goes on", async || alive.accepted().len() > 1_000).await;
    assert_eq!(alive.accepted().len(), 1_001, "none of it twice");
    assert_eq!(numbers(&dead.accepted()), (0..1_001).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test]
async fn a_target_that_fails_gets_all_of_it_later_in_order() {
    let (world, _dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(503)).await;
    world.rule("hook", 1, Some(to(&target))).await;
    let running = start(&world);
    world.publish(numbered(0..20, 2)).await;
    until("it is told", async || {
        let status = world.status("hook").await;
        status.is_ok_and(|status| {
            let cause = status.last_error.map(|error| error.message).unwrap_or_default();
            status.actions.iter().any(|action| action.retried > 0) && cause.contains("answered 503")
        })
    })
    .await;
    target.becomes(Manner::Answers(200));
    until("all delivered", async || target.accepted().len() == 20).await;
    assert!(is_in_order(&numbers(&target.accepted()), 2));
    assert!(world.read(ERRORS_TOPIC).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_batch_is_one_request_with_an_array() {
    let (world, _dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(200)).await;
    let webhook = json!({"url": target.url(), "batch": {"records": 40}});
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"webhook": webhook}]});
    world.rule("hook", 1, Some(rule)).await;
    world.publish(numbered(0..200, 1)).await;
    let running = start(&world);
    let sent = || -> Vec<u64> {
        let arrays = target.accepted();
        let rows = arrays.iter().flat_map(|body| serde_json::from_str::<Vec<Value>>(body).expect("an array"));
        rows.map(|row| row["n"].as_u64().expect("n")).collect()
    };
    until("all delivered", async || sent().len() >= 200).await;
    assert_eq!(sent(), (0..200).collect::<Vec<_>>());
    let bodies = target.accepted();
    assert!(bodies.len() <= 20, "{} requests", bodies.len());
    let largest = bodies.iter().map(|body| serde_json::from_str::<Vec<Value>>(body).expect("an array").len()).max();
    assert_eq!(largest, Some(40), "as many as wait, up to the bound");
    running.stop().await;
}

#[tokio::test]
async fn what_a_target_refuses_becomes_a_dead_letter_and_the_error_action_is_told() {
    let (world, _dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(404)).await;
    device(&world, "home", "d0", Some("hall")).await;
    let mut rule = to(&target);
    rule["errorAction"] = json!({"kafka": {"topic": "home.failures", "key": "${device().labels.room}"}});
    world.rule("hook", 1, Some(rule)).await;
    let mut sent = outgoing(numbered(0..1, 1).remove(0));
    sent.record.timestamp_ms += 60_000;
    world.append(vec![sent.clone()]).await;
    let running = start(&world);
    until("the failure is told", async || world.read("home.failures").await.len() == 1).await;
    let letters = world.read(ERRORS_TOPIC).await;
    let letter = &letters[0];
    let error = "action 0: 127.0.0.1 answered 404 Not Found";
    assert_eq!((letters.len(), text(letter).as_str(), header(letter, "error").as_str()), (1, "{\"n\":0}", error));
    let told = |name: &str| header(letter, name);
    assert_eq!((told("rule"), told("action"), told("topic")), ("hook".into(), "0".into(), "sensors/d0".into()));
    assert!(told("source").starts_with("drover.telemetry/"), "{}", told("source"));
    let failed = &world.read("home.failures").await[0];
    assert_eq!(failed.record.key.as_deref(), Some(&b"hall"[..]), "it looks up as any other action");
    let came_at = sent.record.timestamp_ms;
    assert_eq!((letter.record.timestamp_ms, failed.record.timestamp_ms), (came_at, came_at));
    let failure: Value = serde_json::from_str(&text(failed)).expect("JSON");
    assert_eq!((&failure["ruleName"], &failure["failures"][0]["errorMessage"]), (&json!("hook"), &json!(error)));
    assert_eq!(failure["base64OriginalPayload"], json!(STANDARD.encode("{\"n\":0}")));
    until("counted", async || world.status("hook").await.is_ok_and(|status| status.failed == 1)).await;
    running.stop().await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_private_addresses_are_not_reached() {
    let (world, _dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(302)).await;
    world.rule("moved", 1, Some(to(&target))).await;
    let url = format!("https://localhost:{}/", target.address.port());
    let by_name = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"webhook": {"url": url}}]});
    world.rule("by-name", 1, Some(by_name)).await;
    let literal = json!({"sql": "SELECT n FROM '#'", "actions": [{"webhook": {"url": "https://169.254.169.254/"}}]});
    world.rule("literal", 1, Some(literal)).await;
    let running = start(&world);
    world.publish(numbered(0..1, 1)).await;
    until("both are refused", async || world.read(ERRORS_TOPIC).await.len() == 2).await;
    let letters = world.read(ERRORS_TOPIC).await;
    let errors: BTreeMap<String, String> = letters.iter().map(|l| (header(l, "rule"), header(l, "error"))).collect();
    assert!(errors["moved"].ends_with("redirects are not followed"), "{errors:?}");
    assert!(errors["by-name"].contains("not public"), "{errors:?}");
    assert_eq!(target.seen().len(), 1);
    until("looked at", async || world.status("literal").await.is_ok()).await;
    let literal = world.status("literal").await.expect("seen");
    assert_eq!(literal.conditions[0].reason, "Invalid", "found out before the first message");
    assert!(literal.conditions[0].message.contains("169.254.169.254"), "{:?}", literal.conditions);
    running.stop().await;
}

#[tokio::test]
async fn a_record_has_the_headers_of_its_rule_and_another_cluster_has_to_be_configured() {
    let (world, _dir) = World::embedded().await;
    let kafka = json!({"topic": "home.out", "headers": {"device": "${topic(2)}", "n": "${n + 1}"}});
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"kafka": kafka}]});
    world.rule("headers", 1, Some(rule)).await;
    let elsewhere = json!({"sql": "SELECT n FROM '#'", "actions": [{"kafka": {"topic": "t", "cluster": "other"}}]});
    world.rule("elsewhere", 1, Some(elsewhere)).await;
    let running = start(&world);
    world.publish(numbered(4..5, 1)).await;
    until("it is out", async || world.read("home.out").await.len() == 1).await;
    let record = &world.read("home.out").await[0];
    let told = ["device", "n", "rule"].map(|name| header(record, name));
    assert_eq!(told, ["d0", "5", "headers"]);
    until("looked at", async || world.status("elsewhere").await.is_ok()).await;
    let elsewhere = world.status("elsewhere").await.expect("seen");
    assert_eq!(elsewhere.conditions[0].reason, "Invalid");
    assert!(elsewhere.conditions[0].message.contains("cluster other is not in rules.clusters"), "{elsewhere:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_channel_is_told_a_text_and_its_address_is_nowhere_to_be_read() {
    let (world, dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(500)).await;
    let secret = dir.path().join("secrets/home/ops");
    std::fs::create_dir_all(&secret).expect("made");
    std::fs::write(secret.join("url"), format!("{}/T0K3N", target.url())).expect("written");
    let notify = json!({"channel": "ops", "text": "${topic(2)} says ${n}"});
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"notify": notify}]});
    world.rule("tell", 1, Some(rule)).await;
    let running = world.start_with(RulesConfig { secrets: Some(dir.path().join("secrets")), ..config() });
    world.publish(numbered(7..8, 1)).await;
    until("it has failed once", async || world.status("tell").await.is_ok_and(|status| status.last_error.is_some()))
        .await;
    let status = format!("{:?}", world.status("tell").await);
    assert!(status.contains("answered 500") && !status.contains("T0K3N"), "{status}");
    target.becomes(Manner::Answers(200));
    until("told", async || !target.accepted().is_empty()).await;
    assert_eq!(target.accepted(), [r#"{"text":"d0 says 7"}"#]);
    running.stop().await;
}

/// Remembers updates; refuses those of the device `nobody`.
#[derive(Clone, Default)]
struct FakeShadow(Arc<Mutex<Vec<UpdateShadowRequest>>>);

#[tonic::async_trait]
impl Shadow for FakeShadow {
    async fn update_shadow(
        &self,
        request: Request<UpdateShadowRequest>,
    ) -> Result<Response<UpdateShadowResponse>, Status> {
        let request = request.into_inner();
        if request.device == "nobody" {
            return Err(Status::invalid_argument("no such device"));
        }
        self.0.lock().expect("not poisoned").push(request);
        Ok(Response::new(UpdateShadowResponse::default()))
    }

    async fn get_shadow(&self, _: Request<GetShadowRequest>) -> Result<Response<GetShadowResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn delete_shadow(&self, _: Request<DeleteShadowRequest>) -> Result<Response<DeleteShadowResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list_shadows(&self, _: Request<ListShadowsRequest>) -> Result<Response<ListShadowsResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list_open_deltas(
        &self,
        _: Request<ListOpenDeltasRequest>,
    ) -> Result<Response<ListOpenDeltasResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tokio::test]
async fn a_shadow_is_updated_with_values_of_their_own_type() {
    let (world, _dir) = World::embedded().await;
    let desired = json!({"n": "${n}", "text": "${n} °C", "list": ["${topic(2)}", true], "fan": "on"});
    let shadow = json!({"device": "${target}", "name": "climate", "desired": desired});
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"shadow": shadow}]});
    world.rule("shade", 1, Some(rule)).await;
    let running = start(&world);
    world
        .publish(
            [("fan", 1), ("nobody", 2)]
                .map(|(target, n)| message("d", n, &format!("{{\"n\":{n},\"target\":\"{target}\"}}"))),
        )
        .await;
    world.drained().await;
    // Both wait until the shadow service is there.
    let fake = FakeShadow::default();
    let (routes, network) = (grpc::Routes::new(ShadowServer::new(fake.clone())), world.network.clone());
    tokio::spawn(async move {
        grpc::serve(routes, "shadow", &Sockets::default(), &network, Shutdown::new()).await.expect("served");
    });
    until("refused", async || world.read(ERRORS_TOPIC).await.len() == 1).await;
    let updates = fake.0.lock().expect("not poisoned").clone();
    let (update, id) = (&updates[0], message("d", 1, "").id.derived("shade", 0));
    assert!(updates.iter().all(|other| other.id == update.id), "repeats have its id");
    assert_eq!((update.tenant.as_str(), update.device.as_str()), ("home", "fan"));
    assert_eq!((update.name.as_str(), update.id.as_slice()), ("climate", &id.0[..]));
    let document: Value = serde_json::from_slice(&update.document).expect("JSON");
    let state = json!({"desired": {"n": 1, "text": "1 °C", "list": ["d", true], "fan": "on"}});
    assert_eq!(document, json!({"state": state}));
    assert_eq!(header(&world.read(ERRORS_TOPIC).await[0], "error"), "action 0: no such device");
    running.stop().await;
}

/// Remembers rows.
#[derive(Clone, Default)]
struct FakeStorage(Arc<Mutex<Vec<StoreRowRequest>>>);

#[tonic::async_trait]
impl Storage for FakeStorage {
    async fn store_row(&self, request: Request<StoreRowRequest>) -> Result<Response<StoreRowResponse>, Status> {
        self.0.lock().expect("not poisoned").push(request.into_inner());
        Ok(Response::new(StoreRowResponse {}))
    }

    async fn get_latest(&self, _: Request<GetLatestRequest>) -> Result<Response<GetLatestResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn get_last_heard(&self, _: Request<GetLastHeardRequest>) -> Result<Response<GetLastHeardResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn get_range(&self, _: Request<GetRangeRequest>) -> Result<Response<GetRangeResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn get_messages(&self, _: Request<GetMessagesRequest>) -> Result<Response<GetMessagesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn query(&self, _: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tokio::test]
async fn a_row_is_stored_for_the_device_of_its_message_or_the_one_it_names() {
    let (world, _dir) = World::embedded().await;
    let fake = FakeStorage::default();
    let (routes, network) = (grpc::Routes::new(StorageServer::new(fake.clone())), world.network.clone());
    tokio::spawn(async move {
        grpc::serve(routes, "storage", &Sockets::default(), &network, Shutdown::new()).await.expect("served");
    });
    let rule = json!({"sql": "SELECT n, 'other' AS device FROM 'sensors/+'", "actions": [
        {"store": {"table": "mine"}}, {"store": {"table": "named", "tags": ["device"]}}]});
    world.rule("keep", 1, Some(rule)).await;
    let running = start(&world);
    let source = numbered(3..4, 1).remove(0);
    world.publish([source.clone()]).await;
    until("both are stored", async || fake.0.lock().expect("not poisoned").len() == 2).await;
    let mut stored = fake.0.lock().expect("not poisoned").clone();
    stored.sort_unstable_by(|a, b| a.table.cmp(&b.table));
    let shown: Vec<(&str, &str)> = stored.iter().map(|row| (row.table.as_str(), row.device.as_str())).collect();
    assert_eq!(shown, [("mine", "d0"), ("named", "other")]);
    assert_eq!((stored[0].tenant.as_str(), stored[0].time_ms), ("home", source.time_ms));
    assert_eq!(stored[0].id, source.id.derived("keep", 0).0);
    assert_eq!(stored[0].row, br#"{"n":3,"device":"other"}"#);
    running.stop().await;
}

#[tokio::test]
async fn a_function_is_called_with_the_row_and_what_it_returns_is_published() {
    let (world, _dir) = World::embedded().await;
    let ingress = FakeIngress::default();
    ingress.serve(&world);
    let source = "function main(row) { if (row.n === 3) throw new Error('three');
        return [{topic: 'out/' + row.n, payload: {n: row.n}, qos: 1}, {topic: 'text', payload: 'x'}]; }";
    world.function("split", Some(source)).await;
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"function": {"ref": "split"}}]});
    world.rule("call", 1, Some(rule)).await;
    world.publish(numbered(2..4, 1)).await;
    let running = start(&world);
    until("one has failed", async || world.read(ERRORS_TOPIC).await.len() == 1).await;
    let published = ingress.published();
    let shown: Vec<(&str, &[u8], u32, u32)> =
        published.iter().map(|p| (p.topic.as_str(), &p.payload[..], p.qos, p.hops)).collect();
    assert_eq!(shown, [("out/2", &b"{\"n\":2}"[..], 1, 1), ("text", &b"x"[..], 0, 1)]);
    assert_ne!(published[0].id, published[1].id);
    assert!(header(&world.read(ERRORS_TOPIC).await[0], "error").contains("three"));
    running.stop().await;
}

#[tokio::test]
async fn an_old_message_has_as_many_attempts_as_any_other() {
    let (world, _dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(503)).await;
    world.rule("hook", 1, Some(to(&target))).await;
    let running = start(&world);
    let two_days = 2 * 24 * 3_600_000;
    let old = Telemetry { time_ms: SystemClock.now_ms() - two_days, ..message("d0", 0, r#"{"n":0}"#) };
    world.publish([old]).await;
    until("tried again", async || target.seen().len() >= 2).await;
    target.becomes(Manner::Answers(200));
    until("done", async || target.accepted().len() == 1).await;
    assert!(world.read(ERRORS_TOPIC).await.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn what_this_version_cannot_do_becomes_a_dead_letter_and_is_not_passed_over() {
    let (world, _dir) = World::embedded().await;
    let target = Target::start(Manner::Answers(200)).await;
    world.rule("hook", 1, Some(to(&target))).await;
    let running = start(&world);
    // The outbox is there.
    world.publish(numbered(0..1, 1)).await;
    until("done", async || target.accepted().len() == 1).await;
    // As an older version reads an action that it does not know.
    let (tenant, device, rule) = ("home".to_owned(), "d0".to_owned(), "newer".to_owned());
    let entry = OutboxEntry { id: vec![7; 16], tenant, device, rule, action: 3, ..OutboxEntry::default() };
    let (key, value) = (Some("home/d0".into()), Some(entry.encode_to_vec().into()));
    world.append(vec![Outgoing::keyed(OUTBOX_TOPIC, Record { key, value, ..Record::default() })]).await;
    until("buried", async || world.read(ERRORS_TOPIC).await.len() == 1).await;
    let letter = world.read(ERRORS_TOPIC).await.remove(0);
    let told = ["rule", "action", "error"].map(|name| header(&letter, name));
    assert_eq!(told, ["newer", "3", "action 3: this version cannot do what it says"]);
    world.publish(numbered(1..2, 1)).await;
    until("the others go on", async || target.accepted().len() == 2).await;
    running.stop().await;
}
