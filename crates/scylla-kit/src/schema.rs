//! What a service wants in the keyspace, as a list of steps that only ever grows.

use sha2::{Digest, Sha256};

/// The tables of one service.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Of the service; its tables begin with it (`registry_objects`), so that services share a keyspace.
    pub name: &'static str,
    /// Numbered from 1 without gaps. What was released never changes: a new step corrects an old one.
    pub migrations: &'static [Migration],
}

/// One step. Its statements may run more than once, and be cut off between any two: each says `IF NOT EXISTS`, or is
/// otherwise harmless to repeat. Tables are named without the keyspace.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    pub number: u32,
    pub name: &'static str,
    pub statements: &'static [&'static str],
}

impl Schema {
    /// Number of the last step.
    pub(crate) fn version(&self) -> u32 {
        self.migrations.last().map_or(0, |last| last.number)
    }
}

impl Migration {
    /// Tells one text of a step from another; white space does not count.
    pub(crate) fn checksum(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        for statement in self.statements {
            for word in statement.split_whitespace() {
                hash.update(word);
                hash.update(b" ");
            }
            hash.update(b";");
        }
        hash.finalize().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_sees_words_and_not_white_space() {
        let of = |statements| Migration { number: 1, name: "first", statements }.checksum();
        assert_eq!(of(&["CREATE  TABLE a\n (b int)"]), of(&["CREATE TABLE a (b int)"]));
        assert_ne!(of(&["CREATE TABLE a"]), of(&["CREATE TABLE b"]));
        assert_ne!(of(&["a", "b"]), of(&["a b"]));
    }
}
