//! What a log of shadows' changes says of their versions: each is the one after that before (P6).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::books::ConsumerVerdict;
use crate::worker::Numbered;

/// What is read of a change, as `drover.shadow.changes` has it: a numbered message is what its device reports.
#[derive(Deserialize)]
struct Change {
    version: u64,
    state: State,
}

#[derive(Deserialize)]
struct State {
    reported: Numbered,
}

/// All that was told.
#[derive(Default)]
pub struct Versions {
    /// The last one of each device.
    last: BTreeMap<String, u64>,
    /// Those that are not the ones after those before, and the first of them.
    wrong: u64,
    first: Option<String>,
}

impl Versions {
    /// Takes in a line of the log; the numbered message that the change is of. What is no such change is passed by.
    pub fn take(&mut self, line: &str) -> Option<(String, u64)> {
        let Change { version, state } = serde_json::from_str(line).ok()?;
        let Numbered { device, n } = state.reported;
        let before = self.last.insert(device.clone(), version);
        if let Some(before) = before.filter(|before| before.checked_add(1) != Some(version)) {
            self.wrong += 1;
            self.first.get_or_insert_with(|| format!("{device} version {version} after {before}"));
        }
        Some((device, n))
    }

    /// Adds to what is said of the messages what is to be said of the versions.
    pub fn judge(self, mut verdict: ConsumerVerdict) -> ConsumerVerdict {
        if let Some(first) = self.first {
            verdict.statement += &format!("; {} of a wrong version, first: {first}", self.wrong);
        }
        verdict.misversioned = self.wrong;
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(device: &str, n: u64, version: u64) -> String {
        format!(
            r#"{{"state":{{"reported":{{"device":"{device}","n":{n}}}}},"metadata":{{}},"version":{version},"timestamp":1}}"#
        )
    }

    #[test]
    fn versions_go_up_by_one_from_whatever_the_first_is_and_each_device_has_its_own() {
        let mut versions = Versions::default();
        for (device, n, version) in [("a", 0, 5), ("b", 0, 1), ("a", 1, 6), ("b", 1, 2)] {
            assert_eq!(versions.take(&change(device, n, version)), Some((device.to_owned(), n)));
        }
        assert_eq!(versions.take(r#"{"state":null,"version":3}"#), None);
        assert_eq!((versions.wrong, versions.first), (0, None));
    }

    #[test]
    fn versions_that_are_missing_repeated_or_go_back_are_wrong_and_the_first_is_told() {
        for (second, told) in [(7, "a version 7 after 5"), (5, "a version 5 after 5"), (4, "a version 4 after 5")] {
            let mut versions = Versions::default();
            for (n, version) in [(0, 5), (1, second)] {
                versions.take(&change("a", n, version));
            }
            assert_eq!((versions.wrong, versions.first.as_deref()), (1, Some(told)));
        }
    }
}
