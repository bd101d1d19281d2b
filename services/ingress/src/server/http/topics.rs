//! `POST /v1/topics/{topic}?qos=0|1`: the body is the message.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use drover_host::http::{self, Failure};
use drover_types::{ApiError, Qos};
use serde::{Deserialize, Serialize};

use super::DeviceSide;
use super::publish::{self, publish};
use super::who::proof;
use crate::domain::post::identify;

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// 1 where absent.
    qos: Option<u8>,
}

/// The message is durable.
#[derive(Serialize)]
pub struct Published {
    /// Of the record, hexadecimal.
    id: String,
}

impl Wanted {
    fn qos(&self) -> Result<Qos, ApiError> {
        match self.qos {
            None | Some(1) => Ok(Qos::AtLeastOnce),
            Some(0) => Ok(Qos::AtMostOnce),
            Some(qos) => Err(ApiError::invalid("qos", "qos is 0 or 1").over(1, qos)),
        }
    }
}

/// Publishes the body. 200 says that it is durable, whatever the QoS, which is that of its delivery.
pub async fn post(
    State(side): State<Arc<DeviceSide>>,
    topic: Result<Path<String>, PathRejection>,
    query: Result<Query<Wanted>, QueryRejection>,
    request: Request,
) -> Result<Json<Published>, Failure> {
    let (head, body) = request.into_parts();
    let identity = identify(&side.node, proof(&head)?).await?;
    let Path(topic) = topic.map_err(|refused| ApiError::invalid("topic", refused.body_text()))?;
    let Query(wanted) = query.map_err(|refused| ApiError::invalid("query", refused.body_text()))?;
    let limit = side.node.environment.limits.payload_bytes_max;
    let payload = http::read(&head.headers, body, limit, side.patience).await?;
    let kept = publish(&side, &identity, publish::post(&head.headers, topic, payload, wanted.qos()?)).await?;
    Ok(Json(Published { id: kept.id.to_string() }))
}
