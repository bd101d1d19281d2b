//! Nothing is dropped, and nobody refused, without being counted.

use std::io::Write;
use std::sync::{Arc, Mutex};

use drover_mqtt::{Connect, Packet, ReasonCode, Version};
use drover_types::Qos;

use crate::stage::Stage;

/// Leaves two messages behind for a session `s` whose client is away.
async fn leave_two(stage: &Stage) {
    let (mut subscriber, _) = stage.resume("s").await;
    subscriber.subscribe("t", Qos::AtLeastOnce).await;
    drop(subscriber);
    stage.reports(2).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    for id in [1, 2] {
        publisher.publish(id, "t", "x").await;
    }
    publisher.expect_acks([1, 2]).await;
}

#[tokio::test]
async fn what_waits_in_a_session_that_begins_anew_is_counted() {
    let stage = Stage::new().await;
    leave_two(&stage).await;
    stage.connect(Version::V5, "s").await;
    stage.metric("drover_ingress_messages_dropped_total{reason=\"clean_start\"} 2").await;
}

#[tokio::test]
async fn what_waits_in_a_session_that_expires_is_counted() {
    let second = drover_host::Duration::from_secs(1);
    let stage = Stage::with(|config| config.limits.session_expiry = second).await;
    leave_two(&stage).await;
    stage.metric("drover_ingress_messages_dropped_total{reason=\"session_expired\"} 2").await;
}

#[tokio::test]
async fn what_a_client_leaves_unacknowledged_in_a_session_that_ends_with_it_is_counted() {
    let stage = Stage::new().await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("t", Qos::AtLeastOnce).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    publisher.publish(1, "t", "x").await;
    subscriber.expect(|p| matches!(p, Packet::Publish(_))).await;
    drop(subscriber);
    stage.metric("drover_ingress_messages_dropped_total{reason=\"session_closed\"} 1").await;
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn lines(&self, with: &str) -> Vec<String> {
        let log = String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned();
        log.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

async fn refused(stage: &Stage, client: &str, user_name: &str) {
    let mut connection = stage.open(Version::V5).await;
    let connect = Connect::new(Version::V5, client);
    let connect = Connect { user_name: Some(user_name), password: Some(b"hunter2"), ..connect };
    connection.send(&Packet::Connect(connect)).await;
    connection.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.reason == ReasonCode::BadUserNameOrPassword)).await;
    assert!(connection.read(|_| ()).await.is_none(), "closed");
}

#[tokio::test]
async fn a_refused_connect_is_one_line_that_names_who_it_was_and_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let stage = Stage::new().await;
    refused(&stage, "lamp\nforged line", "home/lamp").await;
    let lines = log.lines("connect refused");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    for part in [r#"client="lamp\nforged line""#, r#"user_name="home/lamp""#, "peer=127.0.0.1", "wrong_credentials"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    for _ in 1..30 {
        refused(&stage, "lamp", "drv_hunter2").await;
    }
    stage.metric("drover_ingress_connects_refused_total{reason=\"wrong_credentials\"} 30").await;
    assert!(log.lines("connect refused").len() < 30, "some are left out");
    assert!(log.lines("hunter2").is_empty());
}
