//! Certificates and tokens of a throwaway cluster: made new for each, valid for a month.

use std::{
    fmt::Write,
    fs::{self, File, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
    process::Command,
};

use anyhow::{Context, Result};

use super::node::{API_SERVICE, NODE_NAME, Node};
use crate::{images, process};

/// A component's name, its Kubernetes user and groups.
const USERS: [(&str, &str, &str); 6] = [
    ("admin", "admin", "system:masters"),
    ("kubelet", "system:node:node1", "system:nodes"),
    ("proxy", "system:kube-proxy", ""),
    ("manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    // CoreDNS runs beside the API server; its rights are bound with its Service.
    ("dns", "meshwright:dns", ""),
];

/// Makes the CA, the API server's certificates and a kubeconfig for each user.
pub fn make(node: &Node) -> Result<()> {
    fs::create_dir_all(node.pki(""))?;
    fs::set_permissions(node.pki(""), Permissions::from_mode(0o700))?;
    authority(node)?;
    let names = format!(
        "subjectAltName=IP:127.0.0.1,IP:{},IP:{API_SERVICE},DNS:localhost,DNS:{NODE_NAME},\
         DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local\nextendedKeyUsage=serverAuth\n",
        node.address()
    );
    issue(node, "apiserver", "/CN=kube-apiserver", &names)?;
    issue(
        node,
        "kubelet-client",
        "/O=system:masters/CN=apiserver",
        "extendedKeyUsage=clientAuth\n",
    )?;
    key(node, "accounts")?;
    openssl(node, &["pkey", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"])?;
    tokens(node)
}

fn authority(node: &Node) -> Result<()> {
    key(node, "ca")?;
    let request =
        ["req", "-x509", "-key", "ca.key", "-out", "ca.crt", "-subj", "/CN=meshwright-e2e"];
    openssl(node, &[&request[..], &["-days", "30"]].concat())
}

fn issue(node: &Node, name: &str, subject: &str, extensions: &str) -> Result<()> {
    key(node, name)?;
    let [key, request, certificate, text] =
        ["key", "csr", "crt", "ext"].map(|kind| format!("{name}.{kind}"));
    fs::write(node.pki(&text), extensions)?;
    openssl(node, &["req", "-new", "-key", &key, "-out", &request, "-subj", subject])?;
    let sign =
        ["x509", "-req", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30"];
    let files = ["-in", &request, "-out", &certificate, "-extfile", &text];
    openssl(node, &[&sign[..], &files].concat())
}

fn key(node: &Node, name: &str) -> Result<()> {
    let file = format!("{name}.key");
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &file];
    openssl(node, &[&["genpkey"], &curve[..]].concat())
}

fn openssl(node: &Node, arguments: &[&str]) -> Result<()> {
    process::run(Command::new("openssl").args(arguments).current_dir(node.pki("")))
}

/// Static tokens serve a cluster that lives for a day.
fn tokens(node: &Node) -> Result<()> {
    let mut table = String::new();
    for (component, user, groups) in USERS {
        let token = random_token()?;
        writeln!(table, "{token},{user},{component},\"{groups}\"")?;
        let file = node.kubeconfig(component);
        fs::write(&file, kubeconfig(node, &token))?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    }
    let file = node.pki("tokens.csv");
    fs::write(&file, table)?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    Ok(())
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(images::hex(&bytes))
}

fn kubeconfig(node: &Node, token: &str) -> String {
    let (name, address, ca) = (&node.name, node.address(), node.pki("ca.crt"));
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster: {{server: "https://{address}:6443", certificate-authority: "{}"}}
users:
- name: {name}
  user: {{token: "{token}"}}
contexts:
- name: meshwright-{name}
  context: {{cluster: {name}, user: {name}}}
current-context: meshwright-{name}
"#,
        ca.display()
    )
}
