//! What rules are asked about: one message and what surrounds it. The payload is checked when a field is first asked
//! for, once for all rules, and only the members asked for become values.

use std::cell::{Cell, OnceCell};

use sha2::{Digest, Sha256};

use crate::error::EvalError;
use crate::json::{self, Document, JsonError};
use crate::user_function::{USER_CALLS_MAX, UserFunctions};
use crate::value::Value;

/// Most that one evaluation may make, in bytes: a row of copies of copies ends here, and so does a query within a
/// query over a long array.
pub const GROWTH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Topics of messages that go straight to one rule, whose name is the next level.
const BASIC_INGEST: &str = "$aws/rules/";

/// The rule that a topic names (`$aws/rules/NAME/…`), if it names one: whoever routes messages gives it to that rule alone.
pub fn rule_named_by(topic: &str) -> Option<&str> {
    topic.strip_prefix(BASIC_INGEST)?.split_once('/').map(|(rule, _)| rule)
}

/// One message.
#[derive(Debug)]
pub struct Message<'p> {
    pub topic: &'p str,
    /// Absent if the message did not come by MQTT.
    pub client_id: Option<&'p str>,
    /// What `timestamp()` says, milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// What else rules may ask for; empty unless it is given.
    pub origin: Origin<'p>,
    payload: &'p [u8],
    document: OnceCell<Result<Document<'p>, JsonError>>,
    whole: OnceCell<Result<Value<'p>, JsonError>>,
    /// Random values drawn so far.
    drawn: Cell<u64>,
    /// Bytes made by the evaluation under way.
    grown: Cell<usize>,
    /// Calls of functions made by it that the language does not have.
    called: Cell<usize>,
}

/// Where a message comes from, as far as it is known.
#[derive(Clone, Copy, Default)]
pub struct Origin<'p> {
    /// The message's own id: `traceid()`, and what `newuuid()` and `rand()` are made of. A message that is evaluated
    /// again after a crash so gives the same row.
    pub id: [u8; 16],
    /// Id of the device that sent it: what `device()` groups by.
    pub device: Option<&'p str>,
    /// `principal()`: the fingerprint of the certificate, or the user.
    pub principal: Option<&'p str>,
    /// `sourceip()`.
    pub source_ip: Option<&'p str>,
    /// `accountid()`: the tenant.
    pub account: Option<&'p str>,
    pub properties: Properties<'p>,
    /// Where `get_thing_shadow()` and `device()` look; without it they are errors.
    pub lookups: Option<&'p dyn Lookups>,
    /// Who calls functions that the language does not have; without it they are errors.
    pub functions: Option<&'p dyn UserFunctions>,
}

/// MQTT 5 properties of the PUBLISH.
#[derive(Clone, Copy, Debug, Default)]
pub struct Properties<'p> {
    pub content_type: Option<&'p str>,
    pub payload_format: Option<PayloadFormat>,
    pub response_topic: Option<&'p str>,
    pub correlation_data: Option<&'p [u8]>,
    /// In the order sent; names may repeat.
    pub user: &'p [(String, String)],
}

/// The payload format indicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadFormat {
    Unspecified,
    Utf8,
}

/// What rules look up besides the message. Answers are at hand: whoever evaluates has fetched them.
pub trait Lookups {
    /// The document of a thing's shadow, the classic one if `shadow` is absent; `None` if there is none.
    fn shadow(&self, thing: &str, shadow: Option<&str>) -> Result<Option<Value<'static>>, LookupError>;

    /// The device that sent the message: `{"name", "type", "labels", "attributes"}`.
    fn device(&self) -> Result<Option<Value<'static>>, LookupError>;
}

/// Why something could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct LookupError {
    pub reason: String,
}

impl<'p> Message<'p> {
    /// A message not yet read, of unknown origin.
    pub fn new(topic: &'p str, client_id: Option<&'p str>, timestamp_ms: u64, payload: &'p [u8]) -> Self {
        Self {
            topic,
            client_id,
            timestamp_ms,
            origin: Origin::default(),
            payload,
            document: OnceCell::new(),
            whole: OnceCell::new(),
            drawn: Cell::new(0),
            grown: Cell::new(0),
            called: Cell::new(0),
        }
    }

    /// The payload as it came.
    pub fn payload(&self) -> &'p [u8] {
        self.payload
    }

    /// The topic without the prefix of Basic Ingest, which names a rule.
    pub fn topic_of_device(&self) -> &'p str {
        let behind = self.topic.strip_prefix(BASIC_INGEST).and_then(|rest| rest.split_once('/'));
        behind.map_or(self.topic, |(_, topic)| topic)
    }

    /// The MQTT client id, or `n/a` if it did not come by MQTT.
    pub fn client(&self) -> &'p str {
        self.client_id.unwrap_or("n/a")
    }

    /// The payload, to look up members.
    pub(crate) fn document(&self) -> Result<&Document<'p>, EvalError> {
        self.document.get_or_init(|| Document::check(self.payload)).as_ref().map_err(|error| error.clone().into())
    }

    /// The payload as one value.
    pub(crate) fn whole(&self) -> Result<&Value<'p>, EvalError> {
        self.whole.get_or_init(|| json::read(self.payload)).as_ref().map_err(|error| error.clone().into())
    }

    /// 32 bytes that nobody else has, but for another evaluation of the same message.
    pub(crate) fn draw(&self) -> [u8; 32] {
        let count = self.drawn.get();
        self.drawn.set(count + 1);
        let mut hash = Sha256::new();
        hash.update(self.origin.id);
        hash.update(count.to_le_bytes());
        hash.finalize().into()
    }

    /// A new evaluation begins.
    pub(crate) fn begin(&self) {
        self.grown.set(0);
        self.called.set(0);
    }

    /// Counts a call of a function that the language does not have; an error if those are too many for one evaluation.
    pub(crate) fn count_call(&self) -> Result<(), EvalError> {
        self.called.set(self.called.get() + 1);
        if self.called.get() > USER_CALLS_MAX {
            return Err(EvalError::TooManyCalls { limit: USER_CALLS_MAX });
        }
        Ok(())
    }

    /// Counts what is made; an error if that is too much for one evaluation.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), EvalError> {
        let grown = self.grown.get().saturating_add(bytes);
        self.grown.set(grown);
        if grown > GROWTH_BYTES_MAX { Err(EvalError::GrowsTooMuch { limit: GROWTH_BYTES_MAX }) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("id", &self.id).field("principal", &self.principal).finish_non_exhaustive()
    }
}
