//! Rows of rules: kept as a message of their device, and as points whose fields have the table's name in front.

use bytes::Bytes;
use drover_types::{ApiError, DeviceKey, Qos};

use super::batch::TIME_MS_MAX;
use super::fields::fields;
use crate::series::{Entry, Field, Message, Place, TABLES_TOPIC};

/// Longest name of a table, in bytes.
const TABLE_BYTES_MAX: usize = 64;

/// What is to be kept of a row, JSON. Stored again under the same place it is kept once.
pub fn entry(device: DeviceKey, table: &str, at: Place, row: Bytes) -> Result<Entry, ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if table.is_empty() || table.len() > TABLE_BYTES_MAX || !table.chars().all(legal) {
        let message = format!("a table's name has 1 to {TABLE_BYTES_MAX} of A-Z, a-z, 0-9 and _ -");
        return Err(ApiError::invalid("table", message).over(TABLE_BYTES_MAX, table));
    }
    if at.time_ms > TIME_MS_MAX {
        return Err(ApiError::invalid("time_ms", "is beyond the year 9999").over(TIME_MS_MAX, at.time_ms));
    }
    let found = fields(&row);
    if found.opaque {
        return Err(ApiError::invalid("row", "is no JSON"));
    }
    // A name that is too long with the table's in front is in the message only, as it is with those of devices.
    let values = found.values.into_iter().filter_map(|(field, value)| {
        let field = Field::new(format!("{table}.{field}")).ok()?;
        Some((field, value))
    });
    let values = values.collect();
    let topic = format!("{TABLES_TOPIC}{table}");
    let message = Message { at, topic, qos: Qos::AtLeastOnce, payload: row, of_rule: true };
    Ok(Entry { device, message, values })
}

#[cfg(test)]
mod tests {
    use drover_types::{DeviceId, RecordId, TenantId};

    use super::*;
    use crate::series::Value;

    fn kept(table: &str, time_ms: u64, row: &'static str) -> Result<Entry, ApiError> {
        let tenant = TenantId::new("home").expect("a tenant");
        let device = DeviceKey { tenant, device: DeviceId::new("d").expect("a device") };
        entry(device, table, Place { time_ms, id: RecordId([1; 16]) }, row.into())
    }

    #[test]
    fn a_row_is_a_message_and_points_of_its_table() {
        let entry = kept("hot", 7, r#"{"t": 31.5, "room": {"name": "hall"}}"#).expect("a row");
        assert_eq!((entry.message.topic.as_str(), entry.message.at.time_ms), ("$tables/hot", 7));
        assert!(!entry.message.is_own(), "no device has sent it");
        let values: Vec<(&str, &Value)> = entry.values.iter().map(|(field, value)| (field.as_str(), value)).collect();
        assert_eq!(values, [("hot.t", &Value::Number(31.5)), ("hot.room.name", &Value::Text("hall".to_owned()))]);
    }

    #[test]
    fn what_is_no_row_is_refused_by_its_field() {
        for (table, time_ms, row, field) in [
            ("", 7, "{}", "table"),
            ("a/b", 7, "{}", "table"),
            ("hot", TIME_MS_MAX + 1, "{}", "time_ms"),
            ("hot", 7, "{", "row"),
        ] {
            assert_eq!(kept(table, time_ms, row).expect_err("refused").field.as_deref(), Some(field));
        }
        assert!(kept(&"a".repeat(64), 7, "{}").is_ok());
        assert!(kept(&"a".repeat(65), 7, "{}").is_err());
    }
}
