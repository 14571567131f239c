//! Names of revisions under any interleaving of edits and reconciliations: each belongs to one
//! installation at any time, and a name that is in force does not stop to be.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use meshwright::{
    api::meshwright::{MeshInstallation, MeshInstallationSpec},
    operator::installation::handover::{Selected, gives_up, kept},
    webhook::validate::names::{holder, is_leaving, tags},
};
use proptest::prelude::*;

/// Names that tags may be; the first is the revision of the oldest installation.
const NAMES: [&str; 4] = ["v0", "stable", "canary", "prod"];

#[derive(Clone, Debug)]
enum Step {
    /// Somebody edits `spec.tags`.
    Tags(usize, BTreeSet<usize>),
    Delete(usize),
    /// The operator's caches catch up.
    Sync,
    /// With the object as it is, or as the cache has it.
    Reconcile(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0_usize..3;
    prop_oneof![
        3 => (one.clone(), prop::collection::btree_set(0..NAMES.len(), 0..4))
            .prop_map(|(at, tags)| Step::Tags(at, tags)),
        1 => one.clone().prop_map(Step::Delete),
        3 => Just(Step::Sync),
        6 => (one, any::<bool>()).prop_map(|(at, fresh)| Step::Reconcile(at, fresh)),
    ]
}

/// The API server, the operator's cache of it, and what webhooks select.
struct World {
    live: Vec<Arc<MeshInstallation>>,
    cache: Vec<Arc<MeshInstallation>>,
    selected: Selected,
}

fn named(list: &[Arc<MeshInstallation>], at: usize) -> Option<&Arc<MeshInstallation>> {
    list.iter().find(|installation| installation.name_any() == format!("i{at}"))
}

impl World {
    fn new() -> Self {
        let make = |at: u8| {
            let spec = MeshInstallationSpec {
                revision: format!("v{at}"),
                ..MeshInstallationSpec::default()
            };
            let mut made = MeshInstallation::new(&format!("i{at}"), spec);
            let born = Timestamp::from_second(i64::from(at)).unwrap();
            made.metadata.creation_timestamp = Some(Time(born));
            Arc::new(made)
        };
        let live: Vec<_> = (0..3).map(make).collect();
        Self { cache: live.clone(), live, selected: Selected::new() }
    }

    fn edit(&mut self, at: usize, change: impl FnOnce(&mut MeshInstallation)) {
        let name = format!("i{at}");
        if let Some(found) = self.live.iter_mut().find(|i| i.name_any() == name) {
            change(Arc::make_mut(found));
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Tags(at, chosen) => {
                let revision = format!("v{at}");
                let chosen = chosen.iter().map(|&at| NAMES[at].to_owned());
                let tags = chosen.filter(|tag| *tag != revision).collect();
                self.edit(*at, |installation| installation.spec.tags = tags);
            }
            Step::Delete(at) => self.edit(*at, |installation| {
                installation.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            }),
            Step::Sync => self.cache = self.live.clone(),
            Step::Reconcile(at, fresh) => self.reconcile(*at, *fresh),
        }
    }

    /// What the operator does, in the same order.
    fn reconcile(&mut self, at: usize, fresh: bool) {
        let source = if fresh { &self.live } else { &self.cache };
        let Some(object) = named(source, at).cloned() else { return };
        let name = object.name_any();
        if is_leaving(&object) {
            if kept(&object, &self.live, &self.selected).is_empty() {
                self.selected.remove(&name);
                self.live.retain(|installation| installation.name_any() != name);
            }
            return;
        }
        if named(&self.live, at).is_none() {
            // Its webhook cannot be applied: it belongs to nobody.
            return;
        }
        let gives_up = gives_up(&object, &self.cache, &self.selected);
        let all = if gives_up { &self.live } else { &self.cache };
        let mut names = BTreeSet::from([object.spec.revision.clone()]);
        names.extend(tags(&object, all.iter().map(AsRef::as_ref)).held);
        names.extend(kept(&object, all, &self.selected).into_iter().map(|(name, _)| name));
        self.selected.insert(name, names);
    }

    /// Whether somebody asks for it who is to stay.
    fn is_claimed(&self, name: &str) -> bool {
        holder(name, self.live.iter().map(AsRef::as_ref)).is_some_and(|holder| !is_leaving(holder))
    }

    fn selecting(&self, name: &str) -> Vec<&str> {
        let has = self.selected.iter().filter(|(_, names)| names.contains(name));
        has.map(|(installation, _)| installation.as_str()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_name_in_force_stays_in_force_and_settles_at_one(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        let mut in_force = BTreeSet::new();
        for step in &steps {
            world.take(step);
            for name in NAMES {
                // Who asks for it has it, and nobody else.
                let all = || world.live.iter().map(AsRef::as_ref);
                let has = |i: &&MeshInstallation| {
                    let holds = holder(name, all()).is_some_and(|h| h.name_any() == i.name_any());
                    let tagged = tags(i, all()).held.iter().any(|tag| tag == name);
                    prop_assert_eq!(tagged, holds && i.spec.revision != name);
                    Ok(holds)
                };
                let holders = all().map(|i| has(&i)).collect::<Result<Vec<_>, _>>()?;
                let count = holders.into_iter().filter(|holds| *holds).count();
                prop_assert_eq!(count, usize::from(holder(name, all()).is_some()));

                let selected = !world.selecting(name).is_empty();
                if !world.is_claimed(name) {
                    in_force.remove(name);
                } else if selected {
                    in_force.insert(name);
                } else {
                    prop_assert!(!in_force.contains(name), "{name} is nobody's after {step:?}");
                }
            }
        }
        for _ in 0..4 {
            world.take(&Step::Sync);
            for at in 0..3 {
                world.take(&Step::Reconcile(at, true));
            }
        }
        for name in NAMES {
            let holder = holder(name, world.live.iter().map(AsRef::as_ref)).map(ResourceExt::name_any);
            let holder: Vec<_> = holder.iter().map(String::as_str).collect();
            prop_assert_eq!(world.selecting(name), holder, "{}", name);
        }
    }
}
