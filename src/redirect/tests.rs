//! The texts, as files that read as documentation; and what the rules do, without a kernel.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use proptest::prelude::*;

use super::*;

fn plan(flags: &[&str]) -> RedirectPlan {
    let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
    plan_of_args(&flags).unwrap().0
}

/// Each option, with a value that shows what it does.
const CASES: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("tproxy", &["--mode=tproxy"]),
    ("tproxy-some-ports", &["--mode=tproxy", "--inbound-ports=80", "--exclude-inbound-ports=9000"]),
    ("proxy", &["--proxy-port=16001", "--inbound-port=16006", "--proxy-uid=7", "--proxy-gid=8"]),
    ("inbound-ports", &["--inbound-ports=80,8080"]),
    ("inbound-none", &["--inbound-ports="]),
    ("exclude-inbound-ports", &["--exclude-inbound-ports=9000"]),
    ("outbound-cidrs", &["--outbound-cidrs=10.0.0.0/8,fd00::/8"]),
    ("outbound-none", &["--outbound-cidrs="]),
    ("outbound-loopback", &["--outbound-cidrs=127.1.2.3/32"]),
    ("exclude-outbound-cidrs", &["--exclude-outbound-cidrs=10.9.0.0/16,fd09::/16"]),
    ("outbound-ports", &["--outbound-cidrs=", "--outbound-ports=5432,9092"]),
    ("exclude-outbound-ports", &["--exclude-outbound-ports=3306"]),
    ("interfaces", &["--interfaces=eth0,net+"]),
    ("exclude-interfaces", &["--exclude-interfaces=net1"]),
    ("reroute-interfaces", &["--reroute-interfaces=tap+", "--exclude-outbound-cidrs=10.9.0.0/16"]),
    ("outbound-users", &["--outbound-uids=1000,1001", "--outbound-gids=100"]),
    ("exclude-outbound-users", &["--exclude-outbound-uids=1000", "--exclude-outbound-gids=100"]),
    ("dns-all", &["--dns=all"]),
    ("dns-but-excluded-port", &["--dns=all", "--exclude-outbound-ports=53"]),
    ("drop-invalid", &["--drop-invalid"]),
    (
        "everything",
        &[
            "--mode=tproxy",
            "--inbound-ports=80,8080",
            "--exclude-inbound-ports=9000",
            "--outbound-cidrs=10.0.0.0/8,fd00::/8",
            "--exclude-outbound-cidrs=10.9.0.0/16,fd09::/16",
            "--outbound-ports=5432",
            "--exclude-outbound-ports=3306",
            "--interfaces=eth0,net1",
            "--exclude-interfaces=net1",
            "--reroute-interfaces=tap0",
            "--outbound-uids=1000",
            "--exclude-outbound-gids=100",
            "--dns=all",
            "--drop-invalid",
        ],
    ),
];

#[test]
fn texts_are_as_recorded() {
    let resolvers = ["10.96.0.10", "fd00::a"].map(|one| one.parse().unwrap()).into();
    let resolvers = RedirectPlan { dns: Dns::Servers(resolvers), ..RedirectPlan::default() };
    let plans = CASES.iter().map(|(name, flags)| (*name, plan(flags)));
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (name, plan) in plans.chain([("dns-resolvers", resolvers)]) {
        settings.set_snapshot_path(format!("../../tests/golden/redirect/{name}"));
        let both = Family::BOTH.map(|family| (family, rules(&plan, family)));
        settings.bind(|| {
            insta::assert_snapshot!("nft", render::nftables(&both));
            for (family, rules) in &both {
                let file = render::program(*family);
                insta::assert_snapshot!(file, render::iptables(rules, &render::Saved::default()));
            }
        });
    }
}

#[test]
fn every_recorded_text_belongs_to_a_case() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/redirect");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = CASES.iter().any(|(case, _)| *case == name) || name == "dns-resolvers";
        assert!(known, "{name} is of no case any more");
    }
}

#[test]
fn a_second_run_replaces_what_there_is() {
    let saved = render::Saved::parse(
        "*raw\n:MESHWRIGHT_DNS_OUT - [0:0]\n-A OUTPUT -p udp -j MESHWRIGHT_DNS_OUT\n\
         -A MESHWRIGHT_DNS_OUT -p udp -j CT --zone 2\nCOMMIT\n*nat\n:OTHER - [0:0]\n\
         :MESHWRIGHT_INBOUND - [0:0]\n:MESHWRIGHT_0123456789abcdef - [0:0]\n\
         -A PREROUTING -i eth0 -p tcp -j MESHWRIGHT_INBOUND\n-A PREROUTING -j OTHER\nCOMMIT\n",
    );
    let text = render::iptables(&rules(&RedirectPlan::default(), Family::V4), &saved);
    let raw = "*raw\n:MESHWRIGHT_DNS_OUT - [0:0]\n-D OUTPUT -p udp -j MESHWRIGHT_DNS_OUT\n\
               -X MESHWRIGHT_DNS_OUT\nCOMMIT\n*nat\n";
    assert!(text.starts_with(raw), "a table that is not needed any more: {text}");
    let count = |line: &str| text.lines().filter(|one| *one == line).count();
    assert_eq!(count("-D PREROUTING -i eth0 -p tcp -j MESHWRIGHT_INBOUND"), 1, "{text}");
    assert_eq!(count("-A PREROUTING -p tcp -j MESHWRIGHT_INBOUND"), 1, "{text}");
    assert_eq!(count("-X MESHWRIGHT_0123456789abcdef"), 1, "{text}");
    assert_eq!(count("-X MESHWRIGHT_INBOUND"), 0, "{text}");
    assert!(!text.contains("OTHER"), "other people's rules stay: {text}");
}

#[test]
fn a_dry_run_prints_every_call() {
    let text = apply::preview(&plan(&["--mode=tproxy"]), Backend::Auto, &Family::BOTH);
    for part in [
        "# nft -f -\ntable ip meshwright {}\n",
        "# iptables-restore --noflush\n*mangle\n",
        "# ip6tables-restore --noflush\n*mangle\n",
        "\nip -6 address add ::6/128 dev lo\n",
        "\nip -4 rule add fwmark 1337 lookup 133\n",
        "\nip -6 route replace local default dev lo table 133\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let text = apply::preview(&plan(&[]), Backend::Iptables, &[Family::V4]);
    assert!(text.starts_with("# iptables-restore --noflush\n*nat\n"), "{text}");
    assert!(text.ends_with("COMMIT\n"), "neither IPv6 nor routes: {text}");
}

fn of<T: Clone + std::fmt::Debug + Ord + 'static>(
    values: Vec<T>,
    most: usize,
) -> impl Strategy<Value = BTreeSet<T>> {
    proptest::collection::btree_set(proptest::sample::select(values), 0..=most)
}

fn captured<T: Clone + std::fmt::Debug + Ord + 'static>(
    values: Vec<T>,
) -> impl Strategy<Value = Capture<T>> {
    prop_oneof![Just(Capture::All), of(values, 3).prop_map(Capture::Only)]
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ports() -> Vec<u16> {
    vec![53, 80, 443, 3306]
}

fn some_cidrs() -> Vec<Cidr> {
    parsed(&["10.0.0.0/8", "10.9.0.0/16", "127.1.2.0/24", "fd00::/8", "fd09::/16", "0.0.0.0/0"])
}

prop_compose! {
    fn outbound()(
        outbound_cidrs in captured(some_cidrs()),
        exclude_outbound_cidrs in of(some_cidrs(), 2),
        outbound_ports in of(ports(), 2),
        exclude_outbound_ports in of(ports(), 2),
        outbound_uids in captured(vec![0, 1000, 1001]),
        exclude_outbound_uids in of(vec![0, 1000], 1),
        outbound_gids in captured(vec![0, 100]),
        exclude_outbound_gids in of(vec![100], 1),
    ) -> RedirectPlan {
        RedirectPlan {
            outbound_cidrs, exclude_outbound_cidrs, outbound_ports, exclude_outbound_ports,
            outbound_uids, exclude_outbound_uids, outbound_gids, exclude_outbound_gids,
            ..RedirectPlan::default()
        }
    }
}

prop_compose! {
    fn plans()(
        plan in outbound(),
        tproxy in any::<bool>(),
        inbound_ports in captured(ports()),
        interfaces in captured(parsed(&["eth0", "net1", "tap+"])),
        exclude_interfaces in of(parsed(&["net1", "net+"]), 1),
        reroute_interfaces in of(parsed(&["tap0", "tap+"]), 1),
        dns in prop_oneof![
            Just(Dns::Off),
            Just(Dns::All),
            of(parsed(&["10.96.0.10", "127.0.0.1", "fd00::a"]), 2).prop_map(Dns::Servers),
        ],
        drop_invalid in any::<bool>(),
    ) -> RedirectPlan {
        let mode = if tproxy { Mode::Tproxy } else { Mode::Redirect };
        RedirectPlan {
            mode, inbound_ports, interfaces, exclude_interfaces, reroute_interfaces, dns,
            drop_invalid, ..plan
        }
    }
}

/// What the options promise of a connection from the application to somewhere else.
fn promised(plan: &RedirectPlan, connection: &Connection<'_>) -> Option<u16> {
    let (to, port) = (connection.destination.ip(), connection.destination.port());
    let holds =
        |cidr: &Cidr| cidr.address.is_ipv4() == to.is_ipv4() && Cidr::new(to, cidr.prefix) == *cidr;
    let listed = match &plan.interfaces {
        Capture::All => true,
        Capture::Only(names) => names.iter().any(|name| name.matches(connection.interface)),
    };
    let excluded =
        |names: &BTreeSet<Interface>| names.iter().any(|name| name.matches(connection.interface));
    let among = |ids: &Capture<u32>, id: u32| match ids {
        Capture::All => true,
        Capture::Only(ids) => ids.contains(&id),
    };
    let left_alone = !listed
        || excluded(&plan.exclude_interfaces)
        || plan.exclude_outbound_ports.contains(&port)
        || plan.exclude_outbound_uids.contains(&connection.uid)
        || plan.exclude_outbound_gids.contains(&connection.gid)
        || !among(&plan.outbound_uids, connection.uid)
        || !among(&plan.outbound_gids, connection.gid);
    if left_alone {
        return None;
    }
    let asks = port == 53
        && match &plan.dns {
            Dns::Off => false,
            Dns::All => true,
            Dns::Servers(servers) => servers.contains(&to),
        };
    if asks {
        return Some(DNS_PORT);
    }
    let wanted = plan.outbound_ports.contains(&port)
        || match &plan.outbound_cidrs {
            Capture::All => true,
            Capture::Only(cidrs) => cidrs.iter().any(holds),
        };
    let captured = connection.protocol == Protocol::Tcp
        && wanted
        && !plan.exclude_outbound_cidrs.iter().any(holds);
    captured.then_some(plan.proxy_port)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The rules do what the options say, in every combination.
    #[test]
    fn rules_keep_the_promises_of_options(
        plan in plans(),
        to in proptest::sample::select(parsed::<IpAddr>(
            &["10.9.1.1", "10.96.0.10", "192.0.2.1", "fd09::1", "fd00::a", "2001:db8::1"],
        )),
        port in proptest::sample::select(vec![53, 80, 443, 3306, 9999]),
        udp in any::<bool>(),
        interface in proptest::sample::select(vec!["eth0", "net1"]),
        uid in proptest::sample::select(vec![0, 1000, 1001]),
        gid in proptest::sample::select(vec![0, 100]),
    ) {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let connection = Connection {
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            interface,
            source: if to.is_ipv4() { "10.0.0.7" } else { "fd00::7" }.parse().unwrap(),
            destination: SocketAddr::new(to, port),
            uid,
            gid,
        };
        let rules = rules(&plan, family);
        prop_assert_eq!(destination(&rules, &connection), promised(&plan, &connection));
        for (uid, gid) in [(1337, gid), (uid, 1337)] {
            let of_proxy = Connection { uid, gid, ..connection.clone() };
            prop_assert_eq!(destination(&rules, &of_proxy), None, "the proxy's own");
        }
    }

    /// What the probe tries is redirected by the rules, so it raises no false alarm.
    #[test]
    fn the_probe_tries_only_what_is_captured(plan in plans(), uid in 0..2_u32) {
        let user = probe::User { uid: uid * 1000, gid: 0 };
        let route = |to: IpAddr| Some(probe::Route {
            interface: if to.is_loopback() || to == Family::V6.passthrough().address {
                "lo"
            } else {
                "eth0"
            }.to_owned(),
            source: to,
        });
        for target in probe::targets(&plan, &Family::BOTH, user, route) {
            let way = route(target.address.ip()).unwrap();
            let connection = Connection {
                protocol: match target.what {
                    probe::What::Dns(protocol) => protocol,
                    _ => Protocol::Tcp,
                },
                interface: &way.interface,
                source: way.source,
                destination: target.address,
                uid: user.uid,
                gid: user.gid,
            };
            let rules = rules(&plan, target.family);
            prop_assert_eq!(destination(&rules, &connection), Some(target.arrives), "{}", target);
        }
    }

    /// No name is too long for iptables, and each chain that is jumped to exists before it is.
    #[test]
    fn chains_are_well_formed(plan in plans()) {
        for family in Family::BOTH {
            let rules = rules(&plan, family);
            let mut known: Vec<(Table, &str)> = Vec::new();
            let jumps = |rule: &Rule| match rule.then {
                Verdict::Jump(name) => Some(name),
                _ => None,
            };
            for chain in &rules.chains {
                prop_assert!(chain.name.len() <= 28);
                prop_assert!(known.iter().all(|(_, name)| *name != chain.name), "{}", chain.name);
                for name in chain.rules.iter().filter_map(jumps) {
                    prop_assert!(known.contains(&(chain.table, name)), "{name}");
                }
                known.push((chain.table, chain.name));
            }
            for entry in &rules.entries {
                let name = jumps(&entry.rule).unwrap();
                prop_assert!(known.contains(&(entry.table, name)), "{name}");
            }
        }
    }
}
