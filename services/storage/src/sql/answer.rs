//! Rows of an answer as JSON objects.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::WriterBuilder;
use datafusion::arrow::json::writer::LineDelimited;
use drover_types::ApiError;

use super::errors::{exhausted, told};

/// Most rows of one answer.
pub const ROWS_MAX: usize = 10_000;
/// Bytes of an answer, and of one row of it; a gRPC message may have 4 MiB.
const BYTES_MAX: usize = 3 * 1024 * 1024;

/// What a question found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub columns: Vec<Column>,
    /// JSON objects, one a row, a member a column.
    pub rows: Vec<String>,
    /// There are more rows than an answer holds.
    pub truncated: bool,
    bytes: usize,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As PostgreSQL calls it.
    pub kind: String,
}

impl Answer {
    /// Without rows.
    pub fn of(schema: &SchemaRef) -> Self {
        let column = |field: &Arc<Field>| Column { name: field.name().clone(), kind: kind(field.data_type()) };
        Self { columns: schema.fields().iter().map(column).collect(), ..Self::default() }
    }

    /// Adds rows. False: there was no room for all, and no more are taken.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<bool, ApiError> {
        for at in 0..batch.num_rows() {
            let row = batch.slice(at, 1);
            refuse_large(texts(&row))?;
            let line = json_lines(&row).map_err(|error| told(error.into()))?;
            let line = line.trim_end();
            refuse_large(line.len())?;
            if self.rows.len() >= ROWS_MAX || self.bytes + line.len() > BYTES_MAX {
                self.truncated = true;
                return Ok(false);
            }
            self.bytes += line.len();
            self.rows.push(line.to_owned());
        }
        Ok(true)
    }
}

/// Refuses a row that is no part of any answer.
fn refuse_large(bytes: usize) -> Result<(), ApiError> {
    if bytes <= BYTES_MAX {
        return Ok(());
    }
    let message = format!("a row has {bytes} bytes, limit is {BYTES_MAX}: ask for less of it");
    Err(exhausted(message, BYTES_MAX, bytes))
}

/// Bytes of the texts of one row, before any of it is written.
fn texts(row: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(0).len(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(0).len(),
        DataType::Utf8View => column.as_string_view().value(0).len(),
        DataType::Binary => column.as_binary::<i32>().value(0).len(),
        _ => 0,
    };
    row.columns().iter().map(bytes).sum()
}

/// One object a line; what is absent is `null`, bytes are base64.
fn json_lines(batch: &RecordBatch) -> Result<String, ArrowError> {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(readable).collect::<Result<_, _>>()?;
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(&columns);
    let fields: Vec<Field> =
        fields.map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    String::from_utf8(writer.into_inner()).map_err(|e| ArrowError::JsonError(e.to_string()))
}

/// Bytes as base64, all else as it is.
fn readable(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !matches!(column.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        return Ok(Arc::clone(column));
    }
    let bytes = cast(column, &DataType::Binary)?;
    let texts = bytes.as_binary::<i32>().iter().map(|bytes| bytes.map(|bytes| BASE64_STANDARD.encode(bytes)));
    Ok(Arc::new(texts.collect::<StringArray>()))
}

/// What PostgreSQL calls a type; the engine's name where it has none.
fn kind(of: &DataType) -> String {
    let name = match of {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        other => return other.to_string(),
    };
    name.to_owned()
}
