//! A request of the gateway's own to a target, over Pingora's connectors.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pingora::Result;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use crate::tls::{is_verified_later, verify_own_certificate};

/// The response to a call.
#[derive(Debug)]
pub struct Reply {
    /// The head.
    pub head: ResponseHeader,
    /// The body, as far as it was read.
    pub body: Bytes,
    /// The trailers, on HTTP/2.
    pub trailers: Option<HeaderMap>,
}

/// The most interim responses to one request.
pub const MAX_INTERIM: u32 = 16;

/// Handles the heads of interim responses.
pub type Interim<'i> = &'i mut (dyn FnMut(ResponseHeader) + Send);

/// Connects to a target, and returns whether the connection was reused.
pub async fn connect(connector: &Connector<()>, peer: &HttpPeer) -> Result<(HttpSession<()>, bool)> {
    let (mut session, reused) = connector.get_http_session(peer).await?;
    if is_verified_later(peer) {
        Box::pin(verify_own_certificate(peer, session.digest())).await?;
    }
    session.set_read_timeout(peer.options.read_timeout);
    session.set_write_timeout(peer.options.write_timeout);
    Ok((session, reused))
}

/// Sends a request and reads the head of the response, each within `limit`. Interim ones before it go to `interim`. A
/// response that switches protocols must be one to an `upgrade`.
pub async fn exchange(
    session: &mut HttpSession<()>,
    request: RequestHeader,
    body: Bytes,
    upgrade: bool,
    limit: Option<Duration>,
    interim: Interim<'_>,
) -> Result<ResponseHeader> {
    if let Err(error) = send(session, request, body, upgrade).await {
        // A target that has responded before it has read the whole body may reset the stream (RFC 9113, section 8.1).
        let responded = match session {
            HttpSession::H2(_) if is_reset(&error) => read_head(session, limit, upgrade, interim).await.ok(),
            _ => None,
        };
        return responded.ok_or_else(|| error.into_up());
    }
    read_head(session, limit, upgrade, interim).await.map_err(pingora::Error::into_up)
}

/// Returns whether a request could not be sent because its stream is closed.
fn is_reset(error: &pingora::Error) -> bool {
    use pingora::ErrorType::{H2Error, WriteError};
    matches!(error.etype(), H2Error | WriteError)
}

/// Returns whether a stream was reset with NO_ERROR, as a target does that has sent its whole response.
pub fn is_reset_in_order(error: &pingora::Error) -> bool {
    let reset = error.root_cause().downcast_ref::<h2::Error>();
    reset.is_some_and(|e| e.is_reset() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR))
}

/// Returns whether connecting failed because the gateway itself lacks a resource: Pingora reports it as internal when
/// no socket can be made or bound.
pub fn is_exhaustion(error: &pingora::Error) -> bool {
    use pingora::ErrorType::{BindError, InternalError, SocketError};
    matches!(error.etype(), InternalError | SocketError | BindError)
}

/// Returns the text of an error: why TLS failed, or else the error at the root of the others.
///
/// With TLS, Pingora keeps the reason in the middle of the text of an error, and the error at its root contains only
/// the local address.
pub fn error_text(error: &pingora::Error) -> String {
    use pingora::ErrorType::{HandshakeError, InvalidCert, TLSHandshakeFailure};
    if matches!(error.etype(), TLSHandshakeFailure | InvalidCert | HandshakeError) {
        let mut at = error;
        while let Some(below) = at.cause.as_ref().and_then(|cause| cause.downcast_ref::<pingora::BError>()) {
            at = below;
        }
        if let Some(context) = &at.context {
            let text = context.as_str();
            let text = text.rsplit_once(", SNI: ").map_or(text, |(text, _)| text);
            return format!("TLS: {}", text.rsplit_once(" cause: ").map_or(text, |(_, reason)| reason));
        }
    }
    let root = error.root_cause();
    let context = root.downcast_ref::<pingora::BError>().and_then(|e| e.context.as_ref());
    context.map_or_else(|| root.to_string(), |c| c.as_str().to_owned())
}

/// Releases the connection for reuse when the whole response was read and the peer has an idle timeout.
pub async fn release(connector: &Connector<()>, peer: &HttpPeer, mut session: HttpSession<()>) {
    if session.response_done() && peer.options.idle_timeout != Some(Duration::ZERO) {
        connector.release_http_session(session, peer, peer.options.idle_timeout).await;
    } else {
        session.shutdown().await;
    }
}

/// Reads at most `most` bytes of the body, and returns whether that is the whole of it.
pub async fn read_body(session: &mut HttpSession<()>, most: usize) -> Result<(Bytes, bool)> {
    let mut taken = BytesMut::new();
    let mut whole = true;
    while whole {
        let Some(part) = session.read_response_body().await? else { break };
        whole = taken.len() + part.len() <= most;
        taken.extend_from_slice(&part[..part.len().min(most - taken.len())]);
    }
    Ok((taken.freeze(), whole))
}

/// Sends a request and reads the response, with at most `most` bytes of its body. The connection is released for
/// reuse when the whole response was read and the peer has an idle timeout.
pub async fn call(
    connector: &Connector<()>,
    peer: &HttpPeer,
    request: RequestHeader,
    body: Bytes,
    most: usize,
) -> Result<Reply> {
    let (mut session, _) = connect(connector, peer).await?;
    let head = exchange(&mut session, request, body, false, peer.options.read_timeout, &mut |_| {}).await?;
    let (body, whole) = read_body(&mut session, most).await?;
    let trailers = match &mut session {
        HttpSession::H2(h2) if whole => h2.read_trailers().await?,
        _ => None,
    };
    release(connector, peer, session).await;
    Ok(Reply { head, body, trailers })
}

async fn send(session: &mut HttpSession<()>, mut request: RequestHeader, body: Bytes, upgrade: bool) -> Result<()> {
    if let HttpSession::H2(_) = session {
        // HTTP/2 has its authority in the target.
        if let Some(host) = request.remove_header(&http::header::HOST) {
            let authority = host.to_str().unwrap_or_default();
            let path = request.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
            if let Ok(uri) = uri {
                request.set_uri(uri);
            }
        }
        request.set_version(http::Version::HTTP_2);
        request.set_send_end_stream(body.is_empty());
    } else {
        if let (Some(authority), false) = (request.uri.authority(), request.headers.contains_key(http::header::HOST)) {
            let host = authority.as_str().to_owned();
            request.insert_header(http::header::HOST, host)?;
        }
        if request.uri.authority().is_some() {
            let path = request.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes().to_vec();
            request.set_raw_path(&path)?;
        }
        request.set_version(http::Version::HTTP_11);
        if !body.is_empty() {
            request.insert_header(http::header::CONTENT_LENGTH, body.len())?;
        }
    }
    session.write_request_header(Box::new(request)).await?;
    if upgrade {
        // Such a request has no end.
        return Ok(());
    }
    if !body.is_empty() {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await
}

/// Returns the head of the final response. Each head may take that long as a whole: Pingora's timeout is for each
/// part of it that comes.
async fn read_head(
    session: &mut HttpSession<()>,
    limit: Option<Duration>,
    upgrade: bool,
    interim: Interim<'_>,
) -> Result<ResponseHeader> {
    for _ in 0..=MAX_INTERIM {
        let reading = session.read_response_header();
        match limit {
            Some(limit) => match tokio::time::timeout(limit, reading).await {
                Ok(read) => read?,
                Err(_) => {
                    return pingora::Error::e_explain(
                        pingora::ErrorType::ReadTimedout,
                        "the head of the response took too long",
                    );
                }
            },
            None => reading.await?,
        }
        let Some(head) = session.response_header().cloned() else {
            return pingora::Error::e_explain(pingora::ErrorType::InvalidHTTPHeader, "there is no response");
        };
        if upgrade && head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(head);
        }
        if let Some(why) = misframed(&head) {
            return pingora::Error::e_explain(pingora::ErrorType::InvalidHTTPHeader, why);
        }
        if !head.status.is_informational() {
            return Ok(head);
        }
        interim(head);
    }
    pingora::Error::e_explain(pingora::ErrorType::InvalidHTTPHeader, "the target sent too many interim responses")
}

/// Returns why the end of a response is unknown, or may be read differently by others: an upgrade that was not
/// requested; a transfer coding other than chunked, or in a version that has none; a length that is no number (RFC
/// 9112, sections 6.1 and 6.3).
pub fn misframed(response: &ResponseHeader) -> Option<&'static str> {
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        return Some("the target switched to a protocol that was not requested");
    }
    let headers = &response.headers;
    if let Some(length) = headers.get(http::header::CONTENT_LENGTH) {
        let number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        return (!number).then_some("the target sent a Content-Length that is not one number");
    }
    let coding = headers.get(http::header::TRANSFER_ENCODING)?;
    if response.version == http::Version::HTTP_10 {
        return Some("the target sent Transfer-Encoding with HTTP/1.0");
    }
    let plain = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
        && headers.get_all(http::header::TRANSFER_ENCODING).iter().count() == 1;
    (!plain).then_some("the target sent a transfer coding other than chunked")
}
