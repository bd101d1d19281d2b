//! Commands to the ingress by gRPC: whichever node answers logs the message and routes it like a device's own.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::from_status;
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::ErrorCode;
use drover_types::command::command_request_topic;
use tonic::Status;

use crate::domain::PLATFORM;
use crate::ports::{CommandRequest, CommandSender, Unsent};

/// The service that publishes.
const INGRESS: &str = "ingress";
/// Longest one call may take before it is tried again.
const DEADLINE: Duration = Duration::from_secs(5);
/// A session keeps what it is at QoS 1.
const QOS: u32 = 1;

/// The ingress of a network.
pub struct Publisher(IngressClient<grpc::Client>);

impl Publisher {
    /// Connects when it is first needed.
    pub fn new(network: &Network) -> Self {
        Self(IngressClient::new(network.client(INGRESS)))
    }
}

#[async_trait]
impl CommandSender for Publisher {
    async fn send(&self, request: &CommandRequest) -> Result<(), Unsent> {
        let CommandRequest { device, id, payload, hops } = request;
        let publish = PublishRequest {
            id: id.0.to_vec(),
            tenant: device.tenant.to_string(),
            device: device.device.to_string(),
            client: PLATFORM.to_owned(),
            topic: command_request_topic(&device.device, *id).to_string(),
            payload: payload.to_vec(),
            qos: QOS,
            hops: *hops,
            traceparent: String::new(),
        };
        let mut ingress = self.0.clone();
        match tokio::time::timeout(DEADLINE, ingress.publish(publish)).await {
            Ok(answer) => answer.map(drop).map_err(|status| unsent(&status)),
            Err(_) => Err(Unsent::Away { reason: format!("no answer within {DEADLINE:?}") }),
        }
    }
}

/// Whether it is worth another try.
fn unsent(status: &Status) -> Unsent {
    let error = from_status(status);
    let reason = error.message;
    match error.code {
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::PermissionDenied
        | ErrorCode::FailedPrecondition
        | ErrorCode::OutOfRange
        | ErrorCode::Unimplemented
        | ErrorCode::DataLoss => Unsent::Refused { reason },
        ErrorCode::Cancelled
        | ErrorCode::Unknown
        | ErrorCode::DeadlineExceeded
        | ErrorCode::ResourceExhausted
        | ErrorCode::Aborted
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        | ErrorCode::Unauthenticated => Unsent::Away { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_command_is_not_tried_again() {
        assert!(matches!(unsent(&Status::invalid_argument("too large")), Unsent::Refused { .. }));
        assert!(matches!(unsent(&Status::unavailable("starting")), Unsent::Away { .. }));
    }
}
