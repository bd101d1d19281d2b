//! Every request of the registry, prepared once.

use drover_scylla_kit::{Conditional, Failure, Read, Store, Write};

/// Prepared requests, by what they do.
pub struct Statements {
    pub head: Read,
    /// Brings a compare-and-set that was cut off to its end.
    pub settled_head: Read,
    pub decide: Conditional,
    pub restamp: Conditional,
    pub applied: Write,

    pub page: Read,
    pub list: Write,
    pub unlist: Write,

    pub by_digest: Read,
    pub put_digest: Write,
    pub remove_digest: Write,
    pub credentials: Read,
    pub had_credentials: Read,
    pub put_credential: Write,
    pub remove_credential: Write,

    pub outbox: Read,
    pub put_outbox: Write,
    pub remove_outbox: Write,
    pub relay: Read,
    pub claim: Conditional,
    pub put_low: Write,

    pub audit: Read,
    pub put_audit: Write,

    pub topic: Read,
    /// Brings a compare-and-set that was cut off to its end.
    pub settled_topic: Read,
    pub claim_topic: Conditional,

    pub sessions: Read,
    pub sessions_of: Read,
    pub put_session: Write,
    pub remove_session: Write,
    pub next_event: Read,
    pub put_next_event: Write,
}

/// What a head is read by.
const HEAD: &str = "SELECT revision, sequence, writer, object, before, time_ms, applied FROM registry_heads \
     WHERE kind = ? AND tenant = ? AND name = ?";

/// What a topic's claim is read by.
const TOPIC: &str = "SELECT claim FROM registry_topics WHERE topic = ?";

impl Statements {
    pub async fn prepare(store: &Store) -> Result<Self, Failure> {
        let read = async |cql: &str| store.prepare_read(cql).await;
        let write = async |cql: &str| store.prepare_write(cql).await;
        let conditional = async |cql: &str| store.prepare_conditional(cql).await;
        Ok(Self {
            head: read(HEAD).await?,
            settled_head: store.prepare_settling_read(HEAD).await?,
            decide: conditional(
                "UPDATE registry_heads USING TTL ? \
                 SET revision = ?, sequence = ?, writer = ?, object = ?, before = ?, time_ms = ? \
                 WHERE kind = ? AND tenant = ? AND name = ? IF sequence = ?",
            )
            .await?,
            restamp: conditional(
                "UPDATE registry_heads USING TTL ? SET sequence = ? \
                 WHERE kind = ? AND tenant = ? AND name = ? IF sequence = ?",
            )
            .await?,
            applied: write(
                "UPDATE registry_heads USING TTL ? SET applied = ? WHERE kind = ? AND tenant = ? AND name = ?",
            )
            .await?,

            page: read(
                "SELECT name, revision, object FROM registry_objects \
                 WHERE kind = ? AND tenant = ? AND shard = ? AND name > ? LIMIT ?",
            )
            .await?,
            list: write(
                "INSERT INTO registry_objects (kind, tenant, shard, name, revision, object) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .await?,
            unlist: write("DELETE FROM registry_objects WHERE kind = ? AND tenant = ? AND shard = ? AND name = ?")
                .await?,

            by_digest: read("SELECT tenant, name FROM registry_digests WHERE digest = ?").await?,
            put_digest: write("INSERT INTO registry_digests (digest, tenant, name) VALUES (?, ?, ?)").await?,
            remove_digest: write("DELETE FROM registry_digests WHERE digest = ?").await?,
            credentials: read("SELECT name FROM registry_credentials WHERE tenant = ? AND device = ?").await?,
            had_credentials: read("SELECT had FROM registry_credentials WHERE tenant = ? AND device = ? LIMIT 1")
                .await?,
            put_credential: write(
                "INSERT INTO registry_credentials (tenant, device, name, had) VALUES (?, ?, ?, true)",
            )
            .await?,
            remove_credential: write("DELETE FROM registry_credentials WHERE tenant = ? AND device = ? AND name = ?")
                .await?,

            outbox: read("SELECT sequence, kind, tenant, name, change FROM registry_outbox WHERE minute = ? LIMIT ?")
                .await?,
            put_outbox: write(
                "INSERT INTO registry_outbox (minute, sequence, kind, tenant, name, change) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .await?,
            remove_outbox: write(
                "DELETE FROM registry_outbox \
                 WHERE minute = ? AND sequence = ? AND kind = ? AND tenant = ? AND name = ?",
            )
            .await?,
            relay: read("SELECT holder, low FROM registry_relay WHERE id = 0").await?,
            claim: conditional("UPDATE registry_relay USING TTL ? SET holder = ? WHERE id = 0 IF holder = ?").await?,
            put_low: write("UPDATE registry_relay SET low = ? WHERE id = 0").await?,

            audit: read(
                "SELECT entry FROM registry_audit \
                 WHERE tenant = ? AND day = ? AND (time_ms, revision, object) < (?, ?, ?) LIMIT ?",
            )
            .await?,
            put_audit: write(
                "INSERT INTO registry_audit (tenant, day, time_ms, revision, object, entry) \
                 VALUES (?, ?, ?, ?, ?, ?) USING TTL ?",
            )
            .await?,

            topic: read(TOPIC).await?,
            settled_topic: store.prepare_settling_read(TOPIC).await?,
            claim_topic: conditional("UPDATE registry_topics SET claim = ? WHERE topic = ? IF claim = ?").await?,

            sessions: read(
                "SELECT tenant, device, client, session FROM registry_presence WHERE partition = ? AND shard = ?",
            )
            .await?,
            sessions_of: read(
                "SELECT tenant, device, client, session FROM registry_presence \
                 WHERE partition = ? AND shard = ? AND tenant = ? AND device = ?",
            )
            .await?,
            put_session: write(
                "INSERT INTO registry_presence (partition, shard, tenant, device, client, session) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .await?,
            remove_session: write(
                "DELETE FROM registry_presence \
                 WHERE partition = ? AND shard = ? AND tenant = ? AND device = ? AND client = ?",
            )
            .await?,
            next_event: read("SELECT next FROM registry_presence_next WHERE partition = ?").await?,
            put_next_event: write("INSERT INTO registry_presence_next (partition, next) VALUES (?, ?)").await?,
        })
    }
}
