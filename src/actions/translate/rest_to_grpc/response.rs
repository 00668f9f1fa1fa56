//! The response of a call as JSON: one message, or a stream as a list, lines or events.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;

use crate::actions::translate::{ClientResponse, TranslateResponse};
use crate::exchange::{Reason, Rejection};
use crate::rules::grpc::{
    Api, FrameReader, GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, GrpcStatus, JsonStyle, JsonWriter, MessageId,
    Record, Records, decode_message, is_http_body, write_text,
};
use crate::rules::payload::preferred_type;

/// The alphabet of binary metadata, which may be padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How much longer than a message its JSON may be.
const JSON_OF_MESSAGE: usize = 8;

/// The fields of the target's response that are not the client's.
const DROPPED: [HeaderName; 6] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    http::header::CONTENT_ENCODING,
    http::header::TE,
    http::header::TRAILER,
    http::header::ACCEPT_ENCODING,
];

/// The form of a stream of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamForm {
    /// A list.
    List,
    /// A line for each message.
    Lines(&'static str),
    /// An event for each message (HTML, "Server-sent events").
    Events,
}

impl StreamForm {
    /// Returns the form that a client prefers.
    pub fn of(headers: &HeaderMap) -> Self {
        const TYPES: [&str; 4] = ["application/json", "application/x-ndjson", "application/jsonl", "text/event-stream"];
        match preferred_type(headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes), &TYPES) {
            1 => Self::Lines(TYPES[1]),
            2 => Self::Lines(TYPES[2]),
            3 => Self::Events,
            _ => Self::List,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::List => "application/json",
            Self::Lines(media_type) => media_type,
            Self::Events => "text/event-stream",
        }
    }
}

/// What the response of a rule is made of.
#[derive(Clone, Debug)]
pub struct ResponsePlan {
    /// The API.
    pub api: Arc<Api>,
    /// The message that the method returns.
    pub output: MessageId,
    /// The field of it that is the body.
    pub field: Option<u32>,
    /// The form of a stream; `None` means one message.
    pub stream: Option<StreamForm>,
    /// How messages are written.
    pub style: JsonStyle,
    /// The longest message in bytes.
    pub max_message: u32,
}

/// The translation of one response.
#[derive(Debug)]
pub struct JsonResponse {
    plan: ResponsePlan,
    frames: FrameReader,
    /// The metadata that the client gets.
    metadata: HeaderMap,
    /// The message of a response that is one.
    message: Option<Bytes>,
    /// How many messages have come.
    count: u64,
    /// The fields of the head, if they are all there is, or the status of a response that is not of gRPC.
    early: Option<Early>,
    buffer: Vec<u8>,
}

/// What the head of a response says of its end.
#[derive(Debug)]
enum Early {
    /// The status is in the head.
    Fields(HeaderMap),
    /// It is no response of gRPC.
    Http(u16),
}

type OrRejection = Result<(), Box<Rejection>>;

fn untranslatable(why: impl Into<String>) -> Box<Rejection> {
    Rejection::new(Reason::ResponseUntranslatable, "").log(why)
}

impl JsonResponse {
    /// Returns the translation of a response.
    pub fn new(plan: ResponsePlan) -> Self {
        let frames = FrameReader::new(plan.max_message);
        Self { plan, frames, metadata: HeaderMap::new(), message: None, count: 0, early: None, buffer: Vec::new() }
    }

    /// Returns the message `google.api.HttpBody` that the body of the response is, and the field that has it.
    fn data(&self) -> Option<Option<u32>> {
        let types = &self.plan.api.types;
        match self.plan.field {
            None => is_http_body(types, self.plan.output).then_some(None),
            Some(index) => {
                let field = types.message(self.plan.output).fields.get(index as usize)?;
                field.kind.message().filter(|id| is_http_body(types, *id)).map(|_| Some(field.number))
            }
        }
    }

    /// Returns the longest JSON of a message.
    fn most(&self) -> usize {
        (self.plan.max_message as usize).saturating_mul(JSON_OF_MESSAGE)
    }

    /// Appends the JSON of a message to the buffer.
    fn write(&mut self, message: &[u8]) -> OrRejection {
        let mut writer = JsonWriter::new(&self.plan.api.types, self.plan.style, self.most());
        let written = match self.plan.field {
            None => writer.message(self.plan.output, message, &mut self.buffer),
            Some(index) => writer.field(self.plan.output, index as usize, message, &mut self.buffer),
        };
        written.map_err(|why| untranslatable(format!("its message has no JSON: {}", why.0)))
    }

    fn headers(&mut self, content_type: HeaderValue) -> HeaderMap {
        let mut headers = std::mem::take(&mut self.metadata);
        headers.insert(CONTENT_TYPE, content_type);
        if self.plan.stream.is_some() {
            // Its form is the one that the client prefers.
            headers.append(VARY, HeaderValue::from_static("accept"));
        }
        headers
    }

    /// Writes the next message of a stream.
    fn next(&mut self, message: &Bytes, form: StreamForm, out: &mut ClientResponse) -> OrRejection {
        if let Some(field) = self.data() {
            let (content_type, data) = http_body(message, field)?;
            if self.count == 1 {
                let headers = self.headers(content_type);
                out.decide(StatusCode::OK, headers);
            }
            out.body.extend_from_slice(data);
            return Ok(());
        }
        self.buffer.clear();
        match form {
            StreamForm::List => self.buffer.push(if self.count == 1 { b'[' } else { b',' }),
            StreamForm::Lines(_) => {}
            StreamForm::Events => self.buffer.extend_from_slice(b"data: "),
        }
        self.write(message)?;
        match form {
            StreamForm::List => {}
            StreamForm::Lines(_) => self.buffer.push(b'\n'),
            StreamForm::Events => self.buffer.extend_from_slice(b"\n\n"),
        }
        if self.count == 1 {
            let headers = self.headers(HeaderValue::from_static(form.content_type()));
            out.decide(StatusCode::OK, headers);
        }
        out.body.extend_from_slice(&self.buffer);
        Ok(())
    }

    /// Ends a call that has succeeded.
    fn succeed(&mut self, out: &mut ClientResponse) -> OrRejection {
        let Some(form) = self.plan.stream else {
            let Some(message) = self.message.take() else {
                return Err(untranslatable("the call has succeeded without a message"));
            };
            if let Some(field) = self.data() {
                let (content_type, data) = http_body(&message, field)?;
                let headers = self.headers(content_type);
                out.decide(StatusCode::OK, headers);
                out.body.extend_from_slice(data);
                return Ok(());
            }
            self.write(&message)?;
            let headers = self.headers(HeaderValue::from_static("application/json"));
            out.decide(StatusCode::OK, headers);
            out.body.extend_from_slice(&self.buffer);
            return Ok(());
        };
        let is_data = self.data().is_some();
        if self.count == 0 {
            let content_type = if is_data { "application/octet-stream" } else { form.content_type() };
            let headers = self.headers(HeaderValue::from_static(content_type));
            out.decide(StatusCode::OK, headers);
            if form == StreamForm::List && !is_data {
                out.body.extend_from_slice(b"[");
            }
        }
        if form == StreamForm::List && !is_data {
            out.body.extend_from_slice(b"]");
        }
        Ok(())
    }

    /// Ends a call that has failed.
    fn fail(
        &mut self,
        status: GrpcStatus,
        fields: Option<&HeaderMap>,
        text: &str,
        out: &mut ClientResponse,
    ) -> OrRejection {
        self.write_status(status, fields, text);
        if self.count == 0 || self.plan.stream.is_none() {
            let code = StatusCode::from_u16(status.http()).unwrap_or(StatusCode::BAD_GATEWAY);
            let headers = self.headers(HeaderValue::from_static("application/json"));
            out.decide(code, headers);
            out.body.extend_from_slice(&self.buffer);
            return Ok(());
        }
        if self.write_late(out) { Ok(()) } else { Err(untranslatable("the call failed after its first message")) }
    }

    /// Appends the status in the buffer to a stream that has begun, if its form can have that.
    fn write_late(&self, out: &mut ClientResponse) -> bool {
        let (before, after) = match self.plan.stream {
            Some(StreamForm::Lines(_)) => ("{\"error\":", "}\n"),
            Some(StreamForm::Events) => ("event: error\ndata: ", "\n\n"),
            Some(StreamForm::List) | None => return false,
        };
        if self.data().is_some() {
            return false;
        }
        [before.as_bytes(), &self.buffer, after.as_bytes()].iter().for_each(|part| out.body.extend_from_slice(part));
        true
    }

    /// Writes `google.rpc.Status` into the buffer.
    fn write_status(&mut self, status: GrpcStatus, fields: Option<&HeaderMap>, text: &str) {
        self.buffer.clear();
        let details = fields.and_then(|fields| fields.get(GRPC_STATUS_DETAILS));
        let encoded = details.and_then(|value| BASE64.decode(value.as_bytes().trim_ascii()).ok());
        if let (Some(encoded), Some(id)) = (encoded, self.plan.api.status) {
            let style = JsonStyle { defaults: true, enum_numbers: false, ..self.plan.style };
            let of_this = code_of(&encoded) == Some(status);
            let mut writer = JsonWriter::new(&self.plan.api.types, style, self.most());
            if of_this && writer.message(id, &encoded, &mut self.buffer).is_ok() {
                return;
            }
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(format!("{{\"code\":{},\"message\":", status.number()).as_bytes());
        write_text(text, &mut self.buffer);
        self.buffer.extend_from_slice(b",\"details\":[]}");
    }
}

impl TranslateResponse for JsonResponse {
    fn head(&mut self, head: &ResponseHeader, _out: &mut ClientResponse) -> OrRejection {
        let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let is_grpc = content_type.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
        if head.headers.contains_key(GRPC_STATUS) {
            self.early = Some(Early::Fields(head.headers.clone()));
        } else if head.status != StatusCode::OK {
            self.early = Some(Early::Http(head.status.as_u16()));
        } else if !is_grpc {
            return Err(untranslatable("it is no response of gRPC"));
        }
        if !matches!(self.early, Some(Early::Http(_))) {
            keep(&head.headers, &mut self.metadata);
        }
        Ok(())
    }

    fn part(&mut self, part: &Bytes, out: &mut ClientResponse) -> OrRejection {
        if self.early.is_some() {
            return Ok(());
        }
        self.frames.push(part);
        while let Some(frame) = self.frames.frame().map_err(|error| untranslatable(error.to_string()))? {
            self.count += 1;
            match self.plan.stream {
                Some(form) => self.next(&frame.message, form, out)?,
                None if self.count > 1 => return Err(untranslatable("there is more than one message")),
                None => self.message = Some(frame.message),
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> OrRejection {
        let early = self.early.take();
        let fields = match &early {
            Some(Early::Http(status)) => {
                let status = *status;
                let mapped = GrpcStatus::of_http(status);
                out.target_status = Some(mapped.name().into());
                return self.fail(mapped, None, &format!("the target responded with the HTTP status {status}"), out);
            }
            Some(Early::Fields(fields)) => Some(fields),
            None => trailers,
        };
        let value = fields.and_then(|fields| fields.get(GRPC_STATUS));
        let (Some(fields), Some(value)) = (fields, value) else {
            return Err(untranslatable("it has no grpc-status"));
        };
        let status = GrpcStatus::of_field(value.as_bytes());
        out.target_status = Some(status.name().into());
        if early.is_none() {
            keep(fields, &mut self.metadata);
        }
        if status != GrpcStatus::Ok {
            let message = fields.get(GRPC_MESSAGE).map(|value| decode_message(value.as_bytes()));
            return self.fail(status, Some(fields), &message.unwrap_or_default(), out);
        }
        if !self.frames.is_at_boundary() {
            return Err(untranslatable("it ends within a message"));
        }
        self.succeed(out)
    }

    fn broken(&mut self, why: &Rejection, out: &mut ClientResponse) -> bool {
        let status = GrpcStatus::of(u32::from(why.reason.grpc_status()));
        self.write_status(status, None, why.reason.title());
        self.write_late(out)
    }
}

/// Adds the metadata of a response that are the client's: all but the fields of gRPC and of framing.
fn keep(fields: &HeaderMap, metadata: &mut HeaderMap) {
    for (name, value) in fields {
        if !name.as_str().starts_with("grpc-") && !DROPPED.contains(name) {
            metadata.append(name.clone(), value.clone());
        }
    }
}

/// Returns the code in an encoded `google.rpc.Status`.
fn code_of(encoded: &[u8]) -> Option<GrpcStatus> {
    let (mut records, mut code) = (Records::new(encoded), 0);
    while let Some((number, record)) = records.next().ok()? {
        if let (1, Record::Varint(value)) = (number, record) {
            code = u32::try_from(value).ok()?;
        }
    }
    Some(GrpcStatus::of(code))
}

/// Returns the content type and the data of a `google.api.HttpBody`, which may be in a field of the message.
fn http_body(message: &[u8], field: Option<u32>) -> Result<(HeaderValue, &[u8]), Box<Rejection>> {
    let bad = || untranslatable("its message is no google.api.HttpBody");
    let last = |bytes, wanted: u32| {
        let (mut records, mut found) = (Records::new(bytes), &b""[..]);
        while let Some((number, record)) = records.next().map_err(|_| bad())? {
            match record {
                Record::Bytes(bytes) if number == wanted => found = bytes,
                _ => {}
            }
        }
        Ok::<_, Box<Rejection>>(found)
    };
    let body = match field {
        Some(number) => last(message, number)?,
        None => message,
    };
    let content_type = match last(body, 1)? {
        b"" => HeaderValue::from_static("application/octet-stream"),
        bytes => HeaderValue::from_bytes(bytes).map_err(|_| bad())?,
    };
    Ok((content_type, last(body, 2)?))
}
