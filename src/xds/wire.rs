//! Responses as bytes, made from resources that are encoded already.
//!
//! A response is a short head of its own and a body of resources. The body depends on nothing but
//! the resources, so it is made once and handed to every connection as the same bytes: what a
//! thousand proxies are sent at once exists in memory once.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::{Resource, ResourceType, Response, Variant};

/// Field numbers of DiscoveryResponse, DeltaDiscoveryResponse, Resource and Any.
mod field {
    pub(super) const VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED: u32 = 6;
    pub(super) const RESOURCE_VERSION: u32 = 1;
    pub(super) const RESOURCE_ANY: u32 = 2;
    pub(super) const RESOURCE_NAME: u32 = 3;
    pub(super) const ANY_TYPE_URL: u32 = 1;
    pub(super) const ANY_VALUE: u32 = 2;
}

/// Below this, copying is cheaper than remembering.
const SHARED_FROM: usize = 16 * 1024;
/// Bodies that are kept for the next proxy to connect.
const KEPT: usize = 8;
/// Flag (not compressed) and length, before each gRPC message.
const GRPC_PREFIX: usize = 5;

/// Encodes responses, and remembers large bodies while they are in use.
#[derive(Debug, Default)]
pub struct Encoder {
    bodies: Mutex<VecDeque<Body>>,
}

#[derive(Debug)]
struct Body {
    key: u128,
    bytes: Bytes,
    used: bool,
}

impl Encoder {
    /// The gRPC message, as one or more pieces in order.
    pub fn encode(&self, response: &Response) -> Vec<Bytes> {
        let size: usize =
            response.resources.iter().map(|r| field_len(framed_len(r, response))).sum();
        let mut head = head(response);
        let length = head.len() - GRPC_PREFIX + size;
        head[1..GRPC_PREFIX].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_be_bytes());
        if size < SHARED_FROM {
            head.reserve(size);
            put_resources(response, &mut head);
            return vec![head.freeze()];
        }
        vec![head.freeze(), self.body(response, size)]
    }

    /// Forgets bodies that nobody was sent since the last call. Called now and then, so that an
    /// idle control plane does not keep what its last busy moment needed.
    pub fn release_idle(&self) {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain_mut(|body| std::mem::take(&mut body.used));
    }

    fn body(&self, response: &Response, size: usize) -> Bytes {
        let key = key(response);
        // Held while encoding: whoever wants the same body waits for it instead of making another.
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = bodies.iter_mut().find(|body| body.key == key) {
            found.used = true;
            return found.bytes.clone();
        }
        let mut buffer = BytesMut::with_capacity(size);
        put_resources(response, &mut buffer);
        let bytes = buffer.freeze();
        if bodies.len() == KEPT {
            bodies.pop_front();
        }
        bodies.push_back(Body { key, bytes: bytes.clone(), used: true });
        bytes
    }
}

/// A body is named by the contents in it: a resource's version is the hash of its bytes, its name
/// included.
fn key(response: &Response) -> u128 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&[response.kind as u8, response.variant as u8]);
    for resource in &response.resources {
        hasher.update(&resource.version.to_le_bytes());
    }
    hasher.digest128()
}

fn head(response: &Response) -> BytesMut {
    let removed: usize = response.removed.iter().map(|name| field_len(name.len())).sum();
    let mut head = BytesMut::with_capacity(GRPC_PREFIX + 160 + removed);
    head.put_bytes(0, GRPC_PREFIX);
    let nonce = response.nonce.to_string();
    put_bytes(field::VERSION_INFO, nonce.as_bytes(), &mut head);
    put_bytes(field::TYPE_URL, response.kind.type_url().as_bytes(), &mut head);
    put_bytes(field::NONCE, nonce.as_bytes(), &mut head);
    for name in &response.removed {
        put_bytes(field::REMOVED, name.as_bytes(), &mut head);
    }
    head
}

fn put_resources(response: &Response, buffer: &mut BytesMut) {
    for resource in &response.resources {
        match response.variant {
            Variant::Delta => put_resource(resource, response.kind, buffer),
            Variant::StateOfTheWorld => {
                put_any(field::RESOURCES, resource, response.kind, buffer);
            }
        }
    }
}

fn put_resource(resource: &Resource, kind: ResourceType, buffer: &mut BytesMut) {
    put_length(field::RESOURCES, resource_len(resource, kind), buffer);
    put_bytes(field::RESOURCE_VERSION, &version(resource), buffer);
    put_any(field::RESOURCE_ANY, resource, kind, buffer);
    put_bytes(field::RESOURCE_NAME, resource.name.as_bytes(), buffer);
}

fn put_any(tag: u32, resource: &Resource, kind: ResourceType, buffer: &mut BytesMut) {
    put_length(tag, any_len(resource, kind), buffer);
    put_bytes(field::ANY_TYPE_URL, kind.type_url().as_bytes(), buffer);
    put_bytes(field::ANY_VALUE, &resource.body, buffer);
}

fn framed_len(resource: &Resource, response: &Response) -> usize {
    match response.variant {
        Variant::Delta => resource_len(resource, response.kind),
        Variant::StateOfTheWorld => any_len(resource, response.kind),
    }
}

fn resource_len(resource: &Resource, kind: ResourceType) -> usize {
    field_len(VERSION_LEN) + field_len(any_len(resource, kind)) + field_len(resource.name.len())
}

fn any_len(resource: &Resource, kind: ResourceType) -> usize {
    field_len(kind.type_url().len()) + field_len(resource.body.len())
}

const VERSION_LEN: usize = 16;

/// The version as clients see it: the hash in hexadecimal.
fn version(resource: &Resource) -> [u8; VERSION_LEN] {
    let mut text = [b'0'; VERSION_LEN];
    for (position, digit) in text.iter_mut().enumerate() {
        let nibble = (resource.version >> (4 * (VERSION_LEN - 1 - position))) & 0xf;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or(0)];
    }
    text
}

/// Length of a length-delimited field whose number is below 16, as all of ours are.
fn field_len(content: usize) -> usize {
    key_len(1) + encoded_len_varint(content as u64) + content
}

fn put_length(tag: u32, length: usize, buffer: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn put_bytes(tag: u32, content: &[u8], buffer: &mut BytesMut) {
    put_length(tag, content.len(), buffer);
    buffer.put_slice(content);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::envoy::{
        config::cluster::v3::Cluster,
        service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse},
    };
    use prost::Message;

    use super::*;

    fn response(variant: Variant, count: usize) -> Response {
        let cluster = |n: usize| {
            let alt_stat_name = "x".repeat(100);
            Cluster { name: format!("cluster-{n}"), alt_stat_name, ..Cluster::default() }
        };
        Response {
            variant,
            kind: ResourceType::Cluster,
            nonce: 7,
            resources: (0..count).map(|n| Arc::new(Resource::encode(&cluster(n)))).collect(),
            removed: if variant == Variant::Delta { vec!["gone".into()] } else { vec![] },
        }
    }

    fn message(pieces: &[Bytes]) -> Bytes {
        let all = pieces.concat();
        let length = u32::from_be_bytes([all[1], all[2], all[3], all[4]]) as usize;
        assert_eq!((all[0], all.len()), (0, length + GRPC_PREFIX));
        Bytes::from(all).slice(GRPC_PREFIX..)
    }

    #[test]
    fn delta_responses_decode_to_what_was_meant() {
        for count in [0, 3, 1000] {
            let sent = response(Variant::Delta, count);
            let pieces = Encoder::default().encode(&sent);
            let got = DeltaDiscoveryResponse::decode(message(&pieces)).unwrap();
            assert_eq!((got.nonce.as_str(), got.type_url.as_str()), ("7", sent.kind.type_url()));
            assert_eq!(got.removed_resources, ["gone"]);
            assert_eq!(got.resources.len(), count);
            for (got, sent) in got.resources.iter().zip(&sent.resources) {
                assert_eq!(got.name, *sent.name);
                assert_eq!(got.version, format!("{:016x}", sent.version));
                assert_eq!(got.resource.as_ref().unwrap().value, sent.body);
            }
        }
    }

    #[test]
    fn state_of_the_world_responses_decode_to_what_was_meant() {
        let sent = response(Variant::StateOfTheWorld, 500);
        let got = DiscoveryResponse::decode(message(&Encoder::default().encode(&sent))).unwrap();
        assert_eq!(got.resources.len(), 500);
        assert_eq!(got.resources[3].value, sent.resources[3].body);
        assert_eq!(got.resources[3].type_url, sent.kind.type_url());
    }

    #[test]
    fn the_same_resources_are_the_same_bytes_for_everyone() {
        let encoder = Encoder::default();
        let body = |nonce| {
            let sent = Response { nonce, ..response(Variant::Delta, 1000) };
            encoder.encode(&sent).pop().unwrap()
        };
        assert_eq!(body(1).as_ptr(), body(2).as_ptr());
        encoder.release_idle();
        encoder.release_idle();
        assert!(encoder.bodies.lock().unwrap().is_empty());
    }
}
