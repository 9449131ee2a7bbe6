//! Addresses, and where a redirect leads.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// An absolute address over HTTP or HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(Uri);

impl Address {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_known = uri.scheme() == Some(&Scheme::HTTPS) || uri.scheme() == Some(&Scheme::HTTP);
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        (is_known && has_host).then_some(Self(uri))
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(crate) fn has_query(&self) -> bool {
        self.0.query().is_some()
    }

    fn is_encrypted(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// All of it, without a slash at the end.
    pub(crate) fn text(&self) -> String {
        self.0.to_string().trim_end_matches('/').to_owned()
    }

    /// The host and its port: what may be shown, for the rest may hold a signature or a password.
    pub(crate) fn shown(&self) -> String {
        let host = self.0.host().unwrap_or_default();
        match self.0.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// A page behind it, to be opened by a person.
    pub(crate) fn page(&self, path: &str) -> String {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let before = self.0.path().trim_end_matches('/');
        format!("{scheme}://{}{before}/{path}", self.shown())
    }

    /// Whether both are the same server, which may know what the other knows.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        let port = |address: &Self| {
            let usual = if address.is_encrypted() { 443 } else { 80 };
            address.0.port_u16().unwrap_or(usual)
        };
        let same_host = match (self.0.host(), other.0.host()) {
            (Some(mine), Some(its)) => mine.eq_ignore_ascii_case(its),
            _ => false,
        };
        same_host && self.is_encrypted() == other.is_encrypted() && port(self) == port(other)
    }

    /// Where a `Location` leads from here; never from HTTPS to HTTP.
    pub(crate) fn redirected(&self, location: &str) -> Result<Self, &'static str> {
        let location = location.split('#').next().unwrap_or_default();
        let (scheme, authority) = match (self.0.scheme_str(), self.0.authority()) {
            (Some(scheme), Some(authority)) => (scheme, authority.as_str()),
            _ => return Err("from nowhere"),
        };
        let absolute = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            location.to_owned()
        };
        let next = Self::parse(&absolute).ok_or("to something that is no address")?;
        match self.is_encrypted() && !next.is_encrypted() {
            true => Err("from HTTPS to plain HTTP, where anybody could change or read it"),
            false => Ok(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn redirects_lead_where_they_say_but_never_out_of_encryption() {
        let here = address("https://hub.example/a/b?c");
        for (location, expected) in [
            ("/x?y#z", "https://hub.example/x?y"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("https://cdn.example:8443/x", "https://cdn.example:8443/x"),
        ] {
            assert_eq!(here.redirected(location).unwrap(), address(expected));
        }
        for location in [
            "http://hub.example/x",
            "ftp://x/y",
            "",
            "x y",
            "javascript:0",
            "https://",
        ] {
            assert!(here.redirected(location).is_err(), "{location}");
        }
        let plain = address("http://hub.example/a");
        assert!(plain.redirected("https://hub.example/a").is_ok());
    }

    #[test]
    fn a_server_is_a_host_a_port_and_a_scheme() {
        let hub = address("https://hub.example/a");
        assert!(hub.is_same_server(&address("https://HUB.example:443/b")));
        for other in [
            "http://hub.example/a",
            "https://hub.example:444/a",
            "https://x.hub.example/a",
        ] {
            assert!(!hub.is_same_server(&address(other)), "{other}");
        }
        assert_eq!(
            address("https://me:secret@hub.example:1/a?b").shown(),
            "hub.example:1"
        );
    }
}
