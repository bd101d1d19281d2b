//! `POST /v1/functions/{name}`: a function makes messages of the body, which are published under the caller's policies.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use drover_host::http::{self, Failure};
use drover_types::{ApiError, Qos};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::DeviceSide;
use super::publish::traceparent;
use super::who::proof;
use crate::domain::foreign::{self, Made};
use crate::domain::identity::Identity;
use crate::domain::node::Node;
use crate::domain::post::{self, Post, Way, identify};
use crate::server::traced;

/// The messages are durable.
#[derive(Serialize)]
pub struct Published {
    /// Of the records, hexadecimal, in the order of the function's result.
    ids: Vec<String>,
}

/// Publishes what the function makes of the body, in its order. Nothing is published if one of the messages cannot be;
/// after `unavailable` some may have been.
pub async fn post(
    State(side): State<Arc<DeviceSide>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Published>, Failure> {
    let (head, body) = request.into_parts();
    let identity = identify(&side.node, proof(&head)?).await?;
    let Path(name) = name.map_err(|refused| ApiError::invalid("name", refused.body_text()))?;
    let limit = side.node.environment.limits.payload_bytes_max;
    let body = http::read(&head.headers, body, limit, side.patience).await?;
    let result = side.functions.call(&identity.tenant, &name, input(&body)?).await?;
    let (way, now_ms) = (Way::http(identity.device.as_str()), side.node.now().unix_ms);
    // The body's headers are not those of the messages, but for its trace.
    let traceparent = traceparent(&head.headers);
    let made = foreign::messages(result.as_deref(), &identity, limit, now_ms)?;
    check_devices(&side.node, &identity, &made).await?;
    let made = made.into_iter().map(|made| {
        let Made { device, topic, payload, time_ms } = made;
        let traceparent = traced::publish(&device, topic.as_str(), traceparent.clone());
        let topic = topic.as_str().to_owned();
        let post = Post { topic, payload, qos: Qos::AtLeastOnce, content_type: None, traceparent, name: None };
        post::message(&side.node, &identity, &device, &way, post, time_ms, now_ms)
    });
    let made: Vec<_> = made.collect::<Result<_, _>>()?;
    let mut ids = Vec::with_capacity(made.len());
    for message in made {
        let id = message.telemetry.id;
        post::in_time(&side.node, side.patience, side.node.publish_all(&[message], now_ms)).await?;
        ids.push(id.to_string());
    }
    Ok(Json(Published { ids }))
}

/// Refuses the first message for another device that the registry does not let anybody speak for: a disabled one.
async fn check_devices(node: &Node, caller: &Identity, made: &[Made]) -> Result<(), ApiError> {
    let devices = made.iter().map(|made| made.device.clone()).filter(|device| *device != caller.device);
    let identities = post::on_behalf(node, &caller.tenant, devices.collect()).await;
    for (i, made) in made.iter().enumerate() {
        if let Some(Err(error)) = identities.get(&made.device) {
            return Err(ApiError { field: Some(format!("result[{i}].device")), ..error.clone() });
        }
    }
    Ok(())
}

/// The argument of the function: a body that is JSON as such, any other text as a text.
fn input(body: &[u8]) -> Result<Box<RawValue>, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        ApiError::invalid("body", "is not UTF-8").over("UTF-8", format!("byte {}", error.valid_up_to()))
    })?;
    let json = RawValue::from_string(text.trim().to_owned());
    let quoted = || RawValue::from_string(Value::from(text).to_string()).expect("a text in quotes is JSON");
    Ok(json.unwrap_or_else(|_| quoted()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_or_a_text() {
        let of = |body: &[u8]| input(body).map(|input| input.get().to_owned());
        assert_eq!(of(b" {\"a\": 1}\n"), Ok("{\"a\": 1}".to_owned()));
        assert_eq!(of(b"a=1\n"), Ok("\"a=1\\n\"".to_owned()));
        assert_eq!(of(b""), Ok("\"\"".to_owned()));
        assert_eq!(of(&[0xff]).expect_err("refused").field.as_deref(), Some("body"));
    }
}
