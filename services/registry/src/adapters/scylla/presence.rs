//! The view of presence: written with the offset it has seen as timestamp, so that a former owner of the partition who
//! wakes up late changes nothing.

use drover_bus::{Offset, Partition};
use drover_types::{ClientId, DeviceId, DeviceKey, TenantId};
use futures::future::FutureExt;
use futures::{StreamExt, TryStreamExt, stream};

use super::Scylla;
use super::rows::{self, SESSION_SHARDS, corrupt};
use crate::ports::{PresenceView, Session, SessionKey, StoreError};

/// Requests under way at once.
const CONCURRENT: usize = 32;

/// Tenant, device, client, session.
type Row = (String, String, String, String);

impl Scylla {
    pub(super) async fn sessions_of(
        &self,
        partition: Partition,
        key: &DeviceKey,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        let (tenant, device) = (key.tenant.as_str(), key.device.as_str());
        let values = (column(partition)?, rows::session_shard(tenant, device), tenant, device);
        let found: Vec<Row> = self.store.rows(&self.statements.sessions_of, values).await?;
        found.into_iter().map(read).collect()
    }

    pub(super) async fn view(&self, partition: Partition) -> Result<PresenceView, StoreError> {
        let number = column(partition)?;
        // The offset first: sessions may be ahead of it, then events are replayed that they have seen, and end alike.
        let next: Option<(i64,)> = self.store.row(&self.statements.next_event, (number,)).await?;
        let next = next.map(|(next,)| rows::number(next)).transpose()?;
        let mut sessions = Vec::new();
        for shard in 0..SESSION_SHARDS {
            let mut found = self.store.stream::<Row>(&self.statements.sessions, (number, shard)).await?;
            while let Some(row) = found.try_next().await? {
                sessions.push(read(row)?);
            }
        }
        Ok(PresenceView { next, sessions })
    }

    pub(super) async fn put_view(
        &self,
        partition: Partition,
        next: Offset,
        sessions: Vec<(SessionKey, Option<Session>)>,
    ) -> Result<(), StoreError> {
        let (number, at) = (column(partition)?, rows::signed(next));
        let writes = sessions.into_iter().map(|(key, session)| self.put_session(number, at, key, session).boxed());
        stream::iter(writes).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        Ok(self.store.write_at(at, &self.statements.put_next_event, (number, at)).await?)
    }

    async fn put_session(
        &self,
        partition: i32,
        at: i64,
        key: SessionKey,
        session: Option<Session>,
    ) -> Result<(), StoreError> {
        let (tenant, device) = (key.device.tenant.as_str(), key.device.device.as_str());
        let (shard, client) = (rows::session_shard(tenant, device), key.client.as_str());
        match session {
            Some(session) => {
                let text = serde_json::to_string(&session).expect("numbers and strings are JSON");
                let values = (partition, shard, tenant, device, client, text);
                self.store.write_at(at, &self.statements.put_session, values).await?;
            }
            None => {
                let values = (partition, shard, tenant, device, client);
                self.store.write_at(at, &self.statements.remove_session, values).await?;
            }
        }
        Ok(())
    }
}

fn column(partition: Partition) -> Result<i32, StoreError> {
    i32::try_from(partition).map_err(corrupt)
}

fn read((tenant, device, client, session): Row) -> Result<(SessionKey, Session), StoreError> {
    let device =
        DeviceKey { tenant: TenantId::new(tenant).map_err(corrupt)?, device: DeviceId::new(device).map_err(corrupt)? };
    let client = ClientId::new(client).map_err(corrupt)?;
    Ok((SessionKey { device, client }, serde_json::from_str(&session).map_err(corrupt)?))
}
