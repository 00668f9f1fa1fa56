//! HTTP calls that the gateway makes for itself: key sets, introspection, forward authentication, logins.
//!
//! A client belongs to one dependency. It has a bounded number of calls in progress, a time-out for each call, a bound
//! for the size of responses, and a breaker: while the dependency is down, a call costs microseconds and not a
//! time-out. Redirects are not followed, since a call carries credentials.

mod breaker;
mod connections;
mod error;
mod settings;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::telemetry::metrics::{CallMetrics, CallOutcome, METRICS};

use breaker::{CallBreaker, CallTurn};
use connections::{Connection, Connections, Origin};
use error::chain;

pub use connections::RequestBody;
pub use error::CallError;
pub use settings::{CallConfig, HttpClientSettings};

/// The most bytes that are allocated for a body before any of it has come.
const MAX_PREALLOCATED: u64 = 64 * 1024;

/// A client for the calls to one dependency.
#[derive(Debug)]
pub struct HttpClient {
    settings: HttpClientSettings,
    connections: Connections,
    breaker: CallBreaker,
    /// The calls in progress and those that wait.
    entered: Semaphore,
    /// The calls in progress.
    places: Semaphore,
    metrics: &'static CallMetrics,
}

/// A marker among a request's extensions: it may be sent a second time when a connection that was used before turns
/// out to be closed, although its method is not idempotent (RFC 9110, section 9.2.2).
#[derive(Clone, Copy, Debug)]
pub struct Repeatable;

/// A response whose body is read as it comes.
#[derive(Debug)]
pub struct StreamedResponse<'c> {
    /// The head.
    pub head: http::response::Parts,
    body: Incoming,
    _place: Place<'c>,
}

/// The place of a call among those in progress.
type Place<'c> = (SemaphorePermit<'c>, SemaphorePermit<'c>);

/// A request for which no head of a response came.
struct Unanswered {
    error: CallError,
    on_reused: bool,
}

impl From<CallError> for Unanswered {
    fn from(error: CallError) -> Self {
        Self { error, on_reused: false }
    }
}

impl HttpClient {
    /// Returns a client without connections.
    ///
    /// # Errors
    /// When the CA file, the certificate or the key is wrong.
    pub fn new(settings: HttpClientSettings) -> Result<Self, String> {
        let identity = settings.identity.as_ref().map(|(cert, key)| (cert.path.as_path(), key.path.as_path()));
        let tls = crate::tls::client_config(settings.ca.as_ref().map(|ca| ca.path.as_path()), identity)?;
        Ok(Self {
            connections: Connections::new(tls, settings.connect_timeout),
            breaker: CallBreaker::new(settings.breaker, settings.dependency.clone()),
            entered: Semaphore::new(settings.max_concurrent.saturating_add(settings.max_waiting)),
            places: Semaphore::new(settings.max_concurrent),
            metrics: METRICS.calls(settings.kind),
            settings,
        })
    }

    /// Sends a request and returns the whole response.
    ///
    /// # Errors
    /// When there is no response within the time-out, or it is too large. Every status is a response.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let begun = Instant::now();
        let result = self.try_send(request, begun).await;
        self.count(begun, result.as_ref().err());
        result
    }

    /// Returns the body of a GET of `url`.
    ///
    /// # Errors
    /// As [`Self::send`], and when the status is not 200.
    pub async fn get(&self, url: &str) -> Result<Bytes, CallError> {
        let request = Request::get(url).body(Bytes::new()).map_err(|_| CallError::Request("no URL".to_owned()))?;
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            other => Err(CallError::Status(other.as_u16())),
        }
    }

    /// Sends a request whose body may be streamed, and returns the head of the response within the time-out, with a
    /// body that is read as it comes. The place among the calls in progress is held until the response is dropped.
    ///
    /// # Errors
    /// When there is no head of a response within the time-out.
    pub async fn open(&self, request: Request<RequestBody>) -> Result<StreamedResponse<'_>, CallError> {
        let begun = Instant::now();
        let result = self.try_open(request, begun).await;
        self.count(begun, result.as_ref().err());
        result
    }

    async fn try_open(&self, request: Request<RequestBody>, begun: Instant) -> Result<StreamedResponse<'_>, CallError> {
        let mut turn = self.breaker.admit()?;
        let place = self.enter(begun).await?;
        let origin = Origin::of(request.uri())?;
        let request = in_origin_form(request)?;
        // Its body cannot be sent twice, so it does not take a connection that may be closed.
        let result = self.within(begun, async { Ok(self.exchange_head(&origin, request, true).await?) }).await;
        turn.record(result.as_ref().map(|(response, _)| response.status()));
        let (head, body) = result?.0.into_parts();
        Ok(StreamedResponse { head, body, _place: place })
    }

    async fn try_send(&self, request: Request<Bytes>, begun: Instant) -> Result<Response<Bytes>, CallError> {
        // Before a place is waited for: while the breaker is open, nothing waits.
        let mut turn = self.breaker.admit()?;
        let _place = self.enter(begun).await?;
        let result = self.within(begun, self.exchange(request, &mut turn)).await;
        if let Err(error) = &result {
            turn.record(Err(error));
        }
        result
    }

    /// Waits for a place among the calls in progress.
    async fn enter(&self, begun: Instant) -> Result<Place<'_>, CallError> {
        let entered = self.entered.try_acquire().map_err(|_| CallError::Busy)?;
        let place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => match tokio::time::timeout(self.left(begun), self.places.acquire()).await {
                Ok(Ok(place)) => place,
                _ => return Err(CallError::Busy),
            },
        };
        Ok((entered, place))
    }

    fn left(&self, begun: Instant) -> Duration {
        self.settings.timeout.saturating_sub(begun.elapsed())
    }

    async fn within<T>(
        &self,
        begun: Instant,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(self.left(begun), work).await {
            Ok(result) => result,
            Err(_) => Err(CallError::TimedOut(self.settings.timeout)),
        }
    }

    async fn exchange(&self, request: Request<Bytes>, turn: &mut CallTurn<'_>) -> Result<Response<Bytes>, CallError> {
        let origin = Origin::of(request.uri())?;
        let may_repeat = request.method().is_idempotent() || request.extensions().get::<Repeatable>().is_some();
        let request = in_origin_form(request)?;
        let body = |request: &Request<Bytes>| {
            request.clone().map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync())
        };
        let (response, connection) = match self.exchange_head(&origin, body(&request), false).await {
            Err(unanswered) if unanswered.on_reused && may_repeat => {
                // The server has closed it meanwhile.
                self.exchange_head(&origin, body(&request), true).await
            }
            result => result,
        }?;
        let (head, body) = response.into_parts();
        let body = collect(body, self.settings.max_response).await?;
        turn.record(Ok(head.status));
        self.connections.put(connection);
        Ok(Response::from_parts(head, body))
    }

    /// Sends a request and returns the head of the response, with the connection that its body comes on.
    async fn exchange_head(
        &self,
        origin: &Origin,
        request: Request<RequestBody>,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Connection), Unanswered> {
        let mut connection = self.connections.get(origin, fresh).await?;
        match connection.sender.send_request(request).await {
            Ok(response) => Ok((response, connection)),
            Err(error) => {
                let error = CallError::Broken(chain(&error));
                Err(Unanswered { error, on_reused: connection.is_reused })
            }
        }
    }

    fn count(&self, begun: Instant, error: Option<&CallError>) {
        let outcome = error.map_or(CallOutcome::Completed, CallError::outcome);
        self.metrics.observe(outcome, begun.elapsed().as_secs_f64());
    }
}

impl From<Unanswered> for CallError {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.error
    }
}

impl StreamedResponse<'_> {
    /// Returns the next part of the body, which has to come within `limit`; `None` at its end.
    ///
    /// # Errors
    /// When the body breaks off, or nothing comes in time.
    pub async fn next_part(&mut self, limit: Duration) -> Result<Option<Bytes>, CallError> {
        loop {
            let frame = tokio::time::timeout(limit, self.body.frame()).await.map_err(|_| CallError::TimedOut(limit))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(CallError::Broken(chain(&error))),
                // Trailers have no meaning here.
                Some(Ok(frame)) => {
                    if let Ok(part) = frame.into_data() {
                        return Ok(Some(part));
                    }
                }
            }
        }
    }
}

/// Returns the request in the form for an origin server: the path as its target, and `Host` (RFC 9112, section 3.2.1).
fn in_origin_form<B>(mut request: Request<B>) -> Result<Request<B>, CallError> {
    let wrong = |_| CallError::Request("the URL is malformed".to_owned());
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    // What is before an @ is a credential, and not a part of `Host` (RFC 9110, section 4.2.4).
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = HeaderValue::from_str(host).map_err(|_| CallError::Request("the host is malformed".to_owned()))?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let target = if path.starts_with('/') { path.parse() } else { format!("/{path}").parse() };
    *request.uri_mut() = target.map_err(wrong)?;
    request.headers_mut().entry(HOST).or_insert(host);
    Ok(request)
}

/// Returns the whole body, of at most `most` bytes.
async fn collect(mut body: Incoming, most: usize) -> Result<Bytes, CallError> {
    let expected = body.size_hint().lower();
    if expected > most as u64 {
        return Err(CallError::TooLarge(most));
    }
    let mut all = BytesMut::with_capacity(usize::try_from(expected.min(MAX_PREALLOCATED)).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|e| CallError::Broken(chain(&e)))?.into_data() else { continue };
        if all.len() + part.len() > most {
            return Err(CallError::TooLarge(most));
        }
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}
