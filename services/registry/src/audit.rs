//! Entries of the audit trail: who changed what and when.
//!
//! Innermost layer: plain data without I/O; [`crate::wire`] gives it its stored and sent form.

use std::fmt;
use std::str::FromStr;

use drover_types::TenantId;

use crate::object::Kind;

/// How long an entry is kept, milliseconds.
pub const KEPT_MS: u64 = 90 * 24 * 3600 * 1000;

/// Who asks where nobody has said who does: a service of an older version, or a client with the administrator's token that
/// calls gRPC itself.
pub const UNKNOWN: &str = "unknown";
/// The registry itself, when a certificate registers its device.
pub const REGISTRATION: &str = "registration";

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Updated,
    Deleted,
}

/// One change of one object; never what was written, only where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub tenant: TenantId,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub actor: String,
    pub action: Action,
    pub kind: Kind,
    /// Of a credential: its id.
    pub name: String,
    /// Of a credential: whose it is.
    pub device: Option<String>,
    /// Of the write.
    pub revision: u64,
    /// What an update has changed, as paths.
    pub changed: Vec<String>,
}

impl Entry {
    /// Where it stands, which no other entry of its tenant does.
    pub fn position(&self) -> Position {
        let object = format!("{}/{}", self.kind.as_str(), self.name);
        Position { time_ms: self.time_ms, revision: self.revision, object }
    }

    /// Bytes of its texts: about what it takes of an answer.
    pub fn bytes(&self) -> usize {
        let device = self.device.as_ref().map_or(0, String::len);
        self.actor.len() + self.name.len() + device + self.changed.iter().map(String::len).sum::<usize>()
    }
}

/// Where an entry stands among those of its tenant: by time, then in the order of the writes of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub revision: u64,
    /// `kind/name`; empty: before all of this time and revision.
    pub object: String,
}

impl Position {
    /// Before every entry of this millisecond and of later ones.
    pub fn at(time_ms: u64) -> Self {
        Self { time_ms, revision: 0, object: String::new() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.time_ms, self.revision, self.object)
    }
}

/// A text that is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(NoPosition);
        let (time_ms, revision) = (number()?, number()?);
        Ok(Self { time_ms, revision, object: parts.next().ok_or(NoPosition)?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_and_orders_by_time_then_revision_then_object() {
        let position = |time_ms, revision, object: &str| Position { time_ms, revision, object: object.to_owned() };
        let ordered = [
            Position::at(9),
            position(9, 1, "rule/b.c"),
            position(9, 2, ""),
            position(9, 2, "device/a"),
            position(9, 2, "rule/a"),
            Position::at(10),
        ];
        assert!(ordered.is_sorted());
        for position in ordered {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for wrong in ["", "9", "9.1", "x.1.rule/a", "9.-1.rule/a", "99999999999999999999.1.rule/a"] {
            assert_eq!(wrong.parse::<Position>(), Err(NoPosition), "{wrong}");
        }
    }
}
