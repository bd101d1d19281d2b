//! Regular expressions as Java writes them, with a bound on their work.

use fancy_regex::{Captures, Regex, RegexBuilder};

use crate::operator::TEXT_BYTES_MAX;

/// Longest regular expression, in bytes.
const SOURCE_BYTES_MAX: usize = 4_096;
/// Steps back that one search may take; only look-around and back references take any.
const BACKTRACKS_MAX: usize = 100_000;
/// Largest compiled expression, in bytes.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Java's classes of POSIX, which `\p{…}` names, as classes of ASCII.
const POSIX: [(&str, &str); 13] = [
    ("Lower", "a-z"),
    ("Upper", "A-Z"),
    ("ASCII", r"\x00-\x7F"),
    ("Alpha", "A-Za-z"),
    ("Digit", "0-9"),
    ("Alnum", "A-Za-z0-9"),
    ("Punct", r"!-/:-@\[-`{-~"),
    ("Graph", "!-~"),
    ("Print", " -~"),
    ("Blank", r" \t"),
    ("Cntrl", r"\x00-\x1F\x7F"),
    ("XDigit", "0-9A-Fa-f"),
    ("Space", r" \t\n\x0B\f\r"),
];

/// What Java's `\h` and `\v` match, as contents of a class.
const HORIZONTAL: &str = " \t\u{A0}\u{1680}\u{180E}\u{2000}-\u{200A}\u{202F}\u{205F}\u{3000}";
const VERTICAL: &str = "\n\u{B}\u{C}\r\u{85}\u{2028}\u{2029}";

/// A compiled regular expression. What takes too long to search has no answer.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles; `None` if it is no regular expression or too long.
    pub(crate) fn compile(source: &str) -> Option<Self> {
        if source.len() > SOURCE_BYTES_MAX {
            return None;
        }
        let mut builder = RegexBuilder::new(&translated(source));
        builder.backtrack_limit(BACKTRACKS_MAX).delegate_size_limit(COMPILED_BYTES_MAX);
        Some(Self { source: source.to_owned(), regex: builder.build().ok()? })
    }

    /// Whether it matches anywhere.
    pub(crate) fn matches(&self, text: &str) -> Option<bool> {
        self.regex.is_match(text).ok()
    }

    /// What it matches first.
    pub(crate) fn first<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.regex.find(text).ok()?.map(|found| found.as_str())
    }

    /// `text` with every match replaced. `None`: the replacement names no group, or the text grows too long.
    pub(crate) fn replace(&self, text: &str, replacement: &str) -> Option<String> {
        let (mut replaced, mut at) = (String::new(), 0);
        for captures in self.regex.captures_iter(text) {
            let captures = captures.ok()?;
            let whole = captures.get(0)?;
            replaced.push_str(&text[at..whole.start()]);
            expand(replacement, &captures, &mut replaced)?;
            at = whole.end();
            if replaced.len() > TEXT_BYTES_MAX {
                return None;
            }
        }
        replaced.push_str(&text[at..]);
        Some(replaced)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Appends a replacement: `$1` and `${name}` are groups, a backslash makes the next character plain.
fn expand(replacement: &str, captures: &Captures<'_>, out: &mut String) -> Option<()> {
    let mut rest = replacement;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        rest = if rest[at..].starts_with('\\') {
            let plain = behind.chars().next()?;
            out.push(plain);
            &behind[plain.len_utf8()..]
        } else if let Some(name) = behind.strip_prefix('{') {
            let (name, rest) = name.split_once('}')?;
            out.push_str(captures.name(name).map_or("", |group| group.as_str()));
            rest
        } else {
            let (group, digits) = group_number(behind, captures.len())?;
            out.push_str(captures.get(group).map_or("", |group| group.as_str()));
            &behind[digits..]
        };
    }
    out.push_str(rest);
    Some(())
}

/// The group that a text begins with, by as many digits as name one, and their number.
fn group_number(text: &str, groups: usize) -> Option<(usize, usize)> {
    let longest = text.bytes().take_while(u8::is_ascii_digit).count();
    (1..=longest).rev().find_map(|digits| {
        let group = text[..digits].parse().ok().filter(|group| *group < groups)?;
        Some((group, digits))
    })
}

/// Java's classes are of ASCII, and `\Q…\E` quotes. Other classes of `\p{…}` are those of Unicode.
fn translated(source: &str) -> String {
    let mut translated = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('\\') {
        translated.push_str(&rest[..at]);
        let Some(escaped) = rest[at + 1..].chars().next() else {
            translated.push('\\');
            return translated;
        };
        rest = &rest[at + 1 + escaped.len_utf8()..];
        match escaped {
            'd' => translated.push_str("[0-9]"),
            'D' => translated.push_str("[^0-9]"),
            'w' => translated.push_str("[A-Za-z0-9_]"),
            'W' => translated.push_str("[^A-Za-z0-9_]"),
            's' => translated.push_str(r"[ \t\n\x0B\f\r]"),
            'S' => translated.push_str(r"[^ \t\n\x0B\f\r]"),
            'h' => translated.push_str(&format!("[{HORIZONTAL}]")),
            'H' => translated.push_str(&format!("[^{HORIZONTAL}]")),
            'v' => translated.push_str(&format!("[{VERTICAL}]")),
            'V' => translated.push_str(&format!("[^{VERTICAL}]")),
            'R' => translated.push_str(&format!(r"(?:\r\n|[{VERTICAL}])")),
            'Q' => {
                let (quoted, behind) = rest.split_once("\\E").unwrap_or((rest, ""));
                translated.push_str(&fancy_regex::escape(quoted));
                rest = behind;
            }
            'p' | 'P' => match posix(rest) {
                Some((class, behind)) => {
                    translated.push_str(if escaped == 'p' { "[" } else { "[^" });
                    translated.push_str(class);
                    translated.push(']');
                    rest = behind;
                }
                None => translated.extend(['\\', escaped]),
            },
            plain => translated.extend(['\\', plain]),
        }
    }
    translated.push_str(rest);
    translated
}

/// The class of POSIX whose name in braces `text` begins with, and what is behind it.
fn posix(text: &str) -> Option<(&'static str, &str)> {
    let (name, behind) = text.strip_prefix('{')?.split_once('}')?;
    POSIX.iter().find(|(known, _)| *known == name).map(|(_, class)| (*class, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, pattern: &str, replacement: &str) -> Option<String> {
        Pattern::compile(pattern)?.replace(text, replacement)
    }

    #[test]
    fn groups_are_named_by_number_and_by_name() {
        assert_eq!(replaced("abcd", "b(.*)d", "$1").as_deref(), Some("ac"));
        assert_eq!(replaced("2024-05", r"(?<y>\d+)-(\d+)", "$2/${y}").as_deref(), Some("05/2024"));
        assert_eq!(replaced("ab", "(a)", "$10").as_deref(), Some("a0b"));
        assert_eq!(replaced("ab", "a", r"\$1").as_deref(), Some("$1b"));
        assert_eq!(
            (replaced("ab", "a", "$1"), replaced("ab", "a", "$"), replaced("ab", "a", "\\")),
            (None, None, None)
        );
    }

    #[test]
    fn classes_are_of_ascii_and_quotes_are_plain() {
        let matches = |pattern, text| Pattern::compile(pattern).and_then(|pattern| pattern.matches(text));
        assert_eq!((matches(r"^\w$", "é"), matches(r"^[\w.]+$", "a.b")), (Some(false), Some(true)));
        assert_eq!((matches(r"\Qa.b\E", "axb"), matches(r"\Qa.b\E", "a.b")), (Some(false), Some(true)));
        assert_eq!((matches(r"^\p{Punct}+$", "!]`~"), matches(r"^\p{Punct}$", "a")), (Some(true), Some(false)));
        assert_eq!((matches(r"^[\p{Upper}_]+$", "A_"), matches(r"^\P{Alpha}$", "é")), (Some(true), Some(true)));
        assert_eq!((matches(r"^\p{Lu}$", "É"), matches(r"\p{Nope}", "a")), (Some(true), None));
        assert_eq!((matches(r"^a\hb$", "a\tb"), matches(r"\h", "af")), (Some(true), Some(false)));
        assert_eq!((matches(r"^[\v]\H\V$", "\nxy"), matches(r"^a\Rb$", "a\r\nb")), (Some(true), Some(true)));
        assert_eq!((matches("(?=a)a(?!b)", "ac"), matches(r"(a)\1", "aa")), (Some(true), Some(true)));
    }

    #[test]
    fn what_takes_too_long_has_no_answer() {
        let pattern = Pattern::compile(r"^(a|a)*\1b$").expect("compiles");
        assert_eq!(pattern.matches(&"a".repeat(10_000)), None);
        assert!(Pattern::compile("[").is_none() && Pattern::compile(&"a".repeat(SOURCE_BYTES_MAX + 1)).is_none());
        assert!(Pattern::compile("(a{1000}){1000}").is_none());
    }
}
