//! The pod as it should be: layers of partial pods over the pod's own JSON, so that fields that this
//! version does not know survive. Injecting an injected pod changes nothing.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::{
    Error, InjectConfig, Namespace, company,
    container::{self, PROXY_CONTAINER, Role},
    damage::damage,
    excerpt,
    json::{array_in, container_mut, list, name_of, object_in},
    layers, metrics,
    options::{Chosen, Options},
    order,
    plan::{Plan, encode},
    probes, reading,
    status::{Names, Status},
    user::User,
};
use crate::{api::meshwright::labels, webhook::difference};

const DEFAULT_CONTAINER: [&str; 2] =
    ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"];

/// A change of a pod that injects it.
pub struct Injected {
    /// JSON; `None` where the pod is as it should be.
    pub patch: Option<Vec<u8>>,
    pub warnings: Vec<String>,
}

/// Builds the injected pod, and tells what is different.
pub fn injected(
    pod: &Value,
    typed: &Pod,
    namespace: &Namespace,
    config: &InjectConfig,
) -> Result<Injected, Error> {
    let before = Status::read(pod);
    let (without, original) = original(pod, typed, before.as_ref())?;
    let defaults = config.proxy.defaults_for(&original);
    let Chosen { options, warnings } = Options::of_pod(&defaults, &original, config.istio_labels)?;
    let seen = excerpt::of(pod, before.as_ref(), &options, config);
    let mut base = without.unwrap_or_else(|| Value::clone(&seen));

    let mut plan = Plan::new(&mut base, &original, namespace, config, &options)?;
    let own = Names::of(&base);
    let hash = layers::hash(&plan.layers)?;
    layers::apply(std::mem::take(&mut plan.layers), &mut base)?;
    let status = Status {
        revision: config.revision.clone(),
        added: Names::of(&base).since(&own),
        variables: company::variables(&base),
        hash,
    };
    let mut after = match before {
        None => base,
        Some(before) if before.hash == status.hash => company::repaired(pod.clone(), &base),
        Some(before) => company::renewed(pod, &before, base, plan.shape),
    };
    finish(&mut after, &plan, &Found::read(typed), &options)?;
    annotate(&mut after, &plan, &status, &options)?;

    let damage = damage(typed).map(|damage| format!("repaired: {damage}"));
    let warnings = warnings.into_iter().chain(plan.warnings).chain(damage);
    let warnings = warnings.chain(dns_warning(typed, namespace)).collect();
    Ok(Injected { patch: difference::patch(&seen, &after), warnings })
}

/// The pod without what an earlier injection added, so that nothing of that looks like a wish. As JSON
/// only where there is a difference.
fn original<'a>(
    pod: &Value,
    typed: &'a Pod,
    before: Option<&Status>,
) -> Result<(Option<Value>, Cow<'a, Pod>), Error> {
    if !pod.get("spec").is_some_and(Value::is_object) {
        return Err(Error::NoSpec);
    }
    let Some(before) = before else { return Ok((None, Cow::Borrowed(typed))) };
    let mut pod = pod.clone();
    before.added.take_from(&mut pod);
    let typed = reading::pod(&pod).map_err(Error::NotAPod)?;
    Ok((Some(pod), Cow::Owned(typed)))
}

/// What depends on the whole pod: the proxy's user, the order of containers, and the
/// application's probes.
fn finish(pod: &mut Value, plan: &Plan, found: &Found, options: &Options) -> Result<(), Error> {
    let (Some(role), Value::Object(pod)) = (plan.shape.role, pod) else { return Ok(()) };
    let app_metrics = metrics::merge(
        object_in(object_in(pod, "metadata"), "annotations"),
        found.app_metrics.clone(),
        options.merge_metrics,
    )?;
    let spec = object_in(pod, "spec");
    User::of_proxy(spec).tell_redirect(spec);
    let route = if role == Role::Sidecar && options.rewrite_probes {
        probes::Route::Agent { native: options.native }
    } else {
        probes::Route::Direct
    };
    let app_probes = probes::route(spec, &found.app_probes, route);
    let Some(field) = plan.shape.list_of(PROXY_CONTAINER) else { return Ok(()) };
    if let Some(proxy) = container_mut(spec, field, PROXY_CONTAINER) {
        restart_policy(proxy, field == "initContainers");
        let env = array_in(proxy, "env");
        note(env, container::APP_PROBES_ENV, app_probes)?;
        note(env, container::APP_METRICS_ENV, app_metrics)?;
    }
    order::arrange(spec, plan.shape, options);
    Ok(())
}

fn annotate(pod: &mut Value, plan: &Plan, status: &Status, options: &Options) -> Result<(), Error> {
    let Value::Object(pod) = pod else { return Err(Error::NoSpec) };
    let spec = object_in(pod, "spec");
    let first = list(spec, "containers")
        .filter_map(name_of)
        .find(|name| layers::canonical(name).is_none())
        .map(str::to_owned);
    let user = User::of_proxy(spec);
    let annotations = object_in(object_in(pod, "metadata"), "annotations");
    if let Some(first) = first {
        for key in DEFAULT_CONTAINER {
            annotations.entry(key).or_insert_with(|| first.clone().into());
        }
    }
    if plan.shape.redirect {
        let mut arguments = container::redirect_arguments(options);
        arguments.extend(user.arguments());
        annotations.insert(labels::REDIRECT.to_owned(), json!(arguments).to_string().into());
    } else {
        annotations.remove(labels::REDIRECT);
    }
    plan.overlays.note(annotations);
    let status = serde_json::to_string(status).map_err(Error::Encode)?;
    annotations.insert(labels::STATUS.to_owned(), status.into());
    Ok(())
}

/// What an earlier injection of the same pod noted in the proxy's environment.
#[derive(Default)]
struct Found {
    app_probes: Map<String, Value>,
    app_metrics: Option<String>,
}

impl Found {
    fn read(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let init = spec.init_containers.iter().flatten();
        let proxy = spec.containers.iter().chain(init).find(|c| c.name == PROXY_CONTAINER);
        let env = |name: &str| {
            let variable = proxy?.env.as_ref()?.iter().find(|variable| variable.name == name)?;
            Some(container::unescaped(variable.value.as_deref()?))
        };
        let app_probes = env(container::APP_PROBES_ENV)
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default();
        Self { app_probes, app_metrics: env(container::APP_METRICS_ENV) }
    }
}

/// An init container stays only if it says so; any other container must not say anything.
fn restart_policy(proxy: &mut Map<String, Value>, native: bool) {
    if native {
        proxy.insert("restartPolicy".to_owned(), "Always".into());
    } else {
        proxy.remove("restartPolicy");
    }
}

/// Sets a variable of the proxy that says what was found in the pod, or takes it away.
fn note(env: &mut Vec<Value>, name: &str, found: Option<String>) -> Result<(), Error> {
    let wanted = found.map(|found| encode(&container::value(name, &found))).transpose()?;
    let known = env.iter().position(|item| name_of(item) == Some(name));
    match (known, wanted) {
        (Some(known), Some(wanted)) => env[known] = wanted,
        (Some(known), None) => drop(env.remove(known)),
        (None, Some(wanted)) => env.push(wanted),
        (None, None) => {}
    }
    Ok(())
}

fn dns_warning(pod: &Pod, namespace: &Namespace) -> Option<String> {
    let policy = pod.spec.as_ref()?.dns_policy.as_deref()?;
    matches!(policy, "Default" | "None").then(|| {
        format!(
            "dnsPolicy is {policy}: a pod of namespace {} that does not use the cluster's DNS may not find the control plane",
            namespace.name
        )
    })
}
