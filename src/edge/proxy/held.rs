//! Responses whose head is held back until the body is known, since a filter may replace them.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::pick::fail_with;
use super::waiting::{Waited, pause, wait};
use super::{Context, Gateway};
use crate::exchange::{Reason, Rejection};
use crate::upstreams::Response;

impl Gateway {
    /// Reads the whole body of a response, and then sends head and body. What is held is bounded by the filter that
    /// holds it.
    ///
    /// # Errors
    /// Fails before anything is written where a filter replaces the response.
    pub(super) async fn send_held(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (mut head, mut response): (ResponseHeader, Response),
    ) -> Result<()> {
        let mut held = BytesMut::new();
        loop {
            let mut body = match wait(&ctx.downstream, ctx.deadline(), response.part()).await {
                Waited::Done(body) => body?,
                Waited::Late => return Err(fail_with(ctx, Rejection::new(Reason::RouteTimeout, ""))),
                Waited::Gone => return Err(fail_with(ctx, Rejection::new(Reason::ClientGone, ""))),
            };
            let end = body.is_none() || response.is_done();
            if let Some(delay) = self.edit_body(&mut body, end, ctx)? {
                pause(ctx, delay).await?;
            }
            held.extend_from_slice(&body.unwrap_or_default());
            if end {
                break;
            }
        }
        let body: Bytes = held.freeze();
        head.remove_header(&TRANSFER_ENCODING);
        head.insert_header(CONTENT_LENGTH, body.len())?;
        ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(body), true).await?;
        self.calls.release(response).await;
        Ok(())
    }
}
