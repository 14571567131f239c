//! DNS messages as bytes. Pure.
//!
//! hickory reads and writes headers, names and questions. Records of others pass as they lie in their
//! message: nothing gets lost of types that nobody here knows, and hickory's codecs of forty record
//! types are not linked into every pod's agent.

use std::{net::IpAddr, ops::Range};

use hickory_proto::{
    op::{Header, HeaderCounts, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder},
};

mod reply;

pub use reply::{Reply, compose};

/// The OPT record without options: what EDNS costs in a reply.
const OPT_LENGTH: usize = 11;
/// A UDP message of a client without EDNS.
const UDP_LENGTH: usize = 512;
/// What we take over UDP ourselves: fits into the packets of any network.
const PAYLOAD: u16 = 1232;
/// More is never sent over UDP, however large a client's buffer.
const UDP_MOST: usize = 4096;
const DNSSEC_OK: u32 = 1 << 15;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A question as upstream hears it: equal ones have equal answers. Names do not tell upper from
/// lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub query: Query,
    recursion_desired: bool,
    authentic_data: bool,
    checking_disabled: bool,
    /// With EDNS; and whether signatures are wanted.
    edns: Option<bool>,
}

/// A question with what its reply must repeat.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: u16,
    pub question: Question,
    /// The question's bytes, in the upper and lower case of the client (0x20).
    asked: Vec<u8>,
    /// What the client takes over UDP.
    payload: u16,
}

/// What to do with a packet.
#[derive(Debug)]
pub enum Received {
    /// Not a question. Whoever answers noise can be made to send it to others.
    Ignored,
    /// A question that is not answered, with what to say.
    Refused(Vec<u8>),
    Asked(Box<Request>),
}

/// One of a message's sections after the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

/// Where a record lies in its message.
#[derive(Clone, Debug)]
pub struct Span {
    pub section: Section,
    pub kind: RecordType,
    pub class: u16,
    pub ttl: u32,
    /// Where the record begins, with its name.
    pub start: usize,
    pub data: Range<usize>,
}

/// A message, read.
#[derive(Clone, Debug)]
pub struct Message {
    pub header: Header,
    pub query: Query,
    /// Where the question ends.
    pub question_end: usize,
    pub records: Vec<Span>,
}

impl Message {
    /// Reads a message with one question.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok().filter(|h| h.counts.queries == 1)?;
        let query = Query::read(&mut decoder).ok()?;
        let question_end = decoder.index();
        let counts = header.counts;
        let sections = [
            (Section::Answer, counts.answers),
            (Section::Authority, counts.authorities),
            (Section::Additional, counts.additionals),
        ];
        let mut records = Vec::new();
        for (section, count) in sections {
            for _ in 0..count {
                records.push(span(&mut decoder, section)?);
            }
        }
        Some(Self { header, query, question_end, records })
    }

    /// The records of a section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Span> {
        self.records.iter().filter(move |record| record.section == section)
    }
}

fn span(decoder: &mut BinDecoder<'_>, section: Section) -> Option<Span> {
    let start = decoder.index();
    Name::read(decoder).ok()?;
    let kind = RecordType::from(word(decoder)?);
    let class = word(decoder)?;
    let ttl = decoder.read_u32().ok()?.unverified(/* any is valid */);
    let length = usize::from(word(decoder)?);
    let from = decoder.index();
    decoder.read_slice(length).ok()?;
    Some(Span { section, kind, class, ttl, start, data: from..from + length })
}

fn word(decoder: &mut BinDecoder<'_>) -> Option<u16> {
    Some(decoder.read_u16().ok()?.unverified(/* any is valid */))
}

/// The addresses and aliases in a reply.
pub fn records(reply: &[u8]) -> Vec<Record> {
    let message = Message::read(reply);
    let answers = message.iter().flat_map(|message| message.section(Section::Answer));
    answers.filter_map(|span| record(reply, span)).collect()
}

fn record(reply: &[u8], span: &Span) -> Option<Record> {
    let name = |at: usize| {
        let at = u16::try_from(at).ok()?;
        Name::read(&mut BinDecoder::new(reply).clone(at)).ok()
    };
    let data = &reply[span.data.clone()];
    let data = match span.kind {
        RecordType::A => Data::Address(<[u8; 4]>::try_from(data).ok()?.into()),
        RecordType::AAAA => Data::Address(<[u8; 16]>::try_from(data).ok()?.into()),
        RecordType::CNAME => Data::Alias(name(span.data.start)?),
        _ => return None,
    };
    Some(Record { owner: name(span.start)?, ttl: span.ttl, data })
}

/// Reads a packet from a client.
pub fn receive(packet: &[u8]) -> Received {
    let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else { return Received::Ignored };
    if header.message_type == MessageType::Response {
        return Received::Ignored;
    }
    if header.op_code != OpCode::Query {
        return Received::Refused(bare(&header, ResponseCode::NotImp));
    }
    if header.counts.queries != 1 {
        return Received::Refused(bare(&header, ResponseCode::Refused));
    }
    let Some(message) = Message::read(packet) else { return Received::Ignored };
    let mut opts = message.records.iter().filter(|record| record.kind == RecordType::OPT);
    let (opt, another) = (opts.next(), opts.next());
    let request = Request::new(packet, &message, opt);
    if another.is_some() {
        return Received::Refused(request.failure(ResponseCode::FormErr));
    }
    let version = opt.map_or(0, |opt| opt.ttl.to_be_bytes()[1]);
    if version != 0 {
        return Received::Refused(request.failure(ResponseCode::BADVERS));
    }
    Received::Asked(Box::new(request))
}

/// A reply to a message whose question is not repeated.
fn bare(header: &Header, code: ResponseCode) -> Vec<u8> {
    let mut metadata = Metadata::response_from_request(&header.metadata);
    metadata.response_code = code;
    encode(|encoder| Header { metadata, counts: HeaderCounts::default() }.emit(encoder))
}

impl Request {
    fn new(packet: &[u8], message: &Message, opt: Option<&Span>) -> Self {
        let header = &message.header;
        let question = Question {
            query: message.query.clone(),
            recursion_desired: header.recursion_desired,
            authentic_data: header.authentic_data,
            checking_disabled: header.checking_disabled,
            edns: opt.map(|opt| opt.ttl & DNSSEC_OK != 0),
        };
        let asked = packet[Self::START..message.question_end].to_vec();
        Self { id: header.id, question, asked, payload: opt.map_or(0, |opt| opt.class) }
    }

    /// Where the question begins: right after the header.
    const START: usize = 12;

    /// How long a reply may be.
    pub fn limit(&self, transport: Transport) -> usize {
        match transport {
            Transport::Udp => usize::from(self.payload).clamp(UDP_LENGTH, UDP_MOST),
            Transport::Tcp => usize::from(u16::MAX),
        }
    }

    /// A reply without records.
    pub fn failure(&self, code: ResponseCode) -> Vec<u8> {
        compose(self, code, false, &[]).fit(self, UDP_LENGTH)
    }
}

impl Question {
    /// The same question about another name, an alias's target.
    #[must_use]
    pub fn about(&self, name: Name) -> Self {
        let query = Query::query(name, self.query.query_type());
        Self { query, ..self.clone() }
    }

    /// A question about internet names, of this type.
    pub fn internet(&self) -> Option<RecordType> {
        (self.query.query_class() == DNSClass::IN).then(|| self.query.query_type())
    }

    /// The question as it is sent upstream. Without EDNS unless the client spoke it: some servers
    /// still refuse what they do not know.
    pub fn encode(&self, id: u16) -> Vec<u8> {
        let mut metadata = Metadata::new(id, MessageType::Query, OpCode::Query);
        metadata.recursion_desired = self.recursion_desired;
        metadata.authentic_data = self.authentic_data;
        metadata.checking_disabled = self.checking_disabled;
        let additionals = u16::from(self.edns.is_some());
        let counts = HeaderCounts { queries: 1, additionals, ..HeaderCounts::default() };
        let mut bytes = encode(|encoder| {
            Header { metadata, counts }.emit(encoder)?;
            self.query.emit(encoder)
        });
        if let Some(dnssec_ok) = self.edns {
            bytes.extend_from_slice(&opt(0, dnssec_ok));
        }
        bytes
    }
}

/// An OPT record, with the upper bits of the response's code.
fn opt(code: u8, dnssec_ok: bool) -> [u8; OPT_LENGTH] {
    let [high, low] = PAYLOAD.to_be_bytes();
    let kind = RecordType::OPT;
    let [kind_high, kind_low] = u16::from(kind).to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    [0, kind_high, kind_low, high, low, code, 0, flags, 0, 0, 0]
}

/// Encodes what fits into a message, as all that is encoded here does: a header, one question, and
/// a bounded number of addresses and aliases.
fn encode(
    emit: impl FnOnce(&mut BinEncoder<'_>) -> Result<(), hickory_proto::ProtoError>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(UDP_LENGTH);
    if let Err(error) = emit(&mut BinEncoder::new(&mut bytes)) {
        tracing::warn!(%error, "a DNS message cannot be encoded");
    }
    bytes
}

/// A record of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub owner: Name,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Address(IpAddr),
    Alias(Name),
}

#[cfg(test)]
mod tests;
