//! Ports nobody listens on, away from those the kernel gives to outgoing connections.
//!
//! A server that is killed must get its port back when it starts again, and one of many must get the port it was told though
//! the others have their connections by then. So ports that clients may be given are no good.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// The kernel's own ports begin here, by its default.
const KERNELS: u16 = 32_768;
/// First port and number of ports tried.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;
/// Offsets that are tried: from the first, so many, so far apart.
const FIRST_OFFSET: u16 = 10_000;
const APART: u16 = 97;
const OFFSETS: u16 = 200;

/// A port of 127.0.0.1 that was free a moment ago; never the same twice in a process.
pub fn free() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = start(COUNT);
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if is_free(port) {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port of 127.0.0.1 from {FIRST} to {}", FIRST + COUNT - 1)
}

/// What has to be added to each of `ports` so that all are free ones of 127.0.0.1; another for each call of a process, while
/// there are any.
pub fn free_offset(ports: &[u16]) -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let largest = ports.iter().max().context("ports to move")?;
    let count = KERNELS.checked_sub(FIRST_OFFSET + largest).filter(|count| *count > 0).context("room for the ports")?;
    let start = start(count);
    let candidate = || {
        let further = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) * u32::from(APART);
        let place = (u32::from(start) + further) % u32::from(count);
        FIRST_OFFSET + u16::try_from(place).expect("below a number of ports")
    };
    let is_good = |offset: &u16| ports.iter().all(|port| is_free(port + offset));
    (0..OFFSETS).map(|_| candidate()).find(is_good).with_context(|| format!("no offset of {ports:?} is free"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Where this process begins among `count`: elsewhere than those that run beside it.
fn start(count: u16) -> u16 {
    u16::try_from(std::process::id().wrapping_mul(37) % u32::from(count)).expect("below a u16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_below_those_of_clients_and_never_the_same_twice() -> anyhow::Result<()> {
        let ports = [1_883, 9_968];
        let offsets: Vec<u16> = (0..50).map(|_| free_offset(&ports)).collect::<anyhow::Result<_>>()?;
        assert!(offsets.iter().all(|offset| *offset >= FIRST_OFFSET && 9_968 + offset < KERNELS), "{offsets:?}");
        let mut distinct = offsets.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), offsets.len());
        assert!(free()? != free()?);
        Ok(())
    }

    #[test]
    fn ports_that_leave_no_room_are_refused() {
        assert!(free_offset(&[]).is_err());
        assert!(free_offset(&[22_768]).is_err());
    }
}
