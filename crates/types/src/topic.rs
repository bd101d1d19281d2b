//! Topic names and filters, as MQTT 5 section 4.7 defines them (MQTT 3.1.1 section 4.7 says the same).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// Why a text is not a topic name or filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    #[error("topic is empty")]
    Empty,
    #[error("topic has {bytes} bytes, limit is {TOPIC_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("topic has {levels} levels, limit is {TOPIC_LEVELS_MAX}")]
    TooDeep { levels: usize },
    #[error("topic contains the null character")]
    Null,
    #[error("topic name contains the wildcard {wildcard:?}")]
    WildcardInName { wildcard: char },
    #[error("wildcard {wildcard:?} does not stand alone in its level")]
    WildcardNotAlone { wildcard: char },
    #[error("wildcard '#' is not the last level")]
    HashNotLast,
    #[error("shared subscription has no share name or no filter")]
    Share,
}

fn check_text(text: &str) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(InvalidTopic::TooLong { bytes: text.len() });
    }
    if text.contains('\0') {
        return Err(InvalidTopic::Null);
    }
    let levels = text.bytes().filter(|byte| *byte == b'/').count() + 1;
    if levels > TOPIC_LEVELS_MAX {
        return Err(InvalidTopic::TooDeep { levels });
    }
    Ok(())
}

/// A topic a message is published to: no wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Box<str>);

impl TopicName {
    /// Checks `text` [MQTT-4.7.1-1, MQTT-4.7.3-1, MQTT-4.7.3-2].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTopic> {
        let text = text.as_ref();
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    /// The check of [`TopicName::new`] without making one.
    pub fn check(text: &str) -> Result<(), InvalidTopic> {
        check_text(text)?;
        match text.bytes().find(|byte| matches!(byte, b'+' | b'#')) {
            Some(wildcard) => Err(InvalidTopic::WildcardInName { wildcard: wildcard.into() }),
            None => Ok(()),
        }
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A filter a client subscribes to, or a rule selects from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicFilter(Box<str>);

impl TopicFilter {
    /// Checks `text` [MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.3-1, MQTT-4.8.2-1, MQTT-4.8.2-2].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTopic> {
        let text = text.as_ref();
        check_text(text)?;
        let mut filter = text;
        if let Some(rest) = text.strip_prefix("$share/") {
            let (share, shared) = rest.split_once('/').ok_or(InvalidTopic::Share)?;
            if share.is_empty() || shared.is_empty() || share.contains(['+', '#']) {
                return Err(InvalidTopic::Share);
            }
            filter = shared;
        }
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            if let Some(wildcard) = level.chars().find(|c| matches!(c, '+' | '#')) {
                if level.len() > 1 {
                    return Err(InvalidTopic::WildcardNotAlone { wildcard });
                }
                if wildcard == '#' && levels.peek().is_some() {
                    return Err(InvalidTopic::HashNotLast);
                }
            }
        }
        Ok(Self(text.into()))
    }

    /// The filter as text, with its `$share/NAME/` prefix if it has one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Share name and filter of a shared subscription (MQTT 5 section 4.8.2).
    pub fn share(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix("$share/")?.split_once('/')
    }

    /// Whether `topic` matches; a shared filter matches what its filter part matches.
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.share().map_or(&self.0, |(_, filter)| filter), topic)
    }
}

/// Whether the valid filter `filter` matches the valid topic name `topic` (MQTT 5 section 4.7.1 and 4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false; // [MQTT-4.7.2-1]
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match topic_levels.next() {
            Some(name) if level == "+" || level == name => {}
            Some(_) | None => return false,
        }
    }
    topic_levels.next().is_none()
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidTopic;
            fn try_from(text: String) -> Result<Self, InvalidTopic> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(topic: $name) -> String {
                topic.0.into()
            }
        }
    };
}
text!(TopicName);
text!(TopicFilter);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        let table = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/#", "sport", true),
            ("#", "sport/tennis", true),
            ("#", "$SYS/uptime", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a/b", "a/B", false),
            ("a", "a/b", false),
        ];
        for (filter, topic, expected) in table {
            let filter = TopicFilter::new(filter).expect("valid filter");
            assert_eq!(filter.matches(topic), expected, "{filter} against {topic}");
        }
        assert!(TopicFilter::new("$share/g/a/+").expect("valid").matches("a/b"));
    }

    #[test]
    fn malformed_topics_are_refused_by_name() {
        assert_eq!(TopicName::new(""), Err(InvalidTopic::Empty));
        assert_eq!(TopicName::new("a/+"), Err(InvalidTopic::WildcardInName { wildcard: '+' }));
        assert_eq!(TopicName::new("a\0"), Err(InvalidTopic::Null));
        assert!(TopicName::new("a".repeat(4_096)).is_ok());
        assert_eq!(TopicName::new("a".repeat(4_097)), Err(InvalidTopic::TooLong { bytes: 4_097 }));
        assert!(TopicName::new("/".repeat(31)).is_ok());
        assert_eq!(TopicName::new("/".repeat(32)), Err(InvalidTopic::TooDeep { levels: 33 }));
        assert_eq!(TopicFilter::new("a#"), Err(InvalidTopic::WildcardNotAlone { wildcard: '#' }));
        assert_eq!(TopicFilter::new("a/#/b"), Err(InvalidTopic::HashNotLast));
        for share in ["$share/g", "$share//a", "$share/g/", "$share/+/a"] {
            assert_eq!(TopicFilter::new(share), Err(InvalidTopic::Share), "{share}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_its_wildcard_forms(levels in prop::collection::vec("[a-z]{0,3}", 1..8), at in 0usize..8) {
            let name = levels.join("/");
            prop_assume!(!name.is_empty());
            prop_assert!(matches(&name, &name));
            prop_assert!(matches("#", &name));
            let at = at % levels.len();
            let mut plus = levels.clone();
            plus[at] = "+".into();
            prop_assert!(matches(&plus.join("/"), &name));
            let mut hash = levels[..at].to_vec();
            hash.push("#".into());
            prop_assert!(matches(&hash.join("/"), &name));
        }
    }
}
