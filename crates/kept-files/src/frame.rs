/*!
Frames: a byte for the kind, four bytes for the length of the content (most significant first), and
the content.

| kind | content |
|---|---|
| `d` | data, not empty |
| `e` | nothing; the data is complete, and no frame follows |
| `x` | a message in UTF-8: the data is not complete, and no frame follows |
*/

use std::io::{self, Read, Write};

/// Most bytes of a frame's content.
pub const MAX_CONTENT: usize = 64 << 10;
/// Most bytes of a message. A longer one is cut.
pub const MAX_MESSAGE: usize = 4096;

const DATA: u8 = b'd';
const END: u8 = b'e';
const FAILED: u8 = b'x';

/// Writes data as frames. What was written before the end is only known to be complete if
/// [`Writer::finish`] was called.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    buffer: Vec<u8>,
}

/// Reads data that was written by [`Writer`]. The end of the data is an error unless the writer
/// finished it.
#[derive(Debug)]
pub struct Reader<R: Read> {
    from: R,
    /// Bytes of the present frame that were not read yet.
    left: usize,
    ended: bool,
}

/// Why data that is read as frames is not complete. The inner error of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// What the writer said.
    #[error("{0}")]
    Failed(String),
    /// The stream ended before the data did.
    #[error("the connection ended before all was received")]
    CutOff,
    /// The stream is not one of frames.
    #[error("the answer is not in the expected format")]
    Malformed,
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    /// Frames go to `to`.
    pub fn new(to: W) -> Self {
        let buffer = Vec::with_capacity(MAX_CONTENT);
        Self { to, buffer }
    }

    /// Ends the data: it is complete.
    ///
    /// # Errors
    /// If the rest of it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush_data()?;
        put(&mut self.to, END, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// Ends the data: it is not complete, for this reason. What was written before still counts.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn fail(mut self, message: &str) -> io::Result<W> {
        self.flush_data()?;
        let end = message.floor_char_boundary(MAX_MESSAGE);
        put(&mut self.to, FAILED, &message.as_bytes()[..end])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn flush_data(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            put(&mut self.to, DATA, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == MAX_CONTENT {
            self.flush_data()?;
        }
        let count = bytes.len().min(MAX_CONTENT - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_data()?;
        self.to.flush()
    }
}

/// One `write` for each frame, so that writers that pass on what they get pass on whole frames.
fn put(to: &mut impl Write, kind: u8, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let frame = [&[kind][..], &length.to_be_bytes(), content].concat();
    to.write_all(&frame)
}

// === impl Reader ===

impl<R: Read> Reader<R> {
    /// Frames come from `from`.
    pub fn new(from: R) -> Self {
        Self {
            from,
            left: 0,
            ended: false,
        }
    }

    /// Begins the next frame with data. False if there is none.
    fn next_frame(&mut self) -> io::Result<bool> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        match kind {
            DATA if (1..=MAX_CONTENT).contains(&length) => {
                self.left = length;
                Ok(true)
            }
            END if length == 0 => {
                self.ended = true;
                Ok(false)
            }
            FAILED if length <= MAX_MESSAGE => {
                self.ended = true;
                let mut message = vec![0; length];
                self.fill(&mut message)?;
                let message = String::from_utf8_lossy(&message).into_owned();
                Err(io::Error::other(FrameError::Failed(message)))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, FrameError::Malformed)),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), FrameError::CutOff),
            _ => error,
        })
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() || (self.left == 0 && !self.next_frame()?) {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, FrameError::CutOff));
        }
        self.left -= count;
        Ok(count)
    }
}

impl FrameError {
    /// What an error of [`Reader`] is, if it is one of these.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn read(stream: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut data = Vec::new();
        match Reader::new(stream).read_to_end(&mut data) {
            Ok(_) => Ok(data),
            Err(error) => Err(FrameError::of(&error).unwrap().clone()),
        }
    }

    #[test]
    fn data_of_any_length_comes_back() {
        for length in [
            0,
            1,
            MAX_CONTENT - 1,
            MAX_CONTENT,
            MAX_CONTENT + 1,
            3 * MAX_CONTENT,
        ] {
            let data: Vec<u8> = (0_u8..=255).cycle().take(length).collect();
            assert_eq!(read(&framed(&data)).unwrap(), data, "{length}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_is_not_complete() {
        let stream = framed(b"hello");
        for length in 0..stream.len() {
            assert_eq!(read(&stream[..length]), Err(FrameError::CutOff), "{length}");
        }
    }

    #[test]
    fn the_data_before_a_failure_counts_and_its_reason_arrives() {
        let mut writer = Writer::new(Vec::new());
        writer.write_all(b"some").unwrap();
        let stream = writer.fail(&"ü".repeat(MAX_MESSAGE)).unwrap();
        let mut reader = Reader::new(&stream[..]);
        let mut some = [0; 4];
        reader.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"some");
        let error = reader.read(&mut [0]).unwrap_err();
        assert_eq!(
            FrameError::of(&error),
            Some(&FrameError::Failed("ü".repeat(MAX_MESSAGE / 2)))
        );
    }

    #[test]
    fn h9_lengths_are_bounded() {
        for head in [
            &b"d\0\0\0\0"[..],
            b"d\xff\xff\xff\xff",
            b"d\0\x01\0\x01",
            b"e\0\0\0\x01",
            b"x\0\0\x10\x01",
            b"total 12",
        ] {
            assert_eq!(read(head), Err(FrameError::Malformed), "{head:?}");
        }
    }
}
