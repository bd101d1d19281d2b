//! Patterns into parts: runs of one letter are fields, all else stands for itself.

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A letter and how often it stands there.
    Field(char, usize),
    Text(String),
    /// `[…]`: what may be missing from a text that is read.
    Optional(Vec<Part>),
}

/// Longest run of one letter.
const RUN_MAX: usize = 19;

/// The parts of a pattern; `None` if a quote or a bracket is not closed. Two quotes are one.
pub(super) fn parts(pattern: &str) -> Option<Vec<Part>> {
    let mut rest = pattern;
    // The parts outside, and those of the bracket that is open.
    let (mut parts, mut bracket): (Vec<Part>, Option<Vec<Part>>) = (Vec::new(), None);
    while let Some(first) = rest.chars().next() {
        let (part, length) = match first {
            '[' if bracket.is_none() => {
                bracket = Some(Vec::new());
                rest = &rest[1..];
                continue;
            }
            ']' => (Part::Optional(bracket.take()?), 1),
            letter if letter.is_ascii_alphabetic() => {
                let run = rest.chars().take_while(|c| *c == letter).count();
                if run > RUN_MAX {
                    return None;
                }
                (Part::Field(letter, run), run)
            }
            '\'' => quoted(rest)?,
            plain => (Part::Text(plain.to_string()), plain.len_utf8()),
        };
        bracket.as_mut().unwrap_or(&mut parts).push(part);
        rest = &rest[length..];
    }
    bracket.is_none().then_some(parts)
}

/// A quoted text at the start of `rest`, and its length with the quotes.
fn quoted(rest: &str) -> Option<(Part, usize)> {
    if rest.starts_with("''") {
        return Some((Part::Text("'".to_owned()), 2));
    }
    let (mut text, mut at) = (String::new(), 1);
    loop {
        let close = at + rest[at..].find('\'')?;
        text.push_str(&rest[at..close]);
        if !rest[close + 1..].starts_with('\'') {
            return Some((Part::Text(text), close + 1));
        }
        text.push('\'');
        at = close + 2;
    }
}

/// English names, as both libraries have them.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From Monday on.
pub(super) const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Letters of a short name.
pub(super) const SHORT: usize = 3;
