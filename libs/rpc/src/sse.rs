//! Server-sent events, put together from whatever pieces they come in.
//!
//! Only what the protocols over it need: the data of each event. Names, ids and comments are passed over. One event
//! is bounded, because a sender that never ends one would fill the memory.

use std::collections::VecDeque;

/// An event that is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {limit} bytes")]
pub struct TooLong {
    /// What it may be, in bytes.
    pub limit: usize,
}

/// Puts events together from whatever pieces they come in.
#[derive(Debug)]
pub struct Parser {
    most_bytes: usize,
    line: Vec<u8>,
    /// The last byte was a carriage return, so that a line feed belongs to the same end of line.
    after_return: bool,
    data: Option<Vec<u8>>,
}

impl Parser {
    /// Events of at most so many bytes.
    #[must_use]
    pub fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            line: Vec::new(),
            after_return: false,
            data: None,
        }
    }

    /// Takes a piece; what is complete with it goes to `ready`.
    ///
    /// # Errors
    /// An event is too long.
    pub fn take(&mut self, piece: &[u8], ready: &mut VecDeque<String>) -> Result<(), TooLong> {
        for &byte in piece {
            let ends_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if ends_return => {}
                b'\n' | b'\r' => self.end_line(ready),
                _ => {
                    self.line.push(byte);
                    if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > self.most_bytes {
                        return Err(TooLong {
                            limit: self.most_bytes,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, ready: &mut VecDeque<String>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                ready.push_back(String::from_utf8_lossy(&data).into_owned());
            }
            return;
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&str]) -> Vec<String> {
        let mut parser = Parser::new(1000);
        let mut ready = VecDeque::new();
        for piece in pieces {
            parser.take(piece.as_bytes(), &mut ready).unwrap();
        }
        ready.into()
    }

    #[test]
    fn events_are_put_together_from_pieces() {
        assert_eq!(events(&["data: {\"a\":1}\n\n"]), ["{\"a\":1}"]);
        assert_eq!(
            events(&[
                "event: message\r",
                "\nid: 7\r\nda",
                "ta: one\r\n\r\ndata: two\n\n"
            ]),
            ["one", "two"]
        );
        assert_eq!(
            events(&["data:a\ndata: b\ndata\n\n"]),
            ["a\nb\n"],
            "lines of one event"
        );
        assert_eq!(events(&["data: x\r\rdata: y\r\r"]), ["x", "y"]);
        assert!(events(&[": ping\n\n", "\n\n", "retry: 5\n\n", "data: unfinished\n"]).is_empty());
        assert_eq!(events(&["database: no\n\ndata: ü\n\n"]), ["ü"]);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::new(10);
        let mut ready = VecDeque::new();
        assert_eq!(parser.take(b"data: 12\n", &mut ready), Ok(()));
        assert_eq!(
            parser.take(b"data: 34567890", &mut ready),
            Err(TooLong { limit: 10 })
        );
    }
}
