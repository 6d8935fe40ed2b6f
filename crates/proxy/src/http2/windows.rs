//! The flow-control windows of one HTTP/2 connection (RFC 9113 section 5.2), seen from the frames in both directions:
//! which responses have stalled because their client lets no more bytes through, and since when.
//!
//! The library does not tell that. A stalled response holds buffers, and often a backend connection.

use std::collections::HashMap;
use std::time::Instant;

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Before the client says otherwise (RFC 9113 section 6.9.2).
const WINDOW_BYTES: i64 = 65_535;

/// The windows that the client grants.
#[derive(Debug)]
pub(crate) struct Windows {
    connection: Window,
    /// Of streams whose response has begun, or whose window has changed before.
    streams: HashMap<u32, Response, ahash::RandomState>,
    initial: i64,
    sent: Sent,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    bytes: i64,
    closed_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Response {
    window: Window,
    has_begun: bool,
}

/// Where in the frames the bytes are that go out.
#[derive(Debug, Default)]
struct Sent {
    header: [u8; HEADER_BYTES],
    known: usize,
    skip: usize,
    /// Within a field block, which no other frame may interrupt.
    is_in_block: bool,
}

impl Window {
    const fn new(bytes: i64) -> Self {
        Self { bytes, closed_since: None }
    }

    fn change(&mut self, by: i64) {
        self.bytes = self.bytes.saturating_add(by);
        if self.bytes > 0 {
            self.closed_since = None;
        } else if self.closed_since.is_none() {
            self.closed_since = Some(Instant::now());
        }
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            connection: Window::new(WINDOW_BYTES),
            streams: HashMap::default(),
            initial: WINDOW_BYTES,
            sent: Sent::default(),
        }
    }
}

impl Windows {
    /// The client has sent this frame; `payload` is all of it.
    pub(super) fn received(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            RST_STREAM => drop(self.streams.remove(&stream)),
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            WINDOW_UPDATE => {
                let bytes =
                    payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) & (u32::MAX >> 1));
                if stream == 0 {
                    self.connection.change(bytes.into());
                } else if let Some(response) = self.streams.get_mut(&stream) {
                    response.window.change(bytes.into());
                }
            }
            _ => {}
        }
    }

    /// A request has begun.
    pub(super) fn opened(&mut self, stream: u32) {
        let window = Window::new(self.initial);
        self.streams.insert(stream, Response { window, has_begun: false });
    }

    fn settings(&mut self, payload: &[u8]) {
        for entry in payload.chunks_exact(6) {
            let [high, low, value @ ..] = entry else { return };
            let Some(value) = value.first_chunk().map(|value| u32::from_be_bytes(*value)) else { return };
            if u16::from_be_bytes([*high, *low]) == INITIAL_WINDOW_SIZE {
                let by = i64::from(value) - self.initial;
                self.initial = value.into();
                self.streams.values_mut().for_each(|response| response.window.change(by));
            }
        }
    }

    /// These bytes go out to the client.
    pub(crate) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.sent.skip > 0 {
                let skipped = self.sent.skip.min(bytes.len());
                self.sent.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let missing = (HEADER_BYTES - self.sent.known).min(bytes.len());
            let (header, rest) = bytes.split_at(missing);
            let known = self.sent.known + missing;
            if let Some(place) = self.sent.header.get_mut(self.sent.known..known) {
                place.copy_from_slice(header);
            }
            (self.sent.known, bytes) = (known, rest);
            if known == HEADER_BYTES {
                self.sent.known = 0;
                self.frame_out();
            }
        }
    }

    /// Whether the next byte that goes out begins a frame, and any frame may be put before it.
    pub(crate) const fn is_between_frames(&self) -> bool {
        self.sent.skip == 0 && self.sent.known == 0 && !self.sent.is_in_block
    }

    /// Whether the final response of this stream has still to begin.
    pub(super) fn awaits_response(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|response| !response.has_begun)
    }

    fn frame_out(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.sent.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.sent.skip = usize::try_from(length).unwrap_or(usize::MAX);
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.sent.is_in_block = flags & END_HEADERS == 0;
        }
        if kind == RST_STREAM || matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.streams.remove(&stream);
        } else if let Some(response) = self.streams.get_mut(&stream) {
            response.has_begun |= kind == HEADERS;
            response.window.change(if kind == DATA { -i64::from(length) } else { 0 });
        }
        if kind == DATA {
            self.connection.change(-i64::from(length));
        }
    }

    /// The responses that had stalled by then, with their streams and since when.
    pub(super) fn stalled_before(&self, then: Instant) -> impl Iterator<Item = (u32, Instant)> {
        let connection = self.connection.closed_since;
        let begun = self.streams.iter().filter(|(_, response)| response.has_begun);
        let since =
            move |response: &Response| response.window.closed_since.into_iter().chain(connection).min();
        begun
            .filter_map(move |(stream, response)| Some((*stream, since(response)?)))
            .filter(move |(_, since)| *since <= then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        [&length.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes()].concat()
    }

    fn stalled(windows: &Windows) -> Vec<u32> {
        let mut all: Vec<_> = windows.stalled_before(Instant::now()).map(|(stream, _)| stream).collect();
        all.sort_unstable();
        all
    }

    fn send(windows: &mut Windows, length: u32, kind: u8, flags: u8, stream: u32) {
        let frame = [header(length, kind, flags, stream), vec![0; length as usize]].concat();
        // Whatever the pieces are.
        for piece in frame.chunks(7) {
            windows.sent(piece);
        }
        assert!(windows.is_between_frames());
    }

    #[test]
    fn a_response_stalls_with_its_window_and_goes_on_with_an_update() {
        let mut windows = Windows::default();
        windows.opened(1);
        send(&mut windows, 20, HEADERS, END_HEADERS, 1);
        send(&mut windows, 65_534, DATA, 0, 1);
        assert!(stalled(&windows).is_empty());
        send(&mut windows, 1, DATA, 0, 1);
        assert_eq!(stalled(&windows), [1]);
        windows.received(WINDOW_UPDATE, 0, 1, &5_u32.to_be_bytes());
        assert_eq!(stalled(&windows), [1], "the window of the connection is closed, too");
        windows.received(WINDOW_UPDATE, 0, 0, &5_u32.to_be_bytes());
        assert!(stalled(&windows).is_empty());
        send(&mut windows, 5, DATA, END_STREAM, 1);
        assert!(stalled(&windows).is_empty());
        assert!(windows.streams.is_empty());
    }

    #[test]
    fn a_client_that_never_opens_its_windows_stalls_all_responses() {
        let mut windows = Windows::default();
        windows.opened(1);
        windows.received(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        windows.opened(3);
        for stream in [1, 3] {
            assert!(!stalled(&windows).contains(&stream), "there is no response yet");
            send(&mut windows, 20, HEADERS, END_HEADERS, stream);
        }
        assert_eq!(stalled(&windows), [1, 3]);
        windows.received(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9, 0, 4, 0, 0, 0, 9]);
        assert!(stalled(&windows).is_empty());
        windows.received(RST_STREAM, 0, 1, &[0; 4]);
        assert_eq!(windows.streams.len(), 1);
    }
}
