//! Ports nobody listens on, away from those the kernel gives to outgoing connections.
//!
//! A server that is killed must get its port back when it starts again, so ports that others may be given are no good.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// First port and number of ports tried; the kernel's own begin at 32,768.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A port of 127.0.0.1 that was free a moment ago; never the same twice in a process.
pub fn free() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id().wrapping_mul(37) % u32::from(COUNT)).context("below 10,000")?;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port of 127.0.0.1 from {FIRST} to {}", FIRST + COUNT - 1)
}
