/*!
Lets the kubelet register the plugin.

The kubelet dials a registration socket by its path and sets no authority, so gRPC for Go sends the
escaped path as the `:authority` of every request (`%2Fvar%2Flib%2Fkubelet%2F...`). That is no
authority in the sense of RFC 3986, and the HTTP/2 implementation below tonic resets the stream
before the service sees the request. Here the bytes of the connection are followed just far enough
to put `localhost` in its place, as the kubelet itself does on the CSI socket.

Header blocks (RFC 7541) are walked, not decoded: strings are skipped by their length, and a literal
stays a literal, so that both ends go on counting the same entries of the dynamic table. What is not
understood is passed on as it came.
*/

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header (RFC 9113, section 4.1).
const FRAME_HEADER: usize = 9;
/// Longest frame that is looked into: the default of SETTINGS_MAX_FRAME_SIZE.
const MAX_FRAME: usize = 16_384;
/// Type of a HEADERS frame and its flags (RFC 9113, section 6.2).
const HEADERS: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;
/// `localhost` as a string literal without Huffman coding.
const LOCALHOST: &[u8] = b"\x09localhost";

/// A connection of the kubelet to the registration socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    rewriter: Rewriter,
    /// Rewritten, from `given` on not yet read.
    rewritten: Vec<u8>,
    given: usize,
}

/// Follows what a client sends.
#[derive(Debug, Default)]
struct Rewriter {
    /// Bytes of the preface that went by.
    preface: usize,
    /// The rest of a frame that is not looked into.
    passing: usize,
    /// The beginning of a frame that is not complete yet.
    pending: Vec<u8>,
}

// === impl Connection ===

impl Connection {
    /// Wraps an accepted connection.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            rewriter: Rewriter::default(),
            rewritten: Vec::new(),
            given: 0,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.given == self.rewritten.len() {
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let this = &mut *self;
            this.rewritten.clear();
            this.given = 0;
            this.rewriter.feed(read.filled(), &mut this.rewritten);
        }
        let left = &self.rewritten[self.given..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.given += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

// === impl Rewriter ===

impl Rewriter {
    /// Takes bytes as they came and appends what is to be read instead.
    fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let preface = bytes.len().min(PREFACE.len() - self.preface);
        self.preface += preface;
        out.extend_from_slice(&bytes[..preface]);
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.passing > 0 {
                let count = bytes.len().min(self.passing);
                self.passing -= count;
                out.extend_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                continue;
            }
            let wanted = self.frame_length().unwrap_or(FRAME_HEADER);
            let count = bytes.len().min(wanted - self.pending.len());
            self.pending.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            let Some(whole) = self.frame_length() else {
                continue;
            };
            if self.pending[3] != HEADERS || whole > FRAME_HEADER + MAX_FRAME {
                self.passing = whole - self.pending.len();
                out.append(&mut self.pending);
            } else if self.pending.len() == whole {
                match rewrite_headers(&self.pending) {
                    Some(frame) => out.extend_from_slice(&frame),
                    None => out.extend_from_slice(&self.pending),
                }
                self.pending.clear();
            }
        }
    }

    /// Length of the pending frame with its header, once that is complete.
    fn frame_length(&self) -> Option<usize> {
        let header = self.pending.get(..FRAME_HEADER)?;
        Some(
            FRAME_HEADER
                + header[..3]
                    .iter()
                    .fold(0, |length, byte| (length << 8) | usize::from(*byte)),
        )
    }
}

/// A HEADERS frame with another authority; none where the block is not all in it or not understood.
fn rewrite_headers(frame: &[u8]) -> Option<Vec<u8>> {
    let flags = frame[4];
    if flags & END_HEADERS == 0 {
        return None;
    }
    let mut payload = &frame[FRAME_HEADER..];
    if flags & PADDED != 0 {
        let (padding, rest) = payload.split_first()?;
        payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    let (priority, block) = payload.split_at_checked(if flags & PRIORITY == 0 { 0 } else { 5 })?;
    let block = rewrite_block(block)?;
    let length = u32::try_from(priority.len() + block.len()).ok()?.to_be_bytes();
    let mut rewritten = vec![length[1], length[2], length[3], HEADERS, flags & !PADDED];
    rewritten.extend_from_slice(&frame[5..FRAME_HEADER]);
    rewritten.extend_from_slice(priority);
    rewritten.extend_from_slice(&block);
    Some(rewritten)
}

/// A header block with `localhost` as the value of every literal `:authority`.
fn rewrite_block(block: &[u8]) -> Option<Vec<u8>> {
    let mut rewritten = Vec::with_capacity(block.len() + LOCALHOST.len());
    let mut rest = block;
    while let Some(first) = rest.first() {
        let start = rest;
        // RFC 7541, section 6: an indexed field, a literal that is remembered, a new table size,
        // other literals.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index;
        (index, rest) = integer(rest, prefix)?;
        if literal && index == 0 {
            rest = skip_string(rest)?;
        }
        let name = start.len() - rest.len();
        if literal {
            rest = skip_string(rest)?;
        }
        if literal && index == AUTHORITY {
            rewritten.extend_from_slice(&start[..name]);
            rewritten.extend_from_slice(LOCALHOST);
        } else {
            rewritten.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    Some(rewritten)
}

fn skip_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(bytes, 7)?;
    rest.get(length..)
}

/// An integer whose first byte has `prefix` bits of it (RFC 7541, section 5.1), and what comes
/// after.
fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let full = (1 << prefix) - 1;
    let mut value = usize::from(*first) & full;
    if value < full {
        return Some((value, rest));
    }
    // Four more bytes are longer than any frame that gets here.
    for shift in [0, 7, 14, 21] {
        let byte;
        (byte, rest) = rest.split_first()?;
        value += (usize::from(*byte) & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests;
