//! The few frames of HTTP/2 that one client and one server need (RFC 9113).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What either side may send until the other says otherwise.
pub const INITIAL_WINDOW: i64 = 65_535;
/// The largest frame that every server takes.
const LARGEST: usize = 16_384;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const SETTING_WINDOW: u16 = 4;
/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

/// The head of every request: `:method: POST`, `:scheme: https`, path, authority, content type, all
/// from HPACK's static table or as plain text.
const REQUEST: &[u8] =
    b"\x83\x87\x04\x0f/inject/default\x01\x09localhost\x0f\x10\x10application/json";

/// A frame of the server.
pub struct Frame {
    pub stream: u32,
    pub kind: Kind,
}

pub enum Kind {
    Data {
        part: Bytes,
        last: bool,
    },
    Headers {
        is_ok: bool,
    },
    Settings {
        initial_window: Option<i64>,
    },
    Window(u32),
    Ping([u8; 8]),
    Broken(&'static str),
    /// Nothing that a client has to act on.
    Nothing,
}

impl Frame {
    /// The next frame that is there as a whole.
    pub fn take(incoming: &mut BytesMut) -> Option<Self> {
        let mut head = incoming.get(..HEAD)?;
        let length = usize::try_from(head.get_uint(3)).ok()?;
        let (kind, flags) = (head.get_u8(), head.get_u8());
        let stream = head.get_u32() & (u32::MAX >> 1);
        if incoming.len() < HEAD + length {
            return None;
        }
        incoming.advance(HEAD);
        let payload = incoming.split_to(length).freeze();
        Some(Self { stream, kind: Kind::of(kind, flags, payload) })
    }
}

impl Kind {
    fn of(kind: u8, flags: u8, mut payload: Bytes) -> Self {
        match kind {
            DATA => Self::Data { part: payload, last: flags & END_STREAM != 0 },
            HEADERS => Self::Headers { is_ok: payload.contains(&STATUS_200) },
            SETTINGS if flags & ACK == 0 => Self::Settings { initial_window: window_of(payload) },
            WINDOW_UPDATE if payload.len() == 4 => Self::Window(payload.get_u32()),
            PING if flags & ACK == 0 => payload[..].try_into().map_or(Self::Nothing, Self::Ping),
            RST_STREAM => Self::Broken("RST_STREAM"),
            GOAWAY => Self::Broken("GOAWAY"),
            _ => Self::Nothing,
        }
    }
}

fn window_of(mut settings: Bytes) -> Option<i64> {
    let mut window = None;
    while settings.len() >= 6 {
        let (name, value) = (settings.get_u16(), settings.get_u32());
        if name == SETTING_WINDOW {
            window = Some(i64::from(value));
        }
    }
    window
}

fn head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    out.put_uint(length as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

/// How a connection begins, with this window for all streams together and for each.
pub fn preface(size: u32) -> BytesMut {
    let mut out = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]);
    head(&mut out, 6, SETTINGS, 0, 0);
    out.put_u16(SETTING_WINDOW);
    out.put_u32(size);
    window(&mut out, size);
    out
}

pub fn window(out: &mut BytesMut, more: u32) {
    head(out, 4, WINDOW_UPDATE, 0, 0);
    out.put_u32(more);
}

pub fn acknowledge_settings(out: &mut BytesMut) {
    head(out, 0, SETTINGS, ACK, 0);
}

pub fn pong(out: &mut BytesMut, opaque: [u8; 8]) {
    head(out, opaque.len(), PING, ACK, 0);
    out.put_slice(&opaque);
}

/// A whole request.
pub fn request(out: &mut BytesMut, stream: u32, body: &[u8]) {
    head(out, REQUEST.len(), HEADERS, END_HEADERS, stream);
    out.put_slice(REQUEST);
    let mut parts = body.chunks(LARGEST).peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() { END_STREAM } else { 0 };
        head(out, part.len(), DATA, flags, stream);
        out.put_slice(part);
    }
}
