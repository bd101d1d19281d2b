//! `GET /mqtt`: the connection becomes a WebSocket that MQTT is spoken over.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use drover_host::http::{Ends, Failure, is_cross_site};
use drover_types::{ApiError, ErrorCode};

use super::DeviceSide;
use crate::server::websocket;

/// Where MQTT is spoken over WebSocket.
pub const PATH: &str = "/mqtt";
/// The subprotocol's name [MQTT-6.0.0-3], [MQTT-6.0.0-4]; that of 3.1.1 as well.
const SUBPROTOCOL: &str = "mqtt";

/// Upgrades the connection. Who the client is, it says by its CONNECT.
pub async fn upgrade(
    State(side): State<Arc<DeviceSide>>,
    request: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let upgrade = request.map_err(|refused| ApiError::invalid("upgrade", refused.body_text()))?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let message = "MQTT over WebSocket is the subprotocol `mqtt`, which the client has to offer";
        return Err(ApiError::invalid("sec-websocket-protocol", message).into());
    }
    let anonymous = side.anonymous.at(ends.listener);
    // On loopback the listener looks at the origin of every request.
    let is_open = anonymous && !ends.listener.ip().is_loopback();
    if is_open && is_cross_site(&headers) {
        let message = "the header origin names another site than host; without credentials its pages stay outside";
        return Err(ApiError::new(ErrorCode::PermissionDenied, message).into());
    }
    let message_bytes_max = side.node.environment.limits.packet_bytes_max as usize; // with its header
    let (node, listeners) = (side.node.clone(), side.listeners.clone());
    let response = websocket::bounded(upgrade, message_bytes_max)
        .on_failed_upgrade(move |error: axum::Error| node.telemetry.transport_failed(ends.peer, &error))
        .on_upgrade(move |socket| async move { listeners.start_websocket(socket, ends.peer, anonymous) });
    Ok(response)
}
