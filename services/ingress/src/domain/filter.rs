//! How topic filters relate to each other: which covers which, and which share a topic.
//!
//! Domain layer, pure. A policy's filter is cut into levels before ids are put in their places, so an id can never add
//! a level or a wildcard. Ids are put there when a question is asked, so that all devices of a policy share its patterns.

use std::borrow::Cow;

/// Where a policy names the device that asks.
const DEVICE: &str = "${device}";
/// Where a policy names the client that asks.
const CLIENT: &str = "${client}";

/// First level of a shared subscription.
const SHARE: &str = "$share/";

/// Share name and topics of a shared subscription (MQTT 5 section 4.8.2); `None`: the valid filter is not one.
pub fn share(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix(SHARE)?.split_once('/')
}

/// The part of a valid filter that topics are matched with.
pub fn topics(filter: &str) -> &str {
    share(filter).map_or(filter, |(_, topics)| topics)
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub device: &'a str,
    pub client: &'a str,
}

/// One level of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    /// `+`
    One,
    /// `#`, always last: this level's parent and everything below.
    Rest,
    Literal(Box<str>),
    /// Literal but for `${device}` and `${client}`.
    WithIds(Box<str>),
}

/// A topic filter of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<[Level]>);

impl Pattern {
    /// The filter `text`; ids stay open.
    pub fn new(text: &str) -> Self {
        let mut levels: Vec<Level> = text.split('/').map(Level::new).collect();
        if levels == [Level::One, Level::Rest] {
            levels.remove(0); // `+/#` matches what `#` matches
        }
        Self(levels.into())
    }

    /// Whether every topic that `filter` matches is matched by this pattern. A topic name is a filter that matches
    /// itself.
    pub fn covers(&self, filter: &str, who: Who<'_>) -> bool {
        if filter.starts_with('$') && self.starts_with_wildcard() {
            return false; // [MQTT-4.7.2-1]
        }
        let mut asked = filter.split('/');
        for level in &*self.0 {
            let asked = asked.next();
            let covered = match level {
                Level::Rest => return true,
                Level::One => asked.is_some_and(|asked| asked != "#"),
                Level::Literal(_) | Level::WithIds(_) => {
                    asked.is_some_and(|asked| !is_wildcard(asked) && asked == level.text(who))
                }
            };
            if !covered {
                return false;
            }
        }
        asked.next().is_none()
    }

    /// Whether some topic is matched by both this pattern and `filter`.
    pub fn overlaps(&self, filter: &str, who: Who<'_>) -> bool {
        let own_dollar = self.0.first().is_some_and(|level| level.text(who).starts_with('$'));
        if filter.starts_with('$') && self.starts_with_wildcard() || own_dollar && filter.starts_with(['+', '#']) {
            return false; // [MQTT-4.7.2-1]
        }
        let mut asked = filter.split('/');
        for level in &*self.0 {
            let asked = asked.next();
            let shared = match (level, asked) {
                (Level::Rest, _) | (_, Some("#")) => return true,
                (Level::One, asked) => asked.is_some(),
                (Level::Literal(_) | Level::WithIds(_), asked) => {
                    asked.is_some_and(|asked| asked == "+" || asked == level.text(who))
                }
            };
            if !shared {
                return false;
            }
        }
        matches!(asked.next(), None | Some("#"))
    }

    fn starts_with_wildcard(&self) -> bool {
        matches!(self.0.first(), Some(Level::One | Level::Rest))
    }
}

impl Level {
    fn new(level: &str) -> Self {
        match level {
            "+" => Level::One,
            "#" => Level::Rest,
            text if text.contains(CLIENT) || text.contains(DEVICE) => Level::WithIds(text.into()),
            text => Level::Literal(text.into()),
        }
    }

    /// The text this level stands for; empty for a wildcard.
    fn text(&self, who: Who<'_>) -> Cow<'_, str> {
        match self {
            Level::One | Level::Rest => Cow::Borrowed(""),
            Level::Literal(text) => Cow::Borrowed(text),
            // The device first: its id cannot name the client, while a client's could name the device.
            Level::WithIds(text) => Cow::Owned(text.replace(DEVICE, who.device).replace(CLIENT, who.client)),
        }
    }
}

fn is_wildcard(level: &str) -> bool {
    matches!(level, "+" | "#")
}

/// Client ids of a policy: text in which `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPattern {
    /// The text between the stars; ids stay open.
    parts: Box<[Box<str>]>,
}

impl ClientPattern {
    /// The pattern `text`. `${client}` matches whoever asks.
    pub fn new(text: &str) -> Self {
        Self { parts: text.replace(CLIENT, "*").split('*').map(Into::into).collect() }
    }

    /// Whether the client id is one of these.
    pub fn matches(&self, who: Who<'_>) -> bool {
        let parts: Vec<String> = self.parts.iter().map(|part| part.replace(DEVICE, who.device)).collect();
        let [first, between @ .., last] = parts.as_slice() else {
            return parts.first().is_some_and(|only| only == who.client);
        };
        let rest = who.client.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut rest) = rest else { return false };
        between.iter().all(|part| match rest.split_once(part.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use drover_types::matches;
    use proptest::prelude::*;

    use super::*;

    fn who(client: &str) -> Who<'_> {
        Who { device: "d", client }
    }

    fn covers(pattern: &str, filter: &str) -> bool {
        Pattern::new(pattern).covers(filter, who("c"))
    }

    fn overlaps(pattern: &str, filter: &str) -> bool {
        Pattern::new(pattern).overlaps(filter, who("c"))
    }

    #[test]
    fn a_pattern_covers_what_matches_no_more_than_it_does() {
        for (pattern, filter, covered) in [
            ("#", "a/+/#", true),
            ("#", "$aws/x", false),
            ("+/x", "$aws/x", false),
            ("$aws/#", "$aws/+/x", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/+", "a/#", false),
            ("a/+", "a/+", true),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("+/#", "#", true),
            ("a/+/#", "a/#", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("${device}/#", "d/x", true),
            ("${device}/#", "e/x", false),
            ("x/${client}/y", "x/c/y", true),
            ("x/${client}/y", "x/+/y", false),
        ] {
            assert_eq!(covers(pattern, filter), covered, "{pattern} {filter}");
        }
    }

    #[test]
    fn an_id_in_a_pattern_never_becomes_a_wildcard_or_a_level() {
        let pattern = Pattern::new("own/${client}");
        assert!(!pattern.covers("own/x", who("+")));
        assert!(!pattern.covers("own/+", who("+")));
        assert!(!pattern.covers("own/a/b", who("a/b")));
        assert!(!pattern.covers("own/#", who("#")));
        assert!(!pattern.covers("own/d", who("${device}")), "a client's id is text");
    }

    #[test]
    fn client_patterns_read_a_star_as_any_text() {
        for (pattern, client, matched) in [
            ("${device}", "d", true),
            ("${device}", "d2", false),
            ("${device}-*", "d-phone", true),
            ("*", "", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*x", "x", true),
            ("${client}", "anyone", true),
        ] {
            assert_eq!(ClientPattern::new(pattern).matches(who(client)), matched, "{pattern} {client}");
        }
    }

    /// Filters over two words, `$x` and both wildcards, up to three levels. None starts with an empty level: `+` and
    /// `/#` would share the empty topic, which is none.
    fn filters() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$x"), Just("+")];
        (proptest::collection::vec(level, 0..3), any::<bool>()).prop_filter_map("empty", |(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            let text = levels.join("/");
            (!text.is_empty() && !text.starts_with('/')).then_some(text)
        })
    }

    /// Every topic up to four levels over words that tell all filters of [`filters`] apart.
    fn topics() -> Vec<String> {
        let words = ["a", "b", "", "$x", "other"];
        let mut all: Vec<String> = Vec::new();
        let mut longest: Vec<String> = words.map(str::to_owned).to_vec();
        for _ in 0..4 {
            all.extend(longest.iter().filter(|topic| !topic.is_empty()).cloned());
            longest = longest.iter().flat_map(|head| words.map(|word| format!("{head}/{word}"))).collect();
        }
        all
    }

    proptest! {
        #[test]
        fn covering_and_overlapping_agree_with_matching_topic_by_topic(pattern in filters(), filter in filters()) {
            let topics = topics();
            let all = topics.iter().filter(|t| matches(&filter, t)).all(|t| matches(&pattern, t));
            let any = topics.iter().any(|t| matches(&filter, t) && matches(&pattern, t));
            prop_assert_eq!(covers(&pattern, &filter), all, "{} covers {}", pattern, filter);
            prop_assert_eq!(overlaps(&pattern, &filter), any, "{} overlaps {}", pattern, filter);
        }
    }
}
