//! The intake of a request: checks that it is well-formed, and finds its target and its client.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::request::Parts as ReqParts;
use http::{Method, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::{Context, Gateway};
use crate::edge::listeners::{Framing, MAX_FIELDS};
use crate::exchange::{GrpcWeb, Reason, Rejection, Trace, address_text, is_grpc, new_request_id};
use crate::filters::Verdict;
use crate::rules::identity::{client_address, forwarded_client, host_name};
use crate::rules::path::{BadPath, normalise};

/// The id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The addresses that a request came through.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The place in a trace (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The fields that are not used where proxies write `Forwarded`.
static X_FORWARDED: [HeaderName; 5] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
];

/// Fields that some targets trust more than the request line or the connection; accepted from trusted proxies only.
static REWRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-forwarded-port"),
];

/// The result of one scan of the fields; each look-up of its own costs about as much as the whole scan.
#[derive(Default)]
struct HeaderScan<'h> {
    request_id: Option<&'h HeaderValue>,
    traceparent: Option<&'h HeaderValue>,
    /// Whether there are several, so that none is valid.
    traceparents: bool,
    content_type: Option<&'h HeaderValue>,
    connection: bool,
    underscore: bool,
    /// A field in which a proxy in front gives the original target.
    rewritten: bool,
}

impl<'h> HeaderScan<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            // The first of several counts, as with a look-up.
            if *name == CONTENT_TYPE {
                seen.content_type.get_or_insert(value);
            } else if *name == CONNECTION {
                seen.connection = true;
            } else if *name == X_REQUEST_ID {
                seen.request_id.get_or_insert(value);
            } else if *name == TRACEPARENT {
                seen.traceparents = seen.traceparent.replace(value).is_some();
            } else if memchr::memchr(b'_', name.as_str().as_bytes()).is_some() {
                seen.underscore = true;
            } else if matches!(name.as_str().len(), 13 | 14 | 16) && REWRITTEN.contains(name) {
                seen.rewritten = true;
            }
        }
        seen
    }
}

fn bad_request(detail: &'static str) -> Box<Rejection> {
    Rejection::new(Reason::BadRequest, detail)
}

impl Gateway {
    /// Checks the request and notes the facts about it.
    pub(super) fn intake(&self, session: &mut Session, ctx: &mut Context) -> Verdict {
        // Done first, so that even a rejection can be traced.
        let (connection, underscore, rewritten) = self.identify(session.req_header(), ctx);
        if session.req_header().version == Version::HTTP_2 {
            check_http2(session.req_header())?;
        } else {
            let checked = check_raw(session, ctx.limits().map_or(usize::MAX, |l| l.headers));
            // Read first: Pingora takes the framing of the body from the fields, before any of them is edited.
            let bodiless = session.is_body_empty();
            if let Some(connection) = &ctx.downstream.connection {
                // Where a request that is rejected for its syntax ends is unknown.
                let head = checked.as_ref().ok();
                let framed = head.and_then(|head| Some((*head, framing(session.req_header(), bodiless)?)));
                let begun = connection.begin_request(framed);
                if let Some(fault) = begun.err().or_else(|| connection.fault()) {
                    return Err(Rejection::new(fault.reason(), fault.text()).log(fault.text()));
                }
            }
            checked?;
        }
        let request = session.req_header_mut();
        ctx.exchange.host = host(request)?;
        check_counts(request, ctx)?;
        check_connection(ctx)?;
        take_path(request)?;
        edit_headers(request, |headers| {
            if underscore {
                drop_underscored(headers, &ctx.serving.snapshot.underscored);
            }
            if rewritten {
                REWRITTEN.iter().for_each(|name| _ = headers.remove(name));
            }
            if let Some(name) = &ctx.serving.snapshot.identity_headers.consumer {
                // Only the gateway says who calls.
                headers.remove(name);
            }
            if connection { drop_nominated(headers) } else { Ok(()) }
        })?;
        if ctx.exchange.peer_trusted && ctx.listener().is_some_and(|l| l.forwarded) {
            self.take_forwarded(request, ctx);
        }
        self.shield(ctx)
    }

    /// Notes the client, the ids and the protocol. Returns whether there is a `Connection`, a name with `_`, and one
    /// of [`REWRITTEN`] that the client may not send.
    fn identify(&self, request: &RequestHeader, ctx: &mut Context) -> (bool, bool, bool) {
        let peer = ctx.exchange.peer.address.ip().to_canonical();
        let trusted = ctx.listener().map_or(&[][..], |l| l.trusted_proxies.as_slice());
        let forwarded = ctx.listener().is_some_and(|l| l.forwarded);
        let peer_trusted = trusted.iter().any(|net| net.contains(&peer));
        let headers = &request.headers;
        let client = match peer_trusted {
            // The request has its list of addresses from `take_forwarded` then.
            true if !forwarded => {
                client_address(peer, trusted, headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes))
            }
            true => {
                forwarded_client(peer, trusted, headers.get_all(FORWARDED).iter().map(HeaderValue::as_bytes)).address
            }
            false => peer,
        };
        let exchange = &mut ctx.exchange;
        (exchange.client, exchange.peer_trusted) = (client, peer_trusted);
        if client != peer {
            exchange.client_text = address_text(client);
        }
        let seen = HeaderScan::of(headers);
        let came = seen.request_id.filter(|id| peer_trusted && (8..=128).contains(&id.len()));
        exchange.request_id = Some(came.cloned().unwrap_or_else(new_request_id));
        exchange.trace =
            Trace::continue_or_start(seen.traceparent.filter(|_| !seen.traceparents).map(HeaderValue::as_bytes));
        let content_type = seen.content_type.map(HeaderValue::as_bytes);
        exchange.grpc = content_type.is_some_and(is_grpc);
        exchange.grpc_web = content_type.and_then(GrpcWeb::of);
        (seen.connection, seen.underscore, seen.rewritten && !peer_trusted)
    }

    /// Puts what trusted proxies say in `Forwarded` in place of what the fields of the other family say: a proxy that
    /// writes the one may pass on the other as a client has sent it.
    fn take_forwarded(&self, request: &mut RequestHeader, ctx: &Context) {
        let exchange = &ctx.exchange;
        let trusted = ctx.listener().map_or(&[][..], |l| l.trusted_proxies.as_slice());
        let peer = exchange.peer.address.ip();
        let lines = request.headers.get_all(FORWARDED);
        let said = forwarded_client(peer, trusted, lines.iter().map(HeaderValue::as_bytes));
        edit_headers(request, |headers| {
            X_FORWARDED.iter().for_each(|name| _ = headers.remove(name));
            headers.remove(FORWARDED);
            if exchange.client != peer.to_canonical() {
                headers.insert(X_FORWARDED_FOR, exchange.client_text.clone());
            }
            if let Some(scheme) = said.scheme {
                headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
            }
            if let Some(host) = said.host.and_then(|host| HeaderValue::try_from(host).ok()) {
                headers.insert(X_FORWARDED_HOST, host);
            }
        });
    }

    /// Applies the coarse limit of one address, or of one IPv6 /64.
    fn shield(&self, ctx: &Context) -> Verdict {
        let Some(limit) = ctx.serving.snapshot.shield else { return Ok(()) };
        let key = match ctx.exchange.client {
            std::net::IpAddr::V4(v4) => u64::from(u32::from(v4)),
            std::net::IpAddr::V6(v6) => u64::from_be_bytes(v6.octets()[..8].try_into().unwrap_or_default()) | 1 << 63,
        };
        // The sketch counts per second; a limit for a longer time is its share of a second, at least 1.
        let per_second = (f64::from(limit.count) / limit.period.as_secs_f64()).max(1.0);
        if self.shield.observe(&key, 1) as f64 > per_second {
            return Err(Rejection::new(Reason::Shielded, "").header(http::header::RETRY_AFTER, HeaderValue::from(1)));
        }
        Ok(())
    }
}

/// Returns the length of a head. Rejects what Pingora accepts on HTTP/1 and stricter peers reject, because a target
/// might read it differently: each is a way to smuggle a request (RFC 9112, sections 2.2, 3.2 and 6).
fn check_raw(session: &Session, most: usize) -> Result<usize, Box<Rejection>> {
    let Some(http1) = session.as_http1() else { return Ok(0) };
    let raw = http1.get_headers_raw_bytes();
    if raw.len() > most {
        return Err(Rejection::new(Reason::HeadersTooLarge, format!("at most {most} bytes of headers are accepted")));
    }
    let bare = memchr::memchr_iter(b'\n', &raw).any(|at| at == 0 || raw[at - 1] != b'\r');
    if bare {
        return Err(bad_request("a line ends without a carriage return"));
    }
    let request = session.req_header();
    if request.version == Version::HTTP_09 {
        return Err(bad_request("HTTP/0.9 is not spoken here"));
    }
    if request.headers.contains_key(TRANSFER_ENCODING) {
        let mut codings = request.headers.get_all(TRANSFER_ENCODING).iter();
        let only = codings.next().is_some_and(|c| c.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !only || codings.next().is_some() {
            return Err(bad_request("the only accepted transfer coding is chunked"));
        }
        // Pingora has removed the Content-Length by now, so the raw head is searched.
        let has_length = raw
            .split(|b| *b == b'\n')
            .any(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:")));
        if has_length {
            return Err(bad_request("both Content-Length and Transfer-Encoding are given"));
        }
    }
    let odd = |length: &HeaderValue| !length.as_bytes().iter().all(u8::is_ascii_digit);
    if request.headers.get_all(CONTENT_LENGTH).iter().any(odd)
        || request.headers.get_all(CONTENT_LENGTH).iter().count() > 1
    {
        return Err(bad_request("the Content-Length is not one number"));
    }
    if request.version == Version::HTTP_11 && !request.headers.contains_key(HOST) {
        return Err(bad_request("the Host header is missing"));
    }
    Ok(raw.len())
}

/// Rejects what the `h2` crate accepts and an intermediary must not forward (RFC 9113, sections 8.1.1 and 8.3.1).
fn check_http2(request: &RequestHeader) -> Verdict {
    if request.headers.len() > MAX_FIELDS {
        return Err(Rejection::new(Reason::HeadersTooLarge, format!("at most {MAX_FIELDS} headers are accepted")));
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next().ok_or_else(|| bad_request("the authority is missing"))?;
    let named = request
        .uri
        .authority()
        .is_none_or(|authority| authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()));
    if hosts.next().is_some() || !named || host.as_bytes().contains(&b'@') {
        return Err(bad_request("the authority and Host are not one host"));
    }
    if request.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(bad_request("the Content-Length is given twice"));
    }
    if request.raw_path().iter().any(|octet| *octet <= b' ' || *octet == 0x7f) {
        return Err(Rejection::new(Reason::BadPath, "the request target has a control character"));
    }
    Ok(())
}

/// Rejects a request with more fields or more parameters than the listener allows.
fn check_counts(request: &RequestHeader, ctx: &Context) -> Verdict {
    let Some(limits) = ctx.limits() else { return Ok(()) };
    if request.headers.len() > limits.header_count {
        let detail = format!("at most {} headers are accepted", limits.header_count);
        return Err(Rejection::new(Reason::HeadersTooLarge, detail));
    }
    let Some(query) = request.uri.query() else { return Ok(()) };
    if query.len() > limits.query_parameters
        && memchr::memchr_iter(b'&', query.as_bytes()).count() >= limits.query_parameters
    {
        let detail = format!("at most {} parameters are accepted", limits.query_parameters);
        return Err(Rejection::new(Reason::UriTooLong, detail));
    }
    Ok(())
}

/// Rejects a request for a host whose clients are verified otherwise than that of the connection was: by its
/// `Host`, or by an HTTP/2 connection that the client uses for several hosts, it would evade the verification (RFC
/// 9110, sections 7.4 and 15.5.20; RFC 9113, section 9.1.1).
fn check_connection(ctx: &Context) -> Verdict {
    let Some(facts) = ctx.exchange.peer.tls() else { return Ok(()) };
    let Some(tls) = ctx.listener().and_then(|listener| listener.http()).and_then(|http| http.tls.as_ref()) else {
        return Ok(());
    };
    if !tls.hosts.verifies_clients() && facts.client_policy.is_none() {
        return Ok(());
    }
    if tls.hosts.accepts(&ctx.exchange.host, facts.client_policy.as_ref()) {
        let still = tls.hosts.client_of(&ctx.exchange.host).is_none_or(|client| client.still_accepts(facts));
        return if still { Ok(()) } else { Err(Rejection::new(Reason::CertificateInvalid, "").log("it was revoked")) };
    }
    let detail = "connect anew with this host as the server name: its clients are verified by other certificates";
    Err(Rejection::new(Reason::Misdirected, detail))
}

/// Returns the framing of the body (RFC 9112, section 6.3).
fn framing(request: &RequestHeader, bodiless: bool) -> Option<Framing> {
    if bodiless {
        return Some(Framing::Length(0));
    }
    match request.headers.get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok().map(Framing::Length),
        None => Some(Framing::Chunked),
    }
}

/// Removes what `Connection` names (RFC 9110, section 7.6.1) before any filter runs, and the names with it: otherwise
/// a client could name a field that a filter sets, and have it removed later. The fields that frame the request
/// belong to every connection: a proxy that removes them sees another request than one that does not.
fn drop_nominated(headers: &mut HeaderMap) -> Verdict {
    let lines: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    let mut upgrade = false;
    let malformed = |_| bad_request("Connection is malformed");
    let texts = lines.iter().map(HeaderValue::to_str).collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    for token in texts.iter().flat_map(|l| l.split(',')).map(str::trim) {
        if token.eq_ignore_ascii_case("upgrade") {
            upgrade = true;
        } else if let Ok(name) = token.parse::<HeaderName>()
            && name != HOST
        {
            if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
                return Err(bad_request("Connection names a header that frames the request"));
            }
            headers.remove(name);
        }
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        headers.remove(CONNECTION);
    }
    Ok(())
}

/// Drops fields such as `X_Forwarded_For`, which many targets take for `X-Forwarded-For`, as nginx does. Of those
/// that the configuration allows, `let_in`, the twin with `-` is dropped instead: a target never sees both.
fn drop_underscored(headers: &mut HeaderMap, let_in: &[(HeaderName, HeaderName)]) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in names {
        match let_in.iter().find(|(known, _)| *known == name) {
            Some((_, twin)) => headers.remove(twin),
            None => headers.remove(name),
        };
    }
}

/// Edits fields in the map itself. Pingora keeps a second map with the case of every name, and an edit through it
/// costs several times as much; without it names are sent in lower case, as in HTTP/2.
pub(super) fn edit_headers<T>(request: &mut RequestHeader, edit: impl FnOnce(&mut HeaderMap) -> T) -> T {
    let placeholder = RequestHeader::from(http::Request::new(()).into_parts().0);
    let ends = request.send_end_stream();
    let mut parts: ReqParts = std::mem::replace(request, placeholder).into();
    let result = edit(&mut parts.headers);
    *request = parts.into();
    if let Some(ends) = ends {
        request.set_send_end_stream(ends);
    }
    result
}

/// Returns the host, in lower case and without its port.
fn host(request: &RequestHeader) -> Result<String, Box<Rejection>> {
    let authority = request.uri.authority().map(|a| a.as_str().as_bytes());
    let Some(text) = authority.or_else(|| request.headers.get(HOST).map(HeaderValue::as_bytes)) else {
        return Ok(String::new());
    };
    let name = host_name(text).ok_or_else(|| bad_request("the host is not valid"))?;
    let mut host = String::with_capacity(name.len());
    host.extend(name.iter().map(|b| char::from(b.to_ascii_lowercase())));
    Ok(host)
}

/// Returns whether the request is about the gateway as a whole.
pub(super) fn is_asterisk(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS && request.uri.path() == "*"
}

/// Sets the path of the request to the one form that routes, filters and the target see.
fn take_path(request: &mut RequestHeader) -> Verdict {
    if request.method == Method::CONNECT {
        return Err(bad_request("CONNECT is not supported"));
    }
    if is_asterisk(request) {
        return Ok(());
    }
    let raw = request.raw_path();
    let absolute = raw.starts_with(b"http://") || raw.starts_with(b"https://");
    if request.version != Version::HTTP_2 && !absolute && raw.first() != Some(&b'/') {
        return Err(Rejection::new(Reason::BadPath, BadPath::NotAbsolute.text()));
    }
    let path = request.uri.path();
    let normal = normalise(path.as_bytes()).map_err(|why| {
        let reason = if why == BadPath::TooLong { Reason::UriTooLong } else { Reason::BadPath };
        Rejection::new(reason, why.text())
    })?;
    let same = matches!(normal, std::borrow::Cow::Borrowed(_));
    if !request.raw_path_is_utf8() {
        return Err(Rejection::new(Reason::BadPath, "the request target is no UTF-8"));
    }
    if same && request.uri.authority().is_none() && request.raw_path().first() == Some(&b'/') {
        return Ok(());
    }
    let target = match request.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    // HTTP/2 keeps its authority, which holds the host there.
    let mut parts = http::uri::Parts::default();
    if request.version == Version::HTTP_2 {
        parts.scheme = request.uri.scheme().cloned();
        parts.authority = request.uri.authority().cloned();
    }
    let malformed = || Rejection::new(Reason::BadPath, "the request target is malformed");
    parts.path_and_query = Some(target.parse().map_err(|_| malformed())?);
    if parts.authority.is_none() {
        parts.scheme = None;
    }
    let uri = http::Uri::from_parts(parts).map_err(|_| malformed())?;
    request.set_uri(uri);
    Ok(())
}
