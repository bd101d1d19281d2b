//! A server for one test: acknowledges, echoes to the subscriber itself, and cuts connections when told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use drover_load::target::{Stream, Target, TlsFiles};
use drover_mqtt::{
    Ack, ConnAck, Decoder, Packet, Properties, Publish, ReasonCode, ReasonCodeList, Side, SubAck, Version, encode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// What a server does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Cuts the first connection at this publish (counted from 1), after reading and before acknowledging it.
    pub cut_at_publish: Option<usize>,
    /// Cuts the first connection at its first SUBSCRIBE.
    pub cut_at_subscribe: bool,
    /// Refuses every publish with "not authorized".
    pub refuse: bool,
    /// Sends what anybody publishes to all who have subscribed, instead of to the publisher alone.
    pub fans_out: bool,
    /// Reads nothing after it has accepted a connection.
    pub is_deaf: bool,
    /// Refuses so many clients first as "server busy".
    pub busy_for: usize,
}

/// A publish as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub payload: String,
    pub dup: bool,
}

/// Messages on their way to subscribers that do not read.
const FANNED_OUT_MAX: usize = 100_000;

#[derive(Default)]
struct Log {
    connections: usize,
    peers: Vec<SocketAddr>,
    /// Where each subscriber's messages go, at [`Faults::fans_out`]: topic and payload.
    subscribers: Vec<mpsc::Sender<(String, Vec<u8>)>>,
    open: usize,
    most_open: usize,
    seen: Vec<Seen>,
}

/// A running server; ends with the test's runtime.
pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Server {
    pub async fn start(faults: Faults) -> Self {
        Self::start_with(faults, None).await
    }

    /// With `tls`, every connection begins with a TLS handshake.
    pub async fn start_with(faults: Faults, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, log) = (listener.local_addr().expect("bound"), Arc::new(Mutex::new(Log::default())));
        let shared = log.clone();
        tokio::spawn(async move {
            while let Ok((tcp, peer)) = listener.accept().await {
                shared.lock().expect("no panic").peers.push(peer);
                let (log, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    count(&log, 1);
                    match tls {
                        None => serve(tcp, &log, faults).await,
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => serve(stream, &log, faults).await,
                            Err(error) => eprintln!("no tls: {error}"),
                        },
                    }
                    count(&log, -1);
                });
            }
        });
        Self { address, log }
    }

    pub fn target(&self) -> Target {
        Target::new(&format!("mqtt://{}", self.address), &TlsFiles::default()).expect("valid")
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().expect("no panic").seen.clone()
    }

    /// Where connections came from.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.log.lock().expect("no panic").peers.clone()
    }

    pub fn connections(&self) -> usize {
        self.log.lock().expect("no panic").connections
    }

    /// Most connections that were open at once.
    pub fn most_open(&self) -> usize {
        self.log.lock().expect("no panic").most_open
    }
}

/// Books that a connection has begun (1) or ended (-1).
fn count(log: &Mutex<Log>, change: isize) {
    let mut log = log.lock().expect("no panic");
    log.open = log.open.saturating_add_signed(change);
    log.most_open = log.most_open.max(log.open);
}

/// Serves one connection until it ends or is cut.
async fn serve(mut stream: impl Stream, log: &Mutex<Log>, faults: Faults) {
    let mut decoder = Decoder::new(Side::Client, Version::V311);
    let (mut unread, mut out, mut is_subscribed) = (Vec::new(), Vec::new(), false);
    let (subscriber, mut fanned_out) = mpsc::channel::<(String, Vec<u8>)>(FANNED_OUT_MAX);
    loop {
        tokio::select! {
            read = stream.read_buf(&mut unread) => {
                if !read.is_ok_and(|read| read > 0) {
                    return;
                }
            }
            Some((topic, payload)) = fanned_out.recv() => {
                let publish = Publish::new(&topic, &payload);
                encode(&Packet::Publish(publish), decoder.version, &mut out).expect("valid");
            }
        }
        let (mut taken, was_subscribed) = (0, is_subscribed);
        while let Some((packet, bytes)) = decoder.decode(&unread[taken..]).expect("a valid client") {
            taken += bytes;
            if let Packet::Connect(connect) = packet {
                decoder.version = connect.version;
            }
            if !answer(
                &packet,
                decoder.version,
                &mut is_subscribed,
                &mut log.lock().expect("no panic"),
                faults,
                &mut out,
            ) {
                return;
            }
        }
        unread.drain(..taken);
        if faults.fans_out && is_subscribed && !was_subscribed {
            log.lock().expect("no panic").subscribers.push(subscriber.clone());
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        if faults.is_deaf {
            std::future::pending::<()>().await;
        }
    }
}

/// Appends the answer to one packet; false cuts the connection.
fn answer(
    packet: &Packet<'_>,
    version: Version,
    is_subscribed: &mut bool,
    log: &mut Log,
    faults: Faults,
    out: &mut Vec<u8>,
) -> bool {
    let mut put = |packet: Packet<'_>| encode(&packet, version, out).expect("valid");
    let properties = Properties::default();
    match packet {
        Packet::Connect(_) => {
            log.connections += 1;
            let reason = if log.connections <= faults.busy_for { ReasonCode::ServerBusy } else { ReasonCode::Success };
            put(Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
        }
        Packet::Publish(publish) => {
            let payload = String::from_utf8_lossy(publish.payload).into_owned();
            log.seen.push(Seen { payload, dup: publish.dup });
            if log.connections == 1 && faults.cut_at_publish == Some(log.seen.len()) {
                return false;
            }
            if faults.fans_out {
                let sent = |to: &mpsc::Sender<(String, Vec<u8>)>| {
                    to.try_send((publish.topic.to_owned(), publish.payload.to_vec())).expect("it reads");
                };
                log.subscribers.iter().for_each(sent);
            } else if *is_subscribed {
                put(Packet::Publish(Publish::new(publish.topic, publish.payload)));
            }
            let reason = if faults.refuse { ReasonCode::NotAuthorized } else { ReasonCode::Success };
            if let Some(packet_id) = publish.packet_id {
                put(Packet::PubAck(Ack::new(packet_id, reason)));
            }
        }
        Packet::Subscribe(subscribe) => {
            if log.connections == 1 && faults.cut_at_subscribe {
                return false;
            }
            *is_subscribed = true;
            let reasons: ReasonCodeList =
                subscribe.subscriptions.iter().map(|asked| ReasonCode::granted(asked.options.qos)).collect();
            let reasons = reasons.as_reason_codes();
            put(Packet::SubAck(SubAck { packet_id: subscribe.packet_id, properties, reasons }));
        }
        Packet::PingReq => put(Packet::PingResp),
        Packet::Disconnect(_) => return false,
        other => panic!("{other:?} is not expected"),
    }
    true
}
