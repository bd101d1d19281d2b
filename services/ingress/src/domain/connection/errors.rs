//! Faults in the one error shape of every interface: what a device is told at `$drover/errors/{device}`.

use drover_types::{ApiError, ErrorCode};

use super::Fault;
use crate::domain::identity::AuthenticateError;
use crate::domain::sessions::AttachError;

impl Fault {
    /// The fault as an error that names the field it is about, and the limit that was passed with its value.
    pub fn to_error(&self) -> ApiError {
        let error = ApiError::new(self.code(), self.to_string());
        let error = ApiError { field: self.field().map(str::to_owned), ..error };
        let more = "more".to_owned();
        let passed = match self {
            Fault::PayloadTooLarge { bytes, limit } | Fault::ClientIdTooLong { bytes, limit } => {
                Some((limit.to_string(), bytes.to_string()))
            }
            Fault::AliasOverLimit { alias, limit } => Some((limit.to_string(), alias.to_string())),
            Fault::TooManyFilters { limit } | Fault::Unreleased { limit } => Some((limit.to_string(), more)),
            Fault::ReceiveMaximum { limit } => Some((limit.to_string(), more)),
            Fault::OverQuota(over) => Some((over.limit.to_string(), more)),
            _ => None,
        };
        match passed {
            Some((limit, value)) => error.over(limit, value),
            None => error,
        }
    }

    /// What it is about, if that is a part of a packet.
    fn field(&self) -> Option<&'static str> {
        if self.is_about_a_filter() || matches!(self, Fault::SubscriptionWithdrawn { .. }) {
            return Some("filter");
        }
        let about_a_topic = matches!(self, Fault::Topic(_) | Fault::PublishDenied { .. } | Fault::NoShadows { .. });
        if about_a_topic || matches!(self, Fault::AliasOverLimit { .. } | Fault::AliasUnknown { .. }) {
            return Some("topic");
        }
        matches!(self, Fault::PayloadTooLarge { .. }).then_some("payload")
    }

    /// Its code in the closed list.
    fn code(&self) -> ErrorCode {
        match self {
            Fault::Malformed(_)
            | Fault::NotConnected { .. }
            | Fault::SecondConnect
            | Fault::Unexpected { .. }
            | Fault::AuthenticationMethod
            | Fault::Challenge
            | Fault::ClientIdMissing
            | Fault::ClientIdTooLong { .. }
            | Fault::Topic(_)
            | Fault::Filter(_)
            | Fault::AliasOverLimit { .. }
            | Fault::AliasUnknown { .. }
            | Fault::PayloadTooLarge { .. }
            | Fault::Answer { .. }
            | Fault::ExpiryFromZero => ErrorCode::InvalidArgument,
            Fault::NoConnectInTime | Fault::NoAnswerInTime | Fault::KeepAlive => ErrorCode::DeadlineExceeded,
            Fault::OverLimit
            | Fault::ConnectRate { .. }
            | Fault::OverQuota(_)
            | Fault::TooManyFilters { .. }
            | Fault::ReceiveMaximum { .. }
            | Fault::Unreleased { .. }
            | Fault::Session(AttachError::TooManySessions { .. } | AttachError::TooManyConnections { .. }) => {
                ErrorCode::ResourceExhausted
            }
            Fault::NoCredentials
            | Fault::NotAuthenticated
            | Fault::Expired
            | Fault::Authentication(AuthenticateError::Wrong { .. }) => ErrorCode::Unauthenticated,
            Fault::Authentication(AuthenticateError::Refused { .. })
            | Fault::Session(AttachError::Revoked)
            | Fault::ConnectDenied { .. }
            | Fault::PublishDenied { .. }
            | Fault::SubscribeDenied { .. }
            | Fault::FilterDenied { .. }
            | Fault::Revoked
            | Fault::ConnectWithdrawn { .. }
            | Fault::SubscriptionWithdrawn { .. } => ErrorCode::PermissionDenied,
            Fault::NoShadows { .. } => ErrorCode::Unimplemented,
            Fault::TakenOver | Fault::Session(AttachError::TakenOver) => ErrorCode::Aborted,
            Fault::Authentication(AuthenticateError::Unavailable { .. })
            | Fault::Session(AttachError::NoOwner { .. } | AttachError::NotRead { .. })
            | Fault::Drain
            | Fault::NotStored
            | Fault::DeclaredGone
            | Fault::NotKept => ErrorCode::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_its_field_its_limit_and_the_value() {
        let told = |fault: Fault| serde_json::to_string(&fault.to_error()).expect("plain data");
        assert_eq!(
            told(Fault::PayloadTooLarge { bytes: 17, limit: 16 }),
            r#"{"code":"invalid_argument","field":"payload","message":"payload has 17 bytes, limit is 16","limit":"16","value":"17"}"#
        );
        assert_eq!(
            told(Fault::PublishDenied { topic: "t".to_owned() }),
            r#"{"code":"permission_denied","field":"topic","message":"policy does not allow to publish to \"t\""}"#
        );
        assert_eq!(
            told(Fault::TooManyFilters { limit: 2 }),
            r#"{"code":"resource_exhausted","field":"filter","message":"client has 2 filters, which is the limit","limit":"2","value":"more"}"#
        );
    }
}
