//! Owners in Cassandra or Scylla: a row a client, changed by compare-and-set alone.
//!
//! A compare-and-set whose fate is unknown is read again by a settling read, never guessed: a row with our own epoch is
//! a success, and epochs of one process never come twice.

use std::sync::Arc;

use async_trait::async_trait;
use drover_host::Cassandra;
use drover_scylla_kit::{Conditional, Failure, OpenError, Read, Store};
use drover_types::{ClientId, Clock, TenantId};

use super::epochs::Epochs;
use crate::adapters::scylla::Late;
use crate::adapters::scylla::schema::SCHEMA;
use crate::ports::{Former, OWNER_REMEMBERED, Owner, Owners, OwnersError, Taken};

/// How long the row of a client that does not connect again stays, in seconds: longer than any session does. Epochs
/// begin with the time, so those that follow are higher nevertheless.
const ROW_TTL_SECONDS: i32 = OWNER_REMEMBERED.as_secs() as i32;
/// How often a call starts over because others have taken the same session meanwhile.
const TRIES_MAX: usize = 64;
const OWNER: &str = "SELECT node, epoch FROM ingress_owners WHERE tenant = ? AND client = ?";

/// The owners in a keyspace, for one node.
pub struct Scylla {
    requests: Requests,
    node: String,
    epochs: Arc<Epochs>,
}

/// Prepared requests.
struct Requests {
    store: Store,
    owner: Read,
    /// Brings a compare-and-set that was cut off to its end.
    settled_owner: Read,
    take: Conditional,
}

impl Requests {
    async fn prepare(store: Store) -> Result<Self, Failure> {
        let take =
            "UPDATE ingress_owners USING TTL ? SET node = ?, epoch = ? WHERE tenant = ? AND client = ? IF epoch = ?";
        Ok(Self {
            owner: store.prepare_read(OWNER).await?,
            settled_owner: store.prepare_settling_read(OWNER).await?,
            take: store.prepare_conditional(take).await?,
            store,
        })
    }
}

/// A row as it is read.
type Row = (Option<String>, Option<i64>);

impl Scylla {
    /// Opens the table, or makes it; while the database is away, waits and tells why. Epochs are those of the start
    /// with the number `boot`.
    pub async fn open(
        cassandra: &Cassandra,
        node: &str,
        clock: Arc<dyn Clock>,
        boot: u32,
        waiting: impl Fn(&OpenError),
    ) -> Result<Self, OpenError> {
        Self::open_with(cassandra, node, Arc::new(Epochs::new(clock, boot)), waiting).await
    }

    async fn open_with(
        cassandra: &Cassandra,
        node: &str,
        epochs: Arc<Epochs>,
        waiting: impl Fn(&OpenError),
    ) -> Result<Self, OpenError> {
        let requests = cassandra.open_and_prepare(&SCHEMA, Requests::prepare, waiting).await?;
        Ok(Self { requests, node: node.to_owned(), epochs })
    }

    async fn row(&self, read: &Read, tenant: &TenantId, client: &ClientId) -> Result<Option<(String, i64)>, Failure> {
        let row: Option<Row> = self.requests.store.row(read, (tenant.as_str(), client.as_str())).await?;
        Ok(row.and_then(|(node, epoch)| node.zip(epoch)))
    }

    /// Makes this node the owner with `epoch` if the epoch is `former`.
    async fn try_take(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        epoch: i64,
        former: Option<i64>,
    ) -> Result<bool, Failure> {
        let values = (ROW_TTL_SECONDS, &self.node, epoch, tenant.as_str(), client.as_str(), former);
        self.requests.store.try_write(&self.requests.take, values).await
    }

    fn former(&self, owner: Option<&(String, i64)>) -> Former {
        match owner {
            Some((node, _)) if *node != self.node => Former::Node(node.clone()),
            Some(_) | None => Former::Here,
        }
    }
}

#[async_trait]
impl Owners for Scylla {
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError> {
        let mut read = &self.requests.owner;
        // Our last try, of which nobody knows what became: its epoch, and who it would have taken the session from.
        let mut unknown: Option<(i64, Former, Failure)> = None;
        for _ in 0..TRIES_MAX {
            let owner = self.row(read, tenant, client).await?;
            let former = self.former(owner.as_ref());
            let former_epoch = owner.map(|(_, epoch)| epoch);
            if let Some((epoch, former, _)) = unknown.take_if(|(epoch, ..)| Some(*epoch) == former_epoch) {
                return Ok(Taken { epoch: u64::try_from(epoch).map_err(corrupt)?, former });
            }
            let number = self.epochs.after(former_epoch.map_or(Ok(0), u64::try_from).map_err(corrupt)?);
            let epoch = i64::try_from(number).map_err(corrupt)?;
            match self.try_take(tenant, client, epoch, former_epoch).await {
                Ok(true) => return Ok(Taken { epoch: number, former }),
                Ok(false) => {}
                Err(failure @ Failure::Unavailable { .. }) => unknown = Some((epoch, former, failure)),
                Err(failure @ (Failure::Refused { .. } | Failure::Unreadable { .. })) => return Err(failure.into()),
            }
            read = &self.requests.settled_owner;
        }
        let contended = || OwnersError::Unavailable { reason: format!("{client} is taken by too many at once") };
        Err(unknown.map_or_else(contended, |(_, _, failure)| failure.into()))
    }

    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError> {
        let owner = self.row(&self.requests.owner, tenant, client).await?;
        owner.map(|(node, epoch)| Ok(Owner { node, epoch: u64::try_from(epoch).map_err(corrupt)? })).transpose()
    }

    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError> {
        let former = owner.map(|owner| owner.epoch);
        let former_epoch = former.map(i64::try_from).transpose().map_err(corrupt)?;
        let number = self.epochs.after(former.unwrap_or(0));
        let epoch = i64::try_from(number).map_err(corrupt)?;
        match self.try_take(tenant, client, epoch, former_epoch).await {
            Ok(true) => Ok(Some(number)),
            Ok(false) => Ok(None),
            Err(failure @ Failure::Unavailable { .. }) => {
                let settled = self.row(&self.requests.settled_owner, tenant, client).await?;
                match settled.map(|(_, epoch)| epoch) {
                    Some(settled) if settled == epoch => Ok(Some(number)),
                    // It may still come, and the session be this node's then: whoever asks again finds that.
                    settled if settled == former_epoch => Err(failure.into()),
                    Some(_) | None => Ok(None),
                }
            }
            Err(failure @ (Failure::Refused { .. } | Failure::Unreadable { .. })) => Err(failure.into()),
        }
    }

    async fn renew(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<(), OwnersError> {
        let epoch = i64::try_from(epoch).map_err(corrupt)?;
        // Whether it held, or another has the session: there is nothing else to do.
        Ok(self.try_take(tenant, client, epoch, Some(epoch)).await.map(drop)?)
    }
}

impl From<Failure> for OwnersError {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::Unavailable { .. } | Failure::Refused { .. } => {
                OwnersError::Unavailable { reason: failure.to_string() }
            }
            Failure::Unreadable { .. } => corrupt(failure),
        }
    }
}

fn corrupt(reason: impl ToString) -> OwnersError {
    OwnersError::Corrupt { reason: reason.to_string() }
}

/// Owners that are opened while the node runs already: whoever asks before waits for them.
pub struct LateScylla {
    node: String,
    epochs: Arc<Epochs>,
    opened: Late<Scylla>,
}

impl LateScylla {
    /// Not opened yet.
    pub fn new(node: &str, clock: Arc<dyn Clock>, boot: u32) -> Self {
        let epochs = Arc::new(Epochs::new(clock, boot));
        Self { node: node.to_owned(), epochs, opened: Late::default() }
    }

    /// Opens them; while the database is away, waits and tells why.
    pub async fn open(&self, cassandra: &Cassandra, waiting: impl Fn(&OpenError)) -> Result<(), OpenError> {
        let opened = Scylla::open_with(cassandra, &self.node, self.epochs.clone(), waiting).await?;
        self.opened.set(opened);
        Ok(())
    }
}

#[async_trait]
impl Owners for LateScylla {
    async fn take(&self, tenant: &TenantId, client: &ClientId) -> Result<Taken, OwnersError> {
        self.opened.get().await.take(tenant, client).await
    }

    async fn owner(&self, tenant: &TenantId, client: &ClientId) -> Result<Option<Owner>, OwnersError> {
        self.opened.get().await.owner(tenant, client).await
    }

    async fn take_if(
        &self,
        tenant: &TenantId,
        client: &ClientId,
        owner: Option<Owner>,
    ) -> Result<Option<u64>, OwnersError> {
        self.opened.get().await.take_if(tenant, client, owner).await
    }

    async fn renew(&self, tenant: &TenantId, client: &ClientId, epoch: u64) -> Result<(), OwnersError> {
        self.opened.get().await.renew(tenant, client, epoch).await
    }
}
