//! One handshake and the association it becomes, as the library drives them: datagrams and time in, records and messages out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dimpl::crypto::{Dtls12CipherSuite, rust_crypto};
use dimpl::{Config, Dtls, Error, Output, PskResolver};
use tokio::time::Instant;

/// How long a handshake may take, from its first datagram.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Datagrams that the library keeps of one handshake: a flight has three messages of the client.
const QUEUE_MAX: usize = 10;
/// Largest record, in bytes: 16 KiB of plaintext (RFC 6347 section 4.1.1) and what protects it.
const RECORD_BYTES_MAX: usize = 16 * 1024 + 256;

/// The one cipher suite: that which every CoAP device with a pre-shared key has (RFC 7252 section 9.1.3.1).
const SUITE: Dtls12CipherSuite = Dtls12CipherSuite::PSK_AES128_CCM_8;

/// The identity and key of the handshake that is driven on right now; the library asks for it in the midst of that. Without
/// one, or for another identity, it goes on with a random key, and the handshake fails at its end.
#[derive(Default)]
pub struct KeyAtHand(Mutex<Option<(Vec<u8>, Vec<u8>)>>);

impl KeyAtHand {
    /// Puts another one at hand, or none.
    pub fn put(&self, key: Option<(Vec<u8>, Vec<u8>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }
}

impl PskResolver for KeyAtHand {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let at_hand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at_hand.as_ref().filter(|(known, _)| known == identity).map(|(_, key)| key.clone())
    }
}

/// What all handshakes of a socket have in common: HelloVerifyRequest always, and [`SUITE`].
pub fn config(key: Arc<KeyAtHand>) -> Result<Arc<Config>, Error> {
    let config = Config::builder()
        .with_crypto_provider(rust_crypto::default_provider())
        .dtls12_cipher_suites(&[SUITE])
        .dtls13_cipher_suites(&[])
        .use_server_cookie(true)
        .max_queue_rx(QUEUE_MAX)
        .handshake_timeout(HANDSHAKE)
        .with_psk_server(None, key);
    Ok(Arc::new(config.build()?))
}

/// What came of a datagram, or of time.
#[derive(Default)]
pub struct Drained {
    /// To be sent.
    pub packets: Vec<Vec<u8>>,
    /// Messages of the peer.
    pub messages: Vec<Bytes>,
    /// The handshake is complete.
    pub connected: bool,
    /// The peer has ended the association.
    pub closed: bool,
}

/// Bytes that records are put together in; one for all engines of a socket.
pub struct Scratch(Vec<u8>);

impl Default for Scratch {
    fn default() -> Self {
        Self(vec![0; RECORD_BYTES_MAX])
    }
}

/// A handshake or an association. After an error it is of no use any more.
pub struct Engine {
    dtls: Box<Dtls>,
    due: Instant,
}

impl Engine {
    /// A server that has received nothing.
    pub fn new(config: &Arc<Config>, now: Instant) -> Self {
        Self { dtls: Box::new(Dtls::new_12_psk(config.clone(), now.into_std())), due: now }
    }

    /// A datagram has come.
    pub fn receive(&mut self, datagram: &[u8], now: Instant, scratch: &mut Scratch) -> Result<Drained, Error> {
        self.dtls.handle_timeout(now.into_std())?;
        self.dtls.handle_packet(datagram)?;
        Ok(self.drain(scratch))
    }

    /// Protects a message.
    pub fn send(&mut self, message: &[u8], now: Instant, scratch: &mut Scratch) -> Result<Drained, Error> {
        self.dtls.handle_timeout(now.into_std())?;
        self.dtls.send_application_data(message)?;
        Ok(self.drain(scratch))
    }

    /// Time has passed.
    pub fn wait(&mut self, now: Instant, scratch: &mut Scratch) -> Result<Drained, Error> {
        self.dtls.handle_timeout(now.into_std())?;
        Ok(self.drain(scratch))
    }

    /// Ends the association.
    pub fn close(&mut self, scratch: &mut Scratch) -> Result<Drained, Error> {
        self.dtls.close()?;
        Ok(self.drain(scratch))
    }

    /// When it is to be told that time has passed.
    pub fn due(&self) -> Instant {
        self.due
    }

    fn drain(&mut self, scratch: &mut Scratch) -> Drained {
        let mut drained = Drained::default();
        loop {
            match self.dtls.poll_output(&mut scratch.0) {
                Output::Packet(packet) => drained.packets.push(packet.to_vec()),
                Output::ApplicationData(message) => drained.messages.push(Bytes::copy_from_slice(message)),
                Output::Connected => drained.connected = true,
                Output::CloseNotify => drained.closed = true,
                Output::Timeout(due) => {
                    self.due = Instant::from_std(due);
                    return drained;
                }
                Output::BufferTooSmall { needed } => {
                    tracing::debug!(needed, "a record is larger than records are");
                    drained.closed = true;
                    return drained;
                }
                _ => {} // certificates and keys for media, which there are not
            }
        }
    }
}
