//! Calls to the services behind the gateway: a deadline on each, and their errors as ours.

use std::future::Future;
use std::time::Duration;

use drover_proto::from_status;
use drover_types::{ApiError, ErrorCode};
use tonic::{Code, Response, Status};

use super::unanswered::Unanswered;

/// The way to one service, by its generated client. Cheap to clone.
#[derive(Clone)]
pub struct Backend<C> {
    client: C,
    name: &'static str,
    deadline: Duration,
    unanswered: Unanswered,
}

impl<C: Clone> Backend<C> {
    /// Calls by `client`, which connects when first used; errors call the service `name`.
    pub fn new(name: &'static str, client: C, deadline: Duration) -> Self {
        Self { client, name, deadline, unanswered: Unanswered::default() }
    }

    /// Makes one call: `registry.call(async |mut client| client.get_rule(request).await)`.
    pub async fn call<T, F>(&self, make: impl FnOnce(C) -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        within(self.name, &self.unanswered, self.deadline, make(self.client.clone())).await
    }

    /// The same way with less patience.
    pub fn hurried(&self, deadline: Duration) -> Self {
        Self { deadline: self.deadline.min(deadline), ..self.clone() }
    }
}

/// Waits for `answer` of `service`, at most for `deadline`; `unanswered` is of that service.
pub async fn within<T>(
    service: &str,
    unanswered: &Unanswered,
    deadline: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(service, unanswered, &status)),
        Err(_) => {
            let message = format!("the {service} did not answer in time; whether it did its work is unknown");
            Err(ApiError::new(ErrorCode::DeadlineExceeded, message).over(format!("{} s", deadline.as_secs()), "more"))
        }
    }
}

/// A refusal of the service itself is handed on; one of the transport says that there was no answer.
fn refused(service: &str, unanswered: &Unanswered, status: &Status) -> ApiError {
    if status.code() == Code::Unavailable && status.details().is_empty() {
        unanswered.another(service, status);
        return ApiError::new(ErrorCode::Unavailable, format!("the {service} cannot be reached; try again"));
    }
    from_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_hangs_is_given_up_at_the_deadline() {
        let hang = std::future::pending::<Result<Response<()>, Status>>();
        let error =
            within("registry", &Unanswered::default(), Duration::from_secs(1), hang).await.expect_err("given up");
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_refusal_is_handed_on_whole_and_a_broken_transport_is_unavailable() {
        let refusal = ApiError::invalid("spec.sql", "expected FROM");
        let answer = std::future::ready(Err::<Response<()>, _>(drover_proto::to_status(&refusal)));
        assert_eq!(within("registry", &Unanswered::default(), Duration::from_secs(1), answer).await, Err(refusal));
        let answer = std::future::ready(Err::<Response<()>, _>(Status::unavailable("tcp connect error")));
        let error =
            within("registry", &Unanswered::default(), Duration::from_secs(1), answer).await.expect_err("unavailable");
        assert_eq!((error.code, error.message.contains("tcp")), (ErrorCode::Unavailable, false));
    }
}
