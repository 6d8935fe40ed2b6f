//! Addresses and names as they are written: listeners, name servers, backends, hosts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use goodgate_upstream::BackendAddress;

use crate::HostPattern;
use crate::defaults::{HTTP_PORT, HTTPS_PORT, OTLP_PORT, RESOLVER_PORT};

/// The longest name and the longest label of the DNS, in bytes (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// A number behind an IPv6 address without brackets is rather a part of it than a port if it is smaller.
const PORT_MEANT_MIN: u16 = 80;
/// What the kernel holds of the path of a Unix socket (unix(7)), without the zero behind it.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address to listen on: `IP:port`, `[IPv6]:port`. The error says what is allowed.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        if let Some(bracketed) = bracketed(text) {
            return format!("an IPv6 address in brackets, like `{bracketed}`");
        }
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(8080);
        format!("`IP:port`, like `0.0.0.0:{port}` or `[::]:{port}`")
    })
}

/// `::1:8080` as it is meant: an IPv6 address that lacks its brackets, with a port behind it.
fn bracketed(text: &str) -> Option<String> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let port = parse_port(port).filter(|port| *port >= PORT_MEANT_MIN)?;
    Some(format!("[{ip}]:{port}"))
}

/// A name server: `IP` or `IP:port`.
pub(crate) fn parse_resolver(text: &str) -> Result<SocketAddr, String> {
    let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, RESOLVER_PORT));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    text.parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() > 0)
        .or_else(|| with_port().ok())
        .or_else(|| bracketed().map(|ip| SocketAddr::new(ip, RESOLVER_PORT)))
        .ok_or_else(|| "an IP address, with or without a port, like `127.0.0.1:53`".to_owned())
}

/// How a backend's address may be written.
pub(crate) const BACKEND_FORMS: &str =
    "`IP:port`, `[IPv6]:port`, `name:port`, `srv:name`, `unix:/path`, `http://name` or `https://name`";

/// A backend: `unix:/path`, `srv:name`, `IP:port`, `[IPv6]:port`, `name:port`, or one of the last three (the port may be
/// missing) behind `http://` or `https://`. With what its scheme says about TLS, if it has one.
pub(crate) fn parse_backend(text: &str) -> Result<(BackendAddress, Option<bool>), String> {
    let wrong = |allowed: &str| allowed.to_owned();
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "http" | "https" if rest.contains(['/', '?', '#']) => {
                Err(wrong("`http://name:port` without a path"))
            }
            "http" => Ok((authority(rest, Some(HTTP_PORT))?, Some(false))),
            "https" => Ok((authority(rest, Some(HTTPS_PORT))?, Some(true))),
            _ => Err(wrong(BACKEND_FORMS)),
        };
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok((unix(path)?, None));
    }
    if let Some(name) = text.strip_prefix("srv:") {
        return Ok((service(name)?, None));
    }
    Ok((authority(text, None)?, None))
}

/// A collector of spans: `http://` before a name or an address, whose port may be missing. Gives `host:port`.
pub(crate) fn parse_collector(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").unwrap_or_default();
    match authority(rest.strip_suffix('/').unwrap_or(rest), Some(OTLP_PORT)) {
        Ok(BackendAddress::Ip(address)) => Ok(address.to_string()),
        Ok(name @ BackendAddress::Name { .. }) => Ok(name.to_string()),
        Ok(BackendAddress::Service(_) | BackendAddress::Unix(_)) | Err(_) => {
            Err(format!("`http://host:port` without a path, like `http://127.0.0.1:{OTLP_PORT}`"))
        }
    }
}

/// The records of a service have the ports.
fn service(name: &str) -> Result<BackendAddress, String> {
    let name = parse_complete_name(name).map(BackendAddress::Service);
    name.ok_or_else(|| "`srv:name` without a port, like `srv:_http._tcp.app.internal`".to_owned())
}

/// A domain that short names are looked up in.
pub(crate) fn parse_domain(text: &str) -> Result<String, String> {
    parse_name(text).ok_or_else(|| "a domain, like `app.internal`".to_owned())
}

fn unix(path: &str) -> Result<BackendAddress, String> {
    let is_good = path.starts_with('/') && !path.ends_with('/') && !path.contains(char::is_control);
    if !is_good || path.len() > UNIX_PATH_BYTES_MAX {
        let allowed = format!("`unix:/path`, absolute and at most {UNIX_PATH_BYTES_MAX} bytes");
        return Err(allowed);
    }
    Ok(BackendAddress::Unix(path.to_owned()))
}

fn authority(text: &str, default_port: Option<u16>) -> Result<BackendAddress, String> {
    let wrong = |allowed: String| Err(allowed);
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        let is_bare_v6 = ip.is_ipv6() && !text.starts_with('[');
        return match default_port {
            Some(port) if !is_bare_v6 => Ok(BackendAddress::Ip(SocketAddr::new(ip, port))),
            Some(_) | None if let Some(bracketed) = bracketed(text).filter(|_| is_bare_v6) => {
                wrong(format!("an IPv6 address in brackets, like `{bracketed}`"))
            }
            Some(_) | None => {
                wrong(format!("a port behind the address, like `{}`", SocketAddr::new(ip, 8080)))
            }
        };
    }
    let (host, port) = match (text.rsplit_once(':'), default_port) {
        (Some((host, port)), _) => (host, parse_port(port)),
        (None, Some(port)) => (text, Some(port)),
        (None, None) => return wrong("a port behind the name, like `name:8080`".to_owned()),
    };
    let Some(port) = port else {
        return wrong("a port from 1 to 65535 behind the colon".to_owned());
    };
    if let Ok(address) = format!("{host}:{port}").parse() {
        return Ok(BackendAddress::Ip(address));
    }
    match parse_complete_name(host) {
        Some(host) => Ok(BackendAddress::Name { host, port }),
        None => wrong(BACKEND_FORMS.to_owned()),
    }
}

/// A port as digits, 1 to 65535.
fn parse_port(text: &str) -> Option<u16> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_plain && *port > 0)
}

/// The same with its trailing dot, if it has one.
fn parse_complete_name(text: &str) -> Option<String> {
    let dot = if text.ends_with('.') { "." } else { "" };
    Some(parse_name(text)? + dot)
}

/// A host name, in lower case and without a trailing dot. What looks like an IP address and is none,
/// like `10.0.0.300`, is no name either.
fn parse_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = name.rsplit('.').next()?.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label) && !last_is_number).then_some(name)
}

/// A `Host` to send: a name or an address, with or without a port.
pub(crate) fn parse_host_header(text: &str) -> Result<String, String> {
    let without_port = match text.rsplit_once(':') {
        Some((host, port)) if parse_port(port).is_some() => host,
        Some(_) | None => text,
    };
    match parse_host(without_port) {
        Some(_) => Ok(text.to_ascii_lowercase()),
        None => Err("a host name, like `app.internal`".to_owned()),
    }
}

/// A host that a route answers for: exact or `*.name`, no port.
pub(crate) fn parse_host_pattern(text: &str) -> Result<HostPattern, String> {
    if text == "*" {
        return Err("a name; leave `host` out to match every host".to_owned());
    }
    let pattern = match text.strip_prefix("*.") {
        Some(parent) => parse_name(parent).map(|parent| HostPattern::Wildcard(format!(".{parent}"))),
        None => parse_host(text).map(HostPattern::Exact),
    };
    pattern.ok_or_else(|| "a host name without a port, like `www.example.com` or `*.example.net`".to_owned())
}

/// A name, an IPv4 address or an IPv6 address in brackets, in lower case.
pub(crate) fn parse_host(text: &str) -> Option<String> {
    let v6 = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    match v6 {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().ok().map(|ip| format!("[{ip}]")),
        None => match text.parse::<std::net::Ipv4Addr>() {
            Ok(ip) => Some(ip.to_string()),
            Err(_) => parse_name(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(text: &str) -> Option<String> {
        parse_backend(text).ok().map(|(address, _)| address.to_string())
    }

    #[test]
    fn backends_are_addresses_or_names_with_a_port() {
        let good = [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("App.Internal.:8080", "app.internal:8080"),
            ("app_1:1", "app_1:1"),
            ("http://app", "app:80"),
            ("http://app:81", "app:81"),
            ("http://10.0.0.1", "10.0.0.1:80"),
            ("http://[::1]", "[::1]:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("srv:_HTTP._tcp.App.Internal.", "srv:_http._tcp.app.internal"),
            ("srv:web.service.consul", "srv:web.service.consul"),
        ];
        for (text, expected) in good {
            assert_eq!(backend(text).as_deref(), Some(expected), "{text}");
        }
        let bad = [
            "",
            ":",
            ":80",
            "app",
            "10.0.0.1",
            "::1",
            "::1:80x",
            "app:0",
            "app:65536",
            "app:+80",
            "app:",
            "a b:80",
            "-a:80",
            "a..b:80",
            "10.0.0.300:80",
            "10.0.0:80",
            "http://",
            "http://app/",
            "http://u@app",
            "ftp://a:1",
            "http://::1",
            "[::1]",
            "[::1:80",
            "é:80",
            "app:80:80",
            "unix:",
            "srv:",
            "srv:app:80",
            "srv://app",
            "srv:a..b",
            "https://srv:app",
            "unix:app.sock",
            "unix:/run/",
            "unix:/run/a\n",
        ];
        for text in bad {
            assert_eq!(backend(text), None, "{text}");
        }
        let tls = |text| parse_backend(text).ok().and_then(|(_, tls)| tls);
        assert_eq!((tls("https://app"), tls("http://app"), tls("app:1")), (Some(true), Some(false), None));
        assert_eq!(backend("https://app").as_deref(), Some("app:443"));
        assert!(backend(&format!("unix:/{}", "x".repeat(106))).is_some());
        assert_eq!(backend(&format!("unix:/{}", "x".repeat(107))), None);
    }

    #[test]
    fn a_missing_port_is_named() {
        let allowed = parse_backend("10.0.0.1").unwrap_err();
        assert_eq!(allowed, "a port behind the address, like `10.0.0.1:8080`");
    }

    #[test]
    fn host_patterns_are_exact_or_wildcard() {
        assert_eq!(
            parse_host_pattern("WWW.Example.com"),
            Ok(HostPattern::Exact("www.example.com".to_owned()))
        );
        assert_eq!(parse_host_pattern("*.Example.net"), Ok(HostPattern::Wildcard(".example.net".to_owned())));
        assert_eq!(parse_host_pattern("[::1]"), Ok(HostPattern::Exact("[::1]".to_owned())));
        for text in ["", "*", "*.", "a.*", "*a.b", "a:80", "a/b", "*.*.a", "."] {
            assert!(parse_host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn resolvers_have_port_53_unless_told_otherwise() {
        let shown = |text| parse_resolver(text).ok().map(|address| address.to_string());
        assert_eq!(shown("127.0.0.1").as_deref(), Some("127.0.0.1:53"));
        assert_eq!(shown("127.0.0.1:5353").as_deref(), Some("127.0.0.1:5353"));
        assert_eq!(shown("::1").as_deref(), Some("[::1]:53"));
        assert_eq!(shown("[::1]").as_deref(), Some("[::1]:53"));
        assert_eq!(shown("[::1]:54").as_deref(), Some("[::1]:54"));
        for text in ["", "dns", "127.0.0.1:0", "127.0.0.1:x"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn host_headers_may_carry_a_port() {
        assert_eq!(parse_host_header("App.Internal:8080").as_deref(), Ok("app.internal:8080"));
        assert_eq!(parse_host_header("10.0.0.1").as_deref(), Ok("10.0.0.1"));
        for text in ["", "a b", "a\r\nb", "a:b", "a/", "[::1"] {
            assert!(parse_host_header(text).is_err(), "{text}");
        }
    }
}
