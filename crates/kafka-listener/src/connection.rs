//! One connection: requests in, answers out in the same order.
//!
//! Adapter layer. Two halves run side by side in one task: the reading half fixes the order of requests, the writing
//! half waits for what they promise. Between them at most [`IN_FLIGHT_MAX`] answers are owed; a client that does not
//! take them stops being read.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;

use crate::authentication::{self, Failure};
use crate::config::{SaslSsl, Security};
use crate::dispatch::{Listener, Outcome, Peer, Reply, dispatch};
use crate::stream::{self, Answers, Broken, Frames};
use crate::wire::api::{Api, Decoded, Unencodable, decode, encode};
use crate::wire::{Malformed, frame};

/// Most answers owed to one client: as many as Kafka's idempotent producers have in flight.
const IN_FLIGHT_MAX: usize = 5;

/// An answer owed: to which request, and when it is known.
struct Owed {
    correlation_id: i32,
    version: i16,
    reply: Reply,
}

/// Why a connection ended from this side.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    NotAdmitted(Failure),
}

impl From<Malformed> for Ended {
    fn from(error: Malformed) -> Self {
        Self::Broken(error.into())
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Broken(error) => Self::Broken(error),
            Failure::Unencodable(error) => Self::Unencodable(error),
            failure => Self::NotAdmitted(failure),
        }
    }
}

/// Serves one client until it goes, breaks the protocol or stalls. Never fails: the cause is logged in one line.
pub async fn run(stream: TcpStream, peer: Peer, listener: Arc<Listener>) {
    listener.metrics.connections.inc();
    let remote = peer.remote;
    match meet(stream, peer, &listener).await {
        Ok(()) => tracing::debug!(%remote, "kafka client went"),
        Err(Ended::Broken(Broken::Io(error))) => tracing::debug!(%remote, %error, "kafka connection broke"),
        Err(error) => {
            match &error {
                Ended::Broken(Broken::Malformed(_)) => {
                    listener.metrics.malformed.inc();
                }
                Ended::NotAdmitted(failure) => {
                    failure.reason().into_iter().for_each(|reason| listener.metrics.count_failure(reason));
                }
                Ended::Broken(_) | Ended::Unencodable(_) | Ended::Refused(_) => {}
            }
            tracing::warn!(%remote, %error, "kafka connection closed");
        }
    }
    listener.metrics.connections.dec();
}

async fn meet(stream: TcpStream, peer: Peer, listener: &Arc<Listener>) -> Result<(), Ended> {
    stream.set_nodelay(true).map_err(Broken::Io)?;
    match &listener.config.security {
        Security::Plaintext => {
            let (mut frames, mut answers) = stream::plain(stream);
            converse(&mut frames, &mut answers, Arc::new(peer), listener).await
        }
        Security::SaslSsl(sasl) => meet_over_tls(stream, peer, sasl, listener).await,
    }
}

async fn meet_over_tls(
    stream: TcpStream,
    mut peer: Peer,
    sasl: &SaslSsl,
    listener: &Arc<Listener>,
) -> Result<(), Ended> {
    let deadline = Instant::now() + listener.config.authentication_timeout;
    let stream = authentication::handshake(stream, sasl, listener, deadline).await?;
    peer.is_called(stream.get_ref().1.server_name(), &listener.config);
    let (mut frames, mut answers) = stream::secure(stream);
    let ended = serve_known(&mut frames, &mut answers, peer, sasl, listener, deadline).await;
    answers.farewell().await;
    ended
}

/// Finds out who it is, and serves it as long as it is that.
async fn serve_known(
    frames: &mut Frames,
    answers: &mut Answers,
    mut peer: Peer,
    sasl: &SaslSsl,
    listener: &Arc<Listener>,
    deadline: Instant,
) -> Result<(), Ended> {
    let Some(admitted) = authentication::admit(frames, answers, &peer, sasl, listener, deadline).await? else {
        return Ok(());
    };
    peer.principal = admitted.principal.clone();
    let interval = listener.config.verify_interval;
    tokio::select! {
        conversed = converse(frames, answers, Arc::new(peer), listener) => conversed,
        why = authentication::outlived(&admitted, sasl.authenticator.clone(), interval) => Err(Ended::Refused(why)),
    }
}

async fn converse(
    frames: &mut Frames,
    answers: &mut Answers,
    peer: Arc<Peer>,
    listener: &Arc<Listener>,
) -> Result<(), Ended> {
    let (owe, owed) = mpsc::channel(IN_FLIGHT_MAX);
    tokio::select! {
        read = read_all(frames, &peer, listener, owe) => read,
        written = write_all(answers, listener, owed) => written,
    }
}

async fn read_all(
    frames: &mut Frames,
    peer: &Arc<Peer>,
    listener: &Arc<Listener>,
    owe: mpsc::Sender<Owed>,
) -> Result<(), Ended> {
    let (bytes_max, stall) = (listener.config.frame_bytes_max, listener.config.stall_timeout);
    while let Some(frame) = frames.next(bytes_max, stall).await? {
        listener.metrics.received.inc_by((frame.len() + frame::PREFIX_BYTES) as u64);
        let owed = take_request(frame, peer, listener).await?;
        if owe.send(owed).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn take_request(frame: Bytes, peer: &Arc<Peer>, listener: &Arc<Listener>) -> Result<Owed, Ended> {
    match decode(frame)? {
        Decoded::UnsupportedApiVersions { correlation_id } => {
            listener.metrics.count_request(Api::ApiVersions);
            let outcome = Outcome::Answer(crate::versions::unsupported().into());
            Ok(Owed { correlation_id, version: 0, reply: std::future::ready(outcome).boxed() })
        }
        Decoded::Request(head, request) => {
            let (api, version, correlation_id) = (head.api, head.version, head.correlation_id);
            listener.metrics.count_request(api);
            let client = head.client_id.as_deref().unwrap_or_default();
            let span = tracing::debug_span!("kafka_request", api = api.name(), version, client, remote = %peer.remote);
            let reply = dispatch(listener, peer, head, *request).instrument(span.clone()).await;
            Ok(Owed { correlation_id, version, reply: reply.instrument(span).boxed() })
        }
    }
}

async fn write_all(answers: &mut Answers, listener: &Listener, mut owed: mpsc::Receiver<Owed>) -> Result<(), Ended> {
    while let Some(Owed { correlation_id, version, reply }) = owed.recv().await {
        let response = match reply.await {
            Outcome::Answer(response) => response,
            Outcome::Silence => continue,
            Outcome::Close(reason) => return Err(Ended::Refused(reason)),
        };
        let frame = encode(correlation_id, version, &response)?;
        listener.metrics.sent.inc_by(frame.len() as u64);
        answers.write(frame, listener.config.stall_timeout).await?;
    }
    Ok(())
}
