//! Mirroring: copies of requests for another upstream. The client never waits for a copy, and never sees its
//! response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use pingora::http::RequestHeader;
use smallvec::SmallVec;

use super::{Context, Gateway};
use crate::actions::Mirror;
use crate::upstreams::{Caller, Calls, Class, OutgoingRequest, Upstream, Visit};

/// The longest body that is copied.
const MAX_MIRRORED_BODY: usize = 64 * 1024;

/// A copy in progress, for one upstream or for several.
#[derive(Debug)]
pub struct RequestCopy {
    request: RequestHeader,
    body: BytesMut,
    receivers: SmallVec<[Receiver; 1]>,
}

/// An upstream that gets a copy.
#[derive(Debug)]
struct Receiver {
    upstream: Arc<Upstream>,
    place: MirrorPlace,
}

/// The state of a request's copy.
#[derive(Debug, Default)]
pub enum Mirroring {
    /// It is not decided yet.
    #[default]
    Open,
    /// The copy is in progress.
    Copying(Box<RequestCopy>),
    /// There is no copy, or it has been sent.
    Over,
}

impl Mirroring {
    /// Begins again with the body, which is sent again.
    pub(super) fn restart(&mut self) {
        if let Self::Copying(copy) = self {
            copy.body.clear();
        }
    }
}

/// Decides once per request whether it is copied, in the form that its target gets.
pub(super) fn begin(ctx: &mut Context, request: &RequestHeader) {
    if matches!(ctx.mirroring, Mirroring::Open) {
        ctx.mirroring = RequestCopy::begin(ctx, request).map_or(Mirroring::Over, Mirroring::Copying);
    }
}

/// A place among the concurrent copies.
#[derive(Debug)]
struct MirrorPlace(Arc<AtomicU32>);

impl MirrorPlace {
    fn take(mirror: &Mirror) -> Option<Self> {
        let free = |active: u32| (active < mirror.concurrent).then(|| active + 1);
        mirror.active.fetch_update(Ordering::AcqRel, Ordering::Relaxed, free).ok()?;
        Some(Self(Arc::clone(&mirror.active)))
    }
}

impl Drop for MirrorPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl RequestCopy {
    /// Begins a copy of a request, if it is to be copied.
    fn begin(ctx: &Context, request: &RequestHeader) -> Option<Box<Self>> {
        let mirrors = &ctx.forward()?.mirrors;
        let receivers: SmallVec<[Receiver; 1]> = mirrors.iter().filter_map(Receiver::choose).collect();
        if receivers.is_empty() {
            return None;
        }
        let mut request = request.clone();
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
            request.remove_header(&name);
        }
        Some(Box::new(Self { request, body: BytesMut::new(), receivers }))
    }
}

impl Receiver {
    /// Returns the mirror as a receiver of a request, if that is in its share and it has a place for it.
    fn choose(mirror: &Mirror) -> Option<Self> {
        if u64::from(fastrand::u32(..)) >= mirror.share {
            return None;
        }
        let Some(place) = MirrorPlace::take(mirror) else {
            mirror.upstream.metrics().mirrored[1].inc();
            return None;
        };
        Some(Self { upstream: Arc::clone(&mirror.upstream), place })
    }
}

impl Gateway {
    /// Adds a part of the body to the copy, and sends the copy when that was the last.
    pub(super) fn copy_body(&self, ctx: &mut Context, body: Option<&Bytes>, end: bool) {
        let Mirroring::Copying(copy) = &mut ctx.mirroring else { return };
        if let Some(part) = body {
            if copy.body.len() + part.len() > MAX_MIRRORED_BODY {
                copy.receivers.iter().for_each(|receiver| receiver.upstream.metrics().mirrored[1].inc());
                ctx.mirroring = Mirroring::Over;
                return;
            }
            copy.body.extend_from_slice(part);
        }
        if end && let Mirroring::Copying(copy) = std::mem::replace(&mut ctx.mirroring, Mirroring::Over) {
            let RequestCopy { request, body, receivers } = *copy;
            let (request, body) = (Arc::new(request), body.freeze());
            for Receiver { upstream, place } in receivers {
                let (calls, request, body) = (Arc::clone(&self.calls), Arc::clone(&request), body.clone());
                tokio::spawn(async move {
                    let sent = send(&calls, &upstream, &request, body).await;
                    upstream.metrics().mirrored[usize::from(!sent)].inc();
                    drop(place);
                });
            }
        }
    }
}

/// Sends a copy and reads the response, so that the connection can be reused. Returns whether there was one.
async fn send(calls: &Calls, upstream: &Arc<Upstream>, request: &RequestHeader, body: Bytes) -> bool {
    let mut visit = Visit::single(Arc::clone(upstream), Class::Low, None);
    let outgoing = OutgoingRequest {
        head: request,
        body,
        caller: Caller::default(),
        safe: false,
        hedged: false,
        upgrade: false,
        grpc: false,
        edit: &|_, _, _| Ok(()),
        interim: None,
        is_wanted: &|| true,
    };
    let Ok(mut response) = calls.send(&mut visit, &outgoing).await else { return false };
    let read = response.read(MAX_MIRRORED_BODY).await;
    calls.release(response).await;
    read.is_ok()
}
