//! The session by itself, and the service over a real socket.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    extensions::transport_sockets::tls::v3::Secret,
    service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
};
use hyper_util::rt::TokioIo;
use prost::Message;
use time::OffsetDateTime;
use tonic::transport::Endpoint;

use super::*;
use crate::agent::identity::Issued;

fn secrets(chain: &str, roots: &str) -> Secrets {
    let issued = Issued {
        chain_pem: chain.to_owned(),
        key_pem: "key".to_owned(),
        issued_at: OffsetDateTime::UNIX_EPOCH,
        not_after: OffsetDateTime::UNIX_EPOCH,
    };
    Secrets { certificate: Some(Arc::new(issued)), roots: Some(roots.into()) }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| &*resource.name).collect()
}

#[test]
fn delta_sends_what_is_wanted_once_it_is_there_and_again_when_it_changes() {
    let mut session = Delta::default();
    session.take(subscribe(&["default", "ROOTCA", "unknown"]));
    assert!(session.due(&Secrets::default()).is_none(), "nothing is there yet");
    let roots_only = Secrets { certificate: None, ..secrets("", "r1") };
    assert_eq!(names(&session.due(&roots_only).unwrap()), ["ROOTCA"]);
    assert_eq!(names(&session.due(&secrets("c1", "r1")).unwrap()), ["default"]);
    session.take(DeltaDiscoveryRequest { response_nonce: "2".to_owned(), ..subscribe(&[]) });
    assert!(session.due(&secrets("c1", "r1")).is_none(), "an ACK gets no answer");
    assert_eq!(names(&session.due(&secrets("c2", "r1")).unwrap()), ["default"]);
    session.take(DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["default".to_owned()],
        ..subscribe(&[])
    });
    assert!(session.due(&secrets("c3", "r1")).is_none());
}

#[test]
fn delta_sends_nothing_to_whoever_has_it() {
    let mut first = Delta::default();
    first.take(subscribe(&["ROOTCA"]));
    let version = first.due(&secrets("c", "r")).unwrap().resources[0].version.clone();
    let mut again = Delta::default();
    again.take(DeltaDiscoveryRequest {
        initial_resource_versions: [("ROOTCA".to_owned(), version)].into(),
        ..subscribe(&["ROOTCA"])
    });
    assert!(again.due(&secrets("c", "r")).is_none());
    assert!(again.due(&secrets("c", "r2")).is_some());
}

#[test]
fn state_of_the_world_answers_with_all_names_when_one_changes() {
    let mut session = StateOfTheWorld::default();
    let request = || DiscoveryRequest {
        resource_names: vec!["ROOTCA".to_owned(), "default".to_owned()],
        ..DiscoveryRequest::default()
    };
    session.take(request());
    assert_eq!(session.due(&secrets("c1", "r1")).unwrap().resources.len(), 2);
    session.take(request());
    assert!(session.due(&secrets("c1", "r1")).is_none());
    let pushed = session.due(&secrets("c2", "r1")).unwrap();
    assert_eq!(pushed.resources.len(), 2);
    assert_eq!(pushed.nonce, "2");
}

#[tokio::test]
async fn pushes_over_a_real_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sds.sock");
    drop(bind(&path).unwrap());
    let socket = bind(&path).unwrap(); // over the one that is left
    let (sender, receiver) = watch::channel(Secrets::default());
    tokio::spawn(serve(socket, receiver));

    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://agent").connect_with_connector_lazy(connector);
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let (requests, stream) = mpsc::channel(4);
    let request =
        DiscoveryRequest { resource_names: vec!["default".to_owned()], ..Default::default() };
    requests.send(request).await.unwrap();
    let call = tokio::spawn(async move {
        let responses = client.stream_secrets(ReceiverStream::new(stream)).await.unwrap();
        let mut responses = responses.into_inner();
        let first = responses.next().await.unwrap().unwrap();
        (first, responses)
    });
    sender.send_replace(secrets("chain 1", "roots"));
    let (first, mut responses) = call.await.unwrap();
    let secret = Secret::decode(&*first.resources[0].value).unwrap();
    assert_eq!(secret.name, "default");
    sender.send_replace(secrets("chain 2", "roots"));
    let second = responses.next().await.unwrap().unwrap();
    assert_ne!(second.version_info, first.version_info);
}
