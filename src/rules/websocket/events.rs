//! Events of `text/event-stream` (HTML, section 9.2.6).

use bytes::BytesMut;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its type; empty is `message`.
    pub kind: String,
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

/// Reads the events of a stream.
#[derive(Debug)]
pub struct EventReader {
    max: usize,
    line: Vec<u8>,
    /// Whether the last byte was a carriage return.
    after_return: bool,
    begun: bool,
    event: ServerEvent,
    has_data: bool,
}

/// The error that an event is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLarge;

impl EventReader {
    /// Returns a reader of events of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            after_return: false,
            begun: false,
            event: ServerEvent::default(),
            has_data: false,
        }
    }

    /// Adds bytes that have arrived, and appends the events that they complete. An event without data is none.
    ///
    /// # Errors
    /// Fails where an event is longer than the limit.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<ServerEvent>) -> Result<(), EventTooLarge> {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    self.end_line(out);
                }
                byte => {
                    self.after_return = false;
                    if self.line.len() + self.event.data.len() >= self.max {
                        return Err(EventTooLarge);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<ServerEvent>) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = if self.begun { &*text } else { text.strip_prefix('\u{feff}').unwrap_or(&text) };
        self.begun = true;
        if text.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                out.push(event);
            }
            return;
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event.kind),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// Appends an event with that data. Each line of it is a field of its own.
pub fn write_event(data: &str, out: &mut BytesMut) {
    for line in data.split('\n') {
        out.extend_from_slice(b"data: ");
        // A carriage return ends a line there too.
        for part in line.split_inclusive('\r') {
            match part.strip_suffix('\r') {
                Some(part) => {
                    out.extend_from_slice(part.as_bytes());
                    out.extend_from_slice(b"\ndata: ");
                }
                None => out.extend_from_slice(part.as_bytes()),
            }
        }
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<ServerEvent> {
        let (mut reader, mut out) = (EventReader::new(1000), Vec::new());
        reader.push(text.as_bytes(), &mut out).expect("events");
        out
    }

    fn data(texts: &[&str]) -> Vec<ServerEvent> {
        texts.iter().map(|data| ServerEvent { data: (*data).to_owned(), ..ServerEvent::default() }).collect()
    }

    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!(read("data: YHOO\ndata: +2\ndata: 10\n\n"), data(&["YHOO\n+2\n10"]));
        let events =
            read(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n");
        let ids: Vec<_> = events.iter().map(|event| event.id.as_deref()).collect();
        assert_eq!(ids, [Some("1"), Some(""), None]);
        assert_eq!(events[2].data, " third event");
        assert_eq!(read("data\n\ndata\ndata\n\ndata:"), data(&["", "\n"]));
        assert_eq!(read("data:test\r\rdata: test\r\n\r\nevent: x\n\n"), data(&["test", "test"]));
        assert_eq!(read("\u{feff}event: add\rdata: 1\r\n\n")[0].kind, "add");
    }

    #[test]
    fn an_event_has_a_limit() {
        let mut reader = EventReader::new(10);
        let mut out = Vec::new();
        assert_eq!(reader.push(b"data: 1234567", &mut out), Err(EventTooLarge));
        let mut reader = EventReader::new(12);
        assert_eq!(reader.push(b"data: 1\n\ndata: 2\n\ndata: 123456\ndata: 7", &mut out), Err(EventTooLarge));
        assert_eq!(out, data(&["1", "2"]));
    }

    proptest! {
        #[test]
        fn data_comes_back(text in "[a-c:\n ]{0,40}", cut in 1_usize..9) {
            let mut written = BytesMut::new();
            write_event(&text, &mut written);
            let (mut reader, mut out) = (EventReader::new(1000), Vec::new());
            written.chunks(cut).for_each(|part| reader.push(part, &mut out).expect("events"));
            prop_assert_eq!(out, data(&[&text]));
        }
    }
}
