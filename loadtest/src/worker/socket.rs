//! Opens sockets: not blocking, from the source address asked for, and what waits for them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// Events taken at once.
const EVENTS_MAX: usize = 1_024;

/// Starts to connect. On loopback a close is abortive, so that no port is left waiting (TIME_WAIT).
pub fn open(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    set_tcp_nodelay(&socket, true)?;
    if target.ip().is_loopback() {
        set_socket_linger(&socket, Some(Duration::ZERO))?;
    }
    if let Some(source) = source {
        bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
    }
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// A socket for datagrams to and from `target` alone.
pub fn open_datagrams(target: SocketAddr, source: Option<Ipv4Addr>) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((source.map_or(any, IpAddr::V4), 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The source address of connection `number`: 127.0.1.1 and up, so many connections each; `None` unless the target is
/// on IPv4 loopback, where every address of 127.0.0.0/8 is this machine's.
pub fn source(target: SocketAddr, number: u64, connections_per_source: u32) -> Option<Ipv4Addr> {
    let SocketAddr::V4(target) = target else { return None };
    let host = 0x0101 + number / u64::from(connections_per_source);
    let address = Ipv4Addr::from_bits(u32::from_be_bytes([127, 0, 0, 0]) | (host as u32 & 0x00ff_ffff));
    target.ip().is_loopback().then_some(address)
}

/// Tells which sockets have become ready, once each time (edge-triggered).
pub struct Selector {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Selector {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a socket until it is closed.
    pub fn add(&self, socket: impl AsFd, index: u32) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket.as_fd(), epoll::EventData::new_u64(u64::from(index)), flags)?)
    }

    /// Waits up to `longest_us` microseconds, to the microsecond (epoll alone waits whole milliseconds); appends what
    /// has become ready.
    pub fn wait(&mut self, longest_us: u64, ready: &mut Vec<u32>) -> io::Result<()> {
        let timespec = |us: u64| Timespec { tv_sec: (us / 1_000_000) as i64, tv_nsec: (us % 1_000_000 * 1_000) as _ };
        if longest_us > 0 {
            let mut watched = [PollFd::new(&self.epoll, PollFlags::IN)];
            match rustix::event::poll(&mut watched, Some(&timespec(longest_us))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timespec(0))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| event.data.u64() as u32));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_spread_over_loopback_and_left_to_the_system_elsewhere() {
        let local: SocketAddr = "127.0.0.1:1883".parse().expect("an address");
        let at = |number| source(local, number, 8_000).map(|address| address.to_string());
        assert_eq!(at(7_999).as_deref(), Some("127.0.1.1"));
        assert_eq!(at(8_000).as_deref(), Some("127.0.1.2"));
        assert_eq!(at(8_000 * 255).as_deref(), Some("127.0.2.0"));
        let remote: SocketAddr = "10.0.0.1:1883".parse().expect("an address");
        assert_eq!(source(remote, 0, 8_000), None);
    }
}
