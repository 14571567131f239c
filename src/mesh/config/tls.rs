//! What TLS may be, and whose identities are known.

use super::MESH;
use crate::{
    api::meshwright::{
        MeshSettings,
        mesh::{TlsProtocol, TlsSettings},
    },
    mesh::{
        MeshConfig, TlsVersions,
        report::{Path, Report},
    },
};

/// Ciphers of TLS 1.2 that Envoy has.
const CIPHERS: [&str; 14] = [
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "AES256-SHA",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

const CURVES: [&str; 5] = ["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"];

pub(super) fn convert(mesh: &MeshSettings, config: &mut MeshConfig, report: &mut Report) {
    config.auto_tls = mesh.enable_auto_mtls;
    config.mesh_tls = versions(&mesh.mesh_mtls, &MESH.field("meshMTLS"), report);
    config.other_tls = versions(&mesh.tls_defaults, &MESH.field("tlsDefaults"), report);
    let ecdsa = |cipher: &String| cipher.starts_with("ECDHE-ECDSA-");
    let ciphers = &config.mesh_tls.ciphers;
    if !config.mesh_tls.newest_only && !ciphers.is_empty() && !ciphers.iter().any(ecdsa) {
        let path = MESH.field("meshMTLS");
        let message = "workloads' keys are ECDSA: without a cipher ECDHE-ECDSA-… TLS 1.2 cannot be \
                       spoken between them, only 1.3";
        report.warning(&path.field("cipherSuites"), "NoUsableCipher", message);
    }
    let aliases = MESH.field("trustDomainAliases");
    for (index, alias) in mesh.trust_domain_aliases.iter().enumerate() {
        if is_trust_domain(alias) {
            config.trust_domain_aliases.push(alias.clone());
        } else {
            let message = format!("{alias:?} is no trust domain");
            report.error(&aliases.index(index), "InvalidTrustDomain", message);
        }
    }
}

fn versions(settings: &TlsSettings, path: &Path<'_>, report: &mut Report) -> TlsVersions {
    let newest_only = settings.min_protocol_version == TlsProtocol::V1_3;
    let suites = path.field("cipherSuites");
    let ciphers = known(&settings.cipher_suites, &CIPHERS, &suites, report);
    if newest_only && !ciphers.is_empty() {
        let message = "has no effect: TLS 1.3 alone is spoken, whose ciphers cannot be chosen";
        report.warning(&suites, "NoEffect", message);
    }
    let curves = known(&settings.ecdh_curves, &CURVES, &path.field("ecdhCurves"), report);
    TlsVersions { newest_only, ciphers, curves }
}

/// Those that Envoy knows: it would refuse all of the listener for one that it does not.
fn known(names: &[String], all: &[&str], path: &Path<'_>, report: &mut Report) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let path = path.index(index);
        if !all.contains(&name.as_str()) {
            let message = format!("there is no {name}: use {}", all.join(", "));
            report.error(&path, "Unknown", message);
        } else if kept.contains(name) {
            report.error(&path, "Duplicate", format!("{name} stands above it already"));
        } else {
            kept.push(name.clone());
        }
    }
    kept
}

fn is_trust_domain(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    (1..=253).contains(&name.len()) && name.chars().all(sound)
}
