//! Records published to the log, and what gRPC then answers.

use drover_proto::from_status;
use drover_proto::storage::v1::{
    GetLastHeardRequest, GetLatestRequest, GetMessagesRequest, GetRangeRequest, LastHeard, StoreRowRequest,
};
use drover_storage::StorageConfig;
use drover_types::{ErrorCode, Telemetry, TenantId};

use crate::stage::{NOW_MS, Stage, message, of, sent_by, value};

async fn stage() -> (Stage, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (Stage::on(directory.path(), StorageConfig::default()).await, directory)
}

#[tokio::test]
async fn a_published_message_is_found_by_field_by_span_and_as_it_was_sent() {
    let (stage, _directory) = stage().await;
    let payload = r#"{"temperature": 31.5, "door": {"open": true}, "mode": "eco"}"#;
    stage.publish([message("d", 1, NOW_MS, payload), message("d", 2, NOW_MS + 5, r#"{"temperature": 32}"#)]).await;
    assert_eq!(stage.latest("d").await, ["door.open=true", "mode=\"eco\"", "temperature=32"]);
    let answer = stage.range(of("d", "temperature")).await;
    let points: Vec<_> = answer.points.iter().map(|p| (p.time_ms, value(p), p.topic.as_str())).collect();
    assert_eq!(points, [(NOW_MS, "31.5".to_owned(), "sensors/d"), (NOW_MS + 5, "32".to_owned(), "sensors/d")]);
    assert_eq!((answer.next_from_ms, answer.next_page_token.as_str()), (0, ""));
    let answer = stage.messages(sent_by("d")).await;
    let sent: Vec<_> = answer.messages.iter().map(|m| (m.time_ms, m.qos, m.payload.as_slice())).collect();
    assert_eq!(sent, [(NOW_MS + 5, 1, br#"{"temperature": 32}"#.as_slice()), (NOW_MS, 1, payload.as_bytes())]);
    assert_eq!(answer.messages[1].id, message("d", 1, NOW_MS, payload).id.0);
    assert_eq!(stage.range(of("d", "nothing")).await.points, []);
}

#[tokio::test]
async fn a_row_of_a_rule_is_kept_once_under_the_name_of_its_table() {
    let (stage, _directory) = stage().await;
    let row = |id: Vec<u8>| StoreRowRequest {
        tenant: "home".into(),
        device: "d".into(),
        table: "hot".into(),
        id,
        time_ms: NOW_MS,
        row: br#"{"temperature": 31.5}"#.to_vec(),
    };
    for _ in 0..2 {
        stage.client().store_row(row(vec![7; 16])).await.expect("kept");
    }
    stage.publish([message("d", 1, NOW_MS, r#"{"temperature": 20}"#)]).await;
    assert_eq!(stage.latest("d").await, ["hot.temperature=31.5", "temperature=20"]);
    let answer = stage.range(of("d", "hot.temperature")).await;
    let points: Vec<_> = answer.points.iter().map(|p| (p.time_ms, value(p), p.topic.as_str())).collect();
    assert_eq!(points, [(NOW_MS, "31.5".to_owned(), "$tables/hot")]);
    let refused = stage.client().store_row(row(vec![7; 15])).await.expect_err("refused");
    assert_eq!(from_status(&refused).field.as_deref(), Some("id"));
}

#[tokio::test]
async fn devices_were_last_heard_when_their_own_last_message_came() {
    let (stage, _directory) = stage().await;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let ask = |devices| GetLastHeardRequest { tenant: "home".into(), devices };
    stage
        .publish([message("a", 1, NOW_MS - 9, "1"), message("a", 2, NOW_MS - 7, b"\xff"), message("b", 3, 1, "1")])
        .await;
    // A rule keeps rows for whichever device it names; up to 16 of what rules have made are passed over.
    let row = |device: &str, id: u8| StoreRowRequest {
        tenant: "home".into(),
        device: device.into(),
        table: "t".into(),
        id: vec![id; 16],
        time_ms: NOW_MS - 1,
        row: b"1".to_vec(),
    };
    for id in 0..15 {
        stage.client().store_row(row("a", id)).await.expect("kept");
    }
    for id in 0..17 {
        stage.client().store_row(row("b", id)).await.expect("kept");
    }
    // What a rule publishes has the device that it is about as its sender.
    stage.publish([Telemetry { hops: 1, ..message("a", 4, NOW_MS, "silent") }]).await;
    let answer = stage.client().get_last_heard(ask(names(&["silent", "b", "a"]))).await.expect("answered").into_inner();
    assert_eq!(answer.devices, [LastHeard { device: "a".into(), time_ms: NOW_MS - 7 }]);

    let many = |count: usize| (0..count).map(|i| format!("d{i}")).collect::<Vec<_>>();
    assert_eq!(stage.client().get_last_heard(ask(many(1_000))).await.expect("at the limit").into_inner().devices, []);
    for (devices, field) in [(many(1_001), "devices"), (vec![], "devices"), (names(&["a/b"]), "device")] {
        let error = from_status(&stage.client().get_last_heard(ask(devices)).await.expect_err("refused"));
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
    }
}

#[tokio::test]
async fn rows_of_rules_name_no_more_fields_than_a_device_may_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = StorageConfig { fields_per_device_max: 2, ..StorageConfig::default() };
    let stage = Stage::on(directory.path(), config).await;
    for (id, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        let row = StoreRowRequest {
            tenant: "home".into(),
            device: "d".into(),
            table: "t".into(),
            id: vec![id; 16],
            time_ms: NOW_MS + u64::from(id),
            row: format!("{{\"{name}\": {id}}}").into_bytes(),
        };
        stage.client().store_row(row).await.expect("kept");
    }
    assert_eq!(stage.latest("d").await, ["t.a=4", "t.b=2"]);
    assert_eq!(stage.messages(sent_by("d")).await.messages.len(), 4, "their messages are all there");
}

#[tokio::test]
async fn any_payload_is_kept_as_a_message_and_what_has_no_fields_has_no_points() {
    let (stage, _directory) = stage().await;
    let payloads: [&[u8]; 5] = [b"", b"\xff\xfe", b"hello", b"{\"t\": NaN}", b"5"];
    stage.publish((0u16..).zip(payloads).map(|(i, payload)| message("d", i, NOW_MS + u64::from(i), payload))).await;
    let answer = stage.messages(sent_by("d")).await;
    let sent: Vec<_> = answer.messages.iter().rev().map(|m| m.payload.as_slice()).collect();
    assert_eq!(sent, payloads);
    assert_eq!(stage.latest("d").await, ["value=5"]);
    assert_eq!(stage.counter("drover_storage_payloads_opaque_total"), 4);
}

#[tokio::test]
async fn values_over_a_bound_are_counted_by_reason() {
    let (stage, _directory) = stage().await;
    let payload = format!(r#"{{"long": "{}", "huge": 1e309, "": 1, "kept": 1}}"#, "x".repeat(1_025));
    stage.publish([message("d", 1, NOW_MS, payload)]).await;
    assert_eq!(stage.latest("d").await, ["kept=1"]);
    for (reason, count) in [("text", 1), ("number", 1), ("name", 1), ("depth", 0), ("fields", 0)] {
        let counter = format!("drover_storage_values_skipped_total{{reason=\"{reason}\"}}");
        assert_eq!(stage.counter(&counter), count, "{reason}");
    }
}

#[tokio::test]
async fn pages_by_time_and_pages_by_token_bring_every_point_once() {
    let (stage, _directory) = stage().await;
    // 1, 2, 3, 1, 2, ... points in the milliseconds from NOW_MS on.
    let times = (0..10u64).flat_map(|ms| std::iter::repeat_n(NOW_MS + ms, 1 + (ms % 3) as usize));
    stage.publish((1u16..).zip(times).map(|(i, time_ms)| message("d", i, time_ms, i.to_string()))).await;
    let all: Vec<String> = stage.range(of("d", "value")).await.points.iter().map(value).collect();
    assert_eq!(all, (1..=19).map(|i| i.to_string()).collect::<Vec<_>>());
    for limit in 3..=19 {
        let (mut found, mut request) = (Vec::new(), GetRangeRequest { limit, ..of("d", "value") });
        loop {
            let answer = stage.range(request.clone()).await;
            assert!(answer.points.len() <= limit as usize);
            found.extend(answer.points.iter().map(value));
            request.from_ms = answer.next_from_ms;
            if answer.next_from_ms == 0 {
                break;
            }
        }
        assert_eq!(found, all, "by time, {limit} at once");
    }
    for limit in 1..=19 {
        let (mut found, mut request) = (Vec::new(), GetRangeRequest { limit, ..of("d", "value") });
        loop {
            let answer = stage.range(request.clone()).await;
            found.extend(answer.points.iter().map(value));
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found, all, "by token, {limit} at once");
    }
    let (mut found, mut request) = (Vec::new(), GetMessagesRequest { limit: 2, ..sent_by("d") });
    loop {
        let answer = stage.messages(request.clone()).await;
        found.extend(answer.messages.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()));
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    found.reverse();
    assert_eq!(found, all);
}

#[tokio::test]
async fn steps_sum_up_numbers_and_are_paged_too() {
    let (stage, _directory) = stage().await;
    let payload = |i: u64| if i % 10 == 9 { "\"none\"".to_owned() } else { i.to_string() };
    stage.publish((0..100u64).map(|i| message("d", i as u16, NOW_MS + i * 10, payload(i)))).await;
    let request = GetRangeRequest { from_ms: NOW_MS, to_ms: NOW_MS + 1_000, step_ms: 100, ..of("d", "value") };
    let all = stage.range(request.clone()).await;
    assert_eq!((all.steps.len(), all.points.len(), all.next_from_ms), (10, 0, 0));
    for (i, step) in (0u32..).zip(&all.steps) {
        let first = f64::from(i * 10);
        assert_eq!((step.time_ms, step.count), (NOW_MS + u64::from(i) * 100, 9));
        assert_eq!((step.average, step.minimum, step.maximum), (first + 4.0, first, first + 8.0));
    }
    for limit in 1..=10 {
        let (mut found, mut request) = (Vec::new(), GetRangeRequest { limit, ..request.clone() });
        loop {
            let answer = stage.range(request.clone()).await;
            assert!(answer.steps.len() <= limit as usize);
            found.extend(answer.steps);
            request.from_ms = answer.next_from_ms;
            if answer.next_from_ms == 0 {
                break;
            }
        }
        assert_eq!(found, all.steps, "{limit} at once");
    }
}

#[tokio::test]
async fn an_answer_of_large_rows_ends_before_a_grpc_message_would_be_too_large() {
    let (stage, _directory) = stage().await;
    let payload = vec![b'x'; 256 * 1024];
    stage.publish((0..20u16).map(|i| message("d", i, NOW_MS + u64::from(i), &payload))).await;
    let (mut found, mut answers) = (0, 0);
    let mut request = GetMessagesRequest { limit: 1_000, ..sent_by("d") };
    loop {
        let answer = stage.messages(request.clone()).await;
        (found, answers) = (found + answer.messages.len(), answers + 1);
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, answers), (20, 2));
}

#[tokio::test]
async fn a_tenant_sees_its_own_devices_only() {
    let (stage, _directory) = stage().await;
    let mut foreign = message("d", 2, NOW_MS, r#"{"theirs": 2}"#);
    foreign.tenant = TenantId::new("work").expect("valid");
    stage.publish([message("d", 1, NOW_MS, r#"{"ours": 1}"#), foreign]).await;
    assert_eq!(stage.latest("d").await, ["ours=1"]);
    let theirs = GetMessagesRequest { tenant: "work".into(), ..sent_by("d") };
    assert_eq!(stage.messages(theirs).await.messages.len(), 1);
    assert_eq!(stage.messages(GetMessagesRequest { tenant: String::new(), ..sent_by("d") }).await.messages, []);
}

#[tokio::test]
async fn a_bad_request_names_the_field_the_limit_and_the_value() {
    let (stage, _directory) = stage().await;
    stage.drained().await;
    let refused = async |request| from_status(&stage.client().get_range(request).await.expect_err("refused"));
    for (request, field, limit) in [
        (GetRangeRequest { tenant: "No".into(), ..of("d", "t") }, "tenant", None),
        (GetRangeRequest { device: "a/b".into(), ..of("d", "t") }, "device", None),
        (of("d", ""), "field", None),
        (GetRangeRequest { limit: 10_001, ..of("d", "t") }, "limit", Some("10000")),
        (GetRangeRequest { page_token: "x".into(), ..of("d", "t") }, "page_token", None),
    ] {
        let error = refused(request).await;
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)));
        assert_eq!(error.limit.as_deref(), limit);
    }
    let request = GetMessagesRequest { limit: 1_001, ..sent_by("d") };
    let error = from_status(&stage.client().get_messages(request).await.expect_err("refused"));
    assert_eq!((error.limit.as_deref(), error.value.as_deref()), (Some("1000"), Some("1001")));
    let request = GetLatestRequest { device: "d".into(), limit: 10_001, ..Default::default() };
    let error = from_status(&stage.client().get_latest(request).await.expect_err("refused"));
    assert_eq!(error.field.as_deref(), Some("limit"));
    let backwards = GetRangeRequest { from_ms: 9, to_ms: 3, ..of("d", "t") };
    assert_eq!(stage.range(backwards).await.points, []);
}
