//! Network namespaces, and the cables between them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// For `ip -batch`. Without duplicate address detection an address is there at once.
const POD: &str = "\
link set lo up
link add eth0 type veth peer name eth0 netns CLIENT
link add net1 type veth peer name net1 netns CLIENT
address add 10.77.0.1/24 dev eth0
address add fd77::1/64 dev eth0 nodad
address add 10.78.0.1/24 dev net1
address add fd78::1/64 dev net1 nodad
link set eth0 up
link set net1 up
route add default via 10.77.0.2
route add default via fd77::2
";

const CLIENT: &str = "\
link set lo up
address add 10.77.0.2/24 dev eth0
address add 10.77.0.3/24 dev eth0
address add fd77::2/64 dev eth0 nodad
address add fd77::3/64 dev eth0 nodad
address add 10.78.0.2/24 dev net1
address add fd78::2/64 dev net1 nodad
link set eth0 up
link set net1 up
";

const POD_WITH_MACHINE: &str = "\
link add tap0 type veth peer name eth0 netns MACHINE
address add 10.79.0.1/24 dev tap0
address add fd79::1/64 dev tap0 nodad
link set tap0 up
";

const MACHINE: &str = "\
address add 10.79.0.2/24 dev eth0
address add fd79::2/64 dev eth0 nodad
link set eth0 up
route add default via 10.79.0.1
route add default via fd79::1
";

const CLIENT_OF_MACHINE: &str = "\
route add 10.79.0.0/24 via 10.77.0.1
route add fd79::/64 via fd77::1
";

/// Makes the namespaces of a pod and a client, with two cables between them.
pub fn cables(pod: &str, client: &str, ipv6: bool) {
    ip_batch(None, &format!("netns add {pod}\nnetns add {client}\n"));
    if !ipv6 {
        let off = "for f in all default lo; do \
                   echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done";
        sh(pod, off);
        sh(client, off);
    }
    let family = |line: &&str| ipv6 || !line.contains("fd7");
    let lines = |text: &str| text.lines().filter(family).collect::<Vec<_>>().join("\n");
    ip_batch(Some(pod), &lines(POD).replace("CLIENT", client));
    ip_batch(Some(client), &lines(CLIENT));
}

/// Makes the namespace of a virtual machine behind `tap0` of the pod, which forwards for it.
pub fn machine(machine: &str, pod: &str, client: &str) {
    ip_batch(None, &format!("netns add {machine}\n"));
    ip_batch(Some(pod), &POD_WITH_MACHINE.replace("MACHINE", machine));
    ip_batch(Some(machine), MACHINE);
    ip_batch(Some(client), CLIENT_OF_MACHINE);
    sh(
        pod,
        "echo 1 > /proc/sys/net/ipv4/ip_forward; \
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
}

fn sh(namespace: &str, command: &str) {
    assert!(enter(namespace).args(["sh", "-ec", command]).status().unwrap().success(), "{command}");
}

/// Many commands in one process.
fn ip_batch(namespace: Option<&str>, script: &str) {
    let mut child = Command::new("ip")
        .args(namespace.into_iter().flat_map(|name| ["-n", name]))
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn enter(namespace: &str) -> Command {
    let mut command = Command::new("/usr/bin/nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command
}

pub fn enter_as(namespace: &str, uid: u32, gid: u32) -> Command {
    let mut command = enter(namespace);
    command.args([format!("--setuid={uid}"), format!("--setgid={gid}")]);
    command
}
