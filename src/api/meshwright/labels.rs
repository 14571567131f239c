//! Labels and annotations that Meshwright reads and writes, ours and those of Istio that mean the same.

/// On a namespace: `enabled` or `disabled`.
pub const INJECTION: &str = "meshwright.dev/injection";
/// On a namespace or a pod: the revision that it asks for; on an injected pod: the one that it got.
pub const REVISION: &str = "meshwright.dev/revision";
/// On a pod: `"true"` or `"false"`.
pub const INJECT: &str = "meshwright.dev/inject";
/// Annotation of an injected pod: what was added, as JSON.
pub const STATUS: &str = "meshwright.dev/status";
/// Annotation of an injected pod: the pod's own settings for our containers, as JSON.
pub const OVERRIDES: &str = "meshwright.dev/overrides";
/// Annotation of an injected pod: the arguments of `meshwright redirect`, as JSON, for the CNI plugin.
pub const REDIRECT: &str = "meshwright.dev/redirect";
/// Annotation of a pod: the templates that it is injected with, with commas.
pub const TEMPLATES: &str = "meshwright.dev/templates";
/// On a gateway's pods: its name.
pub const GATEWAY: &str = "meshwright.dev/gateway";
/// On whatever the operator made: the MeshInstallation that it was made for.
pub const INSTALLATION: &str = "meshwright.dev/installation";
/// Annotation of an injection webhook: the names under which it selects pods, with commas.
pub const NAMES: &str = "meshwright.dev/names";
/// Annotation of a MeshInstallation: `"true"` lets it be removed under the proxies that it still has.
pub const ALLOW_REMOVAL: &str = "meshwright.dev/allow-removal";
/// Annotation of the CA's Secret: `"true"` keeps it when the last MeshInstallation goes.
pub const KEEP: &str = "meshwright.dev/keep";
/// Annotation of a CustomResourceDefinition of ours: the version of Meshwright that it is of.
pub const DEFINITIONS: &str = "meshwright.dev/definitions";
/// Annotation of a CustomResourceDefinition: `disabled` keeps the operator from upgrading it.
pub const UPGRADE_DEFINITIONS: &str = "meshwright.dev/upgrade-definitions";
/// On whatever the operator made, with [`MANAGER`] as its value.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The operator, as a label's value and as field manager.
pub const MANAGER: &str = "meshwright-operator";

/// Annotation of a MeshInstallation: a rollout of proxies that stopped goes on when its value changes.
pub const RESUME_ROLLOUT: &str = "meshwright.dev/resume-rollout";
/// Annotation of a pod template: when the operator last restarted the workload for its proxies.
pub const RESTARTED_AT: &str = "meshwright.dev/restarted-at";
/// Annotation of a pod template: the image of the proxy for which that was.
pub const RESTARTED_FOR: &str = "meshwright.dev/restarted-for";
/// Annotation of a pod: since when its proxy is to be out of service, so that it can be replaced. The
/// agent is not ready as long as it is there, but no longer than ten minutes.
pub const OUT_OF_SERVICE: &str = "meshwright.dev/out-of-service";
/// Annotation of a pod: what was there before its proxy was replaced, as JSON, until the new one runs.
pub const REPLACED: &str = "meshwright.dev/replaced";

/// Istio's [`INJECTION`].
pub const ISTIO_INJECTION: &str = "istio-injection";
/// Istio's [`REVISION`].
pub const ISTIO_REVISION: &str = "istio.io/rev";
/// Istio's [`INJECT`].
pub const ISTIO_INJECT: &str = "sidecar.istio.io/inject";

/// Istio's [`TEMPLATES`].
pub const ISTIO_TEMPLATES: &str = "inject.istio.io/templates";

/// The revision of those that ask for none.
pub const DEFAULT_REVISION: &str = "default";
