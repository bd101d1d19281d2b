//! From requests to what the domain takes; checks shape only.

use drover_types::{ApiError, DEFAULT_TENANT, DeviceId, DeviceKey, RecordId, TenantId};

use crate::series::{Field, Place, Series};

/// Empty: the tenant `default`.
pub fn tenant(text: &str) -> Result<TenantId, ApiError> {
    let text = if text.is_empty() { DEFAULT_TENANT } else { text };
    TenantId::new(text).map_err(|error| ApiError::invalid("tenant", error.to_string()))
}

pub fn device(of: &str, name: &str) -> Result<DeviceKey, ApiError> {
    let device = DeviceId::new(name).map_err(|error| ApiError::invalid("device", error.to_string()))?;
    Ok(DeviceKey { tenant: tenant(of)?, device })
}

pub fn devices(of: &str, names: &[String]) -> Result<Vec<DeviceKey>, ApiError> {
    names.iter().map(|name| device(of, name)).collect()
}

pub fn series(tenant: &str, name: &str, field: &str) -> Result<Series, ApiError> {
    let field = Field::new(field).map_err(|error| ApiError::invalid("field", error.to_string()))?;
    Ok(Series { device: device(tenant, name)?, field })
}

pub fn place(time_ms: u64, id: &[u8]) -> Result<Place, ApiError> {
    let id = <[u8; 16]>::try_from(id).map_err(|_| ApiError::invalid("id", "has 16 bytes").over(16, id.len()))?;
    Ok(Place { time_ms, id: RecordId(id) })
}

/// End of a span; 0: without end.
pub fn end(to_ms: u64) -> u64 {
    if to_ms == 0 { u64::MAX } else { to_ms }
}
