//! Workers on other machines: they come to the controller over TCP and say what they are, get their orders as a line of JSON
//! once all are there, and tell theirs as those do that the controller starts itself.
//!
//! For networks that are trusted: nothing is encrypted, and whoever comes first is a worker.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::clock::{LOOK, pause, unix_us};
use crate::worker::Orders;

/// What a worker says first; others that connect, such as probes, are no workers.
const GREETING: &str = "drover-load worker 1\n";
/// How long a greeting may take, and writing the orders.
const GREETING_US: u64 = 5_000_000;
const ORDERS_MAX: Duration = Duration::from_secs(30);
/// Those whose greeting is waited for at the same time; whoever comes then waits to be let in.
const GUESTS_MAX: usize = 64;
/// How long all may take to come, and a worker to find its controller: images are fetched meanwhile.
const JOIN_US: u64 = 600_000_000;
/// Between two tries of a worker.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Longest line of orders, in bytes.
const ORDERS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Waits until so many workers have come; in the order in which they came.
pub fn gather(listener: &TcpListener, workers: u64) -> anyhow::Result<Vec<TcpStream>> {
    listener.set_nonblocking(true)?;
    let (since_us, mut arrivals) = (unix_us(), Arrivals::default());
    while !arrivals.are_all(workers) {
        let waited_us = unix_us().saturating_sub(since_us);
        let came = arrivals.peers.len();
        ensure!(waited_us < JOIN_US, "{came} of {workers} workers came within {} s", JOIN_US / 1_000_000);
        pause(LOOK);
        arrivals.look(listener, workers)?;
    }
    Ok(arrivals.peers.into_values().collect())
}

/// Who has come so far. All are listened to at the same time: one that says nothing holds no other up.
#[derive(Default)]
struct Arrivals {
    /// Those whose greeting is waited for, in the order in which they came.
    guests: Vec<Guest>,
    /// Those that are workers, likewise.
    peers: BTreeMap<u64, TcpStream>,
    /// How many have been let in.
    came: u64,
}

/// Somebody that may be a worker.
struct Guest {
    number: u64,
    stream: TcpStream,
    from: SocketAddr,
    since_us: u64,
    /// What it has said of the greeting.
    said: Vec<u8>,
}

impl Arrivals {
    /// Whether so many workers have come.
    fn are_all(&self, workers: u64) -> bool {
        self.peers.len() as u64 >= workers
    }

    /// Lets in who waits, and hears what has been said since the last look.
    fn look(&mut self, listener: &TcpListener, workers: u64) -> anyhow::Result<()> {
        while self.guests.len() < GUESTS_MAX
            && let Some((stream, from)) = next(listener)?
        {
            let (number, since_us) = (self.came, unix_us());
            self.guests.push(Guest { number, stream, from, since_us, said: Vec::new() });
            self.came += 1;
        }
        for mut guest in std::mem::take(&mut self.guests) {
            if self.are_all(workers) {
                break;
            }
            match guest.has_greeted() {
                Ok(true) => {
                    println!("worker {} of {workers} is there: {}", self.peers.len() + 1, guest.from);
                    self.peers.insert(guest.number, guest.stream);
                }
                Ok(false) => self.guests.push(guest),
                Err(error) => println!("no worker: {}: {error:#}", guest.from),
            }
        }
        Ok(())
    }
}

/// The next that waits to be let in; reading from it does not wait.
fn next(listener: &TcpListener) -> anyhow::Result<Option<(TcpStream, SocketAddr)>> {
    match listener.accept() {
        Ok((stream, from)) => {
            stream.set_nonblocking(true)?;
            Ok(Some((stream, from)))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("waiting for workers"),
    }
}

impl Guest {
    /// Whether it has said all that a worker says; reading from it waits from then on. An error: it is no worker.
    fn has_greeted(&mut self) -> anyhow::Result<bool> {
        let mut more = [0; GREETING.len()];
        let missing = GREETING.len() - self.said.len();
        match self.stream.read(&mut more[..missing]) {
            Ok(0) => bail!("it has gone without a greeting"),
            Ok(bytes) => self.said.extend_from_slice(&more[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("its greeting"),
        }
        ensure!(GREETING.as_bytes().starts_with(&self.said), "it says something else than a worker");
        if self.said.len() < GREETING.len() {
            let waited_us = unix_us().saturating_sub(self.since_us);
            ensure!(waited_us < GREETING_US, "no greeting within {} s", GREETING_US / 1_000_000);
            return Ok(false);
        }
        self.stream.set_nonblocking(false)?;
        Ok(true)
    }
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

    /// As many as are wanted; fewer come.
    const WORKERS: u64 = 3;

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

    /// Looks until so many are workers and so many waited for.
    fn look_until(arrivals: &mut Arrivals, listener: &TcpListener, peers: usize, guests: usize) -> anyhow::Result<()> {
        while (arrivals.peers.len(), arrivals.guests.len()) != (peers, guests) {
            arrivals.look(listener, WORKERS)?;
            pause(LOOK);
        }
        Ok(())
    }

    #[test]
    fn who_says_nothing_holds_no_worker_up_and_workers_are_in_the_order_in_which_they_came() -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let come = || TcpStream::connect(listener.local_addr()?);
        let (_silent, mut first, mut second) = (come()?, come()?, come()?);
        let (begun, rest) = GREETING.as_bytes().split_at(3);
        first.write_all(begun)?;
        second.write_all(GREETING.as_bytes())?;
        let mut arrivals = Arrivals::default();
        look_until(&mut arrivals, &listener, 1, 2)?;
        first.write_all(rest)?;
        look_until(&mut arrivals, &listener, 2, 1)?;
        let from: Vec<_> = arrivals.peers.values().map(TcpStream::peer_addr).collect::<Result<_, _>>()?;
        assert_eq!(from, [first.local_addr()?, second.local_addr()?]);
        Ok(())
    }

    #[test]
    fn no_more_are_let_in_than_may_be_waited_for_until_one_of_them_goes() -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let come = || TcpStream::connect(listener.local_addr()?);
        let mut strangers = Vec::new();
        for _ in 0..GUESTS_MAX {
            strangers.push(come()?);
        }
        let mut worker = come()?;
        worker.write_all(GREETING.as_bytes())?;
        let mut arrivals = Arrivals::default();
        look_until(&mut arrivals, &listener, 0, GUESTS_MAX)?;
        arrivals.look(&listener, WORKERS)?;
        assert_eq!((arrivals.peers.len(), arrivals.guests.len()), (0, GUESTS_MAX));
        drop(strangers.pop());
        look_until(&mut arrivals, &listener, 1, GUESTS_MAX - 1)
    }
}
