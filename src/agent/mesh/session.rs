//! What to ask for on a stream, and what to say to each response. No I/O.

use std::fmt::Write;

use prost::Message;

use crate::{
    agent::{
        Settings, bootstrap,
        mesh::{
            Table,
            protocol::{Node, Request, Resource, Response, Status},
        },
    },
    xds::names::{HOST_TYPE_URL, Host, POD_TYPE_URL, Pod},
};

/// `INVALID_ARGUMENT` of gRPC.
const INVALID: i32 = 3;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    hosts: bool,
    /// `NAMESPACE/POD`, where its end is watched.
    pod: Option<String>,
}

/// What a response said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// These hosts are new or changed, and those are gone.
    Hosts {
        changed: Vec<(String, String, Host)>,
        removed: Vec<String>,
    },
    /// Whether the pod's applications have finished.
    Finished(bool),
    Nothing,
}

impl Session {
    pub(super) fn new(settings: &Settings) -> Self {
        let pod = format!("{}/{}", settings.identity.namespace, settings.pod_name);
        Self { hosts: settings.dns_capture, pod: settings.watch_completion.then_some(pod) }
    }

    /// The first requests of a stream, by a client that knows `table` already.
    pub(super) fn open(&self, settings: &Settings, table: &Table) -> Vec<Request> {
        let mut requests = Vec::new();
        if self.hosts {
            requests.push(Request {
                type_url: HOST_TYPE_URL.to_owned(),
                resource_names_subscribe: vec!["*".to_owned()],
                initial_resource_versions: table.versions().collect(),
                ..Request::default()
            });
        }
        if let Some(pod) = &self.pod {
            requests.push(Request {
                type_url: POD_TYPE_URL.to_owned(),
                resource_names_subscribe: vec![pod.clone()],
                ..Request::default()
            });
        }
        if let Some(first) = requests.first_mut() {
            first.node = Some(node(settings));
        }
        requests
    }

    /// Reads a response; returns its news and the answer to it, which names what cannot be used.
    pub(super) fn take(&self, response: Response) -> (News, Request) {
        let Response { resources, removed_resources: removed, type_url, nonce } = response;
        let mut wrong = String::new();
        let news = match &*type_url {
            HOST_TYPE_URL => {
                let hosts = resources.into_iter().filter_map(|r| host(r, &mut wrong));
                News::Hosts { changed: hosts.collect(), removed }
            }
            POD_TYPE_URL => {
                let own = resources.iter().find(|r| Some(&r.name) == self.pod.as_ref());
                match own.and_then(|own| decode::<Pod>(own, &mut wrong)) {
                    Some(pod) => News::Finished(pod.applications_finished),
                    None => News::Nothing,
                }
            }
            _ => News::Nothing,
        };
        let error = (!wrong.is_empty()).then_some(Status { code: INVALID, message: wrong });
        let answer =
            Request { type_url, response_nonce: nonce, error_detail: error, ..Request::default() };
        (news, answer)
    }
}

/// The node is Envoy's, and says that it is not Envoy.
fn node(settings: &Settings) -> Node {
    let mut node = bootstrap::node(settings);
    node["metadata"]["AGENT"] = true.into();
    Node::from_json(&node)
}

fn host(resource: Resource, wrong: &mut String) -> Option<(String, String, Host)> {
    let host: Host = decode(&resource, wrong)?;
    if let Some(bytes) = host.addresses.iter().find(|bytes| !matches!(bytes.len(), 4 | 16)) {
        let length = bytes.len();
        // Writing to a String cannot fail.
        let _ = write!(wrong, "{}: an address of {length} bytes; ", resource.name);
        return None;
    }
    Some((resource.name, resource.version, host))
}

fn decode<M: Message + Default>(resource: &Resource, wrong: &mut String) -> Option<M> {
    let body = resource.resource.as_ref().map(|any| any.value.clone()).unwrap_or_default();
    match M::decode(body) {
        Ok(message) => Some(message),
        Err(error) => {
            let _ = write!(wrong, "{}: {error}; ", resource.name);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{
        mesh::{protocol::Any, table::tests::table},
        settings::tests::settings,
    };

    fn resource(name: &str, body: Vec<u8>) -> Resource {
        let any = Any { type_url: String::new(), value: body.into() };
        Resource { name: name.to_owned(), version: "2".to_owned(), resource: Some(any) }
    }

    fn response(type_url: &str, resources: Vec<Resource>) -> Response {
        let removed_resources = vec!["gone.example.com".to_owned()];
        let (type_url, nonce) = (type_url.to_owned(), "9".to_owned());
        Response { resources, type_url, nonce, removed_resources }
    }

    const BOTH: [(&str, &str); 2] =
        [("MESHWRIGHT_DNS_CAPTURE", "true"), ("MESHWRIGHT_WATCH_COMPLETION", "true")];

    #[test]
    fn asks_for_what_is_needed_and_says_what_it_has() {
        let known = table(&["cart.shop 10.0.0.1"]);
        let both = settings(&BOTH).unwrap();
        let [hosts, pod] = &Session::new(&both).open(&both, &known)[..] else { panic!("two") };
        assert_eq!((&*hosts.type_url, &*hosts.resource_names_subscribe[0]), (HOST_TYPE_URL, "*"));
        assert_eq!(hosts.initial_resource_versions["cart.shop"], "1");
        let node = hosts.node.as_ref().unwrap();
        assert_eq!(node.id, "sidecar~10.1.2.3~cart-1.shop~shop.svc.cluster.local");
        assert!(node.metadata.as_ref().unwrap().fields.contains_key("AGENT"));
        assert_eq!(
            (&*pod.type_url, &*pod.resource_names_subscribe[0]),
            (POD_TYPE_URL, "shop/cart-1")
        );
        assert_eq!(pod.node, None, "the node stands in the first request alone");

        let one = settings(&BOTH[1..]).unwrap();
        let [pod] = &Session::new(&one).open(&one, &known)[..] else { panic!("one") };
        assert!(pod.node.is_some());
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name_and_the_rest_taken() {
        let session = Session::new(&settings(&BOTH).unwrap());
        let good = Host { addresses: vec![vec![1, 2, 3, 4].into()], ..Host::default() };
        let bad = Host { addresses: vec![vec![1].into()], ..Host::default() };
        let (news, answer) = session.take(response(
            HOST_TYPE_URL,
            vec![
                resource("good", good.encode_to_vec()),
                resource("bad", bad.encode_to_vec()),
                resource("broken", vec![0xff]),
            ],
        ));
        let removed = vec!["gone.example.com".to_owned()];
        let changed = vec![("good".to_owned(), "2".to_owned(), good)];
        assert_eq!(news, News::Hosts { changed, removed });
        assert_eq!((&*answer.type_url, &*answer.response_nonce), (HOST_TYPE_URL, "9"));
        let error = answer.error_detail.unwrap();
        assert_eq!(error.code, INVALID);
        assert!(error.message.starts_with("bad: an address of 1 bytes; broken: "), "{error:?}");
    }

    #[test]
    fn only_its_own_pod_counts() {
        let session = Session::new(&settings(&BOTH).unwrap());
        let finished = Pod { applications_finished: true }.encode_to_vec();
        let take =
            |name| session.take(response(POD_TYPE_URL, vec![resource(name, finished.clone())])).0;
        assert_eq!(take("shop/cart-1"), News::Finished(true));
        assert_eq!(take("shop/cart-2"), News::Nothing);
        let (news, answer) = session.take(response("something.new", vec![]));
        assert_eq!((news, answer.error_detail), (News::Nothing, None), "acknowledged all the same");
    }
}
