//! From an accepted socket to a client that is known: TLS, then the conversation of [`crate::sasl`]; and whether it still
//! is who it was.
//!
//! Adapter layer. Nothing but ApiVersions is answered before; one deadline is over all of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::SaslSsl;
use crate::dispatch::{Listener, Peer};
use crate::ports::{Authenticator, NotAdmitted, Principal, Unavailable};
use crate::sasl::{self, Login, Refused, Stage, Step};
use crate::stream::{Answers, Broken, Frames};
use crate::versions;
use crate::wire::api::{Decoded, Request, Response, Unencodable, decode, encode};
use crate::wire::frame::PREFIX_BYTES;

/// Largest request of a client that is not known, bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Most requests of a client that is not known: it needs three.
const REQUESTS_MAX: usize = 8;
/// Pause before the refusal of a wrong password: Kafka's `connection.failed.authentication.delay.ms`.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);
/// An answer to a password without a header: a length of nothing.
const BARE_ADMISSION: Bytes = Bytes::from_static(&[0; 4]);

/// Why a client was not let in, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Tls,
    Timeout,
    Mechanism,
    Password,
    Request,
    Unavailable,
}

impl Reason {
    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Mechanism => "mechanism",
            Self::Password => "password",
            Self::Request => "request",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the handshake of TLS failed: {0}")]
    Tls(#[source] std::io::Error),
    #[error("the client was not known within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the client sent {REQUESTS_MAX} requests and did not authenticate")]
    TooMany,
    #[error("user {user:?}: user name or password is wrong")]
    Password { user: String },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
}

impl Failure {
    /// As what it is counted; `None`: as what breaks any connection.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Tls(_) => Some(Reason::Tls),
            Self::Timeout(_) => Some(Reason::Timeout),
            Self::Refused(Refused::Mechanism) => Some(Reason::Mechanism),
            Self::Refused(Refused::Shape) | Self::Password { .. } => Some(Reason::Password),
            Self::Refused(Refused::Unknown(_)) | Self::TooMany => Some(Reason::Request),
            Self::Unavailable(_) => Some(Reason::Unavailable),
            Self::Broken(_) | Self::Unencodable(_) => None,
        }
    }
}

/// A client that is known.
pub struct Admitted {
    pub principal: Principal,
    login: Login,
}

/// The handshake of TLS, until `deadline`.
pub async fn handshake(
    stream: TcpStream,
    sasl: &SaslSsl,
    listener: &Listener,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, Failure> {
    let accepting = TlsAcceptor::from((sasl.tls)()).accept(stream);
    let late = |_| Failure::Timeout(listener.config.authentication_timeout);
    tokio::time::timeout_at(deadline, accepting).await.map_err(late)?.map_err(Failure::Tls)
}

/// Talks to a client until it is known, at most until `deadline`; `None`: it has gone.
pub async fn admit(
    frames: &mut Frames,
    answers: &mut Answers,
    peer: &Peer,
    sasl: &SaslSsl,
    listener: &Listener,
    deadline: Instant,
) -> Result<Option<Admitted>, Failure> {
    let stall = listener.config.stall_timeout;
    let mut gate = Gate { answers, peer, authenticator: &*sasl.authenticator, listener, stage: Stage::default() };
    let talking = async {
        for _ in 0..REQUESTS_MAX {
            let Some(frame) = frames.next(FRAME_BYTES_MAX, stall).await? else { return Ok(None) };
            if let Some(admitted) = gate.take(frame).await? {
                return Ok(Some(admitted));
            }
        }
        Err(Failure::TooMany)
    };
    let late = |_| Failure::Timeout(listener.config.authentication_timeout);
    tokio::time::timeout_at(deadline, talking).await.map_err(late)?
}

/// One conversation.
struct Gate<'a> {
    answers: &'a mut Answers,
    peer: &'a Peer,
    authenticator: &'a dyn Authenticator,
    listener: &'a Listener,
    stage: Stage,
}

impl Gate<'_> {
    /// Takes a frame; who the client is, if this was the last one needed.
    async fn take(&mut self, frame: Bytes) -> Result<Option<Admitted>, Failure> {
        self.listener.metrics.received.inc_by((frame.len() + PREFIX_BYTES) as u64);
        if self.stage == Stage::Bare {
            let login = sasl::login(&frame).ok_or(Refused::Shape)?;
            let admitted = self.verify(login).await?;
            self.write(BARE_ADMISSION).await?;
            return Ok(Some(admitted));
        }
        let (head, request) = match decode(frame).map_err(Broken::Malformed)? {
            Decoded::Request(head, request) => (head, *request),
            Decoded::UnsupportedApiVersions { correlation_id } => {
                self.answer(correlation_id, 0, versions::unsupported().into()).await?;
                return Ok(None);
            }
        };
        self.listener.metrics.count_request(head.api);
        let (id, version) = (head.correlation_id, head.version);
        if let (Request::ApiVersions(asked), Stage::Begun) = (&request, self.stage) {
            self.answer(id, version, versions::answer(self.peer, asked).into()).await?;
            return Ok(None);
        }
        match self.stage.take(version, &request) {
            Step::Answer(response) => self.answer(id, version, response).await.map(|()| None),
            Step::Refuse(response, why) => {
                if let Some(response) = response {
                    self.answer(id, version, response).await?;
                }
                Err(why.into())
            }
            Step::Verify(login) => self.admit(id, version, login).await.map(Some),
        }
    }

    async fn admit(&mut self, id: i32, version: i16, login: Login) -> Result<Admitted, Failure> {
        let verified = self.verify(login).await;
        match &verified {
            Ok(_) => self.answer(id, version, sasl::admitted()).await?,
            Err(Failure::Password { .. }) => self.answer(id, version, sasl::refused()).await?,
            // A client that is told nothing tries again.
            Err(_) => {}
        }
        verified
    }

    async fn verify(&self, login: Login) -> Result<Admitted, Failure> {
        match self.authenticator.authenticate(&login.user, &login.password).await {
            Ok(principal) => {
                tracing::debug!(remote = %self.peer.remote, user = login.user, "kafka client is known");
                Ok(Admitted { principal, login })
            }
            Err(NotAdmitted::Unknown) => {
                tokio::time::sleep(REFUSAL_DELAY).await;
                Err(Failure::Password { user: login.user })
            }
            Err(NotAdmitted::Unavailable(error)) => Err(error.into()),
        }
    }

    async fn answer(&mut self, correlation_id: i32, version: i16, response: Response) -> Result<(), Failure> {
        self.write(encode(correlation_id, version, &response)?).await
    }

    async fn write(&mut self, frame: Bytes) -> Result<(), Failure> {
        self.listener.metrics.sent.inc_by(frame.len() as u64);
        Ok(self.answers.write(frame, self.listener.config.stall_timeout).await?)
    }
}

/// Returns when a client that was let in is nobody any more, or somebody else. Nobody is turned out because nobody can be
/// asked.
pub async fn outlived(admitted: &Admitted, authenticator: Arc<dyn Authenticator>, interval: Duration) -> String {
    let Login { user, password } = &admitted.login;
    loop {
        tokio::time::sleep(interval).await;
        match authenticator.authenticate(user, password).await {
            Ok(principal) if principal == admitted.principal => {}
            Ok(_) | Err(NotAdmitted::Unknown) => return format!("the token of user {user:?} has ended"),
            Err(NotAdmitted::Unavailable(error)) => tracing::debug!(%error, user, "a kafka client is not verified yet"),
        }
    }
}
