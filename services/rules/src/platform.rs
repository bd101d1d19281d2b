//! Requests to other services of the platform, and what their answers come to.

use std::time::Duration;

use drover_host::grpc::Client;
use drover_proto::from_status;
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::ErrorCode;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tonic::{Response, Status};

use crate::domain::Verdict;

/// Longest wait for another service of the platform.
pub const SERVICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Has the ingress publish a message.
pub async fn publish(ingress: &IngressClient<Client>, request: PublishRequest) -> Verdict {
    let mut ingress = ingress.clone();
    told("ingress", timeout(SERVICE_TIMEOUT, ingress.publish(request)).await)
}

/// What the answer of a service comes to.
pub fn told<T>(service: &str, answer: Result<Result<Response<T>, Status>, Elapsed>) -> Verdict {
    let error = match answer {
        Ok(Ok(_)) => return Verdict::Done,
        Ok(Err(status)) => from_status(&status),
        Err(_) => return Verdict::Away(format!("{service} does not answer")),
    };
    match error.code {
        ErrorCode::Cancelled
        | ErrorCode::DeadlineExceeded
        | ErrorCode::Unavailable
        // Of who asks, not of what is asked: a wrong token.
        | ErrorCode::Unauthenticated => Verdict::Away(error.message),
        ErrorCode::Unknown | ErrorCode::ResourceExhausted | ErrorCode::Aborted | ErrorCode::Internal => {
            Verdict::Later(error.message)
        }
        ErrorCode::InvalidArgument
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::PermissionDenied
        | ErrorCode::FailedPrecondition
        | ErrorCode::OutOfRange
        // What nobody here serves, shadows for example.
        | ErrorCode::Unimplemented
        | ErrorCode::DataLoss => Verdict::Refused(error.message),
    }
}
