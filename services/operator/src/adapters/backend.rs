//! Calls to one service: a deadline on each, and their errors as ours.

use std::future::Future;
use std::time::Duration;

use drover_host::actor::acting;
use drover_proto::from_status;
use drover_types::{ApiError, ErrorCode};
use tonic::{Code, Response, Status};

/// Longest wait for one answer; a bulk write of 500 devices and a revocation at every ingress node are within it.
const DEADLINE: Duration = Duration::from_secs(20);
/// Who it is that asks, in the audit trail.
const ACTOR: &str = "operator";

/// The way to one service, by its generated client.
pub struct Backend<C> {
    client: C,
    name: &'static str,
}

impl<C: Clone> Backend<C> {
    /// Calls by `client`, which connects when first used; errors call the service `name`.
    pub fn new(name: &'static str, client: C) -> Self {
        Self { client, name }
    }

    /// Makes one call: `registry.call(async |mut client| client.get_rule(request).await)`.
    pub async fn call<T, F>(&self, make: impl FnOnce(C) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        match tokio::time::timeout(DEADLINE, acting(ACTOR, make(self.client.clone()))).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) if status.code() == Code::Unavailable && status.details().is_empty() => {
                let message = format!("the {} cannot be reached", self.name);
                Err(ApiError::new(ErrorCode::Unavailable, message))
            }
            Ok(Err(status)) => Err(from_status(&status)),
            Err(_) => {
                let message = format!("the {} has not answered within {} s", self.name, DEADLINE.as_secs());
                Err(ApiError::new(ErrorCode::DeadlineExceeded, message))
            }
        }
    }
}

/// What is there, or nothing if the service says that it is not.
pub fn unless_gone<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_or_is_away_is_called_by_its_name() {
        let backend = Backend::new("registry", ());
        let hang = |()| std::future::pending::<Result<Response<()>, Status>>();
        let error = backend.call(hang).await.expect_err("given up");
        assert_eq!((error.code, error.message.contains("registry")), (ErrorCode::DeadlineExceeded, true));
        let away = |()| std::future::ready(Err::<Response<()>, _>(Status::unavailable("tcp connect error")));
        let error = backend.call(away).await.expect_err("away");
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Unavailable, "the registry cannot be reached"));
    }

    #[tokio::test]
    async fn what_is_gone_is_nothing_and_any_other_refusal_is_handed_on() {
        let gone: Result<(), _> = Err(ApiError::new(ErrorCode::NotFound, "gone"));
        assert_eq!(unless_gone(gone), Ok(None));
        let refused: Result<(), _> = Err(ApiError::invalid("f", "bad"));
        assert_eq!(unless_gone(refused), Err(ApiError::invalid("f", "bad")));
    }
}
