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
#[error("{address} ({name}): {source}; move it with --set '{key}=[\"ADDRESS:PORT\"]'")]
pub struct Conflict {
    pub name: &'static str,
    pub key: &'static str,
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Bound sockets waiting to be taken by their service. Cheap to clone.
#[derive(Clone, Debug, Default)]
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
        self.take(name)
            .into_iter()
            .filter_map(|socket| match socket {
                Bound::Tcp(listener) => Some(tokio::net::TcpListener::from_std(listener)),
                Bound::Udp(_) => None,
            })
            .collect()
    }

    /// The UDP sockets bound under `name`, as [`Sockets::take_tcp`].
    pub fn take_udp(&self, name: &str) -> io::Result<Vec<tokio::net::UdpSocket>> {
        self.take(name)
            .into_iter()
            .filter_map(|socket| match socket {
                Bound::Udp(socket) => Some(tokio::net::UdpSocket::from_std(socket)),
                Bound::Tcp(_) => None,
            })
            .collect()
    }

    fn take(&self, name: &str) -> Vec<Bound> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &'static str, key: &'static str, addresses: &[SocketAddr]) -> ListenSpec {
        ListenSpec { name, key, transport: Transport::Tcp, addresses: addresses.to_vec() }
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().expect("an address")
    }

    fn taken() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(any()).expect("port 0 is free");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    #[test]
    fn all_conflicts_are_listed_at_once_with_what_moves_each() {
        let ((_one, first), (_two, second)) = (taken(), taken());
        let specs = [
            spec("mqtt", "a.listen", &[first]),
            spec("free", "f.listen", &[any()]),
            spec("web", "b.listen", &[second]),
        ];
        let conflicts = Sockets::bind(&specs).expect_err("both are taken");
        let told: Vec<String> = conflicts.iter().map(Conflict::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with(&format!("{first} (mqtt): Address already in use")), "{told:?}");
        assert!(told[1].ends_with("move it with --set 'b.listen=[\"ADDRESS:PORT\"]'"), "{told:?}");
    }

    #[test]
    fn after_a_conflict_nothing_stays_bound() {
        let ((_taken, address), (free, free_address)) = (taken(), taken());
        drop(free);
        let both = [spec("free", "f", &[free_address]), spec("mqtt", "m", &[address])];
        assert_eq!(Sockets::bind(&both).expect_err("one is taken").len(), 1);
        assert!(TcpListener::bind(free_address).is_ok());
    }

    #[tokio::test]
    async fn a_socket_is_taken_once_by_its_name() {
        let sockets = Sockets::bind(&[spec("mqtt", "m", &[any(), any()])]).expect("port 0 is free");
        assert_eq!(sockets.addresses("mqtt").len(), 2);
        assert_eq!(sockets.take_tcp("mqtt").expect("usable").len(), 2);
        assert!(sockets.take_tcp("mqtt").expect("usable").is_empty());
        assert!(sockets.take_tcp("other").expect("usable").is_empty());
        let coap = ListenSpec { transport: Transport::Udp, ..spec("coap", "c", &[any()]) };
        let sockets = Sockets::bind(&[coap]).expect("port 0 is free");
        assert!(sockets.addresses("coap").iter().all(|address| address.port() > 0));
        assert_eq!(sockets.take_udp("coap").expect("usable").len(), 1);
        assert!(sockets.take_udp("coap").expect("usable").is_empty());
    }
}
