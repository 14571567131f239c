//! The Secret that holds the CA's key.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use time::OffsetDateTime;

use crate::{
    api::meshwright::labels::MANAGED_BY,
    ca::{Authority, Error, Result, Serial},
};

/// The CA's Secret in the system namespace, ours or plugged in.
pub const SECRET: &str = "meshwright-ca";

/// Value of the label `app.kubernetes.io/managed-by` of a Secret that we made.
pub const MANAGER: &str = "meshwright-control-plane";

const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const ROOT_CERT: &str = "root-cert.pem";

/// Takes the CA from its Secret in `namespace`; where there is none, makes a root and stores it.
///
/// Control planes that start at the same time must end with the same root: the API server lets one
/// of them create the Secret, and the others read it.
pub async fn load_or_create(client: Client, namespace: &str) -> Result<Authority> {
    let api = Api::<Secret>::namespaced(client, namespace);
    let failed = |error| Error::Secret(format!("{namespace}/{SECRET}"), Box::new(error));
    let now = OffsetDateTime::now_utc();
    if let Some(secret) = api.get_opt(SECRET).await.map_err(failed)? {
        return from_secret(&secret, now);
    }
    let authority = Authority::self_signed(now, Serial::random()?)?;
    match api.create(&PostParams::default(), &to_secret(&authority)).await {
        Ok(_) => {
            tracing::info!(namespace, secret = SECRET, "made a new root certificate");
            Ok(authority)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            from_secret(&api.get(SECRET).await.map_err(failed)?, now)
        }
        Err(error) => Err(failed(error)),
    }
}

fn to_secret(authority: &Authority) -> Secret {
    let data = [
        (CA_CERT, authority.chain_pem().to_owned()),
        (CA_KEY, authority.key_pem()),
        (ROOT_CERT, authority.root_pem().to_owned()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(BTreeMap::from([
                ("app.kubernetes.io/part-of".to_owned(), "meshwright".to_owned()),
                // By this the operator knows that it may be deleted with the mesh.
                (MANAGED_BY.to_owned(), MANAGER.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into()))).collect()),
        ..Secret::default()
    }
}

fn from_secret(secret: &Secret, now: OffsetDateTime) -> Result<Authority> {
    let name = format!("{}/{SECRET}", secret.metadata.namespace.as_deref().unwrap_or_default());
    let read = |key: &'static str| {
        let found = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = found.ok_or_else(|| Error::SecretKey(name.clone(), key))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| Error::NotACertificate(key.to_owned()))
    };
    Authority::from_pem(&read(CA_CERT)?, &read(CA_KEY)?, &read(ROOT_CERT)?, now)
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use tower_test::mock;

    use super::*;

    type Server = mock::Handle<Request<Body>, Response<Body>>;

    fn stored(authority: &Authority) -> Vec<u8> {
        serde_json::to_vec(&to_secret(authority)).unwrap()
    }

    async fn answer(server: &mut Server, method: Method, status: StatusCode, body: Vec<u8>) {
        let (request, send) = server.next_request().await.unwrap();
        assert_eq!(request.method(), method);
        send.send_response(Response::builder().status(status).body(Body::from(body)).unwrap());
    }

    fn failure(code: u16, reason: &str) -> Vec<u8> {
        serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": reason, "reason": reason, "code": code})
        .to_string()
        .into_bytes()
    }

    fn someone_elses() -> Authority {
        let now = OffsetDateTime::now_utc();
        Authority::self_signed(now, Serial::random().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn takes_the_root_of_whoever_created_the_secret_first() {
        let (service, mut server) = mock::pair::<Request<Body>, Response<Body>>();
        let client = Client::new(service, "meshwright-system");
        let winner = someone_elses();
        let body = stored(&winner);
        let script = tokio::spawn(async move {
            let absent = failure(404, "NotFound");
            answer(&mut server, Method::GET, StatusCode::NOT_FOUND, absent).await;
            let taken = failure(409, "AlreadyExists");
            answer(&mut server, Method::POST, StatusCode::CONFLICT, taken).await;
            answer(&mut server, Method::GET, StatusCode::OK, body).await;
        });
        let got = load_or_create(client, "meshwright-system").await.unwrap();
        assert_eq!(got.root_pem(), winner.root_pem());
        script.await.unwrap();
    }

    #[test]
    fn a_secret_without_a_key_says_which() {
        let mut secret = to_secret(&someone_elses());
        secret.data.as_mut().unwrap().remove(CA_KEY);
        let error = from_secret(&secret, OffsetDateTime::now_utc()).unwrap_err();
        assert!(error.to_string().ends_with("has no key ca-key.pem"), "{error}");
    }
}
