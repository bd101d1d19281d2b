//! Commands: sent, answered, late, sent again, over restarts and a lost store, and within their limits.

use drover_bus::{Header, Outgoing, Record, TopicConfig};
use drover_host::SystemClock;
use drover_proto::from_status;
use drover_proto::shadow::v1::commands_client::CommandsClient;
use drover_proto::shadow::v1::{
    Command, CommandStatus, GetCommandRequest, ListCommandsRequest, ListCommandsResponse, SendCommandRequest,
};
use drover_types::command::COMMANDS_TOPIC;
use drover_types::limits::{COMMAND_PAYLOAD_BYTES_MAX, COMMANDS_OPEN_PER_DEVICE_MAX};
use drover_types::{
    ApiError, ClientId, Clock, DeviceId, ErrorCode, Qos, REGISTRY_CHANGES_TOPIC, RecordId, Telemetry, TenantId,
    TopicName,
};

use crate::ingress::FakeIngress;
use crate::stage::{Replica, Stage, until};

fn order(number: u8) -> SendCommandRequest {
    SendCommandRequest {
        tenant: "home".to_owned(),
        device: "lamp".to_owned(),
        name: "fan".to_owned(),
        payload: br#"{"speed":1.50}"#.to_vec(),
        timeout_ms: 3_600_000,
        id: vec![number; 16],
        hops: 0,
    }
}

fn client(replica: &Replica) -> CommandsClient<drover_host::grpc::Client> {
    CommandsClient::new(replica.network.client("shadow"))
}

async fn send(replica: &Replica, order: SendCommandRequest) -> Result<Command, ApiError> {
    let sent = client(replica).send_command(order).await.map_err(|status| from_status(&status))?;
    Ok(sent.into_inner().command.expect("a command"))
}

async fn get(replica: &Replica, number: u8) -> Result<Command, ApiError> {
    let (tenant, device, id) = ("home".to_owned(), "lamp".to_owned(), vec![number; 16]);
    let found = client(replica).get_command(GetCommandRequest { tenant, device, id }).await;
    Ok(found.map_err(|status| from_status(&status))?.into_inner().command.expect("a command"))
}

async fn list(replica: &Replica, page_size: u32, page_token: &str) -> ListCommandsResponse {
    let (tenant, device, page_token) = ("home".to_owned(), "lamp".to_owned(), page_token.to_owned());
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
    let (id, now_ms) = (RecordId([number; 16]), SystemClock.now_ms());
    let message = Telemetry {
        id: RecordId([number.wrapping_add(100); 16]),
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new("lamp").expect("valid"),
        client: ClientId::new("lamp").expect("valid"),
        topic: TopicName::new(format!("$drover/commands/lamp/{id}/response/{status}")).expect("valid"),
        payload: payload.to_owned().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(1),
        epoch: 1,
        fingerprint: [number; 16],
        time_ms: now_ms,
        content_type: None,
        properties: Vec::new(),
        mqtt5: None,
        traceparent: None,
        hops: 0,
    };
    let headers = message.headers().into_iter().map(|(name, value)| Header { name, value }).collect();
    let record = Record {
        key: Some("home/lamp".into()),
        value: Some(message.payload.clone()),
        headers,
        timestamp_ms: now_ms.cast_signed(),
    };
    stage.bus.append(vec![Outgoing::keyed(COMMANDS_TOPIC, record)]).await.expect("taken").await.expect("durable");
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
async fn a_lost_store_is_filled_again_from_the_log() {
    let (stage, replica, _ingress) = started().await;
    send(&replica, order(1)).await.expect("sent");
    becomes(&replica, 1, CommandStatus::Sent).await;
    respond(&stage, 1, "500", "broken").await;
    let failed = becomes(&replica, 1, CommandStatus::Failed).await;
    replica.stop().await;
    stage.lose_store("shadow-0");
    let replica = stage.start_embedded("shadow-0");
    assert_eq!(becomes(&replica, 1, CommandStatus::Failed).await, failed);
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
