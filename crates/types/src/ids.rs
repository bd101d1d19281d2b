//! Ids of tenants, devices, clients and records; each is checked once, when it is made, and shared by all who hold it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

use crate::Random;
use crate::hex::hex;
use crate::limits::ID_BYTES_MAX;

/// The tenant of whoever names none.
pub const DEFAULT_TENANT: &str = "default";

/// Longest tenant name, in bytes: a Kubernetes namespace (RFC 1123 label).
const TENANT_BYTES_MAX: usize = 63;
/// Longest MQTT client id, in bytes: a UTF-8 string's length field is 16 bits wide (MQTT section 1.5.4).
const CLIENT_BYTES_MAX: usize = 65_535;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    #[error("{kind} is empty")]
    Empty { kind: &'static str },
    #[error("{kind} has {bytes} bytes, limit is {limit}")]
    TooLong { kind: &'static str, bytes: usize, limit: usize },
    #[error("{kind} contains {found:?}, allowed are {allowed}")]
    Character { kind: &'static str, found: char, allowed: &'static str },
}

/// Checks the length of a text, in bytes, and its characters.
pub(crate) fn check(
    kind: &'static str,
    text: &str,
    limit: usize,
    allowed: &'static str,
    ok: fn(char) -> bool,
) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { kind });
    }
    if text.len() > limit {
        return Err(InvalidId::TooLong { kind, bytes: text.len(), limit });
    }
    match text.chars().find(|c| !ok(*c)) {
        Some(found) => Err(InvalidId::Character { kind, found, allowed }),
        None => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr, $allowed:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Checks `text`; allowed are ", $allowed, ".")]
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check($kind, text, $limit, $allowed, $ok)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, shared with all who hold the id.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                String::from(&*id.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }
    };
}

id!(
    /// A tenant: a Kubernetes namespace, or `default`.
    TenantId, "tenant", TENANT_BYTES_MAX, "a-z, 0-9 and -",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);
id!(
    /// A device of one tenant.
    DeviceId, "device", ID_BYTES_MAX, "A-Z, a-z, 0-9 and . _ : @ -",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '@' | '-')
);
id!(
    /// An MQTT client id; equals the device id unless the device's policy allows more.
    ClientId, "client id", CLIENT_BYTES_MAX, "any text without U+0000",
    |c| c != '\0'
);

impl TenantId {
    /// The tenant of whoever names none; one text for all who ask.
    pub fn default_tenant() -> Self {
        static DEFAULT: LazyLock<TenantId> = LazyLock::new(|| TenantId(DEFAULT_TENANT.into()));
        DEFAULT.clone()
    }
}

impl From<&DeviceId> for ClientId {
    /// The client id that is the device's name, which is shared: whatever a device id is, a client id may be.
    fn from(device: &DeviceId) -> Self {
        Self(device.shared())
    }
}

/// Who a record is about: `tenant/device`, the key of every device topic in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceKey {
    pub tenant: TenantId,
    pub device: DeviceId,
}

impl DeviceKey {
    /// The key as text: what `Display` says, in one allocation.
    pub fn to_text(&self) -> String {
        let (tenant, device) = (self.tenant.as_str(), self.device.as_str());
        let mut text = String::with_capacity(tenant.len() + 1 + device.len());
        text.push_str(tenant);
        text.push('/');
        text.push_str(device);
        text
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.device)
    }
}

/// Unique per receipt of a message: the `id` header, 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 16]);

impl RecordId {
    /// Time-ordered id in the layout of a version 7 UUID (RFC 9562 section 5.7) from 10 random bytes.
    pub fn at(now_ms: u64, random: [u8; 10]) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        id[6] = (id[6] & 0x0f) | 0x70;
        id[8] = (id[8] & 0x3f) | 0x80;
        Self(id)
    }

    /// A new id of this time.
    pub fn new(now_ms: u64, random: &dyn Random) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        Self::at(now_ms, bytes)
    }

    /// Reads what `Display` writes: 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32 && is_hex)?;
        Some(Self(number.to_be_bytes()))
    }

    /// The id of what `rule`'s action number `action` made of the record `self`: the same whenever it is computed
    /// again.
    pub fn derived(self, rule: &str, action: u32) -> Self {
        let mut input = Vec::with_capacity(20 + rule.len());
        input.extend_from_slice(&self.0);
        input.extend_from_slice(&action.to_be_bytes());
        input.extend_from_slice(rule.as_bytes());
        Self(xxhash_rust::xxh3::xxh3_128(&input).to_be_bytes())
    }
}

/// Gives the ids of one source: each is greater than those before of the same millisecond, or of an earlier one (RFC 9562
/// section 6.2, method 1: a counter of 12 bits behind the time).
#[derive(Debug, Default)]
pub struct RecordIds {
    /// Of the last id. Runs ahead of the clock where a millisecond has more ids than the counter counts.
    last_ms: u64,
    count: u16,
    /// Random bytes of ids to come.
    drawn: Vec<u8>,
}

impl RecordIds {
    /// Largest value of the counter.
    const COUNT_MAX: u16 = 0x0fff;
    /// Random bytes of an id.
    const RANDOM_BYTES: usize = 10;
    /// Ids whose random bytes are drawn at once.
    const DRAWN: usize = 64;

    /// The next id, at `now_ms` since the Unix epoch.
    pub fn next(&mut self, now_ms: u64, random: &dyn Random) -> RecordId {
        (self.last_ms, self.count) = match self.count {
            _ if now_ms > self.last_ms => (now_ms, 0),
            Self::COUNT_MAX => (self.last_ms + 1, 0),
            count => (self.last_ms, count + 1),
        };
        if self.drawn.is_empty() {
            self.drawn.resize(Self::RANDOM_BYTES * Self::DRAWN, 0);
            random.fill(&mut self.drawn);
        }
        let left = self.drawn.len() - Self::RANDOM_BYTES;
        let mut bytes = [0; Self::RANDOM_BYTES];
        bytes.copy_from_slice(&self.drawn[left..]);
        self.drawn.truncate(left);
        bytes[..2].copy_from_slice(&self.count.to_be_bytes());
        RecordId::at(self.last_ms, bytes)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// Gives each byte one more than the one before.
    #[derive(Default)]
    struct Counting(AtomicU8);

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.iter_mut().for_each(|byte| *byte = self.0.fetch_add(1, Ordering::Relaxed));
        }
    }

    #[test]
    fn device_ids_are_checked_at_their_limit() {
        assert!(DeviceId::new("a".repeat(128)).is_ok());
        assert_eq!(DeviceId::new("a".repeat(129)), Err(InvalidId::TooLong { kind: "device", bytes: 129, limit: 128 }));
        assert_eq!(DeviceId::new(""), Err(InvalidId::Empty { kind: "device" }));
        assert!(DeviceId::new("A.z_0:9@-").is_ok());
        for bad in ["a/b", "a b", "é", "a+", "a#", "a\0"] {
            assert!(matches!(DeviceId::new(bad), Err(InvalidId::Character { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_device_and_the_client_of_its_name_share_the_text() {
        let device = DeviceId::new("lamp").expect("valid");
        let client = ClientId::from(&device);
        assert_eq!(ClientId::new("lamp"), Ok(client.clone()));
        assert!(Arc::ptr_eq(&device.shared(), &client.shared()));
    }

    #[test]
    fn record_ids_sort_by_time_and_derive_the_same_each_time() {
        let (old, new) = (RecordId::at(1, [255; 10]), RecordId::at(2, [0; 10]));
        assert!(old < new);
        assert_eq!(old.derived("r", 0), old.derived("r", 0));
        assert_ne!(old.derived("r", 0), old.derived("r", 1));
        assert_ne!(old.derived("r", 0), new.derived("r", 0));
    }

    #[test]
    fn record_ids_are_read_as_they_are_written() {
        for id in [RecordId([0; 16]), RecordId([255; 16]), RecordId::at(1_795_000_000_000, [7; 10])] {
            assert_eq!(RecordId::parse(&id.to_string()), Some(id));
        }
        let (short, long, upper) = ("0".repeat(31), "0".repeat(33), "A".repeat(32));
        for text in ["", &short, &long, &upper, "+0000000000000000000000000000000"] {
            assert_eq!(RecordId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_of_one_source_sort_as_they_were_given_within_a_millisecond_too() {
        let (mut ids, mut last, random) = (RecordIds::default(), RecordId([0; 16]), Counting::default());
        for now_ms in [1; 10_000].into_iter().chain([2, 3, 9, 8, 10]) {
            let id = ids.next(now_ms, &random);
            assert!(id > last, "{id} at {now_ms} ms behind {last}");
            last = id;
        }
        assert_eq!(last.0[..8], [0, 0, 0, 0, 0, 10, 0x70, 0], "the time, version 7, the counter");
    }
}
