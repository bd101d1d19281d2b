//! The headers of a record.
//!
//! One piece of memory for all of them: a record has a dozen, and a place of its own for each made more work than whatever is
//! done with them.

use std::fmt;

/// Names and values in the order they came in; a name may come twice. All of them lie in one piece of memory: each name and
/// each value behind its length (LEB128: 7 bits a byte, least significant first). The embedded log writes them as they lie.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    count: usize,
    laid: Vec<u8>,
}

impl Headers {
    /// With room for `bytes` of names, values and their lengths.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { count: 0, laid: Vec::with_capacity(bytes) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of names, values and their lengths.
    pub fn bytes(&self) -> usize {
        self.laid.len()
    }

    /// Puts a header behind the others.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        lay(&mut self.laid, name.as_bytes());
        lay(&mut self.laid, value);
        self.count += 1;
    }

    /// The last value of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let mut rest = &self.laid[..];
        let named = std::iter::from_fn(|| take_pair(&mut rest)).filter(|(found, _)| *found == name.as_bytes());
        named.last().map(|(_, value)| value)
    }

    /// Names and values in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.laid }
    }

    /// Keeps those whose names `keep` is true for.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        *self = self.iter().filter(|(name, _)| keep(name)).collect();
    }

    /// As they lie: what [`Headers::taken`] takes.
    pub fn as_laid(&self) -> &[u8] {
        &self.laid
    }

    /// The `count` headers at the front of `from`, and how many bytes they are. `None`: there are not so many, or a name is no
    /// UTF-8.
    pub fn taken(count: u64, from: &[u8]) -> Option<(Self, usize)> {
        let mut rest = from;
        for _ in 0..count {
            let (name, _) = take_pair(&mut rest)?;
            std::str::from_utf8(name).ok()?;
        }
        let bytes = from.len() - rest.len();
        Some((Self { count: usize::try_from(count).ok()?, laid: from[..bytes].to_vec() }, bytes))
    }
}

fn lay(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// A name and a value from the front of `from`.
fn take_pair<'a>(from: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    Some((take(from)?, take(from)?))
}

/// A length and so many bytes from the front of `from`.
fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            let (taken, rest) = from.split_at_checked(length)?;
            *from = rest;
            return Some(taken);
        }
    }
    None
}

/// Names and values of [`Headers`].
#[derive(Clone)]
pub struct Iter<'h> {
    rest: &'h [u8],
}

impl<'h> Iterator for Iter<'h> {
    type Item = (&'h str, &'h [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = take_pair(&mut self.rest)?;
        Some((std::str::from_utf8(name).expect("names came in as text"), value))
    }
}

impl<'h> IntoIterator for &'h Headers {
    type Item = (&'h str, &'h [u8]);
    type IntoIter = Iter<'h>;

    fn into_iter(self) -> Iter<'h> {
        self.iter()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Extend<(N, V)> for Headers {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, headers: I) {
        headers.into_iter().for_each(|(name, value)| self.push(name.as_ref(), value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Self::default();
        all.extend(headers);
        all
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(headers: [(N, V); COUNT]) -> Self {
        headers.into_iter().collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, value)| (name, value.escape_ascii().to_string()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        // Values on both sides of where a length takes another byte.
        let value =
            prop_oneof![proptest::collection::vec(any::<u8>(), 0..40), (120..140usize).prop_map(|n| vec![7; n])];
        proptest::collection::vec(("[a-zé-]{0,12}", value), 0..6)
    }

    proptest! {
        #[test]
        fn what_was_put_comes_out_in_order_and_the_last_of_a_name_counts(pairs in pairs()) {
            let headers: Headers = pairs.iter().map(|(name, value)| (name, value)).collect();
            let read: Vec<_> = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            prop_assert_eq!((headers.len(), headers.is_empty()), (pairs.len(), pairs.is_empty()));
            prop_assert_eq!(&read, &pairs);
            for (name, _) in &pairs {
                let last = pairs.iter().rev().find(|(other, _)| other == name).map(|(_, value)| &value[..]);
                prop_assert_eq!(headers.get(name), last);
            }
            prop_assert_eq!(headers.get("no such name"), None);
        }

        #[test]
        fn they_are_taken_from_the_front_and_cut_ones_are_not(pairs in pairs(), cut in 1usize..60) {
            let headers: Headers = pairs.iter().map(|(name, value)| (name, value)).collect();
            let (count, laid) = (headers.len() as u64, headers.as_laid());
            let longer = [laid, b"rest"].concat();
            prop_assert_eq!(Headers::taken(count, &longer), Some((headers.clone(), headers.bytes())));
            if let Some(left) = laid.len().checked_sub(cut) {
                prop_assert_eq!(Headers::taken(count, &laid[..left]), None);
            }
        }
    }

    #[test]
    fn a_length_without_end_and_a_name_that_is_no_text_are_refused() {
        assert_eq!(Headers::taken(1, &[0xff; 32]), None);
        assert_eq!(Headers::taken(1, &[1, 0xff, 0]), None);
        assert_eq!(Headers::taken(u64::MAX, &[0, 0]), None);
    }

    #[test]
    fn some_are_left_out_by_their_names() {
        let mut headers = Headers::from([("a", "1"), ("b", "2"), ("a", "3")]);
        headers.retain(|name| name != "a");
        assert_eq!(headers, Headers::from([("b", "2")]));
        assert_eq!(format!("{headers:?}"), r#"[("b", "2")]"#);
    }
}
