//! The tables of the ingress in Cassandra or Scylla.

use drover_scylla_kit::{Migration, Schema};

/// Grows at its end only.
pub const SCHEMA: Schema = Schema {
    name: "ingress",
    migrations: &[
        Migration {
            number: 1,
            name: "owners",
            statements: &[
                "CREATE TABLE IF NOT EXISTS ingress_owners (tenant text, client text, node text, epoch bigint, \
            PRIMARY KEY ((tenant, client)))",
            ],
        },
        Migration {
            number: 2,
            name: "retained",
            statements: &[
                // A partition has at most what a tenant may retain. `kept` is one cell, and begins with time and id.
                "CREATE TABLE IF NOT EXISTS ingress_retained (
                    tenant text, level text, topic text, kept blob, bytes int, expires_ms bigint,
                    PRIMARY KEY ((tenant, level), topic))",
                // First levels of a tenant's topics: as many as topics at most, and those that were left within minutes.
                "CREATE TABLE IF NOT EXISTS ingress_retained_levels (tenant text, level text, PRIMARY KEY (tenant, level))",
            ],
        },
        Migration {
            number: 3,
            name: "sessions",
            statements: &[
                "CREATE TABLE IF NOT EXISTS ingress_sessions (
                    tenant text, client text, head blob, subscriptions blob, received blob,
                    PRIMARY KEY ((tenant, client)))",
                // Which sessions a node has written last, in slices, so that partitions stay small.
                "CREATE TABLE IF NOT EXISTS ingress_sessions_of_nodes (
                    node text, slice int, tenant text, client text, PRIMARY KEY ((node, slice), tenant, client))",
                // Buckets of inboxes: a row each, and in the other table a partition each.
                "CREATE TABLE IF NOT EXISTS ingress_inbox_buckets (
                    tenant text, client text, epoch bigint, bucket int,
                    PRIMARY KEY ((tenant, client), epoch, bucket))",
                "CREATE TABLE IF NOT EXISTS ingress_inbox (
                    tenant text, client text, epoch bigint, bucket int, number bigint, message blob,
                    PRIMARY KEY ((tenant, client, epoch, bucket), number))",
            ],
        },
        Migration {
            number: 4,
            name: "nodes",
            statements: &[
                // The nodes that have ever been there: one partition of a few rows.
                "CREATE TABLE IF NOT EXISTS ingress_nodes (list int, node text, PRIMARY KEY (list, node))",
            ],
        },
        Migration {
            number: 5,
            name: "levels_that_go",
            statements: &[
                // Whoever reads a list passes by what was deleted in an hour, not in ten days. A deletion that a replica has
                // missed by then lists an empty level, until the next sweep.
                "ALTER TABLE ingress_retained_levels WITH gc_grace_seconds = 3600",
            ],
        },
    ],
};
