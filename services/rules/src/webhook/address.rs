//! Where webhooks may go: to addresses of the public internet over HTTPS, and to hosts that the configuration names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;
use hyper::http::uri::Authority;

/// Hosts that may have any address and may be spoken to without TLS: `HOST` or `HOST:PORT`.
#[derive(Clone, Debug, Default)]
pub struct InternalHosts(Vec<String>);

/// Scheme, host and port of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl InternalHosts {
    /// These hosts.
    pub fn new(hosts: Vec<String>) -> Self {
        Self(hosts)
    }

    fn has(&self, target: &Target) -> bool {
        let with_port = format!("{}:{}", target.host, target.port);
        self.0.iter().any(|host| host.eq_ignore_ascii_case(&target.host) || host.eq_ignore_ascii_case(&with_port))
    }

    /// Why a declared webhook cannot go where it says, as far as that is known without a look at the name service.
    pub fn refuse(&self, url: &str) -> Option<String> {
        let target = match Target::of_declared(url) {
            Ok(target) => target,
            Err(reason) => return Some(reason),
        };
        let literal = target.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, target.port));
        self.check(&target, literal.as_slice()).err()
    }

    /// Whether a target with these addresses may be connected to; the error says why not.
    pub fn check(&self, target: &Target, addresses: &[SocketAddr]) -> Result<(), String> {
        if self.has(target) {
            return Ok(());
        }
        let host = &target.host;
        if !target.tls {
            return Err(format!("http:// to {host} is not allowed: use https://, or name it in rules.internal_hosts"));
        }
        match addresses.iter().find(|address| !is_public(address.ip())) {
            Some(address) => {
                // What is behind a name in here is not the tenant's to know.
                tracing::debug!(host, ip = %address.ip(), "a webhook's host has an address that is not public");
                Err(format!(
                    "{host} has an address that is not public: name the host in rules.internal_hosts to allow it"
                ))
            }
            None => Ok(()),
        }
    }
}

impl Target {
    /// Where a request to `uri` goes.
    pub fn of(uri: &Uri) -> Result<Self, String> {
        let authority = uri.authority().ok_or("url has no host")?;
        Self::new(uri.scheme_str() == Some("https"), authority)
    }

    /// Where the requests of a declared webhook go, whose path may have `${…}` in it.
    fn of_declared(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("url has no scheme")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority: Authority = authority.parse().map_err(|error| format!("host of {url:?}: {error}"))?;
        Self::new(scheme == "https", &authority)
    }

    fn new(tls: bool, authority: &Authority) -> Result<Self, String> {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("url has no host".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port })
    }
}

/// Whether an address is one that anybody on the internet may have.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// The special-purpose blocks of RFC 6890 and its updates.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        || a == 100 && (64..128).contains(&b)
        || a == 192 && b == 0 && c == 0
        || a == 192 && b == 88 && c == 99
        || a == 198 && (b == 18 || b == 19);
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // Translated and tunnelled addresses of IPv4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            is_public_v4(v4(high, low))
        }
        // Protocol assignments (2001::/23) and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is 2000::/3; the rest is loopback, link-local, unique local, multicast or nobody's.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        let public = [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2001:200::1",
            "3fff:1000::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ];
        for ip in public {
            assert!(is_public(ip.parse().expect(ip)), "{ip}");
        }
        let special = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "2001:1ff::1",
            "3fff:fff::1",
            "192.88.99.1",
            "::7f00:1",
        ];
        for ip in special {
            assert!(!is_public(ip.parse().expect(ip)), "{ip}");
        }
    }

    #[test]
    fn what_is_not_public_is_refused_unless_it_is_named() {
        let internal = InternalHosts::new(vec!["n8n.home".into(), "[::1]:8080".into(), "127.0.0.1:90".into()]);
        for url in ["https://example.org/${x}", "http://n8n.home:5678/x", "https://N8N.home", "http://127.0.0.1:90/x"] {
            assert_eq!(internal.refuse(url), None, "{url}");
        }
        for url in ["http://example.org", "https://127.0.0.1/x", "https://[::1]/x", "https://169.254.169.254?x"] {
            assert!(internal.refuse(url).is_some(), "{url}");
        }
        let target = Target { tls: true, host: "example.org".into(), port: 443 };
        let refused = internal.check(&target, &[([93, 184, 216, 34], 443).into(), ([10, 0, 0, 7], 443).into()]);
        let refused = refused.expect_err("one of them is private");
        assert!(refused.contains("example.org") && !refused.contains("10.0.0.7"), "{refused}");
    }
}
