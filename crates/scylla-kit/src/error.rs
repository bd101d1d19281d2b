//! What can go wrong, and whether it may pass.

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError,
    NewSessionError, NextPageError, NextRowError, PagerExecutionError, PrepareError, RequestAttemptError,
    SchemaAgreementError, UseKeyspaceError,
};

/// Why a request was not answered. After `Unavailable` a write may or may not have happened, then or later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nodes that are needed are away, overloaded or slow; the same request may work later.
    #[error("cassandra is unavailable: {reason}")]
    Unavailable { reason: String },
    /// The request is not one that this server, this schema or this user allows; nothing happened.
    #[error("cassandra refuses the request: {reason}")]
    Refused { reason: String },
    /// An answer is not what this version reads.
    #[error("cassandra holds what cannot be read: {reason}")]
    Unreadable { reason: String },
}

/// Why a keyspace cannot be used. What [`OpenError::may_pass`] is worth waiting for; the rest needs somebody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("cassandra.{key} {reason}")]
    Options { key: &'static str, reason: String },
    #[error("cassandra at {hosts} does not accept cassandra.username {username:?} with its password: {reason}")]
    Credentials { hosts: String, username: String, reason: String },
    #[error("cassandra at {hosts} asks for a password: set cassandra.username and cassandra.password")]
    NoCredentials { hosts: String },
    #[error("cassandra at {hosts} cannot be reached: {reason}")]
    Unreachable { hosts: String, reason: String },
    #[error("{doing}: {failure}")]
    Failed { doing: String, failure: Failure },
    #[error(
        "keyspace {keyspace} holds version {found} of the {schema} schema, this drover knows up to {known}: run the newer drover, or choose another cassandra.keyspace"
    )]
    Newer { keyspace: String, schema: &'static str, found: u32, known: u32 },
    #[error(
        "keyspace {keyspace} was migrated by another text of {schema} migration {number} ({name}); it is not touched"
    )]
    Changed { keyspace: String, schema: &'static str, number: u32, name: String },
    #[error("another process has been migrating the {schema} schema of keyspace {keyspace} for {seconds} s")]
    Busy { keyspace: String, schema: &'static str, seconds: u64 },
}

impl OpenError {
    /// Whether waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            OpenError::Unreachable { .. } | OpenError::Busy { .. } => true,
            OpenError::Failed { failure, .. } => matches!(failure, Failure::Unavailable { .. }),
            OpenError::Options { .. }
            | OpenError::Credentials { .. }
            | OpenError::NoCredentials { .. }
            | OpenError::Newer { .. }
            | OpenError::Changed { .. } => false,
        }
    }

    /// Names what was being done when a request failed.
    pub(crate) fn while_doing(doing: impl Into<String>) -> impl FnOnce(Failure) -> Self {
        let doing = doing.into();
        move |failure| OpenError::Failed { doing, failure }
    }
}

impl Failure {
    pub(crate) fn unreadable(reason: impl ToString) -> Self {
        Failure::Unreadable { reason: reason.to_string() }
    }

    fn unavailable(reason: impl ToString) -> Self {
        Failure::Unavailable { reason: reason.to_string() }
    }

    fn refused(reason: impl ToString) -> Self {
        Failure::Refused { reason: reason.to_string() }
    }

    fn of_server(error: &DbError, message: &str) -> Self {
        let reason = if message.is_empty() { error.to_string() } else { one_line(message) };
        match error {
            DbError::SyntaxError
            | DbError::Invalid
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::AuthenticationError
            | DbError::Unauthorized
            | DbError::ConfigError
            | DbError::ProtocolError => Failure::refused(reason),
            // Among them timeouts, overload, lost nodes, and whatever a newer server may say: all may pass.
            _ => Failure::unavailable(format!("{reason} ({error})")),
        }
    }
}

/// Servers put stack traces behind line breaks.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

impl From<RequestAttemptError> for Failure {
    fn from(error: RequestAttemptError) -> Self {
        match &error {
            RequestAttemptError::DbError(error, message) => Self::of_server(error, message),
            RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
                Self::refused(error)
            }
            RequestAttemptError::CqlResultParseError(_)
            | RequestAttemptError::CqlErrorParseError(_)
            | RequestAttemptError::BodyExtensionsParseError(_)
            | RequestAttemptError::UnexpectedResponse(_) => Self::unreadable(error),
            _ => Self::unavailable(error),
        }
    }
}

impl From<ExecutionError> for Failure {
    fn from(error: ExecutionError) -> Self {
        match error {
            ExecutionError::LastAttemptError(error) => error.into(),
            ExecutionError::PrepareError(error) => error.into(),
            ExecutionError::UseKeyspaceError(error) => error.into(),
            ExecutionError::BadQuery(_) => Self::refused(error),
            _ => Self::unavailable(error),
        }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::AllAttemptsFailed { first_attempt } => first_attempt.into(),
            _ => Self::unavailable(error),
        }
    }
}

impl From<PagerExecutionError> for Failure {
    fn from(error: PagerExecutionError) -> Self {
        match error {
            PagerExecutionError::PrepareError(error) => error.into(),
            PagerExecutionError::NextPageError(error) => error.into(),
            PagerExecutionError::SerializationError(_) => Self::refused(error),
            _ => Self::unavailable(error),
        }
    }
}

impl From<NextPageError> for Failure {
    fn from(error: NextPageError) -> Self {
        match error {
            NextPageError::RequestFailure(scylla::errors::RequestError::LastAttemptError(error)) => error.into(),
            NextPageError::RequestFailure(_) => Self::unavailable(error),
            _ => Self::unreadable(error),
        }
    }
}

impl From<NextRowError> for Failure {
    fn from(error: NextRowError) -> Self {
        match error {
            NextRowError::NextPageError(error) => error.into(),
            _ => Self::unreadable(error),
        }
    }
}

impl From<UseKeyspaceError> for Failure {
    fn from(error: UseKeyspaceError) -> Self {
        match error {
            UseKeyspaceError::RequestError(error) => error.into(),
            UseKeyspaceError::BadKeyspaceName(_) | UseKeyspaceError::KeyspaceNameMismatch { .. } => {
                Self::refused(error)
            }
            _ => Self::unavailable(error),
        }
    }
}

impl From<SchemaAgreementError> for Failure {
    fn from(error: SchemaAgreementError) -> Self {
        Self::unavailable(error)
    }
}

/// Why there is no session: wrong credentials are told from a server that is away.
pub(crate) fn no_session(hosts: String, username: Option<&str>, error: &NewSessionError) -> OpenError {
    let kind = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
            last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
        })) => Some(&setup.error),
        _ => None,
    };
    let username = username.unwrap_or_default().to_owned();
    match kind {
        Some(ConnectionSetupRequestErrorKind::MissingAuthentication) => OpenError::NoCredentials { hosts },
        // A server that has just started, or has lost too many others, says that it cannot know: that may pass.
        Some(ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, message))
            if !message.contains("Unable to perform authentication") =>
        {
            OpenError::Credentials { hosts, username, reason: one_line(message) }
        }
        Some(_) | None => OpenError::Unreachable { hosts, reason: error.to_string() },
    }
}
