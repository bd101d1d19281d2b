//! The registry's tables, and how large a partition becomes. Heads, digests and topics: one row. Credentials of a device:
//! 16 rows. Lists of a tenant: devices and credentials are spread over 32 fixed shards (see rows.rs), so a shard grows
//! with the tenant, by 31,250 rows a million devices; at 300 bytes a device it passes the 100 MB that servers advise at ten
//! million devices of one tenant. The other kinds have one shard a tenant: policies, rules, functions and tokens are bounded
//! in number, as are certificate authorities, types and groups. Sessions: 16 fixed shards for each partition of the event log, so with 8 of those a shard passes
//! 100 MB at tens of millions of devices; `registry.partitions` is chosen before the first start. The outbox: a partition
//! holds one minute's changes, of which each process writes a bounded number of bytes (see minutes.rs). The audit trail: a
//! partition holds a tenant's changes of one day, some 200 bytes each; with half a million of them it passes 100 MB. It is
//! never read but for a page, and goes after 90 days.

use drover_scylla_kit::{Migration, Schema};

/// Grows at its end only.
pub const SCHEMA: Schema = Schema { name: "registry", migrations: &[OBJECTS, OUTBOX, PRESENCE, TOPICS, AUDIT] };

const OBJECTS: Migration = Migration {
    number: 1,
    name: "objects",
    statements: &[
        // One partition an object, decided by compare-and-set alone (but for `applied`, see heads.rs). `object` is
        // null where it is deleted; `before` is what it took the place of.
        "CREATE TABLE IF NOT EXISTS registry_heads (
            kind text, tenant text, name text,
            revision bigint, sequence bigint, writer blob, object blob, before blob, time_ms bigint, applied bigint,
            PRIMARY KEY ((kind, tenant, name)))",
        // What lists read.
        "CREATE TABLE IF NOT EXISTS registry_objects (
            kind text, tenant text, shard int, name text, revision bigint, object blob,
            PRIMARY KEY ((kind, tenant, shard), name))",
        "CREATE TABLE IF NOT EXISTS registry_digests (
            digest blob, tenant text, name text,
            PRIMARY KEY (digest))",
        // `had` stays when the last credential and the device itself are gone.
        "CREATE TABLE IF NOT EXISTS registry_credentials (
            tenant text, device text, name text, had boolean static,
            PRIMARY KEY ((tenant, device), name))",
    ],
};

const OUTBOX: Migration = Migration {
    number: 2,
    name: "outbox",
    statements: &[
        "CREATE TABLE IF NOT EXISTS registry_outbox (
            minute bigint, sequence bigint, kind text, tenant text, name text, change blob,
            PRIMARY KEY ((minute), sequence, kind, tenant, name))",
        // One row: who relays, and the minute from which rows may be waiting.
        "CREATE TABLE IF NOT EXISTS registry_relay (id int PRIMARY KEY, holder blob, low bigint)",
    ],
};

const PRESENCE: Migration = Migration {
    number: 3,
    name: "presence",
    statements: &[
        "CREATE TABLE IF NOT EXISTS registry_presence (
            partition int, shard int, tenant text, device text, client text, session text,
            PRIMARY KEY ((partition, shard), tenant, device, client))",
        "CREATE TABLE IF NOT EXISTS registry_presence_next (partition int PRIMARY KEY, next bigint)",
    ],
};

const TOPICS: Migration = Migration {
    number: 4,
    name: "topics",
    // Decided by compare-and-set alone; `claim` is null where the topic is nobody's.
    statements: &["CREATE TABLE IF NOT EXISTS registry_topics (topic text PRIMARY KEY, claim blob)"],
};

const AUDIT: Migration = Migration {
    number: 5,
    name: "audit",
    statements: &["CREATE TABLE IF NOT EXISTS registry_audit (
            tenant text, day bigint, time_ms bigint, revision bigint, object text, entry blob,
            PRIMARY KEY ((tenant, day), time_ms, revision, object))
            WITH CLUSTERING ORDER BY (time_ms DESC, revision DESC, object DESC)
            AND compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
                'compaction_window_size': 7}"],
};
