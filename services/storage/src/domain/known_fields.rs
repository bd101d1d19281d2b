//! Which fields each device has, so that none names new ones for ever: a device's newest points, one a field, lie in one
//! partition and are answered together.
//!
//! Domain layer. What is known of a device is what the store had when it was asked, and what was let in since.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use drover_types::DeviceKey;

use crate::series::{Entry, Field};

/// What is known of all devices together, in fields, passed by those of one batch: some 50 MB. Then all is forgotten, and
/// devices are asked for again.
const KNOWN_MAX: usize = 2_000_000;
/// What a device takes beside its fields, in fields.
const DEVICE_COST: usize = 10;
/// A device that may have no more fields is asked for again after this long, in milliseconds: retention may have taken some.
const AGAIN_MS: u64 = 10 * 60 * 1_000;

/// The fields of devices that have sent something of late.
#[derive(Debug)]
pub struct KnownFields {
    /// Fields that one device may have.
    limit: usize,
    /// What may be known of all devices together, in fields.
    most: usize,
    hasher: RandomState,
    devices: HashMap<DeviceKey, Known>,
    /// Fields of all devices together.
    fields: usize,
}

/// The fields of one device.
#[derive(Debug, Default)]
struct Known {
    /// Hashes of their names, which may be long.
    fields: HashSet<u64>,
    read_ms: u64,
    /// Whether it was said that there are too many.
    told: bool,
}

impl KnownFields {
    /// Nothing is known yet; a device may have `limit` fields.
    pub fn new(limit: usize) -> Self {
        Self { limit, most: KNOWN_MAX, hasher: RandomState::new(), devices: HashMap::new(), fields: 0 }
    }

    /// Fields that one device may have.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Forgets all: others may write for these devices from now on.
    pub fn forget(&mut self) {
        self.devices.clear();
        self.fields = 0;
    }

    /// Devices of these entries whose fields have to be read from the store before [`KnownFields::refuse`] is asked.
    pub fn unread(&mut self, entries: &[Entry], now_ms: u64) -> HashSet<DeviceKey> {
        if self.fields + DEVICE_COST * self.devices.len() > self.most {
            self.forget();
        }
        entries.iter().filter(|entry| self.is_unread(entry, now_ms)).map(|entry| entry.device.clone()).collect()
    }

    fn is_unread(&self, entry: &Entry, now_ms: u64) -> bool {
        let Some(known) = self.devices.get(&entry.device) else { return !entry.values.is_empty() };
        let is_full = known.fields.len() >= self.limit;
        let is_old = now_ms.saturating_sub(known.read_ms) >= AGAIN_MS;
        let is_new = |field: &Field| !known.fields.contains(&self.hasher.hash_one(field));
        is_full && is_old && entry.values.iter().any(|(field, _)| is_new(field))
    }

    /// Takes what the store has of a device.
    pub fn learn(&mut self, device: DeviceKey, fields: &[Field], now_ms: u64) {
        let fields: HashSet<u64> = fields.iter().map(|field| self.hasher.hash_one(field)).collect();
        let count = fields.len();
        let told = self.devices.get(&device).is_some_and(|known| known.told);
        let former = self.devices.insert(device, Known { fields, read_ms: now_ms, told });
        self.fields = self.fields + count - former.map_or(0, |former| former.fields.len());
    }

    /// Places of the values whose fields are more than the device may have, ascending. The fields of the others are
    /// known from now on.
    pub fn refuse(&mut self, entry: &Entry) -> Vec<usize> {
        if entry.values.is_empty() {
            return Vec::new(); // and its device stays unread
        }
        let known = match self.devices.get_mut(&entry.device) {
            Some(known) => known,
            None => self.devices.entry(entry.device.clone()).or_default(),
        };
        let mut refused = Vec::new();
        for (place, (field, _)) in entry.values.iter().enumerate() {
            let hash = self.hasher.hash_one(field);
            if known.fields.contains(&hash) {
                continue;
            }
            if known.fields.len() >= self.limit {
                refused.push(place);
            } else {
                known.fields.insert(hash);
                self.fields += 1;
            }
        }
        if !refused.is_empty() && !known.told {
            known.told = true;
            let (device, limit, topic) = (&entry.device, self.limit, entry.message.topic.as_str());
            tracing::warn!(%device, topic, limit, "a device names more fields than it may have; new ones are no points");
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::{DeviceId, Qos, RecordId, TenantId};

    use crate::series::{Message, Place, Value};

    fn device(name: &str) -> DeviceKey {
        DeviceKey { tenant: TenantId::new("home").expect("valid"), device: DeviceId::new(name).expect("valid") }
    }

    fn entry(name: &str, fields: &[&str]) -> Entry {
        let at = Place { time_ms: 1, id: RecordId([0; 16]) };
        let message = Message { at, topic: "t".to_owned(), qos: Qos::AtMostOnce, payload: "{}".into(), of_rule: false };
        let values = fields.iter().map(|name| (field(name), Value::Boolean(true))).collect();
        Entry { device: device(name), message, values }
    }

    fn field(name: &str) -> Field {
        Field::new(name).expect("valid")
    }

    #[test]
    fn a_device_has_as_many_fields_as_it_may_have_and_those_stay() {
        let mut known = KnownFields::new(3);
        known.learn(device("d"), &[field("a"), field("b")], 0);
        assert_eq!(known.refuse(&entry("d", &["c", "d", "a", "e"])), [1, 3]);
        assert!(known.refuse(&entry("d", &["a", "b", "c"])).is_empty());
        assert!(known.refuse(&entry("other", &["d", "e"])).is_empty());
    }

    #[test]
    fn a_device_is_read_once_and_one_that_is_full_again_after_a_while_if_it_names_something_new() {
        let mut known = KnownFields::new(2);
        let both = [entry("d", &["a"]), entry("silent", &[]), entry("d", &["b"])];
        assert_eq!(known.unread(&both, 0), HashSet::from([device("d")]));
        assert!(known.refuse(&both[1]).is_empty());
        assert_eq!(known.unread(&[entry("silent", &["a"])], 0), HashSet::from([device("silent")]));
        known.learn(device("d"), &[field("a"), field("b")], 0);
        assert_eq!(known.unread(&both, AGAIN_MS), HashSet::new(), "nothing new");
        let new = [entry("d", &["b", "c"])];
        assert_eq!(known.unread(&new, AGAIN_MS - 1), HashSet::new(), "too early");
        assert_eq!(known.refuse(&new[0]), [1]);
        assert_eq!(known.unread(&new, AGAIN_MS), HashSet::from([device("d")]));
        known.learn(device("d"), &[field("b")], AGAIN_MS);
        assert!(known.refuse(&new[0]).is_empty(), "retention has taken one");
    }

    #[test]
    fn what_is_known_of_all_devices_is_bounded() {
        let mut known = KnownFields { most: 2 * DEVICE_COST + 3, ..KnownFields::new(9) };
        known.learn(device("d"), &[field("a")], 0);
        known.learn(device("e"), &[field("a"), field("b")], 0);
        let sent = [entry("d", &["a"])];
        assert_eq!(known.unread(&sent, 0), HashSet::new(), "at the bound");
        known.learn(device("e"), &[field("a")], 0);
        assert!(known.refuse(&entry("e", &["b", "c"])).is_empty());
        assert_eq!(known.unread(&sent, 0), HashSet::from([device("d")]), "over it");
        assert_eq!((known.fields, known.devices.len()), (0, 0));
    }
}
