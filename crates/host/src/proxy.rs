//! The PROXY protocol, version 2: who is behind a load balancer, told by it before anything else is said.
//!
//! Only balancers that configuration names are believed, and those have to speak it: nothing is guessed. Pure but for
//! [`introduced`]; the bytes of the header are the `proxy-header` crate's business, and no byte behind them is read.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use drover_types::ApiError;
use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::net::TcpStream;

/// The first bytes of a header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of a header of version 1.
const VERSION_1: &[u8] = b"PROXY ";
/// Bytes up to and including the length of the rest.
const FIXED_BYTES: usize = 16;
/// Longest header that is taken: two addresses, and what balancers tell besides, which is skipped.
const HEADER_BYTES_MAX: usize = 4 * 1024;
/// Most prefixes of addresses.
const BALANCERS_MAX: usize = 256;

/// Load balancers that say who is behind them. Cheap to clone; by default there are none.
#[derive(Clone, Debug, Default)]
pub struct Balancers(Arc<[IpNet]>);

impl Balancers {
    /// Those whose addresses have one of `prefixes`, such as `10.0.0.0/8`, `2001:db8::/32` or a single address; the
    /// configuration has them under `key`.
    pub fn parse(key: &str, prefixes: &[String]) -> Result<Self, ApiError> {
        if prefixes.len() > BALANCERS_MAX {
            return Err(ApiError::invalid(key, "names too many prefixes").over(BALANCERS_MAX, prefixes.len()));
        }
        let parse = |prefix: &String| {
            let network = prefix.parse::<IpNet>().ok().or_else(|| prefix.parse::<IpAddr>().ok().map(IpNet::from));
            let message = "is no prefix of addresses such as 10.0.0.0/8 or 2001:db8::/32";
            network.ok_or_else(|| ApiError::invalid(key, format!("{prefix:?} {message}")))
        };
        prefixes.iter().map(parse).collect::<Result<Vec<_>, _>>().map(|networks| Self(networks.into()))
    }

    /// Whether who connects from `address` is one of them.
    pub fn contain(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical(); // of a dual-stack listener
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// Why a balancer's header is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("no header of the PROXY protocol, which this balancer has to send (proxy_protocol_from)")]
    Missing,
    #[error("header of the PROXY protocol is of version 1, only version 2 is taken")]
    Version1,
    #[error("header of the PROXY protocol has {bytes} bytes, limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("header of the PROXY protocol cannot be read")]
    Malformed,
    #[error("header of the PROXY protocol is about datagrams")]
    Datagrams,
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        Self::new(ErrorKind::InvalidData, error)
    }
}

/// A header, as far as it has come.
#[derive(Debug, Default)]
pub struct Header {
    bytes: Vec<u8>,
}

impl Header {
    /// Reads what the header lacks, and nothing behind it; when it is whole, who is behind the balancer: `None` is the
    /// balancer itself, to see whether somebody is here. To be called again after
    /// [`WouldBlock`](ErrorKind::WouldBlock).
    pub fn advance(&mut self, from: &mut impl Read) -> io::Result<Option<SocketAddr>> {
        loop {
            let lacks = self.lacks()?;
            if lacks == 0 {
                return Ok(self.source()?);
            }
            let start = self.bytes.len();
            self.bytes.resize(start + lacks, 0);
            let read = from.read(&mut self.bytes[start..]);
            self.bytes.truncate(start + read.as_ref().map_or(0, |bytes| *bytes));
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes it lacks, as far as is known; 0: it is whole.
    fn lacks(&self) -> Result<usize, ProxyError> {
        let bytes = &self.bytes;
        if !SIGNATURE.starts_with(&bytes[..bytes.len().min(SIGNATURE.len())]) {
            let is_version_1 = VERSION_1.starts_with(&bytes[..bytes.len().min(VERSION_1.len())]);
            return Err(if is_version_1 { ProxyError::Version1 } else { ProxyError::Missing });
        }
        if bytes.len() < FIXED_BYTES {
            return Ok(FIXED_BYTES - bytes.len());
        }
        let whole = FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if whole > HEADER_BYTES_MAX {
            return Err(ProxyError::TooLong { bytes: whole, limit: HEADER_BYTES_MAX });
        }
        Ok(whole - bytes.len())
    }

    fn source(&self) -> Result<Option<SocketAddr>, ProxyError> {
        let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
        let (header, _) = ProxyHeader::parse(&self.bytes, config).map_err(|_| ProxyError::Malformed)?;
        match header.proxied_address() {
            None => Ok(None),
            Some(address) if address.protocol == Protocol::Stream => Ok(Some(address.source)),
            Some(_) => Err(ProxyError::Datagrams),
        }
    }
}

/// Reads the header that `stream` begins with; who is behind the balancer, as [`Header::advance`] says.
pub async fn introduced(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut header = Header::default();
    loop {
        stream.readable().await?;
        match header.advance(&mut Ready(stream)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            advanced => return advanced,
        }
    }
}

/// Reads what is there.
struct Ready<'s>(&'s TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

#[cfg(test)]
mod tests {
    use proxy_header::{ProxiedAddress, Tlv};

    use super::*;

    /// Bytes that come one at a time, with a pause between two of them.
    struct Trickle<'b> {
        bytes: &'b [u8],
        pauses: bool,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            self.pauses = !self.pauses;
            if self.pauses || self.bytes.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let (first, rest) = self.bytes.split_at(1);
            room[..1].copy_from_slice(first);
            self.bytes = rest;
            Ok(1)
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn header(source: &str, destination: &str) -> ProxyHeader<'static> {
        ProxyHeader::with_address(ProxiedAddress::stream(address(source), address(destination)))
    }

    fn encoded(header: &ProxyHeader<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).expect("short");
        bytes
    }

    /// What becomes of these bytes, and how many of them are left.
    fn advance(mut bytes: &[u8]) -> (Result<Option<SocketAddr>, String>, usize) {
        let advanced = Header::default().advance(&mut bytes);
        (advanced.map_err(|error| error.to_string()), bytes.len())
    }

    #[test]
    fn the_source_is_told_and_nothing_behind_the_header_is_read() {
        for (source, destination) in [("192.0.2.7:4711", "10.0.0.1:1883"), ("[2001:db8::7]:4711", "[2001:db8::1]:1883")]
        {
            let mut header = header(source, destination);
            header.append_tlv(Tlv::UniqueId(b"unique"[..].into()));
            header.append_tlv(Tlv::Custom(0xe0, b"of the balancer's own"[..].into()));
            let bytes = [encoded(&header), b"behind".to_vec()].concat();
            assert_eq!(advance(&bytes), (Ok(Some(address(source))), 6));
            let (mut trickle, mut slow) = (Trickle { bytes: &bytes, pauses: false }, Header::default());
            let told = loop {
                match slow.advance(&mut trickle) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    advanced => break advanced.expect("it comes"),
                }
            };
            assert_eq!((told, trickle.bytes), (Some(address(source)), &b"behind"[..]));
        }
        let itself = encoded(&ProxyHeader::with_local());
        assert_eq!(advance(&itself), (Ok(None), 0), "a balancer that looks whether somebody is here");
    }

    #[test]
    fn whatever_is_no_header_of_version_2_is_refused_in_words() {
        let refused = |bytes: &[u8]| advance(bytes).0.expect_err("refused");
        assert_eq!(refused(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 1883\r\n"), ProxyError::Version1.to_string());
        assert_eq!(refused(b"\x10\x10\0\x04MQTT\x05\x02\0\x0a\0\0\0\0\0\0"), ProxyError::Missing.to_string());
        let malformed = [SIGNATURE, &[0x31, 0x11, 0, 12], &[0; 12]].concat();
        assert_eq!(refused(&malformed), ProxyError::Malformed.to_string());
        let short = [SIGNATURE, &[0x21, 0x11, 0, 4], &[0; 4]].concat();
        assert_eq!(refused(&short), ProxyError::Malformed.to_string());
        let datagrams = ProxiedAddress::datagram(address("192.0.2.7:1"), address("10.0.0.1:2"));
        assert_eq!(refused(&encoded(&ProxyHeader::with_address(datagrams))), ProxyError::Datagrams.to_string());
        let of = |bytes: usize| {
            let rest = u16::try_from(bytes - FIXED_BYTES).expect("short").to_be_bytes();
            [SIGNATURE, &[0x20, 0x00], &rest, &vec![0; bytes - FIXED_BYTES]].concat()
        };
        assert_eq!(advance(&of(HEADER_BYTES_MAX)), (Ok(None), 0));
        let too_long = ProxyError::TooLong { bytes: HEADER_BYTES_MAX + 1, limit: HEADER_BYTES_MAX };
        assert_eq!(refused(&of(HEADER_BYTES_MAX + 1)), too_long.to_string());
        let cut = Header::default().advance(&mut &encoded(&ProxyHeader::with_local())[..15]);
        assert_eq!(cut.map_err(|error| error.kind()), Err(ErrorKind::UnexpectedEof));
    }

    #[test]
    fn balancers_are_told_by_prefixes_of_either_family() {
        let parse =
            |prefixes: &[&str]| Balancers::parse("k", &prefixes.iter().map(ToString::to_string).collect::<Vec<_>>());
        let balancers = parse(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]).expect("valid");
        for (from, listed) in [
            ("10.1.2.3:1", true),
            ("[::ffff:10.1.2.3]:1", true),
            ("192.0.2.7:1", true),
            ("[2001:db8::1]:1", true),
            ("192.0.2.8:1", false),
            ("[::1]:1", false),
        ] {
            assert_eq!(balancers.contain(address(from)), listed, "{from}");
        }
        assert!(!Balancers::default().contain(address("127.0.0.1:1")));
        let refused = parse(&["10.0.0.0/33"]).expect_err("no prefix");
        assert!(refused.field.as_deref() == Some("k") && refused.message.contains("10.0.0.0/33"), "{refused:?}");
        let many = vec!["10.0.0.1"; BALANCERS_MAX + 1];
        assert_eq!(parse(&many).expect_err("too many").limit.as_deref(), Some("256"));
        assert!(parse(&many[1..]).is_ok());
    }
}
