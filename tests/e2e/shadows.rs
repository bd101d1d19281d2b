//! Shadows from both sides: a device by MQTT through the ingress, an application by gRPC, over the embedded log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, TopicConfig};
use drover_host::{Health, Metrics, Network, Ports, Service, Shutdown, Sockets, SystemClock, SystemRandom, grpc};
use drover_ingress::Ingress;
use drover_ingress::config::IngressConfig;
use drover_mqtt::{Ack, Connect, Decoder, Packet, PacketId, Publish, ReasonCode, Side, Version, encode};
use drover_proto::from_status;
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{
    DeleteShadowRequest, GetShadowRequest, ListShadowsRequest, UpdateShadowRequest, UpdateShadowResponse,
};
use drover_shadow::{Shadow, ShadowConfig};
use drover_tests::world::registry;
use drover_types::{ApiError, Clock, ErrorCode, Qos, TELEMETRY_TOPIC};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// Longest a test waits for a state; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ingress and shadow service, and who talks to them.
struct Stage {
    bus: Arc<dyn Bus>,
    network: Network,
    health: Health,
    shadow: Option<(Shutdown, JoinHandle<anyhow::Result<()>>)>,
    data: TempDir,
}

impl Stage {
    async fn new() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let bus = EmbeddedBus::open(&data.path().join("bus"), EmbeddedOptions::default())?.0;
        for topic in [TELEMETRY_TOPIC, "drover.presence", "drover.registry.changes"] {
            let (topic, retention_bytes) = (topic.into(), None);
            bus.create_topic(TopicConfig { topic, partitions: 2, compact: false, retention_ms: None, retention_bytes })
                .await?;
        }
        let mut stage =
            Self { bus: Arc::new(bus), network: Network::default(), health: Health::default(), shadow: None, data };
        registry::serve(&stage.network);
        stage.start_shadow();
        let ports = stage.ports("ingress");
        tokio::spawn(Ingress::run(IngressConfig::default(), ports, Shutdown::new()));
        stage.health.all_ready().await;
        Ok(stage)
    }

    fn ports(&self, name: &'static str) -> Ports {
        Ports {
            cassandra: Default::default(),
            functions: Default::default(),
            bus: self.bus.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            network: self.network.clone(),
            sockets: Sockets::default(),
            data: self.data.path().join(name),
            metrics: Metrics::default(),
            ready: self.health.service(name),
        }
    }

    fn start_shadow(&mut self) {
        let (config, stop) = (ShadowConfig { partitions: 2, ..ShadowConfig::default() }, Shutdown::new());
        let running = Shadow::run(config, self.ports("shadow"), stop.clone());
        self.shadow = Some((stop, tokio::spawn(running)));
    }

    /// Stops the shadow service, deletes its store, and starts it again.
    async fn lose_the_store(&mut self) -> anyhow::Result<()> {
        if let Some((stop, running)) = self.shadow.take() {
            stop.cancel();
            running.await??;
        }
        std::fs::remove_dir_all(Path::new(self.data.path()).join("shadow/store"))?;
        self.start_shadow();
        self.health.all_ready().await;
        Ok(())
    }

    async fn device(&self, version: Version) -> Device {
        let stream = self.network.open("mqtt").await.expect("the ingress listens");
        let mut device = Device { stream, version, input: BytesMut::new(), packet_id: 0 };
        device.send(&Packet::Connect(Connect::new(version, "lamp"))).await;
        device.read(|packet| assert!(matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error()))).await;
        device
    }

    fn application(&self) -> ShadowClient<grpc::Client> {
        ShadowClient::new(self.network.client("shadow"))
    }

    async fn update(&self, name: &str, document: Value, id: &[u8]) -> Result<UpdateShadowResponse, ApiError> {
        let (tenant, device, name) = (String::new(), "lamp".to_owned(), name.to_owned());
        let document = document.to_string().into_bytes();
        let request = UpdateShadowRequest { tenant, device, name, document, id: id.to_vec() };
        let answer = self.application().update_shadow(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    }

    async fn get(&self, name: &str) -> Result<Value, ApiError> {
        let request = GetShadowRequest { tenant: String::new(), device: "lamp".to_owned(), name: name.to_owned() };
        let answer = self.application().get_shadow(request).await.map_err(|status| from_status(&status))?;
        Ok(serde_json::from_slice(&answer.into_inner().document).expect("JSON"))
    }

    /// Tells as the registry does that a device is deleted: by the tombstone behind the change.
    async fn delete_device(&self, deleted_ms: u64) -> anyhow::Result<()> {
        let timestamp_ms = i64::try_from(deleted_ms)?;
        let record = Record { key: Some("device/default/lamp".into()), timestamp_ms, ..Record::default() };
        self.bus.append(vec![Outgoing::keyed("drover.registry.changes", record)]).await?.await?;
        Ok(())
    }

    async fn names(&self) -> anyhow::Result<Vec<String>> {
        let request = ListShadowsRequest { tenant: String::new(), device: "lamp".to_owned() };
        Ok(self.application().list_shadows(request).await?.into_inner().names)
    }

    /// Waits until the store has this version.
    async fn version(&self, name: &str, version: u64) -> Value {
        let waiting = async {
            loop {
                match self.get(name).await {
                    Ok(document) if document["version"] == version => return document,
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the view follows")
    }
}

/// A connected device `lamp`.
struct Device {
    stream: DuplexStream,
    version: Version,
    input: BytesMut,
    packet_id: u16,
}

impl Device {
    async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes).expect("valid");
        self.stream.write_all(&bytes).await.expect("connected");
    }

    /// Hands the next packet over; `None` at the end of the stream.
    async fn next<T>(&mut self, see: impl FnOnce(Packet<'_>) -> T) -> Option<T> {
        let decoder = Decoder { packet_bytes_max: 1 << 20, ..Decoder::new(Side::Server, self.version) };
        let reading = async {
            loop {
                let len = decoder.packet_len(&self.input).expect("valid").filter(|len| *len <= self.input.len());
                match len {
                    Some(len) => break Some(self.input.split_to(len)),
                    None if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 => break None,
                    None => {}
                }
            }
        };
        let bytes = tokio::time::timeout(PATIENCE, reading).await.expect("a packet comes")?;
        decoder.decode(&bytes).expect("valid").map(|(packet, _)| see(packet))
    }

    async fn read<T>(&mut self, see: impl FnOnce(Packet<'_>) -> T) -> T {
        self.next(see).await.expect("a packet")
    }

    async fn subscribe(&mut self, filter: &str) {
        let mut list = drover_mqtt::SubscriptionList::default();
        let options = drover_mqtt::SubscriptionOptions::new(Qos::AtLeastOnce);
        list.push(drover_mqtt::Subscription { filter, options }).expect("short");
        let (properties, subscriptions) = (drover_mqtt::Properties::default(), list.as_subscriptions());
        self.send(&Packet::Subscribe(drover_mqtt::Subscribe { packet_id: PacketId::MIN, properties, subscriptions }))
            .await;
        let granted =
            |packet: Packet<'_>| matches!(packet, Packet::SubAck(ack) if ack.reasons.iter().all(|r| !r.is_error()));
        assert!(self.read(granted).await, "{filter}");
    }

    async fn publish(&mut self, topic: &str, payload: &str) {
        self.packet_id += 1;
        let message = Publish {
            qos: Qos::AtLeastOnce,
            packet_id: PacketId::new(self.packet_id),
            ..Publish::new(topic, payload.as_bytes())
        };
        self.send(&Packet::Publish(message)).await;
    }

    /// The next message; acknowledgements that come before it are taken.
    async fn message(&mut self) -> (String, Value) {
        loop {
            let message = self
                .read(|packet| match packet {
                    Packet::Publish(publish) => {
                        let payload = serde_json::from_slice::<Value>(publish.payload).expect("JSON");
                        Some((publish.topic.to_owned(), payload, publish.packet_id))
                    }
                    Packet::PubAck(ack) => {
                        assert!(!ack.reason.is_error(), "refused with {}", ack.reason);
                        None
                    }
                    other => panic!("unexpected {other:?}"),
                })
                .await;
            let Some((topic, payload, packet_id)) = message else { continue };
            if let Some(packet_id) = packet_id {
                self.send(&Packet::PubAck(Ack::new(packet_id, ReasonCode::Success))).await;
            }
            return (topic.strip_prefix("$aws/things/lamp/shadow/").expect("of its shadow").to_owned(), payload);
        }
    }
}

fn topic(rest: &str) -> String {
    format!("$aws/things/lamp/shadow/{rest}")
}

#[tokio::test]
async fn a_device_asks_and_reports_and_is_told_what_is_desired() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let mut device = stage.device(Version::V311).await;
    for filter in ["get/+", "update/+"] {
        device.subscribe(&topic(filter)).await;
    }
    device.publish(&topic("get"), r#"{"clientToken": "g"}"#).await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["code"], &body["clientToken"]), ("get/rejected", &json!(404), &json!("g")));

    device.publish(&topic("update"), r#"{"state": {"reported": {"on": false}}, "clientToken": "u"}"#).await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["version"]), ("update/accepted", &json!(1)));
    assert_eq!((&body["state"], &body["clientToken"]), (&json!({"reported": {"on": false}}), &json!("u")));
    let (told, body) = device.message().await;
    assert_eq!((told.as_str(), &body["current"]["version"]), ("update/documents", &json!(1)));

    let answer = stage.update("", json!({"state": {"desired": {"on": true}}}), &[1; 16]).await.expect("accepted");
    assert_eq!(answer.version, 2);
    let (told, body) = device.message().await;
    assert_eq!((told.as_str(), &body["state"], &body["version"]), ("update/delta", &json!({"on": true}), &json!(2)));
    assert_eq!(device.message().await.0, "update/documents", "the answer is not the device's");

    device.publish(&topic("update"), r#"{"state": {"reported": {"on": true}}, "version": 1}"#).await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["code"]), ("update/rejected", &json!(409)));
    device.publish(&topic("update"), r#"{"state": {"reported": {"on": true}}, "version": 2}"#).await;
    assert_eq!(device.message().await.0, "update/accepted");
    assert_eq!(device.message().await.0, "update/documents", "nothing differs any more: there is no delta");
    let document = stage.version("", 3).await;
    assert_eq!(document["state"], json!({"desired": {"on": true}, "reported": {"on": true}}));
    Ok(())
}

#[tokio::test]
async fn what_is_desired_of_a_device_that_is_away_waits_in_its_shadow() -> anyhow::Result<()> {
    let mut stage = Stage::new().await?;
    let wish = json!({"state": {"desired": {"dim": 5}}});
    let first = stage.update("config", wish.clone(), &[7; 16]).await.expect("accepted");
    let again = stage.update("config", wish.clone(), &[7; 16]).await.expect("answered again");
    assert_eq!((first.version, &first), (1, &again), "a repeat changes nothing and is answered the same");
    assert_eq!(stage.version("config", 1).await["state"]["delta"], json!({"dim": 5}));
    assert_eq!(stage.get("").await.expect_err("there is no classic shadow").code, ErrorCode::NotFound);

    stage.lose_the_store().await?;
    assert_eq!(stage.version("config", 1).await["state"]["desired"], json!({"dim": 5}), "the log has it");
    let again = stage.update("config", wish, &[7; 16]).await.expect("answered again");
    assert_eq!(first, again, "a new owner answers the same");

    let mut device = stage.device(Version::V5).await;
    device.subscribe(&topic("name/config/get/accepted")).await;
    device.publish(&topic("name/config/get"), "").await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["state"]["delta"]), ("name/config/get/accepted", &json!({"dim": 5})));

    let refused = stage.update("config", json!({"state": {"desired": {"dim": 6}}, "version": 9}), &[2; 16]).await;
    assert_eq!(refused.expect_err("not the present version").code, ErrorCode::Aborted);
    let refused = stage.update("config", json!({"state": 5}), &[3; 16]).await.expect_err("malformed");
    assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::InvalidArgument, "State node must be an object"));
    let names = |device: &str| ListShadowsRequest { tenant: String::new(), device: device.to_owned() };
    assert_eq!(stage.application().list_shadows(names("lamp")).await?.into_inner().names, ["config"]);
    let nameless = stage.update("config", json!({"state": {}}), b"").await.expect_err("it could not be recognised");
    assert_eq!((nameless.code, nameless.field.as_deref()), (ErrorCode::InvalidArgument, Some("id")));
    let (device, name, id) = ("lamp".into(), "config".into(), vec![4; 16]);
    let request = DeleteShadowRequest { device, name, id, ..Default::default() };
    assert_eq!(stage.application().delete_shadow(request).await?.into_inner().version, 2);
    while !stage.application().list_shadows(names("lamp")).await?.into_inner().names.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_shadows_of_a_deleted_device_go_with_it_and_their_versions_go_on() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let wish = |dim: u8| json!({"state": {"desired": {"dim": dim}}});
    stage.update("", wish(1), &[1; 16]).await.expect("accepted");
    stage.update("config", wish(1), &[2; 16]).await.expect("accepted");
    // A deletion of long ago, told late, is none of these shadows' business; its partition is in order.
    let now_ms = SystemClock.now_ms();
    stage.delete_device(now_ms - 24 * 3_600 * 1_000).await?;
    stage.delete_device(now_ms).await?;
    let gone = async {
        while !stage.names().await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, gone).await??;
    assert_eq!(stage.get("config").await.expect_err("it is gone").code, ErrorCode::NotFound);

    let anew = stage.update("", wish(2), &[3; 16]).await.expect("accepted");
    assert_eq!(anew.version, 3, "an update, the deletion, and the device made anew");
    stage.delete_device(now_ms - 24 * 3_600 * 1_000).await?;
    let next = stage.update("", wish(3), &[4; 16]).await.expect("accepted");
    assert_eq!(next.version, 4, "what was told late deletes nothing");
    assert_eq!(stage.version("", 4).await["state"]["desired"], json!({"dim": 3}));
    Ok(())
}

#[tokio::test]
async fn a_device_deletes_its_shadow_and_the_versions_of_the_next_one_go_on() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let mut device = stage.device(Version::V311).await;
    for filter in ["delete/+", "update/accepted"] {
        device.subscribe(&topic(filter)).await;
    }
    device.publish(&topic("delete"), r#"{"clientToken": "none"}"#).await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["code"]), ("delete/rejected", &json!(404)), "there is none yet");

    device.publish(&topic("update"), r#"{"state": {"reported": {"on": true}}}"#).await;
    assert_eq!(device.message().await.0, "update/accepted");
    stage.version("", 1).await;
    device.publish(&topic("delete"), r#"{"clientToken": "d"}"#).await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["version"]), ("delete/accepted", &json!(2)));
    assert_eq!(body["clientToken"], "d");
    let gone = async {
        while stage.get("").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await?;
    assert_eq!(stage.get("").await.expect_err("it is gone").code, ErrorCode::NotFound);

    device.publish(&topic("update"), r#"{"state": {"reported": {"dim": 5}}}"#).await;
    let (answered, body) = device.message().await;
    assert_eq!((answered.as_str(), &body["version"]), ("update/accepted", &json!(3)));
    assert_eq!(stage.version("", 3).await["state"], json!({"reported": {"dim": 5}}), "nothing of the former one");
    Ok(())
}

#[tokio::test]
async fn nobody_but_the_platform_speaks_for_a_shadow() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let mut device = stage.device(Version::V5).await;
    for forged in ["update/accepted", "update/delta", "name/a.b/update", "list"] {
        device.publish(&topic(forged), "{}").await;
        let refused =
            |packet: Packet<'_>| matches!(packet, Packet::PubAck(ack) if ack.reason == ReasonCode::NotAuthorized);
        assert!(device.read(refused).await, "{forged}");
    }
    let mut device = stage.device(Version::V311).await;
    device.publish(&topic("update/delta"), "{}").await;
    assert!(device.next(|packet| format!("{packet:?}")).await.is_none(), "3.1.1 has no other way to say it");
    Ok(())
}
