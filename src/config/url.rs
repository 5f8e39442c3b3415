//! Addresses as the configuration writes them: scheme, host, port and path prefix, and nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address: scheme, host, port and path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `wss`, `ws`, `https` or `http`.
    pub scheme: &'static str,
    /// Name or literal address, in lower case, without brackets.
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// Path prefix without trailing slash; may be empty.
    pub path: String,
}

impl Url {
    /// The address in this text. `None` if it is none, or has a user, a query or a fragment: those carry secrets.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = ["wss", "ws", "https", "http"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority)?;
        let url = Self {
            scheme,
            host: host_name(host)?,
            port: port.map_or(Some(default_port(scheme)), |digits| digits.parse().ok().filter(|port| *port != 0))?,
            path: path.trim_end_matches('/').to_owned(),
        };
        url.path.bytes().all(|byte| byte.is_ascii_graphic() && !br#"?#"<>\^`{|}"#.contains(&byte)).then_some(url)
    }

    /// True for `wss` and `https`.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, "wss" | "https")
    }

    /// True if the host is this machine by its very name: `localhost`, 127.0.0.0/8 or ::1.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.literal().is_some_and(|ip| ip.is_loopback())
    }

    /// True if the host is a literal address of a private or link-local network.
    pub fn is_private(&self) -> bool {
        match self.literal() {
            Some(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
            Some(IpAddr::V6(ip)) => ip.is_unique_local() || ip.is_unicast_link_local(),
            None => false,
        }
    }

    /// `host:port`, bracketed where the host is an IPv6 literal.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == default_port(self.scheme) {
            write!(f, "{}://{}{}", self.scheme, self.bracketed(), self.path)
        } else {
            write!(f, "{}://{}{}", self.scheme, self.authority(), self.path)
        }
    }
}

fn default_port(scheme: &str) -> u16 {
    if matches!(scheme, "wss" | "https") { 443 } else { 80 }
}

/// Host and port digits; the brackets of an IPv6 literal are kept.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_end = if authority.starts_with('[') { authority.find(']')? + 1 } else { 0 };
    match authority[host_end..].split_once(':') {
        Some((name, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((&authority[..host_end + name.len()], Some(digits)))
        }
        Some(_) => None,
        None => Some((authority, None)),
    }
}

fn host_name(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        return Some(inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string());
    }
    let labels_fit = host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    // A name whose last label is a number would be read as an address by some resolvers and refused by others.
    let numeric = host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    (labels_fit && (!numeric || host.parse::<Ipv4Addr>().is_ok())).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_were_read() {
        for text in [
            "wss://fstream.binance.com/market",
            "wss://stream.binance.com:9443",
            "https://127.0.0.1:9444",
            "ws://[::1]:8080/a/b",
            "http://localhost",
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), Some(text));
        }
        let url = Url::parse("WSS://Example.COM:443/x/").unwrap();
        assert_eq!(url.to_string(), "wss://example.com/x");
        assert_eq!(url.authority(), "example.com:443");
        assert_eq!(Url::parse("ws://[::1]").unwrap().authority(), "[::1]:80");
    }

    #[test]
    fn what_is_no_plain_address_is_refused() {
        for text in [
            "",
            "wss:/x",
            "ftp://a",
            "wss://",
            "wss:///a",
            "wss://user@host",
            "wss://user:pw@host/",
            "wss://host?x=1",
            "wss://host/a?x=1",
            "wss://host/a#b",
            "wss://host:0",
            "wss://host:65536",
            "wss://host:",
            "wss://host:1:2",
            "wss://[::1",
            "wss://[::1]x:5",
            "wss://::1:5",
            "wss://256.0.0.1",
            "wss://ho st",
            "wss://host/a b",
            "wss://a..b",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_and_private_are_told_by_literal_address() {
        for (text, loopback, private) in [
            ("ws://localhost", true, false),
            ("ws://127.9.9.9", true, false),
            ("ws://[::1]", true, false),
            ("ws://192.168.1.5", false, true),
            ("ws://10.0.0.1", false, true),
            ("ws://[fd00::1]", false, true),
            ("ws://8.8.8.8", false, false),
            ("ws://localhost.example.com", false, false),
            ("ws://10.0.0.1.example.com", false, false),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.is_loopback(), url.is_private()), (loopback, private), "{text}");
        }
    }
}
