//! `GET /mqtt`: the connection becomes a WebSocket that MQTT is spoken over, and goes to the loops.

use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use drover_host::http::{Ends, Failure, OverTls, Secure, Upgrade};
use drover_types::ApiError;
use tungstenite::handshake::server::create_response_with_body;

use super::{DeviceSide, who};
use crate::server::loops::Upgraded;

/// Where MQTT is spoken over WebSocket.
pub const PATH: &str = "/mqtt";
/// The subprotocol's name [MQTT-6.0.0-3], [MQTT-6.0.0-4]; that of 3.1.1 as well.
const SUBPROTOCOL: &str = "mqtt";

/// Upgrades the connection. Who the client is, it says by its CONNECT.
pub async fn upgrade(
    State(side): State<Arc<DeviceSide>>,
    Extension(ends): Extension<Ends>,
    mut request: Request,
) -> Result<Response, Failure> {
    let answer = create_response_with_body(&request, Body::empty);
    let mut answer = answer.map_err(|error| ApiError::invalid("upgrade", error.to_string()))?;
    if !offers_mqtt(request.headers()) {
        let message = "MQTT over WebSocket is the subprotocol `mqtt`, which the client has to offer";
        return Err(ApiError::invalid("sec-websocket-protocol", message).into());
    }
    answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let anonymous = side.anonymous.at(ends.listener);
    if anonymous || who::certificate(request.extensions()).is_some() {
        who::refuse_cross_site(request.extensions(), request.headers())?;
    }
    let message = "the connection does not end with this request";
    let upgrade = Upgrade::take(request.extensions_mut()).ok_or_else(|| ApiError::invalid("upgrade", message))?;
    let over_tls = OverTls::is_in(request.extensions());
    tokio::spawn(async move {
        match upgraded(upgrade, over_tls).await {
            Ok(upgraded) => side.entrance.websocket(upgraded, ends.peer, anonymous),
            Err(error) => side.node.telemetry.transport_failed(ends.peer, &error),
        }
    });
    Ok(answer)
}

/// The connection as the loops take it.
async fn upgraded(upgrade: Upgrade, over_tls: bool) -> io::Result<Upgraded> {
    if over_tls {
        let (stream, early) = upgrade.stream::<Secure>().await?;
        let (socket, tls) = stream.into_inner();
        return Ok(Upgraded { socket: socket.into_std()?, tls: Some(Box::new(tls)), early });
    }
    let (socket, early) = upgrade.socket().await?;
    Ok(Upgraded { socket, tls: None, early })
}

/// Whether the client would speak MQTT.
fn offers_mqtt(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).any(|name| name.trim() == SUBPROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_may_be_one_of_several_subprotocols_in_several_headers() {
        let offers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            offers_mqtt(&headers)
        };
        assert!(offers(&["mqtt"]) && offers(&["soap, mqtt"]) && offers(&["soap", "mqtt"]));
        assert!(!offers(&[]) && !offers(&["mqttv3.1"]) && !offers(&["MQTT"]));
    }
}
