//! What lies below the messages: datagrams as they are, or DTLS.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::dtls::{self, Dtls, Event, Question};
use super::endpoint::Endpoint;
use super::telemetry::{Lost, Telemetry};
use crate::domain::coap::Peer;
use crate::domain::node::Node;
use crate::ports::Keys;

/// One socket.
pub enum Transport {
    Plain(UdpSocket),
    /// With whoever says which keys devices have.
    Secured(Box<Dtls>, Arc<dyn Keys>),
}

impl Transport {
    pub fn socket(&self) -> &UdpSocket {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Secured(dtls, _) => &dtls.socket,
        }
    }

    /// Sends a message; it is lost if the socket does not take it, or the association is no more.
    pub fn send(&self, peer: Peer, message: &[u8], telemetry: &Telemetry) {
        match self {
            Transport::Plain(socket) => {
                if let Err(error) = socket.try_send_to(message, peer.address) {
                    tracing::debug!(%peer, %error, "a datagram was not sent");
                    telemetry.lost(Lost::Socket);
                }
            }
            Transport::Secured(dtls, _) => dtls.send(peer, message, Instant::now()),
        }
    }

    /// Time has passed.
    pub fn tick(&self, sweep: bool, node: &Node) {
        match self {
            Transport::Plain(_) => {}
            Transport::Secured(dtls, _) => dtls.tick(Instant::now(), sweep, &node.sessions, node.now().unix_ms),
        }
    }

    /// What the association of `peer` has shown does not hold any more.
    pub fn dissociate(&self, peer: Peer) {
        match self {
            Transport::Plain(_) => {}
            Transport::Secured(dtls, _) => dtls.dissociate(peer),
        }
    }

    /// Nobody is let in any more.
    pub fn drain(&self) {
        match self {
            Transport::Plain(_) => {}
            Transport::Secured(dtls, _) => dtls.end_handshakes(),
        }
    }

    /// Nothing is sent any more.
    pub fn end(&self) {
        match self {
            Transport::Plain(_) => {}
            Transport::Secured(dtls, _) => dtls.end(),
        }
    }
}

impl Endpoint {
    /// A datagram has come.
    pub fn take(self: &Arc<Self>, datagram: &[u8], address: SocketAddr) {
        match &self.transport {
            Transport::Plain(_) => self.receive(datagram, address.into(), None),
            Transport::Secured(dtls, keys) => {
                self.take_all(dtls.receive(datagram, address, Instant::now()), keys);
            }
        }
    }

    fn take_all(self: &Arc<Self>, events: Vec<Event>, keys: &Arc<dyn Keys>) {
        for event in events {
            match event {
                Event::Message { peer, proof, message } => self.receive(&message, peer, Some(proof)),
                Event::Asks(question) => self.ask(question, keys.clone()),
            }
        }
    }

    /// Asks for a key in a task of its own, which ends with its handshake: there are no more than handshakes. While the node
    /// drains nobody is asked.
    fn ask(self: &Arc<Self>, question: Question, keys: Arc<dyn Keys>) {
        if self.is_draining() {
            return;
        }
        let endpoint = self.clone();
        self.tasks.spawn(async move {
            let asking = dtls::ask(&*keys, &endpoint.setup.node, &question);
            let Some(answer) = question.ended.run_until_cancelled(asking).await else { return };
            if let Transport::Secured(dtls, _) = &endpoint.transport {
                endpoint.take_all(dtls.answered(&question, answer, Instant::now()), &keys);
            }
        });
    }
}
