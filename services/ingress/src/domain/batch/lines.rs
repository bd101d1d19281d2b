//! Cuts a stream of bytes into lines, none of them longer than a limit: the rest of a longer one is skipped, not kept.
//!
//! Pure. Empty lines count as lines and are no rows.

use bytes::{Bytes, BytesMut};

/// A line that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Row(Bytes),
    TooLong,
}

/// What has come and is not a line yet.
#[derive(Debug)]
pub struct Lines {
    input: BytesMut,
    /// Bytes at the beginning of `input` that have no line's end.
    searched: usize,
    bytes_max: usize,
    /// Lines before.
    count: usize,
    /// The line at the beginning of `input` was too long, and what came of it is gone.
    skipping: bool,
}

impl Lines {
    /// No lines yet, and each at most `bytes_max` long.
    pub fn new(bytes_max: usize) -> Self {
        Self { input: BytesMut::new(), searched: 0, bytes_max, count: 0, skipping: false }
    }

    /// Bytes have come; [`Lines::next_line`] is to be called until there is no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next complete line with its number, from 1 on.
    pub fn next_line(&mut self) -> Option<(usize, Line)> {
        loop {
            let found = self.input[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(at) = found else {
                self.searched = self.input.len();
                if self.searched > self.bytes_max {
                    (self.searched, self.skipping) = (0, true);
                    self.input.clear();
                }
                return None;
            };
            let line = self.input.split_to(self.searched + at + 1).freeze();
            if let Some(line) = self.line(&line) {
                return Some(line);
            }
        }
    }

    /// No more bytes will come: what is left is a line.
    pub fn last_line(&mut self) -> Option<(usize, Line)> {
        let rest = self.input.split().freeze();
        if rest.is_empty() && !self.skipping {
            return None;
        }
        self.line(&rest)
    }

    /// Longest line.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Number of the line that comes next.
    pub fn next_number(&self) -> usize {
        self.count + 1
    }

    fn line(&mut self, line: &Bytes) -> Option<(usize, Line)> {
        self.count += 1;
        self.searched = 0;
        let text = line.trim_ascii();
        if std::mem::take(&mut self.skipping) || text.len() > self.bytes_max {
            return Some((self.count, Line::TooLong));
        }
        (!text.is_empty()).then(|| (self.count, Line::Row(line.slice_ref(text))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(bytes_max: usize, parts: &[&[u8]]) -> Vec<(usize, Line)> {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for part in parts {
            lines.push(part);
            found.extend(std::iter::from_fn(|| lines.next_line()));
            assert!(lines.input.len() <= bytes_max, "no more is kept than a line may have");
        }
        found.extend(lines.last_line());
        found
    }

    fn row(text: &'static str) -> Line {
        Line::Row(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does_and_empty_ones_are_no_rows() {
        let found = lines(10, &[b"a\r\n", b"\n  b", b"c\n\nd"]);
        assert_eq!(found, [(1, row("a")), (3, row("bc")), (5, row("d"))]);
        assert_eq!(lines(10, &[b"a\n"]), [(1, row("a"))]);
        assert!(lines(10, &[]).is_empty() && lines(10, &[b"\n \n"]).is_empty());
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_the_next_is_not() {
        let at_the_limit = lines(3, &[b"abc\nabcd\ne\n"]);
        assert_eq!(at_the_limit, [(1, row("abc")), (2, Line::TooLong), (3, row("e"))]);
        let in_parts = lines(3, &[b"abcd", b"efgh", b"i\n", b"j\n", b"klmn", b"op"]);
        assert_eq!(in_parts, [(1, Line::TooLong), (2, row("j")), (3, Line::TooLong)]);
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference(text in "[ab\n]{0,40}", cuts in prop::collection::vec(0usize..41, 0..4)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut cut = Lines::new(5);
            let mut found = Vec::new();
            for ends in cuts.windows(2) {
                cut.push(&bytes[ends[0]..ends[1]]);
                found.extend(std::iter::from_fn(|| cut.next_line()));
            }
            found.extend(cut.last_line());
            let expected: Vec<(usize, usize)> =
                text.split('\n').enumerate().filter(|(_, line)| !line.is_empty()).map(|(i, line)| (i + 1, line.len())).collect();
            let seen: Vec<(usize, usize)> = found.iter().map(|(number, line)| (*number, match line {
                Line::Row(row) => row.len(),
                Line::TooLong => usize::MAX,
            })).collect();
            let expected: Vec<_> = expected.into_iter().map(|(number, len)| (number, if len > 5 { usize::MAX } else { len })).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
