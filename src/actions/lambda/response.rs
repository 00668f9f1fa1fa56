//! The response of a function, read from that of AWS Lambda.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use pingora::http::ResponseHeader;
use serde_json::Value;

use super::call::LambdaCall;
use super::config::Invocation;
use super::credentials::AwsCredentials;
use crate::actions::translate::{ClientResponse, TranslateResponse};
use crate::exchange::{Reason, Rejection};
use crate::rules::aws::{EventFormat, EventFrames, StreamStart, parse_response};

/// The longest response that is not streamed: AWS's quota of 6 MB, with room for what it counts otherwise.
const MAX_RESPONSE: usize = 7 * 1024 * 1024;

/// The longest body of an error that is read.
const MAX_ERROR: usize = 64 * 1024;

/// The most characters of an error's type in the log.
const MAX_ERROR_TYPE: usize = 100;

const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The response of a call.
#[derive(Debug)]
pub struct FunctionCall {
    format: EventFormat,
    invocation: Invocation,
    streaming: bool,
    credentials: AwsCredentials,
    status: StatusCode,
    /// The type of an error of AWS itself.
    refused: Option<String>,
    /// `X-Amz-Function-Error`.
    function_error: Option<String>,
    retry_after: Option<HeaderValue>,
    body: BytesMut,
    frames: EventFrames,
    start: Option<StreamStart>,
    is_complete: bool,
}

impl FunctionCall {
    /// Returns the response of a call.
    pub fn new(call: &LambdaCall) -> Self {
        Self {
            format: call.format,
            invocation: call.invocation,
            streaming: call.streaming,
            credentials: call.credentials.clone(),
            status: StatusCode::OK,
            refused: None,
            function_error: None,
            retry_after: None,
            body: BytesMut::new(),
            frames: EventFrames::default(),
            start: Some(StreamStart::default()),
            is_complete: false,
        }
    }

    /// Returns whether the response comes in frames.
    fn is_streamed(&self) -> bool {
        self.streaming && self.refused.is_none()
    }

    /// Returns the rejection for an error of AWS Lambda itself.
    fn refusal(&self, kind: &str) -> Box<Rejection> {
        if matches!(kind, "ExpiredTokenException" | "ExpiredToken" | "UnrecognizedClientException") {
            self.credentials.renew_soon();
        }
        let log = format!("Lambda responded with {} {}", self.status.as_u16(), printable(kind));
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => {
                let after = self.retry_after.clone().unwrap_or_else(|| HeaderValue::from_static("1"));
                Rejection::new(Reason::FunctionThrottled, "").log(log).header(RETRY_AFTER, after)
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Rejection::new(Reason::BodyTooLarge, "the event of the function is too large").log(log)
            }
            _ => Rejection::new(Reason::FunctionFailed, "").log(log),
        }
    }

    /// Passes on what a part of a stream adds to the response.
    fn stream(&mut self, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        let malformed = |why: &str| Rejection::new(Reason::ResponseUntranslatable, "").log(why.to_owned());
        while let Some(frame) = self.frames.next_frame().map_err(malformed)? {
            match (frame.message.as_str(), frame.kind.as_str()) {
                ("event", "PayloadChunk") => self.chunk(&frame.payload, out)?,
                ("event", "InvokeComplete") => {
                    let complete: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
                    if let Some(code) =
                        complete.get("ErrorCode").and_then(Value::as_str).filter(|code| !code.is_empty())
                    {
                        out.target_status = Some("error".into());
                        return Err(failed(code));
                    }
                    self.is_complete = true;
                }
                ("event", _) => {}
                (_, kind) => {
                    out.target_status = Some("error".into());
                    return Err(failed(kind));
                }
            }
        }
        Ok(())
    }

    fn chunk(&mut self, payload: &Bytes, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        let Some(start) = &mut self.start else {
            out.body.extend_from_slice(payload);
            return Ok(());
        };
        let begun = start.push(payload).map_err(malformed)?;
        if let Some((prelude, body)) = begun {
            self.start = None;
            decide(out, prelude.status, prelude.headers);
            out.body.extend_from_slice(&body);
        }
        Ok(())
    }

    fn end_stream(&mut self, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if !self.is_complete || !self.frames.is_empty() {
            return Err(Rejection::new(Reason::TargetReset, "").log("the stream ended before it was complete"));
        }
        if let Some(mut start) = self.start.take() {
            let (prelude, body) = start.end();
            decide(out, prelude.status, prelude.headers);
            out.body.extend_from_slice(&body);
        }
        Ok(())
    }
}

impl TranslateResponse for FunctionCall {
    fn head(&mut self, head: &ResponseHeader, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        let text = |name: &HeaderName| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        self.status = head.status;
        out.target_status = Some(head.status.as_str().into());
        if !head.status.is_success() {
            self.retry_after = head.headers.get(RETRY_AFTER).cloned();
            self.refused = Some(text(&ERROR_TYPE).unwrap_or_default());
        } else if let Some(error) = text(&FUNCTION_ERROR) {
            out.target_status = Some(printable(&error).into());
            self.function_error = Some(error);
        }
        Ok(())
    }

    fn part(&mut self, part: &Bytes, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if self.is_streamed() {
            self.frames.push(part);
            return self.stream(out);
        }
        let is_error = self.refused.is_some() || self.function_error.is_some();
        if self.body.len() + part.len() > if is_error { MAX_ERROR } else { MAX_RESPONSE } {
            if is_error {
                return Ok(());
            }
            return Err(Rejection::new(Reason::ResponseUntranslatable, "").log("the response is too long"));
        }
        self.body.extend_from_slice(part);
        Ok(())
    }

    fn end(&mut self, _trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if let Some(kind) = &self.refused {
            // `ResourceNotFoundException:http://…`
            return Err(self.refusal(kind.split(':').next().unwrap_or_default()));
        }
        if self.function_error.is_some() {
            let error: Value = serde_json::from_slice(&self.body).unwrap_or_default();
            return Err(failed(error.get("errorType").and_then(Value::as_str).unwrap_or("unknown")));
        }
        if self.is_streamed() {
            return self.end_stream(out);
        }
        match self.invocation {
            Invocation::Event => decide(out, 202, HeaderMap::new()),
            Invocation::DryRun => decide(out, 204, HeaderMap::new()),
            Invocation::RequestResponse => {
                let response = parse_response(self.format, self.body.split().freeze()).map_err(malformed)?;
                decide(out, response.status, response.headers);
                out.body.extend_from_slice(&response.body);
            }
        }
        Ok(())
    }
}

fn decide(out: &mut ClientResponse, status: u16, headers: HeaderMap) {
    out.decide(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers);
}

fn malformed(why: &'static str) -> Box<Rejection> {
    Rejection::new(Reason::ResponseUntranslatable, "").log(format!("the response of the function: {why}"))
}

/// Returns the rejection for an error of the function, whose type only the log names.
fn failed(kind: &str) -> Box<Rejection> {
    Rejection::new(Reason::FunctionFailed, "").log(format!("the function failed: {}", printable(kind)))
}

/// Returns the type of an error as it may be logged.
fn printable(kind: &str) -> String {
    let fine = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    kind.chars().take(MAX_ERROR_TYPE).map(fine).collect()
}
