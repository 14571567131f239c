//! The texts, as files that read as documentation, and what the flags mean.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(flags: &[&str]) -> Result<RedirectPlan, clap::Error> {
    let words = std::iter::once("redirect").chain(flags.iter().copied());
    Cli::try_parse_from(words).map(|cli| plan(&cli.args))
}

/// Every kind of rule at once.
const EVERYTHING: [&str; 5] = [
    "--inbound-ports=80,8080",
    "--exclude-inbound-ports=9000",
    "--outbound-cidrs=10.0.0.0/8,fd00::/8",
    "--exclude-outbound-cidrs=10.9.0.0/16,fd09::/16",
    "--exclude-outbound-ports=3306",
];

#[test]
fn texts_are_as_recorded() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../tests/golden/redirect");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let plans = [("default", parse(&[]).unwrap()), ("everything", parse(&EVERYTHING).unwrap())];
    settings.bind(|| {
        for (name, plan) in plans {
            insta::assert_snapshot!(format!("{name}.nft"), render::nftables(&plan, &Family::BOTH));
            for (family, file) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
                let text = render::iptables(&plan, family, "");
                insta::assert_snapshot!(format!("{name}.{file}"), text);
            }
        }
    });
}

#[test]
fn no_flags_mean_the_default_plan() {
    assert_eq!(parse(&[]).unwrap(), RedirectPlan::default());
}

#[test]
fn an_empty_list_captures_nothing() {
    let plan = parse(&["--inbound-ports=", "--outbound-cidrs="]).unwrap();
    let text = render::nftables(&plan, &[Family::V4]);
    assert!(!text.contains("jump MESHWRIGHT_REDIRECT"), "{text}");
    // What is left is the pod calling itself through its proxy, which is no capture by port.
    assert_eq!(text.matches("jump MESHWRIGHT_IN_REDIRECT").count(), 2, "{text}");
}

#[test]
fn the_proxys_own_ports_are_always_left_alone() {
    let plan = parse(&["--exclude-inbound-ports=9000"]).unwrap();
    assert_eq!(plan.exclude_inbound_ports, [9000, 15020, 15021, 15090].into());
}

#[test]
fn bad_values_name_the_flag_and_the_value() {
    for (flag, value) in [
        ("--inbound-ports", "80,http"),
        ("--exclude-inbound-ports", "0"),
        ("--outbound-cidrs", "10.0.0.0/33"),
        ("--exclude-outbound-cidrs", "somewhere"),
    ] {
        let error = parse(&[&format!("{flag}={value}")]).unwrap_err().to_string();
        let last = value.split(',').next_back().unwrap();
        assert!(error.contains(flag) && error.contains(last), "{error}");
    }
}

#[test]
fn a_second_run_replaces_the_jumps_of_the_first() {
    let saved = "*nat\n-A PREROUTING -p tcp -j MESHWRIGHT_INBOUND\n-A PREROUTING -j OTHER\n\
                 -A OUTPUT -p tcp -j MESHWRIGHT_OUTPUT\nCOMMIT\n";
    let text = render::iptables(&RedirectPlan::default(), Family::V4, saved);
    assert_eq!(text.matches("-D PREROUTING -p tcp -j MESHWRIGHT_INBOUND\n").count(), 1);
    assert_eq!(text.matches("-A PREROUTING -p tcp -j MESHWRIGHT_INBOUND\n").count(), 1);
    assert_eq!(text.matches("-D OUTPUT -p tcp -j MESHWRIGHT_OUTPUT\n").count(), 1);
    assert!(!text.contains("OTHER"), "other people's rules stay");
}
