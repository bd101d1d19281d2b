//! In which partition a device is listed, and where a page of the list ends.

use drover_types::{DeviceId, fnv1a};

use super::schema::DEVICE_SHARDS;
use crate::adapters::rows::corrupt;
use crate::ports::StoreError;

/// The partition that lists a device, by its name, which never changes.
pub fn shard(device: &DeviceId) -> u8 {
    (fnv1a(device.as_str().bytes()) % u32::from(DEVICE_SHARDS)) as u8
}

/// A place in the list: a partition, and the name there from which on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub shard: u8,
    pub name: String,
}

impl Cursor {
    /// What [`Self::write`] has written.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let (shard, name) = bytes.split_first().ok_or_else(|| corrupt("an empty place in the list of devices"))?;
        Ok(Self { shard: *shard, name: str::from_utf8(name).map_err(corrupt)?.to_owned() })
    }

    pub fn write(&self) -> Vec<u8> {
        [&[self.shard], self.name.as_bytes()].concat()
    }

    /// The beginning of the next partition; `None`: this was the last.
    pub fn next_shard(&self) -> Option<Self> {
        let shard = self.shard + 1;
        (shard < DEVICE_SHARDS).then(|| Self { shard, name: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stays_in_the_partition_that_lists_it() {
        let shards = ["d", "kitchen", "thermo-1"].map(|name| shard(&DeviceId::new(name).expect("valid")));
        assert_eq!(shards, [3, 15, 8]);
    }

    #[test]
    fn a_place_reads_back_and_the_partitions_follow_each_other() {
        let place = Cursor { shard: 3, name: "kitchen".to_owned() };
        assert_eq!(Cursor::read(&place.write()).expect("reads"), place);
        let shards: Vec<u8> =
            std::iter::successors(Some(Cursor::default()), Cursor::next_shard).map(|c| c.shard).collect();
        assert_eq!(shards, (0..DEVICE_SHARDS).collect::<Vec<_>>());
        assert!(Cursor::read(&[]).is_err());
    }
}
