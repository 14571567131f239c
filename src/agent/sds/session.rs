//! What one stream of secrets owes its client. No I/O: requests and secrets in, responses out.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, TlsCertificate, secret::Type,
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            Resource,
        },
    },
    google::protobuf::Any,
};
use prost::{Message, Name};

use crate::agent::{
    bootstrap::{ROOTS_SECRET, WORKLOAD_SECRET},
    identity::Secrets,
};

/// One of the two forms of the protocol.
pub(super) trait Protocol: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn take(&mut self, request: Self::Request);

    /// The response that is due, if any: what the client wants and has not got in this form.
    fn due(&mut self, secrets: &Secrets) -> Option<Self::Response>;
}

/// The names that a client wants, with the version that it was sent.
#[derive(Debug, Default)]
struct Subscription {
    wanted: BTreeMap<String, Option<String>>,
    nonce: u64,
}

impl Subscription {
    /// What is wanted and there, and whether it is news.
    fn found(&self, secrets: &Secrets) -> Vec<(Found, bool)> {
        let found = self.wanted.iter().filter_map(|(name, sent)| {
            let found = find(secrets, name)?;
            let news = sent.as_ref() != Some(&found.version);
            Some((found, news))
        });
        found.collect()
    }

    fn sent(&mut self, found: &Found) {
        self.wanted.insert(found.name.clone(), Some(found.version.clone()));
    }

    fn next_nonce(&mut self) -> String {
        self.nonce += 1;
        self.nonce.to_string()
    }
}

/// A secret as a resource.
struct Found {
    name: String,
    version: String,
    resource: Any,
}

fn find(secrets: &Secrets, name: &str) -> Option<Found> {
    let kind = match name {
        WORKLOAD_SECRET => secrets.certificate.as_ref().map(|issued| {
            Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(&issued.chain_pem)),
                private_key: Some(inline(&issued.key_pem)),
                ..TlsCertificate::default()
            })
        }),
        ROOTS_SECRET => secrets.roots.as_ref().map(|roots| {
            Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(inline(roots)),
                ..CertificateValidationContext::default()
            })
        }),
        _ => None,
    };
    let value = Secret { name: name.to_owned(), r#type: Some(kind?) }.encode_to_vec();
    Some(Found {
        name: name.to_owned(),
        version: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&value)),
        resource: Any { type_url: Secret::type_url(), value },
    })
}

fn inline(text: &str) -> DataSource {
    let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec()));
    DataSource { specifier, ..DataSource::default() }
}

fn log_refusal(name: &str, message: &str) {
    tracing::error!(secrets = name, error = message, "Envoy refused a secret");
}

/// Incremental xDS.
#[derive(Debug, Default)]
pub(super) struct Delta(Subscription);

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn take(&mut self, request: DeltaDiscoveryRequest) {
        if let Some(error) = &request.error_detail {
            log_refusal("", &error.message);
        }
        let wanted = &mut self.0.wanted;
        for name in request.resource_names_unsubscribe {
            wanted.remove(&name);
        }
        for name in request.resource_names_subscribe {
            // Asking again for what one has means that one has lost it.
            wanted.insert(name, None);
        }
        for (name, version) in request.initial_resource_versions {
            if let Some(sent) = wanted.get_mut(&name) {
                *sent = Some(version);
            }
        }
    }

    fn due(&mut self, secrets: &Secrets) -> Option<DeltaDiscoveryResponse> {
        let mut resources = Vec::new();
        for (found, news) in self.0.found(secrets) {
            if news {
                self.0.sent(&found);
                resources.push(Resource {
                    name: found.name,
                    version: found.version,
                    resource: Some(found.resource),
                    ..Resource::default()
                });
            }
        }
        (!resources.is_empty()).then(|| DeltaDiscoveryResponse {
            resources,
            type_url: Secret::type_url(),
            nonce: self.0.next_nonce(),
            ..DeltaDiscoveryResponse::default()
        })
    }
}

/// State of the world: each response holds all that the stream asked for.
#[derive(Debug, Default)]
pub(super) struct StateOfTheWorld(Subscription);

impl Protocol for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn take(&mut self, request: DiscoveryRequest) {
        if let Some(error) = &request.error_detail {
            log_refusal(&request.resource_names.join(", "), &error.message);
        }
        let known = std::mem::take(&mut self.0.wanted);
        let names = request.resource_names.into_iter();
        self.0.wanted = names
            .map(|name| {
                let sent = known.get(&name).cloned().flatten();
                (name, sent)
            })
            .collect();
    }

    fn due(&mut self, secrets: &Secrets) -> Option<DiscoveryResponse> {
        let found = self.0.found(secrets);
        if !found.iter().any(|(_, news)| *news) {
            return None;
        }
        let mut versions = String::new();
        let mut resources = Vec::new();
        for (found, _) in found {
            self.0.sent(&found);
            versions.push_str(&found.version);
            resources.push(found.resource);
        }
        Some(DiscoveryResponse {
            version_info: versions,
            resources,
            type_url: Secret::type_url(),
            nonce: self.0.next_nonce(),
            ..DiscoveryResponse::default()
        })
    }
}
