//! Devices whose rights are taken away while the log hangs: within a second they are out, and they do not come in again (P5).

use std::time::Duration;

use drover_host::grpc;
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{
    CreateDeviceRequest, DeleteDeviceRequest, IssueTokenRequest, RevokeCredentialRequest, UpdateDeviceRequest,
};
use drover_proto::types::v1::{Device, Meta};
use drover_sim::BusFaults;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::roamer::{Order, Roamer};
use super::{Cluster, Flaws, NODES, within};
use crate::virtual_time;

/// Devices, each with a token.
const DEVICES: usize = 6;
/// Longest time between two revocations, milliseconds.
const PAUSE_MS_MAX: u64 = 3_000;
/// How long a device may still be there after the call began (P5).
const OUT: Duration = Duration::from_secs(1);
/// How long everybody tries to come in again.
const AFTERWARDS: Duration = Duration::from_secs(15);
/// How long all devices have to connect before anything breaks.
const ARRIVAL: Duration = Duration::from_secs(60);

/// What the books say of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub revoked: usize,
    /// Devices that could not connect although nothing was broken.
    pub absent: usize,
    /// Devices that were connected for longer than they may be.
    pub stayed: usize,
    /// Devices that were admitted after that.
    pub admitted: usize,
}

impl Verdict {
    /// Whether the promise is kept.
    pub fn is_clean(&self) -> bool {
        (self.absent, self.stayed, self.admitted) == (0, 0, 0)
    }
}

/// Runs one world to its end and checks its books. The error says what did not come to rest.
pub fn run(seed: u64, flaws: Flaws) -> anyhow::Result<Verdict> {
    virtual_time::run(async move {
        let cluster = Cluster::new(seed, flaws).await?;
        let registry = RegistryClient::new(cluster.network(CancellationToken::new())?.client("registry"));
        let mut devices = Vec::new();
        for number in 0..DEVICES {
            devices.push(Credentialed::new(&cluster, registry.clone(), number).await?);
        }
        within(ARRIVAL, async || Ok(devices.iter().all(|device| device.client.seen().connected))).await?;
        let mut verdict = Verdict {
            revoked: DEVICES,
            absent: devices.iter().filter(|device| !device.client.seen().connected).count(),
            ..Verdict::default()
        };
        cluster.worsen(BusFaults { hang: 300, hang_ms_max: 5_000, delay_ms_max: 20, ..BusFaults::default() });
        for (way, device) in devices.iter_mut().enumerate() {
            tokio::time::sleep(Duration::from_millis(cluster.random.below(PAUSE_MS_MAX))).await;
            device.revoke(way).await?;
        }
        tokio::time::sleep(AFTERWARDS).await;
        verdict.stayed = devices.iter().filter(|device| device.stayed()).count();
        verdict.admitted = devices.iter().filter(|device| device.was_admitted()).count();
        Ok(verdict)
    })
}

/// A device with a token, and its client, which stays as long as it may.
struct Credentialed {
    client: Roamer,
    credential: String,
    registry: RegistryClient<grpc::Client>,
    /// When its revocation was asked for.
    asked: Option<Instant>,
}

impl Credentialed {
    async fn new(cluster: &Cluster, mut registry: RegistryClient<grpc::Client>, number: usize) -> anyhow::Result<Self> {
        let name = format!("dev-{number}");
        registry.create_device(CreateDeviceRequest { device: Some(device(&name, true)) }).await?;
        let request = IssueTokenRequest { device: name.clone(), ..IssueTokenRequest::default() };
        let issued = registry.issue_token(request).await?.into_inner();
        let options = ClientOptions {
            user_name: Some(name.clone()),
            password: Some(issued.token.into_bytes()),
            ..ClientOptions::new(Version::V5, name)
        };
        let client = cluster.client(options);
        client.order(Order::Stay(number % NODES.len()));
        let credential = issued.credential.unwrap_or_default().id;
        Ok(Self { client, credential, registry, asked: None })
    }

    /// Takes its rights away, in one of the ways there are.
    async fn revoke(&mut self, way: usize) -> anyhow::Result<()> {
        let name = self.client.client_id.clone();
        self.asked = Some(Instant::now());
        match way % 3 {
            0 => {
                let request = RevokeCredentialRequest { id: self.credential.clone(), ..Default::default() };
                self.registry.revoke_credential(request).await?;
            }
            1 => {
                let request = UpdateDeviceRequest { device: Some(device(&name, false)) };
                self.registry.update_device(request).await?;
            }
            _ => {
                let request = DeleteDeviceRequest { name, ..Default::default() };
                self.registry.delete_device(request).await?;
            }
        }
        Ok(())
    }

    /// When it had to be out.
    fn deadline(&self) -> Instant {
        self.asked.expect("it was revoked") + OUT
    }

    fn stayed(&self) -> bool {
        let seen = self.client.seen();
        seen.connected || seen.out.is_none_or(|out| out > self.deadline())
    }

    fn was_admitted(&self) -> bool {
        self.client.seen().admitted.is_some_and(|admitted| admitted > self.deadline())
    }
}

fn device(name: &str, enabled: bool) -> Device {
    let meta = Some(Meta { name: name.to_owned(), ..Meta::default() });
    Device { meta, enabled, policies: vec!["default".to_owned()], ..Device::default() }
}
