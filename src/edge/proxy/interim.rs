//! Interim responses (RFC 9110, section 15.2) and the expectation of one (section 10.1.1).

use http::Version;
use http::header::EXPECT;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::Context;
use crate::upstreams::MAX_INTERIM;

/// The most interim responses that a target may send to a request.
pub(super) const MAX_INTERIM_RESPONSES: u32 = MAX_INTERIM;

/// The interim responses to a request.
#[derive(Debug, Default)]
pub struct Interims {
    /// The number that the target has sent.
    pub count: u32,
    /// Whether the gateway itself has asked the client for its body.
    continued: bool,
    /// Whether the client's connection was to be reused, as it was before an interim response.
    kept: Option<Option<u64>>,
}

/// Notes the reuse of the connection before an interim response: Pingora handles one before the end of the request
/// like a final one, and would close the connection. Once the body has come it is reused after all.
pub(super) fn note_reuse(session: &mut Session, response: &ResponseHeader, interims: &mut Interims) {
    if response.status.is_informational() {
        interims.kept.get_or_insert(session.get_keepalive());
    } else {
        restore_reuse(session, interims);
    }
}

/// Restores the reuse of the connection as it was before an interim response, once the body has come.
pub(super) fn restore_reuse(session: &mut Session, interims: &mut Interims) {
    if let Some(kept) = interims.kept.take()
        && session.is_body_done()
    {
        session.set_keepalive(kept);
    }
}

/// Fulfils an expectation that is not forwarded to the target. A client of HTTP/1.0 has none, and gets no interim
/// response. Those of HTTP/2 targets are lost, since Pingora never reads them (`v2/client.rs`): the gateway itself
/// sends 100.
pub(super) async fn expect(session: &mut Session, request: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
    let old = session.req_header().version == Version::HTTP_10;
    if old {
        session.set_ignore_info_resp(true);
    }
    if !request.headers.contains_key(EXPECT) {
        return Ok(());
    }
    let bodiless = session.is_body_empty();
    if old || bodiless || ctx.whole.is_some() || request.version == Version::HTTP_2 {
        request.remove_header(&EXPECT);
    }
    if old {
        // Pingora would forward a 100 to every client that has an expectation.
        session.req_header_mut().remove_header(&EXPECT);
    } else if !bodiless && request.version == Version::HTTP_2 {
        ask_for_body(session, &mut ctx.interims).await?;
    }
    Ok(())
}

/// Asks the client for its body, once.
pub(super) async fn ask_for_body(session: &mut Session, interims: &mut Interims) -> Result<()> {
    if std::mem::replace(&mut interims.continued, true) {
        return Ok(());
    }
    let head = ResponseHeader::build(100, Some(0))?;
    note_reuse(session, &head, interims);
    session.as_mut().write_response_header(Box::new(head)).await
}

/// Forwards an interim response to a client that supports them (RFC 9110, section 15.2).
pub(super) async fn forward_interim(
    session: &mut Session,
    head: ResponseHeader,
    interims: &mut Interims,
) -> Result<()> {
    if session.req_header().version == Version::HTTP_10 || head.status == http::StatusCode::CONTINUE {
        return Ok(());
    }
    note_reuse(session, &head, interims);
    session.as_mut().write_response_header(Box::new(head)).await
}
