//! Two tenants whose devices have the same names and topics, while nodes die: nobody gets what is another tenant's, and everybody
//! gets what is their own (P9, and P1 across nodes).

use std::collections::BTreeSet;
use std::time::Duration;

use drover_host::grpc;
use drover_mqtt::Version;
use drover_mqtt::client::ClientOptions;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{CreateDeviceRequest, IssueTokenRequest};
use drover_proto::types::v1::{Device, Meta};
use drover_sim::BusFaults;
use tokio_util::sync::CancellationToken;

use super::{Cluster, Flaws, NODES};
use crate::peer::Peer;
use crate::virtual_time;

const TENANTS: [&str; 2] = ["red", "blue"];
/// Messages of each tenant.
const MESSAGES: usize = 15;
/// Longest time between two messages, milliseconds.
const PAUSE_MS_MAX: u64 = 500;
/// Of 1,000 messages, how many are followed by a fault.
const FAULTS: u64 = 300;

/// What the books say of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Of those, how many their own tenant's subscriber did not get.
    pub lost: usize,
    /// Messages that a subscriber got of the other tenant.
    pub crossed: usize,
}

impl Verdict {
    /// Whether the promise is kept.
    pub fn is_clean(&self) -> bool {
        (self.lost, self.crossed) == (0, 0)
    }
}

/// Runs one world to its end and checks its books. The error says what did not come to rest.
pub fn run(seed: u64, flaws: Flaws) -> anyhow::Result<Verdict> {
    virtual_time::run(async move {
        let mut cluster = Cluster::new(seed, flaws).await?;
        let mut registry = RegistryClient::new(cluster.network(CancellationToken::new())?.client("registry"));
        let (mut subscribers, mut publishers) = (Vec::new(), Vec::new());
        for tenant in TENANTS {
            subscribers.push(registered(&mut registry, tenant, "subscriber").await?);
            publishers.push(registered(&mut registry, tenant, "publisher").await?);
        }
        for options in &subscribers {
            let mut subscriber = come(&cluster, options, 0).await;
            subscriber.subscribe("#").await?;
            subscriber.leave().await?;
        }
        cluster.worsen(BusFaults { hang: 10, hang_ms_max: 3_000, delay_ms_max: 20, ..BusFaults::default() });
        for number in 0..MESSAGES {
            for (tenant, options) in TENANTS.into_iter().zip(&publishers) {
                publish(&mut cluster, options, &format!("{tenant} {number}")).await?;
            }
        }
        cluster.mend()?;
        let mut verdict = Verdict { acknowledged: MESSAGES * TENANTS.len(), ..Verdict::default() };
        for (tenant, options) in TENANTS.into_iter().zip(&subscribers) {
            let payloads: BTreeSet<String> = come(&cluster, options, 1).await.collect().await?.into_iter().collect();
            let own = payloads.iter().filter(|payload| payload.starts_with(tenant)).count();
            verdict.lost += MESSAGES.saturating_sub(own);
            verdict.crossed += payloads.len() - own;
        }
        Ok(verdict)
    })
}

/// A device with a token, as a client whose session lasts.
async fn registered(
    registry: &mut RegistryClient<grpc::Client>,
    tenant: &str,
    name: &str,
) -> anyhow::Result<ClientOptions> {
    let meta = Some(Meta { tenant: tenant.to_owned(), name: name.to_owned(), ..Meta::default() });
    let device = Device { meta, enabled: true, policies: vec!["default".to_owned()], ..Device::default() };
    registry.create_device(CreateDeviceRequest { device: Some(device) }).await?;
    let (tenant, device) = (tenant.to_owned(), name.to_owned());
    let user_name = Some(format!("{tenant}/{device}"));
    let request = IssueTokenRequest { tenant, device, ..IssueTokenRequest::default() };
    let token = registry.issue_token(request).await?.into_inner().token;
    Ok(ClientOptions {
        clean_start: false,
        session_expiry_s: 3_600,
        user_name,
        password: Some(token.into_bytes()),
        ..ClientOptions::new(Version::V5, name)
    })
}

async fn come(cluster: &Cluster, options: &ClientOptions, node: usize) -> Peer {
    Peer::come(&cluster.board, NODES[node], &cluster.clock, options).await
}

/// Publishes a message by one of the nodes, again and again until it is acknowledged; then something may break.
async fn publish(cluster: &mut Cluster, options: &ClientOptions, payload: &str) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_millis(cluster.random.below(PAUSE_MS_MAX))).await;
    loop {
        let up: Vec<usize> = (0..NODES.len()).filter(|node| cluster.nodes[*node].is_some()).collect();
        let Some(node) = up.get(cluster.random.below(NODES.len() as u64) as usize % up.len().max(1)) else {
            cluster.start_node(0)?;
            continue;
        };
        let mut publisher = come(cluster, options, *node).await;
        if publisher.publish("news", payload).await.is_ok() {
            break;
        }
    }
    if cluster.random.chance(FAULTS) {
        cluster.harm()?;
    }
    Ok(())
}
