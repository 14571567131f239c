//! HTTP probes.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;

use super::{HttpGet, Outcome, Scheme};
use crate::agent::fetch::{self, Error as FetchError, connect_app};

/// As many requests as the kubelet sends until it gives up on redirects.
const REQUESTS: usize = 10;
/// As much of an answer as the kubelet reads.
const ANSWER: usize = 10 * 1024;

/// Asks, and goes on where the application redirects to. The error is why there is no answer.
pub(super) async fn run(
    get: &HttpGet,
    pod: IpAddr,
    user_agent: Option<&HeaderValue>,
) -> Result<Outcome, String> {
    let mut place = Place::of(get);
    for _ in 0..REQUESTS {
        let answer = place
            .ask(pod, headers(get, &place, pod, user_agent))
            .await
            .map_err(|error| error.to_string())?;
        if let Some(next) = place.redirect(&answer, pod)? {
            place = next;
            continue;
        }
        let status = answer.status();
        let message = fetch::text(answer.into_body(), ANSWER).await;
        let message = message.map_err(|error| format!("the answer ended early: {error}"))?;
        // Anything else, a redirect to elsewhere too, is for the kubelet to judge. It gets no
        // Location, so that it goes nowhere: a success, with a warning.
        if status.is_informational() {
            return Err(format!("the application answered {status}"));
        }
        return Ok(Outcome { status, message });
    }
    Err(format!("stopped after {REQUESTS} redirects"))
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: Scheme,
    port: u16,
    path: String,
    /// An absolute redirect led here, so that the name in the request is that of its URL.
    absolute: bool,
}

impl Place {
    fn of(get: &HttpGet) -> Self {
        let HttpGet { scheme, port, path, .. } = get;
        let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
        Self { scheme: *scheme, port: *port, path, absolute: false }
    }

    async fn ask(&self, pod: IpAddr, headers: HeaderMap) -> Result<Response<Incoming>, FetchError> {
        let to = SocketAddr::new(pod, self.port);
        let mut request = Request::builder().uri(&self.path).body(Empty::<Bytes>::new())?;
        *request.headers_mut() = headers;
        let stream = connect_app(to).await.map_err(FetchError::Connect)?;
        fetch::send_app(stream, self.scheme, request).await
    }

    /// Where to go on, if the answer is a redirect on the same host. The port may be another.
    fn redirect(&self, answer: &Response<Incoming>, pod: IpAddr) -> Result<Option<Self>, String> {
        if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = answer.headers().get(header::LOCATION) else { return Ok(None) };
        let location = location.to_str().map_err(|_| "the redirect's Location is no text")?;
        let invalid = |error| format!("the redirect's Location {location:?} is no URL: {error}");
        self.resolve(location, pod).map_err(invalid)
    }

    fn resolve(&self, location: &str, pod: IpAddr) -> Result<Option<Self>, http::Error> {
        let location = location.split('#').next().unwrap_or_default();
        let absolute = match location.strip_prefix("//") {
            Some(_) if self.scheme == Scheme::Https => format!("https:{location}"),
            Some(_) => format!("http:{location}"),
            None if location.contains("://") => location.to_owned(),
            None => {
                let path = relative(&self.path, location);
                return Ok(Some(Self { path, ..self.clone() }));
            }
        };
        let to: Uri = absolute.parse().map_err(http::Error::from)?;
        let scheme = match to.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Ok(None),
        };
        if to.host().and_then(|host| host.trim_matches(['[', ']']).parse().ok()) != Some(pod) {
            return Ok(None);
        }
        let port = to.port_u16().unwrap_or(if scheme == Scheme::Http { 80 } else { 443 });
        let path = to.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Some(Self { scheme, port, path, absolute: true }))
    }
}

/// The path that a reference means on the page at `base`.
fn relative(base: &str, reference: &str) -> String {
    let page = base.split('?').next().unwrap_or_default();
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    if reference.is_empty() || reference.starts_with('?') {
        return format!("{page}{reference}");
    }
    let (path, query) = reference.split_at(reference.find('?').unwrap_or(reference.len()));
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').skip(1).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}{query}", parts.join("/"))
}

fn headers(
    get: &HttpGet,
    place: &Place,
    pod: IpAddr,
    user_agent: Option<&HeaderValue>,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for super::Header { name, value } in &get.http_headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    if place.absolute {
        headers.remove(header::HOST);
    }
    if !headers.contains_key(header::HOST) {
        let host = SocketAddr::new(pod, place.port).to_string();
        headers.extend(host.parse().map(|host| (header::HOST, host)));
    }
    if let Some(agent) = user_agent {
        headers.entry(header::USER_AGENT).or_insert_with(|| agent.clone());
    }
    let accept = headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    // Who gives an empty one does not want to send any.
    if accept.is_empty() {
        headers.remove(header::ACCEPT);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_on_the_same_host_alone() {
        let pod: IpAddr = "10.1.2.3".parse().unwrap();
        let from =
            Place { scheme: Scheme::Https, port: 8443, path: "/a/b?c".into(), absolute: false };
        let go = |location: &str| {
            let place = from.resolve(location, pod).unwrap();
            place.map(|Place { scheme, port, path, .. }| format!("{scheme:?} {port} {path}"))
        };
        for (location, want) in [
            ("/there", "Https 8443 /there"),
            ("there?x=1#part", "Https 8443 /a/there?x=1"),
            ("../up", "Https 8443 /up"),
            ("?x", "Https 8443 /a/b?x"),
            ("http://10.1.2.3:9090/x", "Http 9090 /x"),
            ("//10.1.2.3", "Https 443 /"),
        ] {
            assert_eq!(go(location).as_deref(), Some(want), "{location}");
        }
        for elsewhere in ["http://10.1.2.4/", "https://shop.example/x", "ftp://10.1.2.3/"] {
            assert_eq!(go(elsewhere), None, "{elsewhere}");
        }
        assert!(from.resolve("http://[", pod).is_err());
    }

    #[test]
    fn ipv6_hosts_have_brackets() {
        let place = Place { scheme: Scheme::Http, port: 80, path: "/".into(), absolute: false };
        let pod: IpAddr = "fd00::7".parse().unwrap();
        let get =
            HttpGet { port: 80, path: String::new(), scheme: Scheme::Http, http_headers: vec![] };
        assert_eq!(headers(&get, &place, pod, None)["host"], "[fd00::7]:80");
        let next = place.resolve("http://[fd00::7]:81/x", pod).unwrap().unwrap();
        assert_eq!((next.port, &*next.path), (81, "/x"));
    }

    #[test]
    fn headers_are_as_the_kubelet_sends_them() {
        let header = |name: &str, value: &str| super::super::Header {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let get = HttpGet {
            port: 80,
            path: String::new(),
            scheme: Scheme::Http,
            http_headers: vec![
                header("X-Twice", "1"),
                header("x-twice", "2"),
                header("Accept", ""),
                header("Host", "shop.example"),
                header("bad name", "x"),
            ],
        };
        let agent = HeaderValue::from_static("kube-probe/1.33");
        let pod: IpAddr = "10.1.2.3".parse().unwrap();
        let sent = headers(&get, &Place::of(&get), pod, Some(&agent));
        assert_eq!(sent.get_all("x-twice").iter().count(), 2);
        assert_eq!(sent.get("accept"), None);
        assert_eq!(sent["host"], "shop.example");
        assert_eq!(sent["user-agent"], "kube-probe/1.33");
        assert_eq!(sent["connection"], "close");
        assert_eq!(sent.len(), 5);
        let redirected = Place { absolute: true, ..Place::of(&get) };
        assert_eq!(headers(&get, &redirected, pod, None)["host"], "10.1.2.3:80");
    }
}
