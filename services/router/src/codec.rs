//! Messages over gRPC as they are: decoded into the bytes that came, encoded from pieces of bytes.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// From so many bytes on, events that are there at once are no longer put together.
const MOST_TOGETHER: usize = 32 << 10;

/// Passes messages on without decoding them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passing;

/// An encoded message in up to three pieces, one after the other, so that a field in the middle can be replaced without a
/// copy of the rest.
#[derive(Debug, Clone, Default)]
pub struct Pieces(pub [Bytes; 3]);

impl Pieces {
    /// How many bytes the message has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether the message is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self([bytes, Bytes::new(), Bytes::new()])
    }
}

impl Codec for Passing {
    type Encode = Pieces;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// Buffers of tonic's are as large as what is in them: what is passed on is there before it is encoded, and comes in pieces whose
/// length is known.
fn buffers() -> BufferSettings {
    BufferSettings::new(0, MOST_TOGETHER)
}

impl Encoder for Passing {
    type Item = Pieces;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }

    fn encode(&mut self, message: Pieces, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        for piece in message.0 {
            buffer.put_slice(&piece);
        }
        Ok(())
    }
}

impl Decoder for Passing {
    type Item = Bytes;
    type Error = Status;

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }

    /// The bytes are split off the buffer that they came in.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
