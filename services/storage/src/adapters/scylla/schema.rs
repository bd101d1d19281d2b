//! The tables of the store in Cassandra or Scylla, and the statements over them.

use drover_scylla_kit::{Failure, Migration, Read, Schema, Store, Write};

/// Points and messages lie in a partition a day, so that none grows for ever. The newest points of a device, one a field,
/// lie in one: `storage.fields_per_device_max` bounds it, 1,000 rows of 5.5 KB at most by default. The days of a
/// device lie in one that grows by a row a day: without retention, 36,525 small rows in a hundred years. When a device was
/// last heard is one row, so that a list of devices reads no payloads.
///
/// Times are milliseconds, and so are the timestamps of writes, which the window of compaction must know.
pub const SCHEMA: Schema = Schema {
    name: "storage",
    migrations: &[
        Migration {
            number: 1,
            name: "points and messages",
            statements: &[
                "CREATE TABLE IF NOT EXISTS storage_days (tenant text, device text, day int, \
                    PRIMARY KEY ((tenant, device), day))",
                "CREATE TABLE IF NOT EXISTS storage_newest (tenant text, device text, field text, newest blob, \
                    PRIMARY KEY ((tenant, device), field))",
                "CREATE TABLE IF NOT EXISTS storage_points (tenant text, device text, field text, day int, \
                    time_ms bigint, id blob, point blob, PRIMARY KEY ((tenant, device, field, day), time_ms, id)) \
                    WITH compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
                    'compaction_window_size': 7, 'timestamp_resolution': 'MILLISECONDS'}",
                "CREATE TABLE IF NOT EXISTS storage_messages (tenant text, device text, day int, time_ms bigint, \
                    id blob, message blob, PRIMARY KEY ((tenant, device, day), time_ms, id)) \
                    WITH compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
                    'compaction_window_size': 7, 'timestamp_resolution': 'MILLISECONDS'}",
            ],
        },
        Migration {
            number: 2,
            name: "when devices were last heard",
            statements: &["CREATE TABLE IF NOT EXISTS storage_heard (tenant text, device text, heard_ms bigint, \
                PRIMARY KEY ((tenant, device)))"],
        },
    ],
};

/// Milliseconds of one partition.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// Statements, prepared. A time to live of 0: for ever.
pub struct Statements {
    pub put_day: Write,
    pub put_newest: Write,
    pub put_point: Write,
    pub put_message: Write,
    pub put_heard: Write,
    pub days_up: Read,
    pub days_down: Read,
    pub newest: Read,
    pub points: Read,
    pub messages: Read,
    pub heard: Read,
}

impl Statements {
    pub async fn prepare(store: &Store) -> Result<Self, Failure> {
        let days =
            "SELECT day FROM storage_days WHERE tenant = ? AND device = ? AND day >= ? AND day <= ? ORDER BY day";
        Ok(Self {
            put_day: store
                .prepare_write("INSERT INTO storage_days (tenant, device, day) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            put_newest: store
                .prepare_write(
                    "INSERT INTO storage_newest (tenant, device, field, newest) VALUES (?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_point: store
                .prepare_write(
                    "INSERT INTO storage_points (tenant, device, field, day, time_ms, id, point) \
                        VALUES (?, ?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_message: store
                .prepare_write(
                    "INSERT INTO storage_messages (tenant, device, day, time_ms, id, message) \
                        VALUES (?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_heard: store
                .prepare_write("INSERT INTO storage_heard (tenant, device, heard_ms) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            days_up: store.prepare_read(&format!("{days} ASC")).await?,
            days_down: store.prepare_read(&format!("{days} DESC")).await?,
            newest: store
                .prepare_read(
                    "SELECT field, newest FROM storage_newest WHERE tenant = ? AND device = ? AND field >= ? LIMIT ?",
                )
                .await?,
            points: store
                .prepare_read(
                    "SELECT time_ms, id, point FROM storage_points WHERE tenant = ? AND device = ? AND field = ? \
                        AND day = ? AND (time_ms, id) >= (?, ?) AND (time_ms, id) < (?, ?) LIMIT ?",
                )
                .await?,
            messages: store
                .prepare_read(
                    "SELECT time_ms, id, message FROM storage_messages WHERE tenant = ? AND device = ? AND day = ? \
                        AND (time_ms, id) >= (?, ?) AND (time_ms, id) <= (?, ?) \
                        ORDER BY time_ms DESC, id DESC LIMIT ?",
                )
                .await?,
            heard: store.prepare_read("SELECT heard_ms FROM storage_heard WHERE tenant = ? AND device = ?").await?,
        })
    }
}
