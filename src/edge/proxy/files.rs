//! Static files: they are found, and sent at the client's pace, without blocking a worker.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue,
    LAST_MODIFIED, LOCATION, VARY,
};
use http::{Method, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use tokio::sync::Semaphore;

use super::pick::fail_with;
use super::respond::drain_short_rest;
use super::waiting::{Waited, pause, wait};
use super::{Context, Gateway};
use crate::actions::{FileRequest, Files, Found, OpenedFile};
use crate::exchange::{Reason, Rejection};
use crate::filters::Stage;
use crate::rules::files::{Precondition, RangeChoice, Validators, choose_range, evaluate_conditions};

/// The bytes that are read at a time: what a response holds of its file.
const FILE_PART: u64 = 64 * 1024;

/// The most reads at a time in the whole process; each takes a thread.
const MAX_READS: usize = 64;

/// The longest that a read may take, with the wait for its turn.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

static READS: Semaphore = Semaphore::const_new(MAX_READS);

/// The response to a request for a file.
struct FileResponse {
    status: u16,
    /// The bytes of the file that it has.
    bytes: Range<u64>,
    validators: Validators,
}

impl Gateway {
    /// Responds with a file, or with a redirect to a folder.
    pub(super) async fn serve_file(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        request: FileRequest<'_>,
    ) -> Result<()> {
        let files = request.files;
        let (folder, codings) = (Arc::clone(&files.folder), files.codings_for(&session.req_header().headers));
        let rejection = match read(ctx, move || folder.find(&request.name, &codings)).await {
            Ok(Found::File(file)) => match FileResponse::to(session.req_header(), &file, is_edited(ctx, &file)) {
                Ok(response) => return self.send_file(session, ctx, (files, file.into()), response).await,
                Err(rejection) => rejection,
            },
            Ok(Found::Folder) => {
                let location = folder_location(session.req_header());
                let headers = [(LOCATION, location)];
                return self.respond(session, ctx, Reason::Redirected, 308, &headers, Bytes::new()).await;
            }
            Ok(Found::Missing(why)) => Rejection::new(Reason::FileNotFound, "").log(why),
            Err(rejection) if rejection.reason == Reason::ClientGone => {
                let error = fail_with(ctx, rejection);
                self.respond_to_failure(session, &error, ctx).await;
                ctx.close_after(session);
                return Ok(());
            }
            Err(rejection) => rejection,
        };
        self.reject(session, &rejection, ctx).await
    }

    /// Sends a file through the route's filters.
    ///
    /// # Errors
    /// Fails where the response has begun and cannot be completed, which the client is to see.
    async fn send_file(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (files, file): (&Files, Arc<OpenedFile>),
        response: FileResponse,
    ) -> Result<()> {
        let Err(error) = self.stream_file(session, ctx, (files, file), response).await else { return Ok(()) };
        if session.response_written().is_some() {
            return Err(error);
        }
        self.respond_to_failure(session, &error, ctx).await;
        ctx.close_after(session);
        Ok(())
    }

    async fn stream_file(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (files, file): (&Files, Arc<OpenedFile>),
        response: FileResponse,
    ) -> Result<()> {
        let mut head = response.head(files, &file)?;
        let bytes = response.bytes;
        let bodiless = session.req_header().method == Method::HEAD || bytes.is_empty();
        // Read before the response has begun: where it fails, the client gets an error.
        let part = if bodiless { Bytes::new() } else { read_part(ctx, &file, &bytes, bytes.start).await? };
        self.edit_response_head(session.req_header(), &mut head, ctx)?;
        ctx.exchange.reason = Reason::Served;
        if session.req_header().version == Version::HTTP_10 && !head.headers.contains_key(CONTENT_LENGTH) {
            // The end of the connection is the end of the body.
            ctx.close_after(session);
        }
        ctx.end_with_the_listener(session);
        ctx.downstream.connection.iter().for_each(|connection| connection.clear_corks());
        drain_short_rest(session);
        let bodiless = bodiless && (ctx.body.is_empty() || session.req_header().method == Method::HEAD);
        session.write_response_tasks(vec![HttpTask::Header(Box::new(head), bodiless)]).await?;
        if bodiless { Ok(()) } else { self.send_bytes(session, ctx, (&file, bytes), part).await }
    }

    /// Sends bytes of a file, of which the first part was read before.
    async fn send_bytes(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (file, bytes): (&Arc<OpenedFile>, Range<u64>),
        mut part: Bytes,
    ) -> Result<()> {
        let mut at = bytes.start;
        loop {
            at += part.len() as u64;
            let end = at >= bytes.end;
            let mut body = Some(part);
            if let Some(delay) = self.edit_body(&mut body, end, ctx)? {
                pause(ctx, delay).await?;
            }
            if body.is_some() || end {
                session.write_response_tasks(vec![HttpTask::Body(body, end)]).await?;
            }
            if end {
                return Ok(());
            }
            part = read_part(ctx, file, &bytes, at).await?;
        }
    }
}

/// Reads the next part of a file.
async fn read_part(ctx: &mut Context, file: &Arc<OpenedFile>, bytes: &Range<u64>, at: u64) -> Result<Bytes> {
    let (file, length) = (Arc::clone(file), (bytes.end - at).min(FILE_PART) as usize);
    read(ctx, move || file.read(at, length)).await.map_err(|rejection| fail_with(ctx, rejection))
}

/// Runs work that blocks on a thread of its own, while the client is there.
async fn read<T: Send + 'static>(
    ctx: &Context,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> std::result::Result<T, Box<Rejection>> {
    let task = async {
        let turn = READS.acquire().await.map_err(io::Error::other)?;
        let work = move || {
            // Given back when the work is done, even where nobody waits for it any more.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    };
    match wait(&ctx.downstream, Some(Instant::now() + READ_TIMEOUT), task).await {
        Waited::Done(Ok(done)) => Ok(done),
        Waited::Done(Err(error)) => {
            let used_up = matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE));
            let reason = if used_up { Reason::Exhausted } else { Reason::FileFailed };
            Err(Rejection::new(reason, "").log(error.to_string()))
        }
        Waited::Late => Err(Rejection::new(Reason::FilesOverloaded, "").log("reading took too long")),
        Waited::Gone => Err(Rejection::new(Reason::ClientGone, "")),
    }
}

impl FileResponse {
    /// Returns the response to a request, or the rejection where the request's conditions do not hold. One that is
    /// edited is sent whole (RFC 9110, section 14.2, allows to ignore a range).
    fn to(request: &RequestHeader, file: &OpenedFile, is_edited: bool) -> std::result::Result<Self, Box<Rejection>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let validators = Validators::new(file.modified, file.size, file.coding, now);
        let (status, bytes) = match evaluate_conditions(&request.headers, &validators) {
            Precondition::Failed => return Err(Rejection::new(Reason::PreconditionFailed, "")),
            Precondition::NotModified => (304, 0..0),
            // Only GET has ranges (RFC 9110, section 14.2).
            Precondition::Met if request.method != Method::GET || is_edited => (200, 0..file.size),
            Precondition::Met => match choose_range(&request.headers, &validators, file.size) {
                RangeChoice::Whole => (200, 0..file.size),
                RangeChoice::Part(from, to) => (206, from..to),
                RangeChoice::Unsatisfiable => return Err(unsatisfiable(file.size)),
            },
        };
        Ok(Self { status, bytes, validators })
    }

    /// Returns the head (RFC 9110, sections 15.3.1, 15.3.7 and 15.4.5).
    fn head(&self, files: &Files, file: &OpenedFile) -> Result<ResponseHeader> {
        let Self { status, bytes, validators } = self;
        let mut head = ResponseHeader::build(*status, Some(16))?;
        if *status != 304 {
            head.insert_header(CONTENT_TYPE, &file.media_type)?;
            head.insert_header(CONTENT_LENGTH, bytes.end - bytes.start)?;
            head.insert_header(ACCEPT_RANGES, HeaderValue::from_static("bytes"))?;
            if let Some(coding) = file.coding {
                head.insert_header(CONTENT_ENCODING, HeaderValue::from_static(coding.name()))?;
            }
        }
        if *status == 206 {
            head.insert_header(CONTENT_RANGE, format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, file.size))?;
        }
        if let Some(etag) = &validators.etag {
            head.insert_header(ETAG, etag)?;
        }
        if let Some(date) = validators.last_modified() {
            head.insert_header(LAST_MODIFIED, date)?;
        }
        if let Some(value) = &files.cache_control {
            head.insert_header(CACHE_CONTROL, value)?;
        }
        if files.negotiates() {
            head.insert_header(VARY, HeaderValue::from_static("accept-encoding"))?;
        }
        Ok(head)
    }
}

/// Returns whether a filter of the route edits the body of that file, for which it needs the whole.
fn is_edited(ctx: &Context, file: &OpenedFile) -> bool {
    // These filters leave what is not JSON as it is.
    let is_json = file.media_type.as_bytes().windows(4).any(|word| word.eq_ignore_ascii_case(b"json"));
    let chain = ctx.route().filter(|_| is_json).map(|route| route.filters(ctx.listener));
    chain.is_some_and(|chain| {
        chain.filters().any(|filter| filter.stage() == Stage::Edit && filter.needs().response_body())
    })
}

/// Returns the rejection of a range that a file of that size does not have (RFC 9110, section 15.5.17).
fn unsatisfiable(size: u64) -> Box<Rejection> {
    let rejection = Rejection::new(Reason::RangeNotSatisfiable, "");
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(length) => rejection.header(CONTENT_RANGE, length),
        Err(_) => rejection,
    }
}

/// Returns the path of the request with a slash behind it. It is one in normal form, which never begins with two
/// slashes: those would name a host.
fn folder_location(request: &RequestHeader) -> HeaderValue {
    let path = request.uri.path().trim_start_matches('/');
    let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::try_from(format!("/{path}/{query}")).unwrap_or_else(|_| HeaderValue::from_static("/"))
}
