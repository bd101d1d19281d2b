//! The keys of the embedded store.
//!
//! Parts of a key are separated by a zero byte, which none of them may hold, and end with the time and the id of fixed
//! length, big-endian, so that the order of bytes is the order of names, times and ids.

use drover_types::{DeviceKey, TenantId};

use crate::adapters::rows::{self, PLACE_BYTES};
use crate::ports::StoreError;
use crate::series::{Field, Place, Series};

/// Prefix of the rows of all devices of a tenant.
pub fn tenant(tenant: &TenantId) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0]].concat()
}

/// The name that a key, or what is left of one, begins with.
pub fn first_name(key: &[u8]) -> Result<&str, StoreError> {
    let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
    str::from_utf8(name).map_err(rows::corrupt)
}

/// Where the rows of the next name under `prefix` may begin.
pub fn behind(prefix: &[u8], name: &str) -> Vec<u8> {
    [prefix, name.as_bytes(), &[1]].concat()
}

/// Prefix of a device's rows: its messages, or the newest points of its fields.
pub fn device(device: &DeviceKey) -> Vec<u8> {
    [device.tenant.as_str().as_bytes(), &[0], device.device.as_str().as_bytes(), &[0]].concat()
}

/// Prefix of the points of a series.
pub fn series(series: &Series) -> Vec<u8> {
    points_of(&series.device, &series.field)
}

/// Prefix of the points of a field of a device.
pub fn points_of(of: &DeviceKey, field: &Field) -> Vec<u8> {
    let mut key = device(of);
    key.extend_from_slice(field.as_str().as_bytes());
    key.push(0);
    key
}

/// `prefix` and a place behind it.
pub fn at(prefix: &[u8], place: Place) -> Vec<u8> {
    [prefix, &rows::place(place)].concat()
}

/// Prefix and place of a key that ends with a place.
pub fn split(key: &[u8]) -> Result<(&[u8], Place), StoreError> {
    let (prefix, place) =
        key.split_at_checked(key.len().wrapping_sub(PLACE_BYTES)).ok_or_else(|| rows::corrupt("short key"))?;
    Ok((prefix, rows::read_place(place)?))
}
