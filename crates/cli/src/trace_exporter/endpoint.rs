//! The address of a collector.

use std::fmt;
use std::str::FromStr;

/// OTLP's port over HTTP.
const USUAL_PORT: u16 = 4318;
/// Where traces go, unless the address says otherwise.
const USUAL_PATH: &str = "/v1/traces";

/// Where a collector takes traces, over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// A name or an address; that of IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// With a query, if there is one.
    pub(super) path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or(
            "expected http://HOST:PORT; a collector beside the server can pass traces on over HTTPS or gRPC",
        )?;
        let (authority, path) = match rest.find('/') {
            Some(start) => rest.split_at(start),
            None => (rest, ""),
        };
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible(rest) || authority.contains('@') || path.contains('#') {
            return Err(
                "expected http://HOST:PORT, perhaps with a path, and nothing else".to_owned(),
            );
        }
        let (host, port) = host_and_port(authority)?;
        let path = match path {
            "" | "/" => USUAL_PATH,
            path => path,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

fn host_and_port(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("a bracket is not closed")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return Err("there is no host".to_owned());
    }
    let port = match port {
        "" => USUAL_PORT,
        port => {
            let number = port.strip_prefix(':').and_then(|port| port.parse().ok());
            number.ok_or("the port is no number up to 65535")?
        }
    };
    Ok((host, port))
}

impl Endpoint {
    /// Host and port as a request names them.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_whole() {
        for (given, whole) in [
            ("http://collector", "http://collector:4318/v1/traces"),
            ("http://10.0.0.1:4318/", "http://10.0.0.1:4318/v1/traces"),
            ("http://[::1]:99/otlp?a=b", "http://[::1]:99/otlp?a=b"),
            ("http://[::1]", "http://[::1]:4318/v1/traces"),
        ] {
            let endpoint: Endpoint = given.parse().unwrap();
            assert_eq!(endpoint.to_string(), whole);
            assert_eq!(whole.parse(), Ok(endpoint));
        }
    }

    #[test]
    fn what_is_no_plain_address_is_refused() {
        for text in [
            "",
            "collector:4318",
            "https://collector",
            "grpc://collector:4317",
            "http://",
            "http://:4318",
            "http://a:b",
            "http://a:65536",
            "http://[::1",
            "http://user@a",
            "http://a/x y",
            "http://a/\r\nx",
            "http://a/#x",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
