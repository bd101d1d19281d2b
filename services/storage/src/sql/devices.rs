//! The table `devices`: what the registry knows, labels as columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use drover_types::{ApiError, TenantId};

use super::BATCH_ROWS;
use super::errors::{exhausted, told};
use crate::ports::{DeviceList, Registered};

/// Most devices that a question may join with; they are read as a whole.
const DEVICES_MAX: usize = 100_000;
/// Most bytes of the names, types and labels of all of them.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most different names of labels: each is a column.
const LABELS_MAX: usize = 256;
/// Columns that are there whatever the labels.
const OWN: [&str; 3] = ["device", "type", "enabled"];

/// All devices of a tenant. The error is the list's own, or `resource_exhausted` where they are too many.
pub async fn table(list: &dyn DeviceList, tenant: &TenantId) -> Result<MemTable, ApiError> {
    let (mut devices, mut token, mut bytes) = (Vec::new(), String::new(), 0);
    loop {
        let (page, next) = list.page(tenant, &token).await?;
        bytes += page.iter().map(Registered::bytes).sum::<usize>();
        devices.extend(page);
        if bytes > BYTES_MAX {
            let message = format!("the table devices has more than {BYTES_MAX} bytes, which is its limit");
            return Err(exhausted(message, BYTES_MAX, bytes));
        }
        if devices.len() > DEVICES_MAX {
            let message = format!("the table devices has more than {DEVICES_MAX} rows, which is its limit");
            return Err(exhausted(message, DEVICES_MAX, devices.len()));
        }
        if next.is_empty() {
            return rows(&devices);
        }
        token = next;
    }
}

fn rows(devices: &[Registered]) -> Result<MemTable, ApiError> {
    let labels: BTreeSet<&str> = devices.iter().flat_map(|device| device.labels.keys().map(String::as_str)).collect();
    if labels.len() > LABELS_MAX {
        let message =
            format!("the devices have {} different labels, limit of their table is {LABELS_MAX}", labels.len());
        return Err(exhausted(message, LABELS_MAX, labels.len()));
    }
    let names = devices.iter().map(|device| Some(device.name.as_str()));
    let types = devices.iter().map(|device| Some(device.device_type.as_str()).filter(|name| !name.is_empty()));
    let enabled: Vec<bool> = devices.iter().map(|device| device.enabled).collect();
    let mut columns: Vec<(String, DataType, ArrayRef)> = vec![
        (OWN[0].to_owned(), DataType::Utf8, Arc::new(names.collect::<StringArray>())),
        (OWN[1].to_owned(), DataType::Utf8, Arc::new(types.collect::<StringArray>())),
        (OWN[2].to_owned(), DataType::Boolean, Arc::new(BooleanArray::from(enabled))),
    ];
    for label in labels {
        // `label:type` where a label has the name of another column: no label has a colon in its name.
        let name = if OWN.contains(&label) { format!("label:{label}") } else { label.to_owned() };
        let values = devices.iter().map(|device| device.labels.get(label).map(String::as_str));
        columns.push((name, DataType::Utf8, Arc::new(values.collect::<StringArray>())));
    }
    let fields: Vec<Field> = columns.iter().map(|(name, kind, _)| Field::new(name, kind.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, _, column)| column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| told(error.into()))?;
    let parts = (0..batch.num_rows()).step_by(BATCH_ROWS);
    let parts = parts.map(|at| batch.slice(at, BATCH_ROWS.min(batch.num_rows() - at))).collect();
    MemTable::try_new(schema, vec![parts]).map_err(told)
}
