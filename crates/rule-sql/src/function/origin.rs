//! Functions about the message itself: where it comes from, and what is looked up for it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Call;
use crate::error::EvalError;
use crate::evaluate::{Answer, undefined};
use crate::message::{LookupError, Lookups, PayloadFormat};
use crate::number::Number;
use crate::value::{Held, Value};

/// The version of the language that rules are written in.
const SQL_VERSION: &str = "2016-03-23";
/// Bits of a double's fraction: as many random ones make a number in [0, 1).
const FRACTION_BITS: u32 = 53;

fn text<'m>(text: &'m str) -> Answer<'m> {
    Ok(Held::Made(Value::Text(Cow::Borrowed(text))))
}

fn known<'m>(known: Option<&'m str>) -> Answer<'m> {
    known.map_or(undefined(), text)
}

/// `topic()`: the whole topic; `topic(n)`: its n-th level, from 1.
pub(super) fn topic<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let topic = call.message.topic_of_device();
    let Some(level) = call.arguments.first() else {
        return text(topic);
    };
    let level = level.to_int().and_then(|n| usize::try_from(n).ok());
    known(level.and_then(|n| n.checked_sub(1)).and_then(|n| topic.split('/').nth(n)))
}

/// `clientid()`: the MQTT client id, or `n/a` for a message that came another way.
pub(super) fn client_id<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    text(call.message.client())
}

/// `timestamp()`: milliseconds since the Unix epoch.
pub(super) fn timestamp<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    Ok(Held::Made(Value::Number(Number::Int(call.message.timestamp_ms.into()))))
}

pub(super) fn principal<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    known(call.message.origin.principal)
}

pub(super) fn source_ip<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    known(call.message.origin.source_ip)
}

pub(super) fn account_id<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    known(call.message.origin.account)
}

pub(super) fn sql_version<'m>(_: &Call<'_, 'm, '_>) -> Answer<'m> {
    text(SQL_VERSION)
}

/// `traceid()`: the message's own id.
pub(super) fn trace_id<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    Ok(Held::Made(uuid(call.message.origin.id).into()))
}

/// `newuuid()`: a random UUID (RFC 9562, version 4).
pub(super) fn new_uuid<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&call.message.draw()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Held::Made(uuid(bytes).into()))
}

fn uuid(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// `rand()`: evenly from [0, 1).
pub(super) fn rand<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&call.message.draw()[..8]);
    let fraction = (u64::from_be_bytes(bytes) >> (u64::BITS - FRACTION_BITS)) as f64;
    Ok(Held::Made(Number::from_f64(fraction / (1u64 << FRACTION_BITS) as f64).into()))
}

/// `get_mqtt_property(name)`: a property of the PUBLISH.
pub(super) fn mqtt_property<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let properties = call.message.origin.properties;
    let Some(name) = call.arguments[0].to_text() else { return undefined() };
    match &*name {
        "content_type" => known(properties.content_type),
        "response_topic" => known(properties.response_topic),
        "format_indicator" => known(properties.payload_format.map(|format| match format {
            PayloadFormat::Unspecified => "UNSPECIFIED_BYTES",
            PayloadFormat::Utf8 => "UTF8_DATA",
        })),
        "correlation_data" => Ok(Held::Made(properties.correlation_data.map(|data| STANDARD.encode(data)).into())),
        _ => undefined(),
    }
}

/// `get_user_properties()`: all as an array of objects of one member; with a key the array of its values.
pub(super) fn user_properties<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let user = call.message.origin.properties.user;
    let Some(key) = call.arguments.first() else {
        let object = |(name, value): &'m (String, String)| {
            Value::Object(vec![(Cow::Borrowed(name.as_str()), Value::Text(Cow::Borrowed(value)))])
        };
        return Ok(Held::Made(Value::Array(user.iter().map(object).collect())));
    };
    let Some(key) = key.to_text() else { return undefined() };
    let of_key = user.iter().filter(|(name, _)| *name == key);
    let values: Vec<_> = of_key.map(|(_, value)| Value::Text(Cow::Borrowed(value.as_str()))).collect();
    if values.is_empty() { undefined() } else { Ok(Held::Made(Value::Array(values))) }
}

/// `get_thing_shadow(thing, [shadow,] role)`: a shadow's document. The role is another cloud's and not looked at.
pub(super) fn thing_shadow<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    const NAME: &str = "get_thing_shadow";
    let Some(thing) = call.arguments[0].to_text() else { return undefined() };
    let shadow = match call.arguments {
        [_, shadow, _] => match shadow.to_text() {
            Some(shadow) => Some(shadow),
            None => return undefined(),
        },
        _ => None,
    };
    looked_up(call, NAME, |lookups| lookups.shadow(&thing, shadow.as_deref()))
}

/// `device()`: the registry's entry of the device that sent the message.
pub(super) fn device<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    looked_up(call, "device", |lookups| lookups.device())
}

fn looked_up<'m>(
    call: &Call<'_, 'm, '_>,
    function: &'static str,
    look: impl Fn(&dyn Lookups) -> Result<Option<Value<'static>>, LookupError>,
) -> Answer<'m> {
    let failed = |reason: String| EvalError::Lookup { function, reason };
    let lookups = call.message.origin.lookups.ok_or_else(|| failed("cannot be looked up here".to_owned()))?;
    let found = look(lookups).map_err(|error| failed(error.reason))?;
    Ok(Held::Made(found.unwrap_or(Value::Undefined)))
}
