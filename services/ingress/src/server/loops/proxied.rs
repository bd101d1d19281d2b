//! A connection from a load balancer that has not said yet who is behind it: the header of the PROXY protocol comes before
//! TLS and MQTT. Afterwards nothing of it is left.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use drover_host::proxy::Header;
use mio::net::TcpStream;
use rustls::ServerConfig;

use super::transport::Socket;

/// The connection, and what is spoken behind the header.
pub struct Proxied {
    /// Absent once the header was there.
    socket: Option<TcpStream>,
    tls: Option<Arc<ServerConfig>>,
    header: Header,
}

impl Proxied {
    /// A connection on which nothing was said yet.
    pub fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { socket: Some(socket), tls, header: Header::default() }
    }

    /// Goes on with the header; when it is whole, what the connection becomes, and who is behind the balancer: `None` is
    /// the balancer itself.
    pub fn introduce(&mut self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let socket = self.socket.as_mut().ok_or(ErrorKind::NotConnected)?;
        let source = self.header.advance(socket)?;
        let socket = self.socket.take().ok_or(ErrorKind::NotConnected)?;
        Ok((Socket::over(socket, self.tls.take())?, source))
    }

    /// Says to the balancer that nothing follows.
    pub fn close(&mut self) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| socket.shutdown(Shutdown::Write))
    }
}
