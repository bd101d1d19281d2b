//! Sockets are bound before any work begins, all of them, and every conflict is told at once.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// What a socket speaks below its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A socket a service wants.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    /// The name under which the service takes it, `mqtt` for example.
    pub name: &'static str,
    /// The configuration key (and so the flag) that moves it, `ingress.mqtt.listen` for example.
    pub key: &'static str,
    pub transport: Transport,
    /// One address a socket: the IPv4 and the IPv6 form of a dual-stack listener.
    pub addresses: Vec<SocketAddr>,
}

/// A bound socket.
#[derive(Debug)]
pub enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address} ({name}) cannot be bound: {source}; move it with {key}")]
pub struct Conflict {
    pub name: &'static str,
    pub key: &'static str,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Bound sockets waiting to be taken by their service. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Mutex<HashMap<&'static str, Vec<Bound>>>>);

impl Sockets {
    /// Binds every address of every spec, or lists all that cannot be bound. An IPv6 address on a machine without
    /// IPv6 is left out when the spec has another address.
    pub fn bind(specs: &[ListenSpec]) -> Result<Self, Vec<Conflict>> {
        let mut bound: HashMap<&'static str, Vec<Bound>> = HashMap::new();
        let mut conflicts = Vec::new();
        for spec in specs {
            for &address in &spec.addresses {
                match bind(spec.transport, address) {
                    Ok(socket) => bound.entry(spec.name).or_default().push(socket),
                    Err(source) if is_missing_ipv6(address, &source) && spec.addresses.len() > 1 => {
                        tracing::info!(%address, name = spec.name, "this machine has no IPv6; address left out");
                    }
                    Err(source) => conflicts.push(Conflict { name: spec.name, key: spec.key, address, source }),
                }
            }
        }
        if conflicts.is_empty() { Ok(Self(Arc::new(Mutex::new(bound)))) } else { Err(conflicts) }
    }

    /// Where the sockets bound under `name` really listen (a port 0 has become a number by then).
    pub fn addresses(&self, name: &str) -> Vec<SocketAddr> {
        let bound = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = bound.get(name).map(Vec::as_slice).unwrap_or_default();
        sockets.iter().filter_map(|socket| socket.address().ok()).collect()
    }

    /// The TCP listeners bound under `name`, once, non-blocking; empty if there are none.
    pub fn take_tcp(&self, name: &str) -> io::Result<Vec<tokio::net::TcpListener>> {
        let bound = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).unwrap_or_default();
        bound
            .into_iter()
            .filter_map(|socket| match socket {
                Bound::Tcp(listener) => Some(tokio::net::TcpListener::from_std(listener)),
                Bound::Udp(_) => None,
            })
            .collect()
    }
}

impl Bound {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}

fn bind(transport: Transport, address: SocketAddr) -> io::Result<Bound> {
    let bound = match transport {
        Transport::Tcp => {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Bound::Tcp(listener)
        }
        Transport::Udp => {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Bound::Udp(socket)
        }
    };
    Ok(bound)
}

fn is_missing_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let unavailable = [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported];
    address.is_ipv6() && unavailable.contains(&error.kind())
}
