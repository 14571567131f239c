//! Profiles: what holds where an installation says nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Autoscaling, ControlPlane, DisruptionBudget, Gateway, GatewayKind, MeshInstallationSpec,
    Resources,
};

/// How much runs, and how much it tells, where the rest of the spec says nothing. A profile never adds
/// a gateway to an installation that lists its own.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One small control plane, nothing else.
    Minimal,
    /// One control plane.
    #[default]
    Default,
    /// Several control planes and gateway pods on different nodes, autoscaled, with disruption budgets.
    Ha,
    /// Everything on one small node, with an ingress and an egress gateway and access logs.
    Demo,
}

/// What a profile says about one Deployment.
struct Share {
    replicas: i32,
    /// As many at most, by autoscaling.
    most: Option<i32>,
    /// CPU and memory to ask for.
    requests: Option<(&'static str, &'static str)>,
}

impl Profile {
    fn control_plane(self) -> Share {
        let one = |requests| Share { replicas: 1, most: None, requests: Some(requests) };
        match self {
            Self::Minimal | Self::Default => one(("50m", "64Mi")),
            // More than it needs at rest: autoscaling goes by what is asked for.
            Self::Ha => Share { replicas: 2, most: Some(5), requests: Some(("200m", "128Mi")) },
            Self::Demo => one(("10m", "32Mi")),
        }
    }

    fn gateway(self) -> Share {
        match self {
            Self::Minimal | Self::Default => Share { replicas: 1, most: None, requests: None },
            Self::Ha => Share { replicas: 2, most: Some(10), requests: Some(("100m", "128Mi")) },
            Self::Demo => Share { replicas: 1, most: None, requests: Some(("10m", "40Mi")) },
        }
    }

    /// Fills in what a gateway does not say.
    pub fn complete(self, gateway: &mut Gateway) {
        let share = self.gateway();
        if let Some((cpu, memory)) = share.requests {
            gateway.resources.get_or_insert_with(|| requests(cpu, memory));
        }
        fill(
            &share,
            &mut gateway.replicas,
            &mut gateway.autoscaling,
            &mut gateway.disruption_budget,
        );
    }
}

impl MeshInstallationSpec {
    /// The same with everything filled in that its profile decides. What the spec says stays.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let mut spec = self.clone();
        if self.profile == Profile::Demo {
            spec.proxy.resources.get_or_insert_with(|| requests("10m", "40Mi"));
            if spec.gateways.is_empty() {
                spec.gateways = demo_gateways();
            }
        }
        resolve_control_plane(&mut spec.control_plane, &self.profile.control_plane());
        for gateway in &mut spec.gateways {
            // That of all proxies, where they have one.
            gateway.resources = gateway.resources.take().or_else(|| spec.proxy.resources.clone());
            self.profile.complete(gateway);
        }
        spec
    }
}

fn resolve_control_plane(control_plane: &mut ControlPlane, share: &Share) {
    if let Some((cpu, memory)) = share.requests {
        control_plane.resources.get_or_insert_with(|| requests(cpu, memory));
    }
    fill(
        share,
        &mut control_plane.replicas,
        &mut control_plane.autoscaling,
        &mut control_plane.disruption_budget,
    );
}

/// Whoever says how many are to run has decided that nothing scales them. A budget needs somebody who
/// may go.
fn fill(
    share: &Share,
    replicas: &mut Option<i32>,
    autoscaling: &mut Option<Autoscaling>,
    budget: &mut Option<DisruptionBudget>,
) {
    if autoscaling.is_none() && replicas.is_none() {
        *autoscaling = share.most.map(|most| Autoscaling {
            min_replicas: share.replicas,
            max_replicas: most,
            ..Autoscaling::default()
        });
    }
    let least = match autoscaling {
        Some(autoscaling) => autoscaling.min_replicas,
        None => *replicas.get_or_insert(share.replicas),
    };
    let is_guarded = share.most.is_some() && least > 1;
    if budget.is_none() && is_guarded {
        *budget = Some(DisruptionBudget {
            min_available: Some(IntOrString::Int(1)),
            max_unavailable: None,
        });
    }
}

fn requests(cpu: &str, memory: &str) -> Resources {
    let amount = |name: &str, text: &str| (name.to_owned(), IntOrString::String(text.to_owned()));
    Resources {
        requests: [amount("cpu", cpu), amount("memory", memory)].into(),
        limits: BTreeMap::new(),
    }
}

fn demo_gateways() -> Vec<Gateway> {
    let gateway = |name: &str, kind| Gateway { name: name.to_owned(), kind, ..Gateway::default() };
    vec![
        gateway("meshwright-ingressgateway", GatewayKind::Ingress),
        gateway("meshwright-egressgateway", GatewayKind::Egress),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolved(spec: &Value) -> Value {
        let spec: MeshInstallationSpec = serde_json::from_value(spec.clone()).unwrap();
        serde_json::to_value(spec.resolved()).unwrap()
    }

    #[test]
    fn a_resolved_spec_is_its_own_resolution() {
        for profile in ["minimal", "default", "ha", "demo"] {
            for gateways in [json!([]), json!([{"name": "edge"}, {"name": "b", "replicas": 1}])] {
                let once = resolved(&json!({"profile": profile, "gateways": gateways}));
                assert_eq!(resolved(&once), once, "{profile}");
            }
        }
    }

    #[test]
    fn what_the_spec_says_stays() {
        let said = json!({
            "replicas": 3, "resources": {"requests": {"cpu": "1"}},
            "disruptionBudget": {"maxUnavailable": 1}, "placement": {},
        });
        for profile in ["minimal", "default", "ha", "demo"] {
            let spec = resolved(&json!({"profile": profile, "controlPlane": said}));
            assert_eq!(spec["controlPlane"], said, "{profile}");
        }
    }

    #[test]
    fn ha_guards_only_what_is_several() {
        let gateways = json!([{"name": "a"}, {"name": "b", "replicas": 1}]);
        let spec = resolved(&json!({"profile": "ha", "gateways": gateways}));
        assert_eq!(spec["gateways"][0]["autoscaling"]["maxReplicas"], 10);
        assert_eq!(spec["gateways"][0]["disruptionBudget"], json!({"minAvailable": 1}));
        assert_eq!(spec["gateways"][0].get("replicas"), None);
        assert_eq!(spec["gateways"][1].get("autoscaling"), None);
        assert_eq!(spec["gateways"][1].get("disruptionBudget"), None);
    }

    #[test]
    fn demo_adds_gateways_to_none_and_only_to_none() {
        let names = |spec: &Value| -> Vec<String> {
            let gateways = resolved(spec)["gateways"].as_array().cloned().unwrap_or_default();
            gateways.iter().map(|gateway| gateway["name"].as_str().unwrap().to_owned()).collect()
        };
        let both = ["meshwright-ingressgateway", "meshwright-egressgateway"];
        assert_eq!(names(&json!({"profile": "demo"})), both);
        assert_eq!(names(&json!({"profile": "demo", "gateways": [{"name": "edge"}]})), ["edge"]);
        assert!(names(&json!({"profile": "ha"})).is_empty());
    }
}
