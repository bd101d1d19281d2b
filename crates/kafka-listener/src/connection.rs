//! One connection: requests in, answers out in the same order.
//!
//! Adapter layer. Two halves run side by side in one task: the reading half fixes the order of requests, the writing
//! half waits for what they promise. Between them at most [`IN_FLIGHT_MAX`] answers are owed; a client that does not
//! take them stops being read.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::dispatch::{Listener, Outcome, Peer, Reply, dispatch};
use crate::wire::Malformed;
use crate::wire::api::{Api, Decoded, Unencodable, decode, encode};
use crate::wire::frame;

/// Most answers owed to one client: as many as Kafka's idempotent producers have in flight.
const IN_FLIGHT_MAX: usize = 5;
/// Least room for one read, bytes; the buffer grows with what has arrived, never with what a frame claims.
const READ_BYTES: usize = 16 * 1024;

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
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
    #[error("a request stood half sent for {0:?}")]
    HalfSent(Duration),
    #[error("{0}")]
    Refused(String),
    #[error("an answer was not taken for {0:?}")]
    NotTaken(Duration),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves one client until it goes, breaks the protocol or stalls. Never fails: the cause is logged in one line.
pub async fn run(stream: TcpStream, peer: Arc<Peer>, listener: Arc<Listener>) {
    listener.metrics.connections.inc();
    let remote = peer.remote;
    match converse(stream, peer, &listener).await {
        Ok(()) => tracing::debug!(%remote, "kafka client went"),
        Err(Ended::Io(error)) => tracing::debug!(%remote, %error, "kafka connection broke"),
        Err(error) => {
            if matches!(error, Ended::Malformed(_)) {
                listener.metrics.malformed.inc();
            }
            tracing::warn!(%remote, %error, "kafka connection closed");
        }
    }
    listener.metrics.connections.dec();
}

async fn converse(stream: TcpStream, peer: Arc<Peer>, listener: &Arc<Listener>) -> Result<(), Ended> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (owe, owed) = mpsc::channel(IN_FLIGHT_MAX);
    tokio::select! {
        read = read_all(reader, &peer, listener, owe) => read,
        written = write_all(writer, listener, owed) => written,
    }
}

async fn read_all(
    mut reader: OwnedReadHalf,
    peer: &Arc<Peer>,
    listener: &Arc<Listener>,
    owe: mpsc::Sender<Owed>,
) -> Result<(), Ended> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = next_frame(&mut reader, &mut buffer, listener).await? {
        listener.metrics.received.inc_by((frame.len() + frame::PREFIX_BYTES) as u64);
        let owed = take_request(frame, peer, listener).await?;
        if owe.send(owed).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The next frame; `None` when the client closes. Waits for ever for a frame to begin, but not for its rest.
async fn next_frame(
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    listener: &Listener,
) -> Result<Option<Bytes>, Ended> {
    let (bytes_max, stall) = (listener.config.frame_bytes_max, listener.config.stall_timeout);
    loop {
        if let Some(frame) = frame::cut(buffer, bytes_max)? {
            return Ok(Some(frame));
        }
        if buffer.is_empty() {
            // An idle connection owns no buffer.
            *buffer = BytesMut::new();
            reader.readable().await?;
        } else {
            tokio::time::timeout(stall, reader.readable()).await.map_err(|_| Ended::HalfSent(stall))??;
        }
        buffer.reserve(READ_BYTES);
        match reader.try_read_buf(buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
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

async fn write_all(
    mut writer: OwnedWriteHalf,
    listener: &Listener,
    mut owed: mpsc::Receiver<Owed>,
) -> Result<(), Ended> {
    let stall = listener.config.stall_timeout;
    while let Some(Owed { correlation_id, version, reply }) = owed.recv().await {
        let response = match reply.await {
            Outcome::Answer(response) => response,
            Outcome::Silence => continue,
            Outcome::Close(reason) => return Err(Ended::Refused(reason)),
        };
        let frame = encode(correlation_id, version, &response)?;
        listener.metrics.sent.inc_by(frame.len() as u64);
        write_frame(&mut writer, frame, stall).await?;
    }
    Ok(())
}

/// Writes a frame; the client may be slow, but must take something within every `stall`.
async fn write_frame(writer: &mut OwnedWriteHalf, mut frame: Bytes, stall: Duration) -> Result<(), Ended> {
    while !frame.is_empty() {
        let written = tokio::time::timeout(stall, writer.write_buf(&mut frame));
        if written.await.map_err(|_| Ended::NotTaken(stall))?? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
        }
    }
    Ok(())
}
