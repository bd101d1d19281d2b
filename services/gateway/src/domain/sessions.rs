//! Sessions of the console: a one-time code becomes a session, which stands for the token it was opened with.
//!
//! Domain layer: time and randomness arrive as arguments. In memory only, bounded, and gone with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use drover_types::{Random, TenantId, hex};

/// How long a code waits for its one use, in milliseconds.
pub const CODE_MS: u64 = 2 * 60 * 1000;
/// How long a session lasts, in milliseconds: a working day.
pub const SESSION_MS: u64 = 12 * 3600 * 1000;
/// Codes that wait at once, and sessions at once; over it the oldest goes.
const CODES_MAX: usize = 64;
const SESSIONS_MAX: usize = 256;
/// Random bytes of codes, sessions and the secrets of their forms.
const SECRET_BYTES: usize = 32;

/// What a session stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The `authorization` it was opened with, so that it ends with that token.
    pub authorization: String,
    /// The tenant its pages are about.
    pub tenant: TenantId,
}

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub ticket: Ticket,
    /// Every change has to show it: no other site's page knows it.
    pub csrf: String,
}

/// Codes that wait, and open sessions.
pub struct Sessions {
    random: Arc<dyn Random>,
    codes: Mutex<Kept<Ticket>>,
    open: Mutex<Kept<Session>>,
}

/// Values by secret, each until its end.
struct Kept<T> {
    entries: HashMap<String, (u64, T)>,
    most: usize,
}

impl<T> Kept<T> {
    fn new(most: usize) -> Mutex<Self> {
        Mutex::new(Self { entries: HashMap::new(), most })
    }

    fn keep(&mut self, secret: String, ends_ms: u64, value: T, now_ms: u64) {
        self.entries.retain(|_, (ends, _)| *ends > now_ms);
        if self.entries.len() >= self.most {
            let oldest = self.entries.iter().min_by_key(|(_, (ends, _))| *ends).map(|(secret, _)| secret.clone());
            oldest.map(|secret| self.entries.remove(&secret));
        }
        self.entries.insert(secret, (ends_ms, value));
    }
}

impl Sessions {
    /// None yet.
    pub fn new(random: Arc<dyn Random>) -> Self {
        Self { random, codes: Kept::new(CODES_MAX), open: Kept::new(SESSIONS_MAX) }
    }

    /// A code that opens one session, once.
    pub fn invite(&self, ticket: Ticket, now_ms: u64) -> String {
        let code = self.secret();
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        codes.keep(code.clone(), now_ms + CODE_MS, ticket, now_ms);
        code
    }

    /// Opens a session for a code; its secret, for the cookie. `None`: the code is not there (any more).
    pub fn open(&self, code: &str, now_ms: u64) -> Option<String> {
        let taken = self.codes.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(code);
        let (_, ticket) = taken.filter(|(ends, _)| *ends > now_ms)?;
        let (secret, session) = (self.secret(), Session { ticket, csrf: self.secret() });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.keep(secret.clone(), now_ms + SESSION_MS, session, now_ms);
        Some(secret)
    }

    /// The session of this secret.
    pub fn find(&self, secret: &str, now_ms: u64) -> Option<Session> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.entries.get(secret).filter(|(ends, _)| *ends > now_ms).map(|(_, session)| session.clone())
    }

    /// Ends a session.
    pub fn close(&self, secret: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(secret);
    }

    fn secret(&self) -> String {
        let mut bytes = [0; SECRET_BYTES];
        self.random.fill(&mut bytes);
        hex(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Counting(AtomicU64);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes[..8].copy_from_slice(&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        }
    }

    fn sessions() -> Sessions {
        Sessions::new(Arc::new(Counting::default()))
    }

    fn ticket(authorization: &str) -> Ticket {
        Ticket { authorization: authorization.into(), tenant: TenantId::default_tenant() }
    }

    #[test]
    fn a_code_opens_one_session_once_and_in_time() {
        let sessions = sessions();
        let code = sessions.invite(ticket("Bearer a"), 0);
        let secret = sessions.open(&code, CODE_MS - 1).expect("in time");
        assert_eq!(sessions.open(&code, CODE_MS - 1), None, "it was used");
        assert_eq!(sessions.find(&secret, CODE_MS).expect("open").ticket, ticket("Bearer a"));
        let late = sessions.invite(ticket("Bearer a"), 0);
        assert_eq!(sessions.open(&late, CODE_MS), None);
        assert_eq!(sessions.open("", 0), None);
    }

    #[test]
    fn a_session_ends_by_itself_and_when_it_is_closed() {
        let sessions = sessions();
        let open = || sessions.open(&sessions.invite(ticket("Bearer a"), 0), 0).expect("open");
        let (first, second) = (open(), open());
        assert_ne!(sessions.find(&first, 0).expect("open").csrf, sessions.find(&second, 0).expect("open").csrf);
        sessions.close(&first);
        assert_eq!(sessions.find(&first, 0), None);
        assert!(sessions.find(&second, SESSION_MS - 1).is_some());
        assert_eq!(sessions.find(&second, SESSION_MS), None);
    }

    #[test]
    fn at_the_bound_the_oldest_goes() {
        let sessions = sessions();
        let codes: Vec<String> = (0..=CODES_MAX as u64).map(|now| sessions.invite(ticket("Bearer a"), now)).collect();
        assert_eq!(sessions.open(&codes[0], 100), None);
        assert!(codes[1..].iter().all(|code| sessions.open(code, 100).is_some()));
        let open = |now: u64| sessions.open(&sessions.invite(ticket("Bearer a"), now), now).expect("open");
        let secrets: Vec<String> = (0..=SESSIONS_MAX as u64).map(|i| open(1_000 + i)).collect();
        assert_eq!(sessions.find(&secrets[0], 2_000), None);
        assert!(secrets[1..].iter().all(|secret| sessions.find(secret, 2_000).is_some()));
    }
}
