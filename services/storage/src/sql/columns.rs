//! The columns of the tables over the store, and rows of the store as those of them that are asked for.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int16Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::error::Result;
use drover_types::DeviceId;

use crate::series::{Message, Place, Point, Value};

/// How SQL's own `now()` tells its times, so that both compare as they are.
const UTC: &str = "+00:00";
/// The column by which rows of one series, or messages of one device, are ordered.
pub const TIME: &str = "time";

/// The table `points`: one row a scalar field of a message.
pub static POINTS: LazyLock<Columns<Point>> = LazyLock::new(|| {
    Columns::new([
        Column::new("field", DataType::Utf8, |_, rows: &[Point]| {
            texts(rows.iter().map(|point| Some(point.field.as_str())))
        }),
        Column::new("double", DataType::Float64, |_, rows: &[Point]| {
            Arc::new(rows.iter().map(|point| number(&point.value)).collect::<Float64Array>())
        })
        .or_null(),
        Column::new("text", DataType::Utf8, |_, rows: &[Point]| texts(rows.iter().map(|point| text(&point.value))))
            .or_null(),
        Column::new("bool", DataType::Boolean, |_, rows: &[Point]| {
            Arc::new(rows.iter().map(|point| truth(&point.value)).collect::<BooleanArray>())
        })
        .or_null(),
    ])
});

/// The table `telemetry`: one row a message.
pub static TELEMETRY: LazyLock<Columns<Message>> = LazyLock::new(|| {
    Columns::new([
        Column::new("qos", DataType::Int16, |_, rows: &[Message]| {
            Arc::new(Int16Array::from_iter_values(rows.iter().map(|message| i16::from(u8::from(message.qos)))))
        }),
        Column::new("id", DataType::Utf8, |_, rows: &[Message]| {
            texts(rows.iter().map(|message| Some(message.at.id.to_string())))
        }),
        Column::new("payload", DataType::Binary, |_, rows: &[Message]| {
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|message| &message.payload)))
        }),
        Column::new("payload_text", DataType::Utf8, |_, rows: &[Message]| {
            texts(rows.iter().map(|message| str::from_utf8(&message.payload).ok()))
        })
        .or_null(),
    ])
});

/// The columns of a table over rows `R`.
pub struct Columns<R> {
    columns: Vec<Column<R>>,
    schema: SchemaRef,
}

/// A column: its name and type, and how it is made of rows of one device.
struct Column<R> {
    field: Field,
    values: fn(&DeviceId, &[R]) -> ArrayRef,
}

/// What rows of both tables have.
pub trait Row {
    fn at(&self) -> Place;
    fn topic(&self) -> &str;
}

impl Row for Point {
    fn at(&self) -> Place {
        self.at
    }

    fn topic(&self) -> &str {
        &self.topic
    }
}

impl Row for Message {
    fn at(&self) -> Place {
        self.at
    }

    fn topic(&self) -> &str {
        &self.topic
    }
}

impl<R> Column<R> {
    fn new(name: &str, kind: DataType, values: fn(&DeviceId, &[R]) -> ArrayRef) -> Self {
        Self { field: Field::new(name, kind, false), values }
    }

    fn or_null(self) -> Self {
        Self { field: self.field.with_nullable(true), ..self }
    }
}

impl<R: Row> Columns<R> {
    /// Those of both tables, and `own` ones behind them.
    fn new(own: [Column<R>; 4]) -> Self {
        let of_both = [
            // When it came to the ingress.
            Column::new(TIME, DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())), |_, rows: &[R]| {
                let times = rows.iter().map(|row| row.at().time_ms.cast_signed());
                Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone(UTC))
            }),
            Column::new("device", DataType::Utf8, |device, rows: &[R]| {
                texts(rows.iter().map(|_| Some(device.as_str())))
            }),
            Column::new("topic", DataType::Utf8, |_, rows: &[R]| texts(rows.iter().map(|row| Some(row.topic())))),
        ];
        let columns: Vec<_> = of_both.into_iter().chain(own).collect();
        let schema = Schema::new(columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>());
        Self { columns, schema: Arc::new(schema) }
    }
}

impl<R> Columns<R> {
    /// All columns, in the order of their numbers.
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows of one device: the columns with the numbers `asked`, whose schema is `schema`.
    pub fn batch(&self, device: &DeviceId, rows: &[R], asked: &[usize], schema: &SchemaRef) -> Result<RecordBatch> {
        let columns = asked.iter().map(|column| (self.columns[*column].values)(device, rows)).collect();
        // Rows may be counted only, and have no columns then.
        let counted = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &counted)?)
    }
}

fn texts(values: impl Iterator<Item = Option<impl AsRef<str>>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Text(_) | Value::Boolean(_) => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Number(_) | Value::Boolean(_) => None,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(truth) => Some(*truth),
        Value::Number(_) | Value::Text(_) => None,
    }
}
