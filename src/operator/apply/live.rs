//! What is in the cluster of what was made for an owner: one list for each kind, whatever number of
//! objects there are.

use std::marker::PhantomData;

use kube::{Client, api::ListParams};

use super::{Applicable, Error, Key};
use crate::operator::objects::{Found, Objects};

/// What was found, and what could not be looked for.
#[derive(Debug, Default)]
pub struct Live {
    pub objects: Objects<Found>,
    pub failures: Vec<Error>,
}

impl Live {
    /// Reads all objects with these labels.
    pub async fn read(client: &Client, selector: &str) -> Self {
        let mut reader = Reader { client, selector, failures: Vec::new() };
        let objects = Objects {
            service_accounts: reader.list().await,
            cluster_roles: reader.list().await,
            cluster_role_bindings: reader.list().await,
            roles: reader.list().await,
            role_bindings: reader.list().await,
            services: reader.list().await,
            deployments: reader.list().await,
            horizontal_pod_autoscalers: reader.list().await,
            pod_disruption_budgets: reader.list().await,
            mutating_webhooks: reader.list().await,
            validating_webhooks: reader.list().await,
            state: PhantomData,
        };
        Self { objects, failures: reader.failures }
    }
}

struct Reader<'a> {
    client: &'a Client,
    selector: &'a str,
    failures: Vec<Error>,
}

impl Reader<'_> {
    async fn list<K: Applicable>(&mut self) -> Vec<K> {
        if self.failures.iter().any(Error::is_outage) {
            return Vec::new();
        }
        let params = ListParams::default().labels(self.selector);
        match K::api(self.client, None).list(&params).await {
            Ok(list) => list.items,
            Err(error) => {
                self.failures.push(Error::api("list", Key::kind(K::kind(&())), error));
                Vec::new()
            }
        }
    }
}
