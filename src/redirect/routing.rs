//! Policy routing for transparent sockets: packets with their mark are the pod's own, whatever their
//! address.

use crate::redirect::{
    Family, Mode, RedirectPlan,
    command::{Failed, run},
    rules::TPROXY_MARK,
};

/// The routing table that says so.
const TABLE: &str = "133";

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// What is run for a family, but for what is in place already.
pub(super) fn commands(family: Family) -> [String; 2] {
    let ip = flag(family);
    [
        format!("ip {ip} rule add fwmark {TPROXY_MARK} lookup {TABLE}"),
        format!("ip {ip} route replace local default dev lo table {TABLE}"),
    ]
}

/// Makes the routing what the plan needs, and says whether something had to be done.
pub(super) fn ensure(plan: &RedirectPlan, families: &[Family]) -> Result<bool, Failed> {
    let mut changed = false;
    for family in families {
        changed |= match plan.mode {
            Mode::Tproxy => add(*family)?,
            Mode::Redirect => remove(*family)?,
        };
    }
    Ok(changed)
}

fn add(family: Family) -> Result<bool, Failed> {
    let [rule, route] = commands(family);
    let mut changed = false;
    if rules_in_place(family)? == 0 {
        command(&rule)?;
        changed = true;
    }
    if !routes_in_place(family) {
        command(&route)?;
        changed = true;
    }
    Ok(changed)
}

pub(super) fn remove(family: Family) -> Result<bool, Failed> {
    let ip = flag(family);
    // Without policy routing in the kernel, or without `ip`, there is nothing to remove.
    let rules = rules_in_place(family).unwrap_or_default();
    for _ in 0..rules {
        command(&format!("ip {ip} rule delete fwmark {TPROXY_MARK} lookup {TABLE}"))?;
    }
    let routes = routes_in_place(family);
    if routes {
        command(&format!("ip {ip} route flush table {TABLE}"))?;
    }
    Ok(rules > 0 || routes)
}

fn rules_in_place(family: Family) -> Result<usize, Failed> {
    let ours = format!("fwmark {TPROXY_MARK:#x} lookup {TABLE}");
    let list = command(&format!("ip {} rule list", flag(family)))?;
    Ok(list.lines().filter(|line| line.trim_end().ends_with(&ours)).count())
}

fn routes_in_place(family: Family) -> bool {
    // `ip` fails where the table has never been used.
    command(&format!("ip {} route show table {TABLE}", flag(family)))
        .is_ok_and(|list| list.lines().any(|line| line.starts_with("local default dev lo")))
}

fn command(text: &str) -> Result<String, Failed> {
    let words: Vec<&str> = text.split(' ').collect();
    run(words[0], &words[1..], "")
}
