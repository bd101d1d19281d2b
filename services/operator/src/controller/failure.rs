//! Why a turn has failed and has to be tried again.

use drover_types::ApiError;
use kube::runtime::finalizer;

/// Codes of answers by which the API server refuses what was sent, and not that it was sent now.
const REFUSALS: [u16; 4] = [400, 403, 413, 422];

/// What has to be waited for. A refusal is none: trying again would not help.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Service(ApiError),
    #[error("Kubernetes: {0}")]
    Kubernetes(Box<kube::Error>),
    #[error("the object has no name, or its finalizers cannot be addressed")]
    Object,
    #[error("this operator is too old to read the object")]
    Unreadable,
}

impl Failure {
    /// Whether the object is not there any more.
    pub fn is_gone(&self) -> bool {
        match self {
            Failure::Kubernetes(error) => matches!(&**error, kube::Error::Api(status) if status.code == 404),
            Failure::Service(_) | Failure::Object | Failure::Unreadable => false,
        }
    }

    /// Why the API server refuses what was sent, in its words; `None`: it may be taken in a while.
    pub fn refusal(&self) -> Option<&str> {
        let Failure::Kubernetes(error) = self else { return None };
        let kube::Error::Api(status) = &**error else { return None };
        REFUSALS.contains(&status.code).then_some(status.message.as_str())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Service(error)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

impl From<finalizer::Error<Failure>> for Failure {
    fn from(error: finalizer::Error<Failure>) -> Self {
        match error {
            finalizer::Error::ApplyFailed(failure) | finalizer::Error::CleanupFailed(failure) => failure,
            finalizer::Error::AddFinalizer(error) | finalizer::Error::RemoveFinalizer(error) => error.into(),
            finalizer::Error::UnnamedObject | finalizer::Error::InvalidFinalizer => Self::Object,
        }
    }
}
