//! Slices that are known to be listed, so that each is written once and not with every row.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_types::DeviceKey;
use tokio::time::Instant;

use super::slices::{Kind, Slice};

/// Slices remembered, 30 MB of them; when they are this many, all are forgotten and listed again.
const KNOWN_MAX: usize = 200_000;
/// How long they are remembered: less than the day that the list lives longer than the rows it leads to, since a time
/// to live begins with the last write.
const KNOWN_FOR: Duration = Duration::from_secs(12 * 3600);

/// A slice that has rows of a device.
pub type Listing = (DeviceKey, Kind, Slice);

/// What this process has listed.
pub struct Listed(Mutex<Known>);

struct Known {
    slices: HashSet<Listing>,
    since: Instant,
}

impl Listed {
    /// Nothing is known at `now`.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Known { slices: HashSet::new(), since: now }))
    }

    /// Those of `slices` that have to be listed.
    pub fn missing(&self, slices: BTreeSet<Listing>, now: Instant) -> Vec<Listing> {
        let mut known = self.known();
        if now.duration_since(known.since) >= KNOWN_FOR {
            *known = Known { slices: HashSet::new(), since: now };
        }
        slices.into_iter().filter(|slice| !known.slices.contains(slice)).collect()
    }

    /// Remembers what was listed.
    pub fn add(&self, slices: Vec<Listing>) {
        let mut known = self.known();
        for slice in slices {
            if known.slices.len() >= KNOWN_MAX {
                known.slices.clear();
            }
            known.slices.insert(slice);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use drover_types::{DeviceId, TenantId};

    use super::*;

    fn listing(start_ms: u64) -> Listing {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new("d").expect("valid") };
        (device, Kind::Points, Slice { slice_ms: 1, start_ms })
    }

    #[test]
    fn a_slice_is_listed_once_in_half_a_day() {
        let (began, listed) = (Instant::now(), Listed::new(Instant::now()));
        let missing = |now| listed.missing(BTreeSet::from([listing(1), listing(2)]), now);
        assert_eq!(missing(began), [listing(1), listing(2)]);
        listed.add(vec![listing(1)]);
        assert_eq!(missing(began + KNOWN_FOR / 2), [listing(2)]);
        assert_eq!(missing(began + KNOWN_FOR * 2), [listing(1), listing(2)]);
    }

    #[test]
    fn at_the_limit_all_are_forgotten() {
        let listed = Listed::new(Instant::now());
        listed.add((0..KNOWN_MAX as u64).map(listing).collect());
        assert_eq!(listed.missing(BTreeSet::from([listing(0)]), Instant::now()), []);
        listed.add(vec![listing(KNOWN_MAX as u64)]);
        assert_eq!(listed.missing(BTreeSet::from([listing(0)]), Instant::now()), [listing(0)]);
    }
}
