//! Server-sent events: names and data from a stream of lines (WHATWG HTML section 9.2.6).

use std::io::{self, BufRead};

/// Longest line read, in bytes: the largest payload with every byte escaped, and what stands around it.
const LINE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct SentEvent {
    pub name: String,
    pub data: String,
}

/// The next event; `None` at the end of the stream.
pub fn next(lines: &mut impl BufRead) -> io::Result<Option<SentEvent>> {
    let (mut name, mut data) = (String::new(), Vec::new());
    loop {
        let Some(line) = line(lines)? else { return Ok(None) };
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value.to_owned(),
            "data" => data.push(value.to_owned()),
            // An empty line ends an event; one that had no data (after a comment) is none.
            "" if line.is_empty() && !data.is_empty() => return Ok(Some(SentEvent { name, data: data.join("\n") })),
            _ => {}
        }
    }
}

fn line(lines: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let bytes = io::Read::take(&mut *lines, LINE_BYTES_MAX).read_line(&mut line)?;
    if bytes as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line is longer than {LINE_BYTES_MAX} bytes"),
        ));
    }
    Ok((bytes > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_one_by_one_and_comments_are_none() {
        let mut text =
            ":\n\nevent: message\ndata: {\"a\":1}\n\n: keep\n\ndata: x\r\ndata:y\r\n\r\ndata: cut".as_bytes();
        let event = |name: &str, data: &str| Some(SentEvent { name: name.into(), data: data.into() });
        assert_eq!(next(&mut text).expect("reads"), event("message", "{\"a\":1}"));
        assert_eq!(next(&mut text).expect("reads"), event("", "x\ny"));
        assert_eq!(next(&mut text).expect("reads"), None);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let endless = vec![b'x'; LINE_BYTES_MAX as usize];
        assert_eq!(next(&mut endless.as_slice()).expect_err("refused").kind(), io::ErrorKind::InvalidData);
    }
}
