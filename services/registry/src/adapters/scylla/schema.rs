//! The registry's tables. No partition grows without bound: objects and sessions are spread over shards, the outbox
//! over minutes.

use drover_scylla_kit::{Migration, Schema};

/// Grows at its end only.
pub const SCHEMA: Schema = Schema { name: "registry", migrations: &[OBJECTS, OUTBOX, PRESENCE] };

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
