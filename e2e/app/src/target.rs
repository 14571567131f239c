//! What to call: a URL whose scheme names the protocol.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// The protocols that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http://`: HTTP/1.1.
    Http1,
    /// `h2c://`: HTTP/2 with prior knowledge.
    Http2,
    /// `grpc://`: a unary call of the Echo service.
    Grpc,
    /// `grpc-stream://`: a conversation of several messages over one call.
    GrpcStream,
    /// `tcp://`: lines, the client speaks first.
    Tcp,
    /// `banner://`: lines, the server speaks first.
    Banner,
}

impl Protocol {
    /// Whether it is lines of text over a bare connection.
    pub fn is_lines(self) -> bool {
        matches!(self, Self::Tcp | Self::Banner)
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Http2 => "h2c",
            Self::Grpc => "grpc",
            Self::GrpcStream => "grpc-stream",
            Self::Tcp => "tcp",
            Self::Banner => "banner",
        }
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Http1 | Self::Http2 => Some(80),
            Self::Grpc | Self::GrpcStream | Self::Tcp | Self::Banner => None,
        }
    }
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub protocol: Protocol,
    /// Name or address, an IPv6 address in brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, at least `/`.
    pub path: String,
}

impl Target {
    /// What to dial.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The authority that requests carry: without the port where it is the protocol's own.
    pub fn authority(&self) -> String {
        if self.protocol.default_port() == Some(self.port) {
            self.host.clone()
        } else {
            self.address()
        }
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = text.parse().with_context(|| format!("`{text}` is not a URL"))?;
        let protocol = match uri.scheme_str() {
            Some("http") => Protocol::Http1,
            Some("h2c") => Protocol::Http2,
            Some("grpc") => Protocol::Grpc,
            Some("grpc-stream") => Protocol::GrpcStream,
            Some("tcp") => Protocol::Tcp,
            Some("banner") => Protocol::Banner,
            other => bail!(
                "`{text}` has scheme {}: use http, h2c, grpc, grpc-stream, tcp or banner",
                other.unwrap_or("none")
            ),
        };
        let host = uri.host().with_context(|| format!("`{text}` names no host"))?.to_owned();
        let port = uri
            .port_u16()
            .or_else(|| protocol.default_port())
            .with_context(|| format!("`{text}` names no port"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        Ok(Self { protocol, host, port, path })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.protocol.scheme(), self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_name_protocols() {
        for (url, protocol, address, path) in [
            ("http://front", Protocol::Http1, "front:80", "/"),
            ("http://front:8080/a?b=c", Protocol::Http1, "front:8080", "/a?b=c"),
            ("h2c://catalog:8080/x", Protocol::Http2, "catalog:8080", "/x"),
            ("grpc://cart:50051", Protocol::Grpc, "cart:50051", "/"),
            ("grpc-stream://cart:50051", Protocol::GrpcStream, "cart:50051", "/"),
            ("tcp://[fd00::1]:9000", Protocol::Tcp, "[fd00::1]:9000", "/"),
            ("banner://db:3306", Protocol::Banner, "db:3306", "/"),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(target.protocol, protocol, "{url}");
            assert_eq!(target.address(), address, "{url}");
            assert_eq!(target.path, path, "{url}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_call() {
        for (url, why) in [
            ("ftp://host:21", "has scheme ftp"),
            ("front", "has scheme none"),
            ("tcp://stock", "names no port"),
        ] {
            let error = url.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn printing_leaves_out_the_default_port() {
        let target: Target = "http://front:80/x".parse().unwrap();
        assert_eq!(target.to_string(), "http://front/x");
        assert_eq!(target.authority(), "front");
    }
}
