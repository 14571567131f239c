//! The calling side: one request of any protocol, and what came of it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Extensions, Status};

use crate::answer::{Answer, Outcome, header_map};
use crate::dialer::Dialer;
use crate::echo;
use crate::target::{Protocol, Target};

/// Messages in one `grpc-stream://` conversation.
const TURNS: usize = 3;

/// How requests are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host header (authority) instead of the URL's.
    pub host: Option<String>,
    pub headers: HeaderMap,
    pub method: Method,
    /// Body of HTTP requests, message of gRPC ones, line of TCP ones.
    pub body: String,
    pub timeout: Duration,
    /// A new connection for each request.
    pub fresh: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: None,
            headers: HeaderMap::new(),
            method: Method::GET,
            body: String::new(),
            timeout: Duration::from_secs(15),
            fresh: false,
        }
    }
}

/// Calls one target, over kept connections where the protocol has any.
pub struct Caller {
    target: Target,
    options: Options,
    authority: String,
    dialer: Dialer,
    via: Via,
}

enum Via {
    Http(Box<Client<Dialer, Full<Bytes>>>),
    Grpc(Option<Channel>),
    /// Connections that stand idle between requests.
    Lines(Mutex<Vec<Lines>>),
}

type Lines = BufReader<TcpStream>;

impl Caller {
    /// Prepares; connects only when the first request is made. Needs a runtime.
    pub fn new(target: Target, options: Options) -> anyhow::Result<Self> {
        let dialer = Dialer::new(&target.address(), options.timeout);
        let authority = options.host.clone().unwrap_or_else(|| target.authority());
        let via = match target.protocol {
            Protocol::Http1 | Protocol::Http2 => {
                Via::Http(Box::new(http_client(&target, &options, &dialer)))
            }
            Protocol::Grpc | Protocol::GrpcStream if options.fresh => Via::Grpc(None),
            Protocol::Grpc | Protocol::GrpcStream => Via::Grpc(Some(channel(&authority, &dialer)?)),
            Protocol::Tcp | Protocol::Banner => Via::Lines(Mutex::default()),
        };
        Ok(Self { target, options, authority, dialer, via })
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> u64 {
        self.dialer.dialled()
    }

    /// Makes one request, with more headers than the options have.
    pub async fn call(&self, more: &HeaderMap) -> Outcome {
        let request = async {
            match &self.via {
                Via::Http(client) => self.call_http(client, more).await,
                Via::Grpc(Some(channel)) => self.call_grpc(channel.clone(), more).await,
                Via::Grpc(None) => {
                    self.call_grpc(channel(&self.authority, &self.dialer)?, more).await
                }
                Via::Lines(idle) => self.call_lines(idle).await,
            }
        };
        let outcome = match tokio::time::timeout(self.options.timeout, request).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::failed(&error),
            Err(_) => {
                Outcome::failed(&anyhow::anyhow!("no answer within {:?}", self.options.timeout))
            }
        };
        Outcome { url: self.target.to_string(), ..outcome }
    }

    async fn call_http(
        &self,
        client: &Client<Dialer, Full<Bytes>>,
        more: &HeaderMap,
    ) -> anyhow::Result<Outcome> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.as_str())
            .path_and_query(self.target.path.as_str())
            .build()
            .context("make the request's URI")?;
        let mut request = Request::new(Full::from(self.options.body.clone()));
        *request.uri_mut() = uri;
        *request.method_mut() = self.options.method.clone();
        if self.target.protocol == Protocol::Http1 {
            request.headers_mut().insert(HOST, HeaderValue::from_str(&self.authority)?);
        }
        add_headers(request.headers_mut(), &self.options.headers);
        add_headers(request.headers_mut(), more);
        let response = client.request(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.context("read the response")?.to_bytes();
        Ok(Outcome {
            status: parts.status.as_u16().to_string(),
            ok: parts.status < StatusCode::BAD_REQUEST,
            headers: header_map(&parts.headers),
            answer: json_or_text(&body),
            ..Outcome::default()
        })
    }

    async fn call_grpc(&self, channel: Channel, more: &HeaderMap) -> anyhow::Result<Outcome> {
        let mut headers = self.options.headers.clone();
        add_headers(&mut headers, more);
        let metadata = MetadataMap::from_headers(headers);
        let message = self.options.body.clone();
        let request = tonic::Request::from_parts(metadata, Extensions::default(), message);
        let reply = match self.target.protocol {
            Protocol::GrpcStream => echo::converse(channel, request, TURNS).await,
            _ => echo::say(channel, request).await,
        };
        match reply {
            Ok(reply) => Ok(Outcome {
                status: format!("{:?}", Code::Ok),
                ok: true,
                answer: serde_json::to_value(Answer::from(reply))?,
                ..Outcome::default()
            }),
            Err(status) => Ok(refused(&status)),
        }
    }

    async fn call_lines(&self, idle: &Mutex<Vec<Lines>>) -> anyhow::Result<Outcome> {
        let kept = lock(idle).pop().filter(|stream| is_open(stream.get_ref()));
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.open_lines().await?,
        };
        let message = if self.options.body.is_empty() { "hello" } else { &self.options.body };
        stream.write_all(format!("{message}\n").as_bytes()).await.context("send a line")?;
        let line = read_line(&mut stream).await.context("read the answer")?;
        if !self.options.fresh {
            lock(idle).push(stream);
        }
        Ok(Outcome {
            status: "ok".to_owned(),
            ok: true,
            answer: line_answer(&line)?,
            ..Outcome::default()
        })
    }

    async fn open_lines(&self) -> anyhow::Result<Lines> {
        let mut stream = BufReader::new(self.dialer.connect().await.context("connect")?);
        if self.target.protocol == Protocol::Banner {
            let banner = read_line(&mut stream).await.context("read the banner")?;
            ensure!(banner.ends_with(" ready"), "the server greeted with `{banner}`");
        }
        Ok(stream)
    }
}

/// Whether the peer has left an idle connection open: then there is nothing to read from it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn lock(idle: &Mutex<Vec<Lines>>) -> MutexGuard<'_, Vec<Lines>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

fn http_client(target: &Target, options: &Options, dialer: &Dialer) -> Client<Dialer, Full<Bytes>> {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).http2_only(target.protocol == Protocol::Http2);
    if options.fresh {
        builder.pool_max_idle_per_host(0);
    }
    builder.build(dialer.clone())
}

fn channel(authority: &str, dialer: &Dialer) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))?;
    Ok(endpoint.connect_with_connector_lazy(dialer.clone()))
}

fn add_headers(to: &mut HeaderMap, from: &HeaderMap) {
    for (name, value) in from {
        to.append(name, value.clone());
    }
}

fn refused(status: &Status) -> Outcome {
    Outcome {
        status: format!("{:?}", status.code()),
        error: Some(status.message().to_owned()),
        ..Outcome::default()
    }
}

fn json_or_text(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| match body {
        [] => Value::Null,
        _ => Value::String(String::from_utf8_lossy(body).into_owned()),
    })
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}

/// `SERVICE VERSION POD> LINE` as JSON with the names that HTTP answers use.
fn line_answer(line: &str) -> anyhow::Result<Value> {
    let unexpected = || format!("unexpected answer `{line}`");
    let (words, body) = line.split_once("> ").with_context(unexpected)?;
    let [service, version, pod] = *words.split(' ').collect::<Vec<_>>() else {
        bail!(unexpected());
    };
    Ok(json!({"service": service, "version": version, "pod": pod, "body": body}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_their_server() {
        assert_eq!(
            line_answer("stock v1 stock-0> hello there").unwrap(),
            json!({"service": "stock", "version": "v1", "pod": "stock-0", "body": "hello there"})
        );
        assert!(line_answer("HTTP/1.1 400 Bad Request").is_err());
    }

    #[test]
    fn bodies_are_json_or_text() {
        assert_eq!(json_or_text(b"{\"a\":1}"), json!({"a": 1}));
        assert_eq!(json_or_text(b"no healthy upstream"), json!("no healthy upstream"));
        assert_eq!(json_or_text(b""), Value::Null);
    }
}
