//! Replies: composed of our own records, or taken from upstream, then made to measure for a client.

use std::net::IpAddr;

use hickory_proto::{
    ProtoError,
    op::{Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, RecordType},
    serialize::binary::{BinEncodable, BinEncoder},
};

use super::{Data, Message, OPT_LENGTH, Question, Record, Request, Section, encode, opt};

/// Bit of the header's third byte: the message is cut.
const TRUNCATED: u8 = 0x02;
const ID: std::ops::Range<usize> = 0..2;
const FLAGS: usize = 2;
/// Where the counts of answers, authorities and additional records stand.
const COUNTS: usize = 6;

/// A whole reply, without EDNS.
#[derive(Clone, Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    code: ResponseCode,
}

/// A reply of our own.
pub fn compose(
    request: &Request,
    code: ResponseCode,
    authoritative: bool,
    records: &[Record],
) -> Reply {
    let question = &request.question;
    let mut metadata = Metadata::new(request.id, MessageType::Response, OpCode::Query);
    metadata.authoritative = authoritative;
    metadata.recursion_desired = question.recursion_desired;
    metadata.recursion_available = true;
    metadata.checking_disabled = question.checking_disabled;
    metadata.response_code = code;
    let answers = u16::try_from(records.len()).unwrap_or(u16::MAX);
    let counts = HeaderCounts { queries: 1, answers, ..HeaderCounts::default() };
    let bytes = encode(|encoder| {
        Header { metadata, counts }.emit(encoder)?;
        question.query.emit(encoder)?;
        records.iter().try_for_each(|record| emit(record, encoder))
    });
    Reply { bytes, code }
}

fn emit(record: &Record, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
    record.owner.emit(encoder)?;
    let kind = match record.data {
        Data::Address(IpAddr::V4(_)) => RecordType::A,
        Data::Address(IpAddr::V6(_)) => RecordType::AAAA,
        Data::Alias(_) => RecordType::CNAME,
    };
    kind.emit(encoder)?;
    DNSClass::IN.emit(encoder)?;
    encoder.emit_u32(record.ttl)?;
    let length = encoder.place::<u16>()?;
    match &record.data {
        Data::Address(IpAddr::V4(address)) => encoder.emit_vec(&address.octets())?,
        Data::Address(IpAddr::V6(address)) => encoder.emit_vec(&address.octets())?,
        Data::Alias(name) => name.emit(encoder)?,
    }
    let written = u16::try_from(encoder.len_since_place(&length)).unwrap_or(u16::MAX);
    length.replace(encoder, written)
}

impl Reply {
    /// Takes upstream's answer, if it is one to the question. What EDNS says is between upstream and
    /// us, and stays behind.
    pub fn adopt(mut bytes: Vec<u8>, question: &Question) -> Option<Self> {
        let message = Message::read(&bytes)?;
        if message.header.message_type != MessageType::Response || message.query != question.query {
            return None;
        }
        let records = &message.records;
        let opt = records.iter().position(|record| record.kind == RecordType::OPT);
        // OPT comes last. Where it does not, what is around it goes too: all of it is optional.
        let kept = match opt {
            Some(at) if at + 1 == records.len() => at,
            Some(_) => records.iter().take_while(|r| r.section != Section::Additional).count(),
            None => records.len(),
        };
        let high = opt.map_or(0, |at| records[at].ttl.to_be_bytes()[0]);
        let code = ResponseCode::from(high, message.header.response_code.low());
        bytes.truncate(end_of(&message, kept));
        set_counts(&mut bytes, &message, kept);
        Some(Self { bytes, code })
    }

    pub fn code(&self) -> ResponseCode {
        self.code
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Upstream cut it, and has more over TCP.
    pub fn is_truncated(&self) -> bool {
        self.bytes[FLAGS] & TRUNCATED != 0
    }

    /// The name exists, whatever upstream says.
    pub fn exists(&mut self) {
        if self.code == ResponseCode::NXDomain {
            self.code = ResponseCode::NoError;
            self.bytes[FLAGS + 1] &= 0xf0;
        }
    }

    /// Changes how long each record may be kept.
    pub fn map_ttl(&mut self, ttl: impl Fn(u32) -> u32) {
        for record in Message::read(&self.bytes).into_iter().flat_map(|message| message.records) {
            // The length of the data stands between.
            let at = record.data.start - 6;
            self.bytes[at..at + 4].copy_from_slice(&ttl(record.ttl).to_be_bytes());
        }
    }

    /// The bytes for one client: its id, its spelling of the name, and no longer than it takes.
    pub fn fit(mut self, request: &Request, limit: usize) -> Vec<u8> {
        let edns = request.question.edns;
        let room = limit - edns.map_or(0, |_| OPT_LENGTH);
        let Some(message) = Message::read(&self.bytes) else { return self.bytes };
        let kept = message.records.iter().take_while(|record| record.data.end <= room).count();
        if kept < message.records.len() {
            self.bytes.truncate(end_of(&message, kept));
            set_counts(&mut self.bytes, &message, kept);
            // What is additional is not missed.
            if message.records[kept].section != Section::Additional {
                self.bytes[FLAGS] |= TRUNCATED;
            }
        }
        self.bytes[ID].copy_from_slice(&request.id.to_be_bytes());
        let question = &mut self.bytes[Request::START..message.question_end];
        if question.len() == request.asked.len() {
            question.copy_from_slice(&request.asked);
        }
        if let Some(dnssec_ok) = edns {
            self.bytes.extend_from_slice(&opt(self.code.high(), dnssec_ok));
            let additionals = self.bytes[COUNTS + 5];
            let (sum, carry) = additionals.overflowing_add(1);
            self.bytes[COUNTS + 5] = sum;
            self.bytes[COUNTS + 4] += u8::from(carry);
        }
        self.bytes
    }
}

/// Where the first `kept` records end. Nothing points forward in a message, so it can be cut there.
fn end_of(message: &Message, kept: usize) -> usize {
    kept.checked_sub(1).map_or(message.question_end, |last| message.records[last].data.end)
}

fn set_counts(bytes: &mut [u8], message: &Message, kept: usize) {
    let sections = [Section::Answer, Section::Authority, Section::Additional];
    for (section, count) in sections.into_iter().zip(bytes[COUNTS..].chunks_exact_mut(2)) {
        let records = message.records[..kept].iter().filter(|record| record.section == section);
        let records = u16::try_from(records.count()).unwrap_or(u16::MAX);
        count.copy_from_slice(&records.to_be_bytes());
    }
}
