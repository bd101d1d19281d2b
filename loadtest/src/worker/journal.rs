//! The books of one worker on disk: a line for each message sent, acknowledged and received.
//!
//! A line is a letter, then its fields, between tabs: `S device number`, `A device number`, `R consumer device number`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;

/// What a numbered payload says of itself.
#[derive(Deserialize)]
pub struct Numbered {
    pub device: String,
    pub n: u64,
}

/// Writes the books.
pub struct Journal(BufWriter<File>);

impl Journal {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    /// Books a message before it is sent; numbers of a device go up by one.
    pub fn sent(&mut self, device: &str, number: u64) -> io::Result<()> {
        writeln!(self.0, "S\t{device}\t{number}")
    }

    pub fn acknowledged(&mut self, device: &str, number: u64) -> io::Result<()> {
        writeln!(self.0, "A\t{device}\t{number}")
    }

    /// Books what a consumer got, if it is a numbered message.
    pub fn received(&mut self, consumer: &str, payload: &[u8]) -> io::Result<()> {
        match serde_json::from_slice(payload) {
            Ok(Numbered { device, n }) => writeln!(self.0, "R\t{consumer}\t{device}\t{n}"),
            Err(_) => Ok(()),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
