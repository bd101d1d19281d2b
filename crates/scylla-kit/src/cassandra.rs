//! The handle that a process keeps: connects when first asked to, once, and brings schemas up to date.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::unprepared::Statement;
use tokio::sync::{Notify, OnceCell};

use crate::error::no_session;
use crate::settle::settled;
use crate::{Failure, OpenError, Options, Schema, Store, copies, keyspace, migrate};

/// How long a silent connection is trusted.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Pause before a database that is away is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A question that costs nothing; no schema is called so.
const ANSWERS: &str = "SELECT number FROM drover_migrations WHERE schema_name = 'drover'";

/// The database of this process. Cheap to clone; all clones share one session. Nothing is dialled before the first
/// [`Cassandra::open`] or [`Cassandra::look`].
#[derive(Clone)]
pub struct Cassandra {
    options: Arc<Options>,
    session: Arc<OnceCell<Arc<Session>>>,
    /// Told by whoever opens it.
    opened: Arc<Notify>,
}

impl Default for Cassandra {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Cassandra {
    /// The database at `options`.
    pub fn new(options: Options) -> Self {
        Self { options: Arc::new(options), session: Arc::default(), opened: Arc::default() }
    }

    /// Connects, and says whether the keyspace is there. Makes nothing.
    pub async fn look(&self) -> Result<bool, OpenError> {
        let session = self.dial().await?;
        let doing = format!("looking for keyspace {}", self.options.keyspace);
        keyspace::exists(&session, &self.options.keyspace).await.map_err(OpenError::while_doing(doing))
    }

    /// Connects, makes the keyspace if there is none, and brings `schema` up to date.
    ///
    /// Safe with any number of processes at once, and when it is cut off anywhere: the next call goes on.
    pub async fn open(&self, schema: &Schema) -> Result<Store, OpenError> {
        self.opened.notify_one();
        let session = self.session.get_or_try_init(|| self.connect()).await?;
        migrate::up(session, &self.options, schema).await?;
        Ok(Store::new(Arc::clone(session), Arc::clone(&self.options)))
    }

    /// As [`Cassandra::open`], but waits while waiting may help, and tells why each time; the error is one that does
    /// not pass by itself.
    pub async fn open_when_there(&self, schema: &Schema, waiting: impl Fn(&OpenError)) -> Result<Store, OpenError> {
        self.open_and_prepare(schema, async |store| Ok(store), waiting).await
    }

    /// As [`Cassandra::open_when_there`], with the preparation of requests: what an adapter opens by.
    pub async fn open_and_prepare<T>(
        &self,
        schema: &Schema,
        prepare: impl AsyncFn(Store) -> Result<T, Failure>,
        waiting: impl Fn(&OpenError),
    ) -> Result<T, OpenError> {
        loop {
            let opened = match self.open(schema).await {
                Ok(store) => {
                    let doing = format!("preparing the requests of {}", schema.name);
                    prepare(store).await.map_err(OpenError::while_doing(doing))
                }
                Err(error) => Err(error),
            };
            match opened {
                Err(error) if error.may_pass() => waiting(&error),
                settled => return settled,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns as soon as somebody tries to open it. Only one may wait for that: who watches it for the process.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Whether the database answers: a read of one partition, at the consistency of reads. Before it is connected to, whoever
    /// opens it tells what is waited for, and this has nothing to say.
    pub async fn answers(&self) -> Result<(), Failure> {
        let Some(session) = self.session.get() else { return Ok(()) };
        let mut statement = Statement::new(ANSWERS);
        statement.set_consistency(self.options.consistency.of_reads());
        statement.set_is_idempotent(true);
        match session.query_unpaged(statement, ()).await.map_err(Failure::from) {
            // Refused is an answer: the table is made by whoever opens a schema first.
            Ok(_) | Err(Failure::Refused { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// A session in the keyspace.
    async fn connect(&self) -> Result<Arc<Session>, OpenError> {
        let options = &*self.options;
        let session = self.dial().await?;
        keyspace::ensure(&session, options).await?;
        let doing = format!("using keyspace {}", options.keyspace);
        let (keyspace, of) = (options.keyspace.as_str(), &session);
        let used = settled(move || async move { Ok(of.use_keyspace(keyspace, false).await?) }).await;
        used.map_err(OpenError::while_doing(doing))?;
        copies::tell(&session, options);
        tracing::info!(hosts = options.hosts.join(", "), keyspace = options.keyspace, "connected to cassandra");
        Ok(Arc::new(session))
    }

    /// A session in no keyspace.
    async fn dial(&self) -> Result<Session, OpenError> {
        let options = &*self.options;
        options.check()?;
        let hosts = options.hosts.join(", ");
        let builder = builder(options)?;
        // The driver tries the nodes one after the other; one that accepts and says nothing must not hold it up.
        let tries = u32::try_from(options.hosts.len()).unwrap_or(u32::MAX).saturating_add(1);
        let patience = options.connect_timeout.saturating_mul(tries);
        let username = options.credentials.as_ref().map(|credentials| credentials.username.as_str());
        let session = match tokio::time::timeout(patience, builder.build()).await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => return Err(no_session(hosts, username, &error)),
            Err(_) => return Err(OpenError::Unreachable { hosts, reason: format!("no answer within {patience:?}") }),
        };
        check_datacenter(&session, options)?;
        Ok(session)
    }
}

fn builder(options: &Options) -> Result<SessionBuilder, OpenError> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &options.local_datacenter {
        policy = policy.prefer_datacenter(datacenter.clone()).permit_dc_failover(false);
    }
    let profile = ExecutionProfile::builder()
        .consistency(options.consistency.into())
        .serial_consistency(Some(options.serial_consistency.into()))
        .request_timeout(Some(options.request_timeout))
        .load_balancing_policy(policy.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(options.nodes())
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(options.connect_timeout)
        .hostname_resolution_timeout(Some(options.connect_timeout))
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .schema_agreement_timeout(migrate::SCHEMA_TIMEOUT)
        // Replicas are found by it; other keyspaces are not ours to read.
        .keyspaces_to_fetch([options.keyspace.as_str()]);
    if let Some(credentials) = &options.credentials {
        builder = builder.user(&credentials.username, &credentials.password);
    }
    with_tls(builder, options)
}

#[cfg(feature = "cassandra-tls")]
fn with_tls(builder: SessionBuilder, options: &Options) -> Result<SessionBuilder, OpenError> {
    match &options.tls {
        Some(tls) => Ok(builder.tls_context(Some(crate::tls::context(tls)?))),
        None => Ok(builder),
    }
}

#[cfg(not(feature = "cassandra-tls"))]
fn with_tls(builder: SessionBuilder, _: &Options) -> Result<SessionBuilder, OpenError> {
    // `Options::check` has refused a configuration that wants it.
    Ok(builder)
}

/// A datacenter that is not there would leave every request without a node.
fn check_datacenter(session: &Session, options: &Options) -> Result<(), OpenError> {
    let Some(wanted) = &options.local_datacenter else { return Ok(()) };
    let state = session.get_cluster_state();
    let mut there: Vec<&str> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    if there.contains(&wanted.as_str()) {
        return Ok(());
    }
    there.sort_unstable();
    there.dedup();
    let reason = format!("is {wanted:?}, the cluster has {}", there.join(", "));
    Err(OpenError::Options { key: "local_datacenter", reason })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whether_it_is_needed_is_known_as_soon_as_somebody_opens_it() {
        let cassandra = Cassandra::default();
        assert_eq!(cassandra.opened().now_or_never(), None);
        drop(cassandra.clone().open(&Schema { name: "test", migrations: &[] }).now_or_never());
        assert_eq!(cassandra.opened().now_or_never(), Some(()));
    }
}
