//! Watches the frames that a client sends over HTTP/2, before the h2 library reads them, for what the library does
//! not report:
//!
//! - pseudo-header fields in trailers (RFC 9113 section 8.1: malformed). The library drops them. The frame loses its
//!   `END_STREAM` flag here, without which the library treats trailers as malformed: a stream error.
//! - requests that the library refuses by itself. They are counted, so that each has its access record.
//! - flow-control windows that stay closed (`windows.rs`).
//!
//! Each request gets a field with the number of its stream, which the library does not tell, so that an interim response
//! finds its way (`interim.rs`).
//!
//! A field block is held back until it is complete, and so are the few other frames that are read here. All others
//! pass as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fields::FieldBlocks;
use super::interim;
use super::windows::{RST_STREAM, SETTINGS, WINDOW_UPDATE, Windows};

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// The largest frame that the gateway allows: it announces no other (RFC 9113 section 6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Interim responses of one connection that wait for their turn, in bytes.
const INTERIM_BYTES_MAX: usize = 64 << 10;

/// What is known of a connection, for the loop that serves it.
#[derive(Debug, Default)]
pub(crate) struct Http2Facts {
    /// Requests whose field block has arrived.
    pub(super) opened: AtomicU64,
    /// The client takes no bytes: the library reads no frames until it does.
    pub(crate) is_blocked: AtomicBool,
    windows: Mutex<Windows>,
    /// Streams that are to be reset, and the news of it.
    resets: Mutex<Vec<u32>>,
    /// Interim responses that are to go out, with their streams.
    interim: Mutex<Vec<(u32, Vec<u8>)>>,
    /// There are more of either.
    pub(super) has_news: Notify,
}

impl Http2Facts {
    /// The responses that had stalled by then.
    pub(super) fn stalled_before(&self, then: Instant) -> Vec<(u32, Instant)> {
        self.windows.lock().stalled_before(then).collect()
    }

    /// Has a stream reset: towards the client, and towards the library, to which the client did it.
    pub(super) fn reset(&self, stream: u32) {
        self.resets.lock().push(stream);
        self.has_news.notify_one();
    }

    /// Has an interim response go out on a stream, unless its final one begins before or too many wait.
    pub(crate) fn send_interim(&self, stream: u32, status: StatusCode, fields: &HeaderMap) {
        let Some(frame) = interim::frame(stream, status, fields) else {
            return;
        };
        let mut waiting = self.interim.lock();
        let bytes: usize = waiting.iter().map(|(_, frame)| frame.len()).sum();
        if bytes + frame.len() <= INTERIM_BYTES_MAX {
            waiting.push((stream, frame));
            drop(waiting);
            self.has_news.notify_one();
        }
    }

    /// The frames of interim responses, if what goes out is between two frames.
    pub(crate) fn take_interim(&self) -> Option<Vec<u8>> {
        let mut waiting = self.interim.lock();
        let windows = self.windows.lock();
        if waiting.is_empty() || !windows.is_between_frames() {
            return None;
        }
        let frames = waiting.drain(..).filter(|(stream, _)| windows.awaits_response(*stream));
        Some(frames.flat_map(|(_, frame)| frame).collect())
    }

    /// These bytes go out.
    pub(crate) fn sent(&self, bytes: &[u8]) {
        self.windows.lock().sent(bytes);
    }

    /// The frames that reset the streams which are to be: once both directions are between two frames.
    pub(crate) fn take_resets(&self) -> Option<Vec<u8>> {
        let mut resets = self.resets.lock();
        if resets.is_empty() || !self.windows.lock().is_between_frames() {
            return None;
        }
        Some(resets.drain(..).flat_map(reset_frame).collect())
    }
}

/// RFC 9113 section 6.4, with the code CANCEL.
fn reset_frame(stream: u32) -> [u8; HEADER_BYTES + 4] {
    let [a, b, c, d] = stream.to_be_bytes();
    [0, 0, 4, RST_STREAM, 0, a, b, c, d, 0, 0, 0, 8]
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    facts: Arc<Http2Facts>,
    /// What has not passed yet: an incomplete frame header or field block.
    held: BytesMut,
    /// Bytes that pass without a look.
    skip: usize,
    /// The stream of the latest request.
    latest: u32,
    fields: FieldBlocks,
    /// Where fields are to be put into the bytes at hand, for which streams.
    tags: Vec<(usize, u32)>,
    /// Whether requests get the number of their stream: not in tests of all else.
    has_tags: bool,
    /// How much of a field block is held back: with more the library ends the connection.
    block_bytes_max: usize,
    /// The frames or fields cannot be followed any more. The library ends such a connection.
    is_lost: bool,
}

/// The header of a frame.
#[derive(Clone, Copy)]
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [high, middle, low, kind, flags, stream @ ..] = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            length: usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low),
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & (u32::MAX >> 1),
        })
    }

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A whole field block.
struct CompleteBlock {
    /// Its frames have so many bytes in all.
    length: usize,
    block: Vec<u8>,
    /// Where its last frame begins, and where the last field ends.
    last_frame: usize,
    end: usize,
}

/// A field block in its frames.
enum FieldBlock {
    Complete(CompleteBlock),
    Incomplete,
    Malformed,
}

impl Frames {
    pub(crate) fn new(facts: Arc<Http2Facts>, header_bytes_max: usize) -> Self {
        Self {
            facts,
            held: BytesMut::new(),
            skip: PREFACE_BYTES,
            latest: 0,
            fields: FieldBlocks::default(),
            tags: Vec::new(),
            has_tags: true,
            block_bytes_max: block_bytes_max(header_bytes_max),
            is_lost: false,
        }
    }

    /// Whether the next byte that is read begins a frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.held.is_empty() && !self.is_lost
    }

    /// What is known of the connection.
    pub(crate) fn facts(&self) -> &Http2Facts {
        &self.facts
    }

    /// Takes what has been read. How many of the bytes pass, from the first one; what is held back and passes later is
    /// appended to `later`.
    pub(crate) fn pass(&mut self, read: &mut [u8], later: &mut BytesMut) -> usize {
        if self.held.is_empty() {
            let passed = self.scan(read);
            let (passing, held) = read.split_at(passed);
            self.held.extend_from_slice(held);
            if self.tags.is_empty() {
                return passed;
            }
            self.put_tags(passing, later);
            return 0;
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(read);
        let passed = self.scan(&mut held);
        self.put_tags(held.get(..passed).unwrap_or_default(), later);
        held.advance(passed);
        self.held = held;
        0
    }

    /// How many bytes of the frames pass.
    fn scan(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !self.is_lost {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() - at);
                (self.skip, at) = (self.skip - skipped, at + skipped);
                continue;
            }
            let Some(head) = FrameHeader::read(bytes.get(at..).unwrap_or_default()) else {
                return at;
            };
            if matches!(head.kind, RST_STREAM | SETTINGS | WINDOW_UPDATE) && head.length <= FRAME_BYTES_MAX {
                let begin = at + HEADER_BYTES;
                let Some(payload) = bytes.get(begin..begin + head.length) else {
                    return at;
                };
                self.facts.windows.lock().received(head.kind, head.flags, head.stream, payload);
                at = begin + head.length;
                continue;
            }
            if head.kind != HEADERS {
                (self.skip, at) = (head.length, at + HEADER_BYTES);
                continue;
            }
            match block(bytes.get(at..).unwrap_or_default(), head) {
                FieldBlock::Complete(block) => {
                    if self.take(bytes.get_mut(at..).unwrap_or_default(), head, &block) {
                        self.tags.push((at + block.end, head.stream));
                    }
                    at += block.length;
                }
                FieldBlock::Incomplete if bytes.len() - at <= self.block_bytes_max => return at,
                FieldBlock::Incomplete | FieldBlock::Malformed => self.is_lost = true,
            }
        }
        bytes.len()
    }

    /// Appends what passes, with a field of ours at the end of each request's block.
    fn put_tags(&mut self, passing: &[u8], later: &mut BytesMut) {
        let mut from = 0;
        for (at, stream) in self.tags.drain(..) {
            later.extend_from_slice(passing.get(from..at).unwrap_or_default());
            later.extend_from_slice(&interim::tag(stream));
            from = at;
        }
        later.extend_from_slice(passing.get(from..).unwrap_or_default());
    }

    /// A complete field block, of a request or of trailers. Whether a field of ours is to be put at its end, for which
    /// there is room in its last frame then.
    fn take(&mut self, frames: &mut [u8], head: FrameHeader, block: &CompleteBlock) -> bool {
        let has_pseudo = self.fields.read(&block.block);
        self.is_lost = has_pseudo.is_none();
        if head.stream > self.latest {
            self.latest = head.stream;
            self.facts.windows.lock().opened(head.stream);
            self.facts.opened.fetch_add(1, Ordering::Relaxed);
            return self.has_tags
                && !self.is_lost
                && lengthen(frames, block.last_frame, interim::tag(head.stream).len());
        } else if has_pseudo != Some(false)
            && let Some(flags) = frames.get_mut(4)
        {
            *flags &= !END_STREAM;
        }
        false
    }
}

/// Makes room for more bytes in a frame; false if it would become too long.
fn lengthen(frames: &mut [u8], frame: usize, bytes: usize) -> bool {
    let Some([high, middle, low]) = frames.get_mut(frame..).and_then(<[u8]>::first_chunk_mut) else {
        return false;
    };
    let length = (usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low)) + bytes;
    if length > FRAME_BYTES_MAX {
        return false;
    }
    let Ok(number) = u32::try_from(length) else { return false };
    [_, *high, *middle, *low] = number.to_be_bytes();
    true
}

/// The most that a field block and its frames can have before the library ends the connection. It takes a HEADERS frame
/// and as many CONTINUATION frames as the header may need, and a quarter more, but at least five.
const fn block_bytes_max(header_bytes_max: usize) -> usize {
    let needed = header_bytes_max / FRAME_BYTES_MAX;
    let taken = if needed < 5 { 5 } else { needed + needed / 4 };
    (taken + 1) * (HEADER_BYTES + FRAME_BYTES_MAX)
}

/// The field block that begins with this HEADERS frame.
fn block(frames: &[u8], head: FrameHeader) -> FieldBlock {
    let (mut block, mut at, mut frame) = (Vec::new(), 0, head);
    loop {
        let last_frame = at;
        if frame.length > FRAME_BYTES_MAX {
            return FieldBlock::Malformed;
        }
        let end = at + HEADER_BYTES + frame.length;
        let Some(payload) = frames.get(at + HEADER_BYTES..end) else {
            return FieldBlock::Incomplete;
        };
        let Some(fragment) = fragment(payload, frame) else {
            return FieldBlock::Malformed;
        };
        block.extend_from_slice(fragment);
        let padding = if frame.kind == HEADERS && frame.has(PADDED) { payload.first() } else { None };
        at = end;
        if frame.has(END_HEADERS) {
            let end = end - padding.map_or(0, |padding| usize::from(*padding));
            return FieldBlock::Complete(CompleteBlock { length: at, block, last_frame, end });
        }
        frame = match FrameHeader::read(frames.get(at..).unwrap_or_default()) {
            None => return FieldBlock::Incomplete,
            Some(next) if next.kind == CONTINUATION && next.stream == head.stream => next,
            Some(_) => return FieldBlock::Malformed,
        };
    }
}

/// A frame's part of the field block, without padding and priority.
fn fragment(payload: &[u8], head: FrameHeader) -> Option<&[u8]> {
    if head.kind == CONTINUATION {
        return Some(payload);
    }
    let mut fragment = payload;
    if head.has(PADDED) {
        let (padding, rest) = payload.split_first()?;
        fragment = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    if head.has(PRIORITY) { fragment.get(5..) } else { Some(fragment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    /// `:method: POST`, and `x: a`.
    const REQUEST: &[u8] = &[0x83, 0x00, 1, b'x', 1, b'a'];
    const TRAILERS: &[u8] = &[0x00, 1, b'x', 1, b'a'];

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// What passes of these frames when they come in pieces of this many bytes, and how many requests were seen.
    fn passed(frames: &[Vec<u8>], piece: usize) -> (Vec<u8>, u64) {
        let facts = Arc::new(Http2Facts::default());
        let mut watch = Frames::new(Arc::clone(&facts), 32 << 10);
        watch.has_tags = false;
        let all = [vec![b'p'; PREFACE_BYTES], frames.concat()].concat();
        let (mut out, mut later) = (Vec::new(), BytesMut::new());
        for read in all.chunks(piece) {
            let mut read = read.to_vec();
            let passed = watch.pass(&mut read, &mut later);
            out.extend_from_slice(&read[..passed]);
            out.extend_from_slice(&later.split());
        }
        (out.split_off(PREFACE_BYTES), facts.opened.load(Ordering::Relaxed))
    }

    fn assert_passes(frames: &[Vec<u8>], expected: &[Vec<u8>], opened: u64) {
        for piece in [1, 2, 3, 8, 9, 10, 17, 1000] {
            assert_eq!(passed(frames, piece), (expected.concat(), opened), "pieces of {piece}");
        }
    }

    #[test]
    fn requests_and_trailers_pass_unchanged_and_requests_are_counted() {
        let frames = [
            frame(4, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, REQUEST),
            frame(DATA, 0, 1, b"hello"),
            frame(HEADERS, END_HEADERS | END_STREAM, 3, REQUEST),
            frame(DATA, 0, 1, b""),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, TRAILERS),
            frame(HEADERS, END_STREAM, 5, &REQUEST[..2]),
            frame(CONTINUATION, 0, 5, &REQUEST[2..3]),
            frame(CONTINUATION, END_HEADERS, 5, &REQUEST[3..]),
        ];
        assert_passes(&frames, &frames, 3);
    }

    #[test]
    fn trailers_with_a_pseudo_header_field_do_not_end_the_stream() {
        let padded = [&[2, 0, 0, 0, 0, 0], REQUEST, &[0, 0]].concat();
        let trailers = [
            [frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST)].concat(),
            [frame(HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITY, 1, &padded)].concat(),
            [
                frame(HEADERS, END_STREAM, 1, &REQUEST[..1]),
                frame(CONTINUATION, END_HEADERS, 1, &REQUEST[1..]),
            ]
            .concat(),
        ];
        for trailers in trailers {
            let mut expected = trailers.clone();
            expected[4] &= !END_STREAM;
            let before = [frame(HEADERS, END_HEADERS, 1, REQUEST), frame(DATA, 0, 1, b"hello")].concat();
            let after = frame(HEADERS, END_HEADERS | END_STREAM, 3, REQUEST);
            assert_passes(&[before.clone(), trailers, after.clone()], &[before, expected, after], 2);
        }
    }

    #[test]
    fn what_cannot_be_followed_passes_and_unreadable_trailers_do_not_end_the_stream() {
        let open = frame(HEADERS, END_HEADERS, 1, REQUEST);
        for broken in [
            frame(HEADERS, END_HEADERS | PADDED, 3, &[9, 0x83]),
            frame(HEADERS, END_HEADERS, 3, &[0x80]),
            [frame(HEADERS, 0, 3, REQUEST), frame(DATA, 0, 3, b"x")].concat(),
            [frame(HEADERS, 0, 3, REQUEST), frame(CONTINUATION, END_HEADERS, 5, b"")].concat(),
            frame(HEADERS, END_HEADERS, 3, &vec![0x83; FRAME_BYTES_MAX + 1]),
            [
                frame(HEADERS, 0, 3, REQUEST),
                frame(CONTINUATION, 0, 3, &vec![0x83; FRAME_BYTES_MAX]).repeat(7),
            ]
            .concat(),
        ] {
            let frames = [open.clone(), broken];
            assert_eq!(passed(&frames, 7).0, frames.concat());
        }
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x80]);
        let mut expected = trailers.clone();
        expected[4] &= !END_STREAM;
        assert_eq!(passed(&[open.clone(), trailers], 7).0, [open, expected].concat());
    }

    /// Any bytes: no panic, the same bytes pass in pieces of any size, and only flags of trailers change.
    #[test]
    fn any_bytes_pass_in_the_same_way_whatever_their_pieces() {
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut next = |below: usize| {
            // xorshift64: the same cases in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        for _ in 0..20_000 {
            let mut frames = Vec::new();
            for _ in 0..next(6) {
                let kind = [DATA, HEADERS, HEADERS, CONTINUATION, 4][next(5)];
                let flags = [0, END_HEADERS, END_HEADERS | END_STREAM, END_HEADERS | PADDED][next(4)];
                let mut payload =
                    [REQUEST, TRAILERS, &[0x40, 1, b'x', 0x82, 0xff, 0xff], &[0xbe]][next(4)].to_vec();
                let at = next(payload.len());
                payload[at] = u8::try_from(next(256)).unwrap();
                frames.extend(frame(kind, flags, [1, 1, 3, 5][next(4)], &payload));
            }
            let cut = next(frames.len() + 1);
            frames.truncate(frames.len() - cut / 4);
            let frames = [frames];
            let whole = passed(&frames, 1000);
            assert_eq!(passed(&frames, 1 + next(20)), whole, "{}", frames[0].escape_ascii());
            let differ = |(one, other): (&u8, &u8)| one != other && *one != other & !END_STREAM;
            assert!(!whole.0.iter().zip(&frames[0]).any(differ) && whole.0.len() <= frames[0].len());
        }
    }

    #[test]
    fn each_request_gets_the_number_of_its_stream_at_the_end_of_its_fields() {
        let padded = [&[2][..], REQUEST, &[0, 0]].concat();
        let sent = [
            frame(HEADERS, END_HEADERS, 1, REQUEST),
            frame(HEADERS, END_HEADERS | PADDED, 3, &padded),
            frame(HEADERS, 0, 5, &REQUEST[..2]),
            frame(CONTINUATION, END_HEADERS, 5, &REQUEST[2..]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, TRAILERS),
            frame(DATA, 0, 3, b"hello"),
        ];
        let with = |rest: &[u8], stream: u32| [rest, &interim::tag(stream)].concat();
        let expected = [
            frame(HEADERS, END_HEADERS, 1, &with(REQUEST, 1)),
            frame(HEADERS, END_HEADERS | PADDED, 3, &[&[2][..], &with(REQUEST, 3), &[0, 0]].concat()),
            frame(HEADERS, 0, 5, &REQUEST[..2]),
            frame(CONTINUATION, END_HEADERS, 5, &with(&REQUEST[2..], 5)),
            sent[4].clone(),
            sent[5].clone(),
        ];
        let all = [vec![b'p'; PREFACE_BYTES], sent.concat()].concat();
        for piece in [1, 2, 9, 10, 17, 1000] {
            let mut watch = Frames::new(Arc::default(), 32 << 10);
            let (mut out, mut later) = (Vec::new(), BytesMut::new());
            for read in all.chunks(piece) {
                let mut read = read.to_vec();
                let passed = watch.pass(&mut read, &mut later);
                out.extend_from_slice(&read[..passed]);
                out.extend_from_slice(&later.split());
            }
            assert_eq!(out[PREFACE_BYTES..], expected.concat(), "pieces of {piece}");
        }
    }
}
