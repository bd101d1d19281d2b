//! The conversation before a client is known: SaslHandshake, then SaslAuthenticate, with PLAIN (RFC 4616) as the only
//! mechanism.
//!
//! Protocol layer, sans-IO: requests in, what is to be done out. Whatever is refused ends the connection, so every
//! connection has one attempt.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse};
use kafka_protocol::protocol::StrBytes;

use crate::wire::api::{Request, Response};

/// The mechanism spoken.
const PLAIN: StrBytes = StrBytes::from_static_str("PLAIN");
/// What whoever is not let in is told: nothing of what there is.
const REFUSED: StrBytes = StrBytes::from_static_str("authentication failed: user name or password is wrong");
/// Longest user name and longest password, bytes; tokens are shorter.
const WORD_BYTES_MAX: usize = 1_024;

/// A user name and a password as somebody shows them. Without `Debug`: a password is never written anywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// Why the conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the client asked for another mechanism than PLAIN")]
    Mechanism,
    #[error("the client did not authenticate, but asked for {0}")]
    Unknown(&'static str),
    #[error("what the client showed is no user name and password")]
    Shape,
}

/// What to do with a request.
pub enum Step {
    /// Answer, and go on.
    Answer(Response),
    /// Find out whose this is, and tell by [`admitted`] or [`refused`].
    Verify(Login),
    /// Answer if there is an answer, and close.
    Refuse(Option<Response>, Refused),
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    #[default]
    Begun,
    /// SaslAuthenticate is to come.
    Handshaken,
    /// After a handshake of version 0: the client's words come without any header, and so does the answer.
    Bare,
}

impl Stage {
    /// Takes a request; `version` is its own.
    pub fn take(&mut self, version: i16, request: &Request) -> Step {
        match (*self, request) {
            (Self::Begun, Request::SaslHandshake(handshake)) => self.handshake(version, handshake),
            (Self::Handshaken, Request::SaslAuthenticate(asked)) => match login(&asked.auth_bytes) {
                Some(login) => Step::Verify(login),
                None => Step::Refuse(Some(refused()), Refused::Shape),
            },
            (Self::Handshaken | Self::Bare, Request::SaslHandshake(_)) => {
                Step::Refuse(Some(out_of_turn_handshake().into()), Refused::Unknown("another handshake"))
            }
            (Self::Begun | Self::Bare, Request::SaslAuthenticate(_)) => {
                Step::Refuse(Some(out_of_turn_authenticate().into()), Refused::Unknown("SaslAuthenticate first"))
            }
            (_, other) => Step::Refuse(None, Refused::Unknown(other.api().name())),
        }
    }

    fn handshake(&mut self, version: i16, asked: &SaslHandshakeRequest) -> Step {
        let response = SaslHandshakeResponse::default().with_mechanisms(vec![PLAIN]);
        if asked.mechanism != PLAIN {
            let code = ResponseError::UnsupportedSaslMechanism.code();
            return Step::Refuse(Some(response.with_error_code(code).into()), Refused::Mechanism);
        }
        *self = if version == 0 { Self::Bare } else { Self::Handshaken };
        Step::Answer(response.into())
    }
}

/// What PLAIN has the client say: whom it wants to act for (nobody else but itself), who it is, and its password, with
/// zeros between them.
pub fn login(said: &[u8]) -> Option<Login> {
    let text = std::str::from_utf8(said).ok()?;
    let mut words = text.split('\0');
    let (acting_for, user, password) = (words.next()?, words.next()?, words.next()?);
    let fits = |word: &str| !word.is_empty() && word.len() <= WORD_BYTES_MAX;
    let is_whole = words.next().is_none() && (acting_for.is_empty() || acting_for == user);
    (is_whole && fits(user) && fits(password)).then(|| Login { user: user.to_owned(), password: password.to_owned() })
}

/// The client is known. Its session has no end of its own: it is verified again as long as it lasts.
pub fn admitted() -> Response {
    SaslAuthenticateResponse::default().with_error_message(None).into()
}

/// The client is not let in. One answer for all causes.
pub fn refused() -> Response {
    let code = ResponseError::SaslAuthenticationFailed.code();
    SaslAuthenticateResponse::default().with_error_code(code).with_error_message(Some(REFUSED)).into()
}

/// A handshake that nobody asked for: the client is known already, or there are no passwords here.
pub fn out_of_turn_handshake() -> SaslHandshakeResponse {
    let code = ResponseError::IllegalSaslState.code();
    SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(vec![PLAIN])
}

/// As [`out_of_turn_handshake`], of a password.
pub fn out_of_turn_authenticate() -> SaslAuthenticateResponse {
    let code = ResponseError::IllegalSaslState.code();
    let why = StrBytes::from_static_str("SaslAuthenticate is out of turn");
    SaslAuthenticateResponse::default().with_error_code(code).with_error_message(Some(why))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::{MetadataRequest, SaslAuthenticateRequest};

    use super::*;

    fn handshake(mechanism: &'static str) -> Request {
        let mechanism = StrBytes::from_static_str(mechanism);
        Request::SaslHandshake(SaslHandshakeRequest::default().with_mechanism(mechanism))
    }

    fn authenticate(said: &'static [u8]) -> Request {
        Request::SaslAuthenticate(SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(said)))
    }

    /// The code a client is told when it is refused; `None`: it is only closed.
    fn code(step: Step) -> (Option<i16>, Refused) {
        match step {
            Step::Refuse(answer, why) => {
                let code = answer.map(|answer| match answer {
                    Response::SaslHandshake(response) => response.error_code,
                    Response::SaslAuthenticate(response) => response.error_code,
                    other => panic!("{other:?}"),
                });
                (code, why)
            }
            Step::Answer(answer) => panic!("{answer:?}"),
            Step::Verify(login) => panic!("user {}", login.user),
        }
    }

    #[test]
    fn a_handshake_leads_to_a_password_with_a_header_or_in_version_0_without() {
        for (version, stage) in [(0, Stage::Bare), (1, Stage::Handshaken)] {
            let mut client = Stage::default();
            let Step::Answer(Response::SaslHandshake(answer)) = client.take(version, &handshake("PLAIN")) else {
                panic!("no answer in version {version}")
            };
            assert_eq!((answer.error_code, answer.mechanisms, client), (0, vec![PLAIN], stage));
        }
        let mut client = Stage::Handshaken;
        let Step::Verify(login) = client.take(2, &authenticate(b"\0home\0s3cret")) else { panic!("nobody is asked") };
        assert_eq!((login.user.as_str(), login.password.as_str()), ("home", "s3cret"));
    }

    #[test]
    fn another_mechanism_is_told_which_there_is() {
        let mut client = Stage::default();
        let Step::Refuse(Some(Response::SaslHandshake(answer)), Refused::Mechanism) =
            client.take(1, &handshake("SCRAM-SHA-256"))
        else {
            panic!("not refused")
        };
        let expected = ResponseError::UnsupportedSaslMechanism.code();
        assert_eq!((answer.error_code, answer.mechanisms, client), (expected, vec![PLAIN], Stage::Begun));
    }

    #[test]
    fn whatever_is_out_of_turn_ends_the_conversation() {
        let illegal = Some(ResponseError::IllegalSaslState.code());
        let (mut begun, mut handshaken) = (Stage::Begun, Stage::Handshaken);
        assert_eq!(code(begun.take(2, &authenticate(b"\0u\0p"))).0, illegal);
        assert_eq!(code(handshaken.take(1, &handshake("PLAIN"))).0, illegal);
        let metadata = Request::Metadata(MetadataRequest::default());
        for mut stage in [Stage::Begun, Stage::Handshaken] {
            assert_eq!(code(stage.take(9, &metadata)), (None, Refused::Unknown("Metadata")));
        }
        let failed = Some(ResponseError::SaslAuthenticationFailed.code());
        assert_eq!(code(handshaken.take(1, &authenticate(b"u p"))), (failed, Refused::Shape));
    }

    #[test]
    fn only_a_user_and_a_password_of_their_own_are_a_login() {
        let found = |said: &[u8]| login(said).map(|login| (login.user, login.password));
        let expected = Some(("u".to_owned(), "p".to_owned()));
        assert_eq!((found(b"\0u\0p"), found(b"u\0u\0p")), (expected.clone(), expected));
        for wrong in [&b""[..], b"\0", b"u\0p", b"\0u\0", b"\0\0p", b"v\0u\0p", b"\0u\0p\0", b"\0u\0\xff"] {
            assert_eq!(found(wrong), None, "{wrong:?}");
        }
        let word = |bytes: usize| [b"\0u\0", "p".repeat(bytes).as_bytes()].concat();
        assert!(login(&word(WORD_BYTES_MAX)).is_some() && login(&word(WORD_BYTES_MAX + 1)).is_none());
    }
}
