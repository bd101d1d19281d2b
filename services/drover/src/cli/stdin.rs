//! Questions line by line: each is answered by one line at once, whatever it is.

use std::io::{BufRead, Write};

use serde_json::json;

/// Longest line, in bytes: a payload of 10 MB in base64 with what is around it.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Answers every line that is not blank; a line that is no text, or is too long, is answered by an error.
pub fn answers(
    questions: &mut dyn BufRead,
    out: &mut dyn Write,
    mut answer: impl FnMut(&str) -> String,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    while read_line(questions, &mut line)? {
        let answered = match std::str::from_utf8(&line) {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(_) if line.len() as u64 > LINE_BYTES_MAX => refused(&format!("line is over {LINE_BYTES_MAX} bytes")),
            Ok(text) => answer(text),
            Err(error) => refused(&format!("byte {} of the line is not UTF-8", error.valid_up_to())),
        };
        writeln!(out, "{answered}")?;
        out.flush()?;
    }
    Ok(())
}

fn refused(reason: &str) -> String {
    json!({ "error": format!("question: {reason}") }).to_string()
}

/// The next line without its end; of a line that is too long only the start is kept. False: no more.
fn read_line(questions: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let chunk = questions.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = chunk.iter().position(|b| *b == b'\n');
        let used = end.map_or(chunk.len(), |end| end + 1);
        if line.len() as u64 <= LINE_BYTES_MAX {
            line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
        }
        questions.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
