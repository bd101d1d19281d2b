//! Commands: sent, answered, late, sent again, over restarts and a lost store, and within their limits.

use std::sync::Arc;

use drover_bus::{Outgoing, Record, TopicConfig};
use drover_host::SystemClock;
use drover_proto::from_status;
use drover_proto::shadow::v1::commands_client::CommandsClient;
use drover_proto::shadow::v1::{
    Command, CommandStatus, GetCommandRequest, ListCommandsRequest, ListCommandsResponse, SendCommandRequest,
};
use drover_shadow::ports::Store;
use drover_shadow::{Embedded, EmbeddedLimits};
use drover_types::command::COMMANDS_TOPIC;
use drover_types::limits::{COMMAND_PAYLOAD_BYTES_MAX, COMMANDS_FINISHED_MS_MAX, COMMANDS_OPEN_PER_DEVICE_MAX};
use drover_types::{
    ApiError, ClientId, Clock, DeviceId, DeviceKey, ErrorCode, FixedClock, Qos, REGISTRY_CHANGES_TOPIC, RecordId,
    Telemetry, TenantId, TopicName,
};
use futures::future::join_all;
use tempfile::TempDir;

use crate::ingress::FakeIngress;
use crate::stage::{Replica, Stage, until};

const DAY_MS: u64 = 24 * 3600 * 1_000;

fn order(number: u8) -> SendCommandRequest {
    SendCommandRequest {
        tenant: "home".to_owned(),
        device: "lamp".to_owned(),
        name: "fan".to_owned(),
        payload: br#"{"speed":1.50}"#.to_vec(),
        timeout_ms: 3_600_000,
        id: vec![number; 16],
        hops: 0,
        idempotency_key: String::new(),
    }
}

/// As [`order`], by a key of the caller's own.
fn keyed(key: &str) -> SendCommandRequest {
    SendCommandRequest { id: Vec::new(), idempotency_key: key.to_owned(), ..order(0) }
}

fn client(replica: &Replica) -> CommandsClient<drover_host::grpc::Client> {
    CommandsClient::new(replica.network.client("shadow"))
}

async fn send(replica: &Replica, order: SendCommandRequest) -> Result<Command, ApiError> {
    let sent = client(replica).send_command(order).await.map_err(|status| from_status(&status))?;
    Ok(sent.into_inner().command.expect("a command"))
}

async fn get(replica: &Replica, number: u8) -> Result<Command, ApiError> {
    get_by(replica, vec![number; 16]).await
}

async fn get_by(replica: &Replica, id: Vec<u8>) -> Result<Command, ApiError> {
    let (tenant, device) = ("home".to_owned(), "lamp".to_owned());
    let found = client(replica).get_command(GetCommandRequest { tenant, device, id }).await;
    Ok(found.map_err(|status| from_status(&status))?.into_inner().command.expect("a command"))
}

async fn list(replica: &Replica, page_size: u32, page_token: &str) -> ListCommandsResponse {
    list_of(replica, "lamp", page_size, page_token).await
}

/// One page of a device's commands.
pub async fn list_of(replica: &Replica, device: &str, page_size: u32, page_token: &str) -> ListCommandsResponse {
    let (tenant, device, page_token) = ("home".to_owned(), device.to_owned(), page_token.to_owned());
    let listed = client(replica).list_commands(ListCommandsRequest { tenant, device, page_size, page_token }).await;
    listed.expect("listed").into_inner()
}

/// Waits until a command is in this state.
async fn becomes(replica: &Replica, number: u8, status: CommandStatus) -> Command {
    until(async || get(replica, number).await.is_ok_and(|command| command.status() == status)).await;
    get(replica, number).await.expect("it is there")
}

/// Appends what the device answers, as the ingress logs it.
async fn respond(stage: &Stage, number: u8, status: &str, payload: &str) {
    respond_to(stage, RecordId([number; 16]), status, payload).await;
}

async fn respond_to(stage: &Stage, command: RecordId, status: &str, payload: &str) {
    let topic = format!("$drover/commands/lamp/{command}/response/{status}");
    let RecordId(mut id) = command;
    id[0] = id[0].wrapping_add(100);
    let answer = logged("lamp", RecordId(id), &topic, payload);
    stage.bus.append(vec![answer]).await.expect("taken").await.expect("durable");
}

/// A record of the log of commands.
pub fn logged(device: &str, id: RecordId, topic: &str, payload: &str) -> Outgoing {
    let now_ms = SystemClock.now_ms();
    let message = Telemetry {
        id,
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new(device).expect("valid"),
        client: ClientId::new(device).expect("valid"),
        topic: TopicName::new(topic).expect("valid"),
        payload: payload.to_owned().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        epoch: 1,
        fingerprint: id.0,
        time_ms: now_ms,
        content_type: None,
        properties: Vec::new(),
        mqtt5: None,
        traceparent: None,
        hops: 0,
    };
    let headers = message.headers();
    let record = Record {
        key: Some(format!("home/{device}").into()),
        value: Some(message.payload.clone()),
        headers,
        timestamp_ms: now_ms.cast_signed(),
    };
    Outgoing::keyed(COMMANDS_TOPIC, record)
}

/// A store that outlives the services over it.
pub fn open_store() -> (TempDir, Arc<dyn Store>) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
    (directory, Arc::new(store))
}

/// A stage with a service that is ready, and its ingress.
async fn started() -> (Stage, Replica, FakeIngress) {
    let (stage, ingress) = (Stage::new(), FakeIngress::default());
    let replica = stage.start_embedded("shadow-0");
    ingress.serve(&replica.network);
    replica.ready().await;
    (stage, replica, ingress)
}

#[tokio::test]
async fn a_command_goes_out_and_what_the_device_answers_is_kept_with_it() {
    let (stage, replica, ingress) = started().await;
    let sent = send(&replica, order(1)).await.expect("sent");
    assert_eq!((sent.name.as_str(), sent.payload.as_slice()), ("fan", br#"{"speed":1.50}"#.as_slice()));
    assert_eq!((sent.expires_ms - sent.created_ms, sent.status_code), (3_600_000, 0));
    let sent = becomes(&replica, 1, CommandStatus::Sent).await;
    let [published] = &ingress.published()[..] else { panic!("{:?}", ingress.published()) };
    let topic = format!("$drover/commands/lamp/{}/request", RecordId([1; 16]));
    assert_eq!((published.topic.as_str(), published.device.as_str(), published.qos), (topic.as_str(), "lamp", 1));
    let expected = format!(r#"{{"name":"fan","payload":{{"speed":1.50}},"expires":{}}}"#, sent.expires_ms);
    assert_eq!((published.id.as_slice(), published.payload.as_slice()), (&[1; 16][..], expected.as_bytes()));

    respond(&stage, 1, "102", "half").await;
    let progress = becomes(&replica, 1, CommandStatus::InProgress).await;
    assert_eq!((progress.status_code, progress.response.as_slice()), (102, b"half".as_slice()));
    respond(&stage, 1, "ok", "no status").await;
    respond(&stage, 1, "422", "no such speed").await;
    respond(&stage, 1, "200", "too late").await;
    let rejected = becomes(&replica, 1, CommandStatus::Rejected).await;
    assert_eq!((rejected.status_code, rejected.response.as_slice()), (422, b"no such speed".as_slice()));

    // Behind the answers that change nothing.
    send(&replica, order(2)).await.expect("sent");
    assert_eq!(get(&replica, 1).await, Ok(rejected.clone()));
    assert_eq!(send(&replica, order(1)).await, Ok(rejected), "a repeat is answered by what is there");
    let other = send(&replica, SendCommandRequest { name: "pump".into(), ..order(1) }).await.expect_err("refused");
    assert_eq!((other.code, other.field.as_deref()), (ErrorCode::AlreadyExists, Some("id")));
    becomes(&replica, 2, CommandStatus::Sent).await;
    assert_eq!(ingress.published().len(), 2, "the repeat was not sent");
    replica.stop().await;
}

#[tokio::test]
async fn a_command_whose_time_is_over_has_timed_out_and_a_late_answer_changes_nothing() {
    let (stage, replica, _ingress) = started().await;
    let sent = send(&replica, SendCommandRequest { timeout_ms: 1_000, ..order(1) }).await.expect("sent");
    let over = becomes(&replica, 1, CommandStatus::TimedOut).await;
    assert_eq!(over.updated_ms, sent.expires_ms);
    respond(&stage, 1, "200", "late").await;
    send(&replica, order(2)).await.expect("sent behind it");
    assert_eq!(get(&replica, 1).await, Ok(over));
    replica.stop().await;
}

#[tokio::test]
async fn a_command_that_was_not_sent_is_sent_after_a_restart() {
    let (stage, ingress) = (Stage::new(), FakeIngress::default());
    let replica = stage.start_embedded("shadow-0");
    replica.ready().await;
    assert_eq!(send(&replica, order(1)).await.expect("durable").status(), CommandStatus::Queued, "no ingress is there");
    replica.stop().await;
    let replica = stage.start_embedded("shadow-0");
    ingress.serve(&replica.network);
    becomes(&replica, 1, CommandStatus::Sent).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_command_sent_again_under_its_key_is_the_same_one_in_another_process_too() {
    let (stage, ingress) = (Stage::new(), FakeIngress::default());
    let (_directory, store) = open_store();
    let replica = stage.start_over("shadow-0", &store, Arc::new(SystemClock));
    ingress.serve(&replica.network);
    replica.ready().await;
    let sent = join_all((0..8).map(|_| send(&replica, keyed("order-7")))).await;
    let sent: Vec<Command> = sent.into_iter().map(|sent| sent.expect("sent")).collect();
    let first = &sent[0];
    assert!(sent.iter().all(|again| (&again.id, again.created_ms) == (&first.id, first.created_ms)), "{sent:?}");
    let id = RecordId(first.id.clone().try_into().expect("16 bytes"));
    let is =
        async |replica: &Replica, status| get_by(replica, id.0.to_vec()).await.is_ok_and(|is| is.status() == status);
    until(async || is(&replica, CommandStatus::Sent).await).await;
    replica.abort();

    let replica = stage.start_over("shadow-0", &store, Arc::new(SystemClock));
    ingress.serve(&replica.network);
    let again = send(&replica, keyed("order-7")).await.expect("known");
    assert_eq!((&again.id, again.created_ms, again.status()), (&first.id, first.created_ms, CommandStatus::Sent));
    for other in [
        SendCommandRequest { name: "pump".into(), ..keyed("order-7") },
        SendCommandRequest { payload: b"1".to_vec(), ..keyed("order-7") },
        SendCommandRequest { timeout_ms: 1_000, ..keyed("order-7") },
    ] {
        let refused = send(&replica, other).await.expect_err("another command");
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::AlreadyExists, Some("idempotency_key")));
    }
    respond_to(&stage, id, "200", "done").await;
    until(async || is(&replica, CommandStatus::Succeeded).await).await;
    let done = send(&replica, keyed("order-7")).await.expect("known");
    assert_eq!((&done.id, done.status_code, done.response.as_slice()), (&first.id, 200, b"done".as_slice()));

    let fan = SendCommandRequest { device: "fan".into(), ..keyed("order-7") };
    let fan = send(&replica, fan).await.expect("that of another device is another one");
    let second = send(&replica, keyed("order-8")).await.expect("another key");
    until(async || ingress.published().len() >= 3).await;
    let mut published: Vec<Vec<u8>> = ingress.published().into_iter().map(|request| request.id).collect();
    published.sort();
    let mut expected = [first.id.clone(), fan.id, second.id].to_vec();
    expected.sort();
    assert_eq!(published, expected, "each once");
    replica.stop().await;
}

#[tokio::test]
async fn commands_to_a_name_that_nobody_has_are_forgotten_when_they_are_long_over() {
    let (stage, (_directory, store)) = (Stage::new(), open_store());
    let replica = stage.start_over("shadow-0", &store, Arc::new(SystemClock));
    replica.ready().await;
    let to_nobody = SendCommandRequest { device: "nobody".into(), timeout_ms: 1_000, ..order(1) };
    send(&replica, to_nobody).await.expect("that it is registered is not asked");
    let week_ms = 7 * DAY_MS;
    send(&replica, SendCommandRequest { timeout_ms: week_ms, ..order(2) }).await.expect("sent");
    replica.stop().await;

    let kept = async |device: &str| {
        let (tenant, device) = (TenantId::new("home").expect("valid"), DeviceId::new(device).expect("valid"));
        store.command_heads(&DeviceKey { tenant, device }).await.expect("readable").len()
    };
    assert_eq!((kept("nobody").await, kept("lamp").await), (1, 1));
    let later = FixedClock::at(SystemClock.now_ms() + COMMANDS_FINISHED_MS_MAX + DAY_MS);
    let replica = stage.start_over("shadow-0", &store, Arc::new(later));
    until(async || kept("nobody").await == 0).await;
    assert_eq!(kept("lamp").await, 1, "it had a week");
    replica.stop().await;
}

#[tokio::test]
async fn a_lost_store_is_filled_again_from_the_log_and_what_is_open_is_sent_once_more() {
    let (stage, replica, ingress) = started().await;
    send(&replica, order(1)).await.expect("sent");
    becomes(&replica, 1, CommandStatus::Sent).await;
    respond(&stage, 1, "500", "broken").await;
    let failed = becomes(&replica, 1, CommandStatus::Failed).await;
    send(&replica, order(2)).await.expect("sent");
    becomes(&replica, 2, CommandStatus::Sent).await;
    replica.stop().await;
    stage.lose_store("shadow-0");

    let replica = stage.start_embedded("shadow-0");
    ingress.serve(&replica.network);
    assert_eq!(becomes(&replica, 1, CommandStatus::Failed).await, failed);
    // That it was sent is in no log, and one that has its last answer is not sent again.
    becomes(&replica, 2, CommandStatus::Sent).await;
    let published: Vec<u8> = ingress.published().iter().map(|request| request.id[0]).collect();
    assert_eq!(published, [1, 2, 2]);
    replica.stop().await;
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_with_it() {
    let (stage, replica, _ingress) = started().await;
    let limit = u8::try_from(COMMANDS_OPEN_PER_DEVICE_MAX).expect("small");
    for number in 1..=limit {
        send(&replica, order(number)).await.expect("sent");
    }
    let refused = send(&replica, order(200)).await.expect_err("one more");
    assert_eq!((refused.code, refused.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("100")));
    assert_eq!(refused.value.as_deref(), Some("101"));
    respond(&stage, 1, "200", "").await;
    becomes(&replica, 1, CommandStatus::Succeeded).await;
    send(&replica, order(200)).await.expect("there is room again");

    let field = async |order| send(&replica, order).await.expect_err("refused").field.expect("a field");
    let large = vec![b'1'; COMMAND_PAYLOAD_BYTES_MAX + 1];
    assert_eq!(field(SendCommandRequest { payload: large, ..order(201) }).await, "payload");
    assert_eq!(field(SendCommandRequest { payload: b"{".to_vec(), ..order(201) }).await, "payload");
    assert_eq!(field(SendCommandRequest { name: "a b".into(), ..order(201) }).await, "name");
    assert_eq!(field(SendCommandRequest { timeout_ms: 999, ..order(201) }).await, "timeout_ms");
    assert_eq!(field(SendCommandRequest { timeout_ms: 604_800_001, ..order(201) }).await, "timeout_ms");
    assert_eq!(field(SendCommandRequest { hops: 6, ..order(201) }).await, "hops");
    assert_eq!(field(SendCommandRequest { id: vec![1], ..order(201) }).await, "id");
    assert_eq!(field(SendCommandRequest { id: Vec::new(), ..order(201) }).await, "id");
    assert_eq!(field(SendCommandRequest { id: vec![1; 16], ..keyed("both") }).await, "idempotency_key");
    let long = send(&replica, keyed(&"k".repeat(129))).await.expect_err("too long");
    assert_eq!((long.field.as_deref(), long.limit.as_deref()), (Some("idempotency_key"), Some("128")));

    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = list(&replica, 40, &token).await;
        assert!(page.commands.len() <= 40);
        found.extend(page.commands);
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    let ages: Vec<(u64, &[u8])> = found.iter().map(|command| (command.created_ms, command.id.as_slice())).collect();
    assert!(ages.len() == 101 && ages.is_sorted_by(|a, b| a > b), "each once, the newest first: {ages:?}");
    replica.stop().await;
}

#[tokio::test]
async fn a_device_that_is_deleted_takes_its_commands_with_it() {
    let (stage, replica, _ingress) = started().await;
    let config = TopicConfig {
        topic: REGISTRY_CHANGES_TOPIC.into(),
        partitions: 1,
        compact: true,
        retention_ms: None,
        retention_bytes: None,
    };
    stage.bus.create_topic(config).await.expect("made");
    send(&replica, order(1)).await.expect("sent");
    becomes(&replica, 1, CommandStatus::Sent).await;
    let (key, timestamp_ms) = (Some("device/home/lamp".into()), SystemClock.now_ms().cast_signed());
    let tombstone = Outgoing::keyed(REGISTRY_CHANGES_TOPIC, Record { key, timestamp_ms, ..Record::default() });
    stage.bus.append(vec![tombstone]).await.expect("taken").await.expect("durable");
    until(async || list(&replica, 0, "").await.commands.is_empty()).await;
    assert_eq!(get(&replica, 1).await.expect_err("gone").code, ErrorCode::NotFound);
    replica.stop().await;
}
