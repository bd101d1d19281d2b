//! Which shadow: of which device, under which name.

use std::fmt;

use drover_types::shadow::ShadowName;
use drover_types::{DeviceId, DeviceKey, TenantId};

/// One shadow. Its text, `tenant/device` or `tenant/device/name`, is the key of its documents in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShadowKey {
    pub device: DeviceKey,
    pub name: ShadowName,
}

impl ShadowKey {
    /// Reads the text of a key.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let device =
            DeviceKey { tenant: TenantId::new(parts.next()?).ok()?, device: DeviceId::new(parts.next()?).ok()? };
        let name = match parts.next() {
            Some("") => return None,
            Some(name) => ShadowName::new(name).ok()?,
            None => ShadowName::default(),
        };
        Some(Self { device, name })
    }

    /// Whether it is the classic shadow, of which a device has one.
    pub fn is_classic(&self) -> bool {
        self.name.as_str().is_empty()
    }

    /// The name as AWS's messages have it: the classic shadow bears that of its device.
    pub fn shown(&self) -> &str {
        match self.name.as_str() {
            "" => self.device.device.as_str(),
            name => name,
        }
    }
}

impl fmt::Display for ShadowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "{}", self.device),
            name => write!(f, "{}/{name}", self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text() {
        for text in ["home/lamp", "home/lamp/config", "home/a:b/c:d"] {
            assert_eq!(ShadowKey::parse(text).expect(text).to_string(), text);
        }
        for text in ["home", "home/", "home/lamp/", "home/lamp/a/b", "HOME/lamp"] {
            assert_eq!(ShadowKey::parse(text), None, "{text}");
        }
    }
}
