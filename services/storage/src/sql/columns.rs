//! Rows of the store as columns.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int16Builder, RecordBatch, StringBuilder,
    TimestampMillisecondBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::error::Result;
use drover_types::DeviceId;

use crate::series::{Message, Point, Value};

/// How SQL's own `now()` tells its times, so that both compare as they are.
const UTC: &str = "+00:00";

/// The table `points`: one row a scalar field of a message.
pub static POINTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        time(),
        Field::new("device", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("field", DataType::Utf8, false),
        Field::new("double", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("bool", DataType::Boolean, true),
    ]))
});

/// The table `telemetry`: one row a message.
pub static TELEMETRY: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        time(),
        Field::new("device", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("qos", DataType::Int16, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("payload", DataType::Binary, false),
        Field::new("payload_text", DataType::Utf8, true),
    ]))
});

/// When it came to the ingress.
fn time() -> Field {
    Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())), false)
}

fn times() -> TimestampMillisecondBuilder {
    TimestampMillisecondBuilder::new().with_timezone(UTC)
}

/// Points of one device.
pub fn points(device: &DeviceId, rows: &[Point]) -> Result<RecordBatch> {
    let (mut time, mut devices, mut topic, mut field) =
        (times(), StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut double, mut text, mut boolean) = (Float64Builder::new(), StringBuilder::new(), BooleanBuilder::new());
    for point in rows {
        time.append_value(point.at.time_ms.cast_signed());
        devices.append_value(device.as_str());
        topic.append_value(&point.topic);
        field.append_value(point.field.as_str());
        let (number, words, truth) = match &point.value {
            Value::Number(number) => (Some(*number), None, None),
            Value::Text(text) => (None, Some(text), None),
            Value::Boolean(truth) => (None, None, Some(*truth)),
        };
        double.append_option(number);
        text.append_option(words);
        boolean.append_option(truth);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(time.finish()),
        Arc::new(devices.finish()),
        Arc::new(topic.finish()),
        Arc::new(field.finish()),
        Arc::new(double.finish()),
        Arc::new(text.finish()),
        Arc::new(boolean.finish()),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&POINTS), columns)?)
}

/// Messages of one device.
pub fn messages(device: &DeviceId, rows: &[Message]) -> Result<RecordBatch> {
    let (mut time, mut devices, mut topic) = (times(), StringBuilder::new(), StringBuilder::new());
    let (mut qos, mut id) = (Int16Builder::new(), StringBuilder::new());
    let (mut payload, mut text) = (BinaryBuilder::new(), StringBuilder::new());
    for message in rows {
        time.append_value(message.at.time_ms.cast_signed());
        devices.append_value(device.as_str());
        topic.append_value(&message.topic);
        qos.append_value(i16::from(u8::from(message.qos)));
        id.append_value(message.at.id.to_string());
        payload.append_value(&message.payload);
        text.append_option(str::from_utf8(&message.payload).ok());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(time.finish()),
        Arc::new(devices.finish()),
        Arc::new(topic.finish()),
        Arc::new(qos.finish()),
        Arc::new(id.finish()),
        Arc::new(payload.finish()),
        Arc::new(text.finish()),
    ];
    Ok(RecordBatch::try_new(Arc::clone(&TELEMETRY), columns)?)
}
