//! Tickets by which a client resumes its TLS session, at this node or another one: sealed with keys that all nodes have.
//!
//! Keys are files of a directory, `current` and, while keys are changed, `previous`: tickets are made with the one and
//! taken of both. A ticket names its key by a digest of the key and of the authorities whose clients are accepted, so
//! that no client comes back by one that was made while another authority counted.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;
use sha2::{Digest as _, Sha256};

/// The file of the key that tickets are made with.
pub const CURRENT: &str = "current";
/// The file of the key before it, whose tickets are still taken.
pub const PREVIOUS: &str = "previous";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of the name that a ticket begins with.
const NAME_BYTES: usize = 16;
/// Seconds a client may keep a ticket (RFC 8446 allows 7 days); how long it is taken is up to whoever changes the keys.
const LIFETIME_S: u32 = 12 * 60 * 60;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum TicketsError {
    #[error("tls.ticket_keys {path:?} cannot be read: {reason}")]
    File { path: PathBuf, reason: std::io::Error },
    #[error("tls.ticket_keys {path:?} is no base64")]
    NotBase64 { path: PathBuf },
    #[error("tls.ticket_keys {path:?} has {bytes} bytes, a key has {KEY_BYTES}, written as base64")]
    Length { path: PathBuf, bytes: usize },
}

/// Makes and takes tickets.
pub struct Tickets {
    current: Key,
    previous: Option<Key>,
}

impl Tickets {
    /// With the keys in `directory`; `authorities` is what tells those apart whose clients are accepted.
    pub fn open(directory: &Path, authorities: &[u8]) -> Result<Self, TicketsError> {
        let current = directory.join(CURRENT);
        let missing = || std::io::Error::from(ErrorKind::NotFound);
        let key = Key::read(&current, authorities)?;
        let key = key.ok_or_else(|| TicketsError::File { path: current, reason: missing() })?;
        Ok(Self { current: key, previous: Key::read(&directory.join(PREVIOUS), authorities)? })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current.seal(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find_map(|key| key.open(cipher))
    }
}

struct Key {
    name: [u8; NAME_BYTES],
    sealing: LessSafeKey,
}

impl Key {
    /// The key in a file; `None`: there is none.
    fn read(path: &Path, authorities: &[u8]) -> Result<Option<Self>, TicketsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(reason) => return Err(TicketsError::File { path: path.to_owned(), reason }),
        };
        let secret = STANDARD.decode(text.trim());
        let secret = secret.map_err(|_| TicketsError::NotBase64 { path: path.to_owned() })?;
        let wrong = |bytes| TicketsError::Length { path: path.to_owned(), bytes };
        let secret: [u8; KEY_BYTES] = secret.try_into().map_err(|secret: Vec<u8>| wrong(secret.len()))?;
        Ok(Some(Self::new(&secret, authorities)))
    }

    fn new(secret: &[u8; KEY_BYTES], authorities: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"drover ticket key")
            .chain_update(secret)
            .chain_update(authorities)
            .finalize()
            .into();
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&digest[..NAME_BYTES]);
        let sealing = UnboundKey::new(&CHACHA20_POLY1305, secret).expect("the key has the cipher's length");
        Self { name, sealing: LessSafeKey::new(sealing) }
    }

    /// Name, nonce, what is sealed, tag. A nonce by chance serves 2^32 tickets of a key.
    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = [&self.name[..], &nonce, plain].concat();
        let (nonce, name) = (Nonce::assume_unique_for_key(nonce), Aad::from(self.name));
        let sealed = &mut ticket[NAME_BYTES + NONCE_LEN..];
        let tag = self.sealing.seal_in_place_separate_tag(nonce, name, sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// What is in a ticket; `None`: it was not made with this key, or is none at all.
    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        if name != self.name {
            return None; // the name is no secret
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let bytes = self.sealing.open_in_place(nonce, Aad::from(self.name), &mut opened).ok()?.len();
        opened.truncate(bytes);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(keys: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        keys.iter().for_each(|(name, text)| std::fs::write(directory.path().join(name), text).expect("written"));
        directory
    }

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; KEY_BYTES]) + "\n"
    }

    fn tickets(keys: &[(&str, &str)], authorities: &[u8]) -> Tickets {
        Tickets::open(directory(keys).path(), authorities).expect("valid keys")
    }

    #[test]
    fn a_ticket_is_taken_by_whoever_has_its_key_as_current_or_previous() {
        let [a, b, c] = [1, 2, 3].map(key);
        let made = tickets(&[(CURRENT, &a)], b"ca");
        let ticket = made.encrypt(b"session").expect("sealed");
        assert_ne!(made.encrypt(b"session").expect("sealed"), ticket, "each has a nonce of its own");
        let taken = |by: Tickets, ticket: &[u8]| by.decrypt(ticket).as_deref() == Some(b"session");
        assert!(taken(tickets(&[(CURRENT, &a)], b"ca"), &ticket), "another node");
        assert!(taken(tickets(&[(CURRENT, &b), (PREVIOUS, &a)], b"ca"), &ticket));
        assert!(!taken(tickets(&[(CURRENT, &c), (PREVIOUS, &b)], b"ca"), &ticket), "its key is gone");
        assert!(!taken(tickets(&[(CURRENT, &a)], b"another ca"), &ticket), "its authority is gone");
    }

    #[test]
    fn whatever_is_no_ticket_is_refused() {
        let made = tickets(&[(CURRENT, &key(1))], b"");
        let ticket = made.encrypt(b"session").expect("sealed");
        for bytes in 0..ticket.len() {
            assert_eq!(made.decrypt(&ticket[..bytes]), None, "{bytes} bytes of it");
            let mut other = ticket.clone();
            other[bytes] ^= 1;
            assert_eq!(made.decrypt(&other), None, "another byte {bytes}");
        }
        assert_eq!(made.decrypt(&made.encrypt(b"").expect("sealed")), Some(Vec::new()));
    }

    #[test]
    fn keys_that_are_none_are_told_without_their_bytes() {
        let error = |keys: &[(&str, &str)]| match Tickets::open(directory(keys).path(), b"") {
            Ok(_) => panic!("no error"),
            Err(error) => error.to_string(),
        };
        assert!(error(&[]).contains("current\" cannot be read"));
        assert!(error(&[(CURRENT, "not base64!")]).ends_with("current\" is no base64"));
        let short = STANDARD.encode([1; KEY_BYTES - 1]);
        assert!(error(&[(CURRENT, &short)]).ends_with("has 31 bytes, a key has 32, written as base64"));
        assert!(error(&[(CURRENT, &key(1)), (PREVIOUS, &short)]).contains("previous"));
    }
}
