//! What the installation's conditions say of a rollout.

use crate::{
    api::meshwright::{RolloutPhase, RolloutStatus},
    operator::conditions::Finding,
};

/// A rollout that runs is progress; one that stopped is a defect. Whether the mesh is ready is
/// another question: it is, with proxies of two versions.
pub fn mention(findings: &mut [Finding], rollout: Option<&RolloutStatus>) {
    let Some(rollout) = rollout else { return };
    let (kind, reason) = match rollout.phase {
        RolloutPhase::Rolling => ("Progressing", "RenewingProxies"),
        RolloutPhase::Stopped => ("Degraded", "RolloutStopped"),
        RolloutPhase::Waiting | RolloutPhase::Done => return,
    };
    let RolloutStatus { wave, waves, summary, message, .. } = rollout;
    let said = format!("{summary} proxies are new, wave {wave} of {waves}: {message}");
    for finding in findings.iter_mut().filter(|finding| finding.kind == kind) {
        if finding.status == Some(true) {
            finding.message = format!("{}; {said}", finding.message);
        } else {
            *finding = Finding::new(kind, true, reason, said.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new("Ready", true, "Ready", "the mesh works"),
            Finding::new("Progressing", false, "Settled", "everything is as the spec says"),
            Finding::new("Degraded", false, "AsExpected", "nothing is wrong"),
        ]
    }

    fn rollout(phase: RolloutPhase) -> RolloutStatus {
        RolloutStatus {
            phase,
            wave: 2,
            waves: 3,
            summary: "4/9".to_owned(),
            message: "why".to_owned(),
            ..RolloutStatus::default()
        }
    }

    #[test]
    fn a_stopped_rollout_is_a_defect_of_a_mesh_that_is_ready() {
        let mut found = findings();
        mention(&mut found, Some(&rollout(RolloutPhase::Stopped)));
        assert_eq!(found[0..2], findings()[0..2]);
        assert_eq!((found[2].status, found[2].reason), (Some(true), "RolloutStopped"));
        assert_eq!(found[2].message, "4/9 proxies are new, wave 2 of 3: why");
    }

    #[test]
    fn what_was_wrong_before_is_still_said() {
        let mut found = findings();
        found[2] = Finding::new("Degraded", true, "Broken", "no control plane");
        mention(&mut found, Some(&rollout(RolloutPhase::Stopped)));
        assert_eq!(found[2].reason, "Broken");
        assert!(found[2].message.starts_with("no control plane; 4/9 proxies"));
    }

    #[test]
    fn progress_is_progress_and_waiting_is_not() {
        let mut found = findings();
        mention(&mut found, Some(&rollout(RolloutPhase::Rolling)));
        assert_eq!((found[1].status, found[1].reason), (Some(true), "RenewingProxies"));
        for quiet in [None, Some(rollout(RolloutPhase::Waiting)), Some(rollout(RolloutPhase::Done))]
        {
            let mut found = findings();
            mention(&mut found, quiet.as_ref());
            assert_eq!(found, findings());
        }
    }
}
