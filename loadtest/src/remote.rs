//! Workers on other machines: they come to the controller over TCP and say what they are, get their orders as a line of JSON
//! once all are there, and tell theirs as those do that the controller starts itself.
//!
//! For networks that are trusted: nothing is encrypted, and whoever comes first is a worker.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::clock::{LOOK, pause, unix_us};
use crate::worker::Orders;

/// What a worker says first; others that connect, such as probes, are no workers.
const GREETING: &str = "drover-load worker 1\n";
/// How long a greeting may take, and writing the orders.
const GREETING_MAX: Duration = Duration::from_secs(5);
const ORDERS_MAX: Duration = Duration::from_secs(30);
/// How long all may take to come, and a worker to find its controller: images are fetched meanwhile.
const JOIN_US: u64 = 600_000_000;
/// Between two tries of a worker.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Longest line of orders, in bytes.
const ORDERS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Waits until so many workers have come.
pub fn gather(listener: &TcpListener, workers: u64) -> anyhow::Result<Vec<TcpStream>> {
    listener.set_nonblocking(true)?;
    let (since_us, mut peers) = (unix_us(), Vec::new());
    while (peers.len() as u64) < workers {
        match listener.accept() {
            Ok((peer, from)) => match greeted(&peer) {
                Ok(()) => {
                    peers.push(peer);
                    println!("worker {} of {workers} is there: {from}", peers.len());
                }
                Err(error) => println!("no worker: {from}: {error:#}"),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(LOOK),
            Err(error) => return Err(error).context("waiting for workers"),
        }
        let waited_us = unix_us().saturating_sub(since_us);
        ensure!(waited_us < JOIN_US, "{} of {workers} workers came within {} s", peers.len(), JOIN_US / 1_000_000);
    }
    Ok(peers)
}

fn greeted(mut peer: &TcpStream) -> anyhow::Result<()> {
    peer.set_nonblocking(false)?;
    peer.set_read_timeout(Some(GREETING_MAX))?;
    let mut greeting = [0; GREETING.len()];
    peer.read_exact(&mut greeting).context("its greeting")?;
    ensure!(greeting == GREETING.as_bytes(), "it says something else than a worker");
    peer.set_read_timeout(None)?;
    Ok(())
}

/// Gives a worker its orders.
pub fn order(mut peer: &TcpStream, orders: &Orders) -> anyhow::Result<()> {
    peer.set_write_timeout(Some(ORDERS_MAX))?;
    let mut line = serde_json::to_vec(orders)?;
    line.push(b'\n');
    peer.write_all(&line).context("giving a worker its orders")
}

/// Finds the controller at `HOST:PORT`, and waits for orders; where to tell what happens.
pub fn join(controller: &str) -> anyhow::Result<(Orders, TcpStream)> {
    let since_us = unix_us();
    let mut stream = loop {
        match TcpStream::connect(controller) {
            Ok(stream) => break stream,
            Err(error) if unix_us().saturating_sub(since_us) > JOIN_US => {
                return Err(error).with_context(|| format!("no controller at {controller}"));
            }
            Err(_) => pause(TRY_AGAIN),
        }
    };
    stream.set_nodelay(true)?;
    stream.write_all(GREETING.as_bytes())?;
    let mut line = String::new();
    let read = BufReader::new((&stream).take(ORDERS_BYTES_MAX)).read_line(&mut line)?;
    if read == 0 {
        bail!("the controller at {controller} is gone");
    }
    let orders = serde_json::from_str(&line).with_context(|| format!("the orders of {controller}"))?;
    Ok((orders, stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn workers_that_come_get_their_orders_and_others_are_sent_away() -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let mut stranger = TcpStream::connect(&address)?;
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let worker = std::thread::spawn(move || join(&address));
        let peers = gather(&listener, 1)?;
        let text = "title = \"t\"\nduration = \"1s\"\n[[fleet]]\nname = \"f\"\ndevices = 1\ndevice = \"d\"\n";
        let scenario = Scenario::parse(text)?;
        order(&peers[0], &Orders { scenario, worker: 3, workers: 4, start_unix_us: 5, journal: None })?;
        let (orders, _stream) = worker.join().expect("no panic")?;
        assert_eq!((orders.worker, orders.workers, orders.scenario.title.as_str()), (3, 4, "t"));
        let mut rest = Vec::new();
        // Closed, perhaps with a reset as it has not been read to its end.
        let ended = stranger.read_to_end(&mut rest);
        assert!(
            rest.is_empty() && ended.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |read| read == 0)
        );
        Ok(())
    }
}
