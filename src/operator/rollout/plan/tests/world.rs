//! Workloads with their pods, and what becomes of them when they are touched and time goes by.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::super::*;
use crate::operator::rollout::facts::{Budget, Container, List, Pod, PodRef, Restarted};

pub const OLD: &str = "proxy:1";
pub const NEW: &str = "proxy:2";
/// How long a new pod, or a new container, takes to be ready, and an old one to leave.
const STEP: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "faults that come in any combination")]
pub struct Options {
    pub replicas: usize,
    /// What a budget of its own allows while all pods are ready.
    pub budget: Option<usize>,
    /// The new proxy does not start.
    pub fails: bool,
    pub on_delete: bool,
    pub slow: bool,
    pub group: usize,
    /// It gets the old image again and again.
    pub stubborn: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 2,
            budget: None,
            fails: false,
            on_delete: false,
            slow: false,
            group: 0,
            stubborn: false,
        }
    }
}

#[derive(Debug)]
pub struct Simulated {
    name: String,
    pub options: Options,
    pub pods: Vec<Pod>,
    restarted: Option<Restarted>,
    /// When each pod becomes what it is to be.
    due: BTreeMap<String, Timestamp>,
    made: usize,
}

#[derive(Debug)]
pub struct World {
    pub policy: FleetPolicy,
    pub workloads: Vec<Simulated>,
    pub image: &'static str,
    pub generation: i64,
    pub resume: String,
    pub gate: Option<String>,
    /// Through the old proxies, and through the new ones.
    pub requests: Option<(Requests, Requests)>,
    /// How often each was restarted.
    pub restarts: Vec<usize>,
    /// What the last step did.
    pub last: Vec<Action>,
    stored: Option<RolloutStatus>,
    now: Timestamp,
}

impl World {
    pub fn new(policy: FleetPolicy, options: &[Options]) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let workloads: Vec<_> =
            options.iter().enumerate().map(|(index, o)| Simulated::new(index, *o)).collect();
        Self {
            policy,
            restarts: vec![0; workloads.len()],
            workloads,
            image: NEW,
            generation: 1,
            resume: String::new(),
            gate: None,
            requests: None,
            last: Vec::new(),
            stored: None,
            now,
        }
    }

    pub fn status(&self) -> &RolloutStatus {
        self.stored.as_ref().unwrap()
    }

    /// The next step as an operator that knows nothing but this would take it.
    pub fn plan(&self) -> Step {
        let facts: BTreeMap<_, _> = self
            .workloads
            .iter()
            .map(|w| w.facts_for(self.image))
            .map(|facts| (facts.workload.clone(), facts))
            .collect();
        let mut candidates: Vec<_> = self
            .workloads
            .iter()
            .filter(|workload| workload.facts_for(self.image).outdated().next().is_some())
            .map(|w| Candidate { workload: w.facts().workload, group: w.options.group })
            .collect();
        candidates.sort_by_key(|candidate| candidate.group);
        let pods = || facts.values().flat_map(|facts| &facts.pods);
        plan(&Situation {
            policy: &self.policy,
            version: "2",
            image: self.image,
            generation: self.generation,
            resume: &self.resume,
            before: self.stored.as_ref(),
            candidates: &candidates,
            workloads: self.workloads.len(),
            facts: &facts,
            gate: self.gate.clone(),
            tally: Tally {
                all: pods().count(),
                renewed: pods().filter(|pod| !pod.outdated()).count(),
                ..Tally::default()
            },
            requests: self.requests.map(|(_, after)| after),
            now: self.now,
        })
    }

    /// Plans, stores and acts.
    pub fn step(&mut self) -> Step {
        let mut step = self.plan();
        let began = step.status.wave_started == self.now.to_string();
        if let (true, Some((before, _))) = (began, self.requests) {
            step.status.error_percent_before = before.error_percent().unwrap().to_string();
        }
        self.stored = Some(step.status.clone());
        for action in &step.actions {
            self.act(action);
        }
        self.last.clone_from(&step.actions);
        step
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = later(self.now, time);
        for workload in &mut self.workloads {
            workload.go_on(self.image, self.now);
        }
    }

    /// Goes on until nothing happens any more, or for a day.
    pub fn run(&mut self, mut check: impl FnMut(&Self)) {
        let mut quiet = 0;
        for _ in 0..40_000 {
            let before = self.stored.clone();
            let step = self.step();
            check(self);
            quiet = if step.actions.is_empty() && before.as_ref() == self.stored.as_ref() {
                quiet + 1
            } else {
                0
            };
            // Longer than any pause and deadline of these tests.
            if quiet > 400 {
                return;
            }
            self.pass(Duration::from_secs(2));
        }
        panic!("it comes to no end: {:?}", self.stored);
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = later(self.now, time);
        while self.now < end {
            self.step();
            self.pass(Duration::from_secs(2));
        }
    }

    pub fn is_renewed(&self, image: &str) -> bool {
        let mut pods = self.workloads.iter().flat_map(|workload| &workload.pods);
        pods.all(|pod| pod.ready && pod.proxy.as_ref().unwrap().image == image)
    }

    /// Whether all pods of the workload have their first proxy.
    pub fn untouched(&self, index: usize) -> bool {
        self.workloads[index].pods.iter().all(|pod| pod.proxy.as_ref().unwrap().image == OLD)
    }

    pub fn workload_of(&self, action: &Action) -> &Simulated {
        let (Action::Evict(pod)
        | Action::TakeOut(pod)
        | Action::PutBack(pod)
        | Action::Replace { pod, .. }
        | Action::Restore { pod, .. }) = action
        else {
            let Action::Restart(workload) = action else { unreachable!() };
            return self.workloads.iter().find(|w| w.name == workload.name).unwrap();
        };
        let owner = pod.name.split('-').next().unwrap();
        self.workloads.iter().find(|workload| workload.name == owner).unwrap()
    }

    fn act(&mut self, action: &Action) {
        let name = self.workload_of(action).name.clone();
        let index = self.workloads.iter().position(|w| w.name == name).unwrap();
        let (now, image) = (self.now, self.image);
        let workload = &mut self.workloads[index];
        let due = workload.due(now);
        match action {
            Action::Restart(_) => {
                self.restarts[index] += 1;
                workload.restarted = Some(Restarted { at: now, image: image.to_owned() });
            }
            Action::Evict(pod) => {
                workload.pods.retain(|p| p.at != *pod);
                workload.make(image, now);
            }
            Action::TakeOut(pod) => {
                workload.pod(pod).out_of_service = Some(now);
                workload.due.insert(pod.name.clone(), due);
            }
            Action::Replace { pod, image, before, .. } => {
                let pod = workload.pod(pod);
                pod.replaced = Some(before.clone());
                pod.stop(image, now);
                let name = pod.at.name.clone();
                workload.due.insert(name, due);
            }
            Action::PutBack(pod) => {
                let pod = workload.pod(pod);
                (pod.out_of_service, pod.replaced) = (None, None);
                let name = pod.at.name.clone();
                workload.due.insert(name, due);
            }
            Action::Restore { pod, image, .. } => {
                let pod = workload.pod(pod);
                (pod.out_of_service, pod.replaced) = (None, None);
                pod.stop(image, now);
                let name = pod.at.name.clone();
                workload.due.insert(name, due);
            }
        }
    }
}

trait Kubelet {
    fn stop(&mut self, image: &str, now: Timestamp);
    fn set_ready(&mut self, ready: bool, now: Timestamp);
}

impl Kubelet for Pod {
    fn stop(&mut self, image: &str, now: Timestamp) {
        self.set_ready(false, now);
        let proxy = self.proxy.as_mut().unwrap();
        image.clone_into(&mut proxy.image);
        proxy.waiting = None;
    }

    fn set_ready(&mut self, ready: bool, now: Timestamp) {
        if self.ready && !ready {
            self.unready_since = Some(now);
        }
        self.ready = ready;
        self.proxy.as_mut().unwrap().ready = ready;
    }
}

impl Simulated {
    fn new(index: usize, options: Options) -> Self {
        let mut workload = Self {
            name: format!("w{index}"),
            options,
            pods: Vec::new(),
            restarted: None,
            due: BTreeMap::new(),
            made: 0,
        };
        for _ in 0..options.replicas {
            workload.make(OLD, Timestamp::MIN);
            workload.pods.last_mut().unwrap().set_ready(true, Timestamp::MIN);
        }
        workload.due.clear();
        workload
    }

    fn due(&self, now: Timestamp) -> Timestamp {
        later(now, if self.options.slow { STEP * 4 } else { STEP })
    }

    fn make(&mut self, image: &str, now: Timestamp) {
        self.made += 1;
        let name = format!("{}-{}", self.name, self.made);
        let image = if self.options.stubborn { OLD } else { image };
        self.due.insert(name.clone(), self.due(now));
        self.pods.push(Pod {
            at: PodRef { namespace: "shop".to_owned(), uid: name.clone(), name: name.clone() },
            created: now,
            ready: false,
            unready_since: Some(now),
            address: String::new(),
            proxy: Some(Container {
                list: List::InitContainers,
                image: image.to_owned(),
                wanted: String::new(),
                id: name,
                ready: false,
                waiting: None,
                can_leave: true,
            }),
            out_of_service: None,
            replaced: None,
        });
    }

    fn pod(&mut self, at: &PodRef) -> &mut Pod {
        self.pods.iter_mut().find(|pod| pod.at == *at).unwrap()
    }

    /// What kubelet and controllers do meanwhile.
    fn go_on(&mut self, image: &str, now: Timestamp) {
        let names: Vec<_> =
            self.due.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.due.remove(&name);
            let Some(pod) = self.pods.iter_mut().find(|pod| pod.at.name == name) else { continue };
            let proxy = pod.proxy.as_mut().unwrap();
            if proxy.image == image && self.options.fails {
                proxy.waiting = Some("ImagePullBackOff: no such image".to_owned());
                continue;
            }
            let leaves = pod.out_of_service.is_some() && pod.replaced.is_none();
            if !leaves {
                // Another container.
                proxy.id.push('+');
            }
            pod.set_ready(!leaves, now);
        }
        if self.options.on_delete {
            return;
        }
        // A rolling update makes one new pod, and takes an old one when that is ready.
        let Some(restarted) = self.restarted.clone() else { return };
        let old = |pod: &Pod| pod.created < restarted.at;
        let new_ones_ready = self.pods.iter().filter(|pod| !old(pod)).all(|pod| pod.ready);
        let surplus = self.pods.len() > self.options.replicas;
        if surplus && new_ones_ready {
            // What does not work goes first.
            let broken = self.pods.iter().position(|pod| old(pod) && !pod.ready);
            if let Some(index) = broken.or_else(|| self.pods.iter().position(old)) {
                self.pods.remove(index);
            }
        }
        let behind = self.pods.iter().any(old);
        if behind && new_ones_ready && self.pods.len() <= self.options.replicas {
            self.make(image, now);
        }
    }

    pub fn is_moving(&self) -> bool {
        self.pods.iter().any(|pod| !pod.ready || pod.in_flight())
            || self.pods.len() != self.options.replicas
    }

    fn unsettled(&self) -> Option<String> {
        let ready = self.pods.iter().filter(|pod| pod.ready).count();
        let rolls = self.restarted.as_ref().filter(|_| !self.options.on_delete);
        let behind =
            rolls.is_some_and(|restarted| self.pods.iter().any(|pod| pod.created < restarted.at));
        (behind || self.is_moving())
            .then(|| format!("{ready} of {} are ready", self.options.replicas))
    }

    pub fn facts(&self) -> Facts {
        self.facts_for(NEW)
    }

    fn facts_for(&self, image: &str) -> Facts {
        let mut pods = self.pods.clone();
        for pod in &mut pods {
            image.clone_into(&mut pod.proxy.as_mut().unwrap().wanted);
        }
        let down = pods.iter().filter(|pod| !pod.ready).count();
        let budget = |allowed: usize| Budget {
            name: format!("shop/{}", self.name),
            allowed: allowed.saturating_sub(down),
        };
        Facts {
            workload: Workload {
                kind: "Deployment".to_owned(),
                namespace: "shop".to_owned(),
                name: self.name.clone(),
            },
            labels: BTreeMap::new(),
            wanted: self.options.replicas,
            unsettled: self.unsettled(),
            stuck: None,
            takes: 1,
            on_delete: self.options.on_delete,
            immovable: None,
            restarted: self.restarted.clone(),
            pods,
            budgets: self.options.budget.map(budget).into_iter().collect(),
        }
    }
}
