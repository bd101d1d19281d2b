//! The tables of the store in Cassandra or Scylla, and the statements over them.

use drover_scylla_kit::{Failure, Migration, Read, Schema, Store, Write};

use super::slices::Kind;

/// Points and messages lie in slices of time (`slices.rs`); the slices of a device are listed by day, and its days.
/// Lists bound themselves: a day has 28,800 of the shortest slices, and days grow by a row a day and width, without
/// retention 36,525 small rows in a hundred years. The newest points of a device, one a field, lie in one partition:
/// `storage.fields_per_device_max` bounds it, 1,000 rows of 5.5 KB at most by default. When a device was last heard is
/// one row, so that a list of devices reads no payloads. Devices are listed by tenant in [`DEVICE_SHARDS`] partitions, of
/// 62,500 small rows each where a tenant has a million. `storage_days`, `storage_points` and `storage_messages` have
/// what versions before slices have kept.
///
/// Times are milliseconds, and so are the timestamps of writes, which the window of compaction must know; those of
/// lists are the servers' own: of two listings the later one, with its time to live, stays.
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
        Migration {
            number: 3,
            name: "points and messages in slices",
            statements: &[
                "CREATE TABLE IF NOT EXISTS storage_slice_days (tenant text, device text, kind text, slice_ms bigint, \
                    day int, PRIMARY KEY ((tenant, device, kind, slice_ms), day))",
                "CREATE TABLE IF NOT EXISTS storage_slices (tenant text, device text, kind text, slice_ms bigint, \
                    day int, start_ms bigint, PRIMARY KEY ((tenant, device, kind, slice_ms, day), start_ms))",
                "CREATE TABLE IF NOT EXISTS storage_sliced_points (tenant text, device text, field text, \
                    slice_ms bigint, start_ms bigint, time_ms bigint, id blob, point blob, \
                    PRIMARY KEY ((tenant, device, field, slice_ms, start_ms), time_ms, id)) \
                    WITH compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
                    'compaction_window_size': 7, 'timestamp_resolution': 'MILLISECONDS'}",
                "CREATE TABLE IF NOT EXISTS storage_sliced_messages (tenant text, device text, slice_ms bigint, \
                    start_ms bigint, time_ms bigint, id blob, message blob, \
                    PRIMARY KEY ((tenant, device, slice_ms, start_ms), time_ms, id)) \
                    WITH compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
                    'compaction_window_size': 7, 'timestamp_resolution': 'MILLISECONDS'}",
            ],
        },
        Migration {
            number: 4,
            name: "lists of devices",
            statements: &["CREATE TABLE IF NOT EXISTS storage_devices (tenant text, shard int, device text, \
                PRIMARY KEY ((tenant, shard), device))"],
        },
    ],
};

/// Partitions that list the devices of a tenant. Never changes: devices would be listed twice.
pub const DEVICE_SHARDS: u8 = 16;

/// Milliseconds of a day.
pub const DAY_MS: u64 = 24 * 3600 * 1000;

/// Statements, prepared. A time to live of 0: for ever.
pub struct Statements {
    pub put_day: Write,
    pub put_slice: Write,
    pub put_device: Write,
    pub put_newest: Write,
    pub put_point: Write,
    pub put_message: Write,
    pub put_heard: Write,
    pub newest: Read,
    pub heard: Read,
    pub devices: Read,
    pub points: SpanReads,
    pub points_back: SpanReads,
    pub messages: SpanReads,
}

/// How a span of time is read: points in either direction, messages backwards.
pub struct SpanReads {
    pub days: Read,
    pub slices: Read,
    /// Of one slice.
    pub rows: Read,
    /// The days in which versions before slices have kept something.
    pub old_days: Read,
    /// Of one of those.
    pub old_rows: Read,
}

impl Statements {
    pub async fn prepare(store: &Store) -> Result<Self, Failure> {
        Ok(Self {
            put_day: store
                .prepare_write(
                    "INSERT INTO storage_slice_days (tenant, device, kind, slice_ms, day) \
                        VALUES (?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_slice: store
                .prepare_write(
                    "INSERT INTO storage_slices (tenant, device, kind, slice_ms, day, start_ms) \
                        VALUES (?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_device: store
                .prepare_write("INSERT INTO storage_devices (tenant, shard, device) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            put_newest: store
                .prepare_write(
                    "INSERT INTO storage_newest (tenant, device, field, newest) VALUES (?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_point: store
                .prepare_write(
                    "INSERT INTO storage_sliced_points (tenant, device, field, slice_ms, start_ms, time_ms, id, point) \
                        VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_message: store
                .prepare_write(
                    "INSERT INTO storage_sliced_messages (tenant, device, slice_ms, start_ms, time_ms, id, message) \
                        VALUES (?, ?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_heard: store
                .prepare_write("INSERT INTO storage_heard (tenant, device, heard_ms) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            newest: store
                .prepare_read(
                    "SELECT field, newest FROM storage_newest WHERE tenant = ? AND device = ? AND field >= ? LIMIT ?",
                )
                .await?,
            heard: store.prepare_read("SELECT heard_ms FROM storage_heard WHERE tenant = ? AND device = ?").await?,
            devices: store
                .prepare_read(
                    "SELECT device FROM storage_devices WHERE tenant = ? AND shard = ? AND device >= ? LIMIT ?",
                )
                .await?,
            points: SpanReads::prepare(store, Kind::Points, "ASC").await?,
            points_back: SpanReads::prepare(store, Kind::Points, "DESC").await?,
            messages: SpanReads::prepare(store, Kind::Messages, "DESC").await?,
        })
    }

    pub const fn of(&self, kind: Kind, backwards: bool) -> &SpanReads {
        match kind {
            Kind::Points if backwards => &self.points_back,
            Kind::Points => &self.points,
            Kind::Messages => &self.messages,
        }
    }
}

impl SpanReads {
    /// `order` is that of places.
    async fn prepare(store: &Store, kind: Kind, order: &str) -> Result<Self, Failure> {
        let (value, series) = match kind {
            Kind::Points => ("point", "tenant = ? AND device = ? AND field = ?"),
            Kind::Messages => ("message", "tenant = ? AND device = ?"),
        };
        let (kind, device) = (kind.name(), "tenant = ? AND device = ?");
        let span =
            format!("(time_ms, id) >= (?, ?) AND (time_ms, id) <= (?, ?) ORDER BY time_ms {order}, id {order} LIMIT ?");
        let days = format!("day >= ? AND day <= ? ORDER BY day {order}");
        let old_days = format!("SELECT day FROM storage_days WHERE {device} AND {days}");
        let old_rows = format!("SELECT time_ms, id, {value} FROM storage_{kind} WHERE {series} AND day = ? AND {span}");
        let days =
            format!("SELECT day FROM storage_slice_days WHERE {device} AND kind = ? AND slice_ms = ? AND {days}");
        let slices = format!(
            "SELECT start_ms FROM storage_slices WHERE {device} AND kind = ? AND slice_ms = ? AND day = ? \
                AND start_ms >= ? AND start_ms <= ? ORDER BY start_ms {order}"
        );
        let rows = format!(
            "SELECT time_ms, id, {value} FROM storage_sliced_{kind} WHERE {series} AND slice_ms = ? \
                AND start_ms = ? AND {span}"
        );
        Ok(Self {
            days: store.prepare_read(&days).await?,
            slices: store.prepare_read(&slices).await?,
            rows: store.prepare_read(&rows).await?,
            old_days: store.prepare_read(&old_days).await?,
            old_rows: store.prepare_read(&old_rows).await?,
        })
    }
}
