//! The descriptors of services, as their targets themselves describe them
//! (<https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;

use super::call::{call, error_text};
use super::choice::Member;
use super::pool::Pool;
use crate::rules::grpc::{FrameReader, GrpcStatus, Record, Records, put_bytes, put_tag, write_frame};
use crate::tls::connector_options;

/// The connections of reflection: few calls, whose connections are not reused.
static CONNECTOR: LazyLock<Connector<()>> = LazyLock::new(|| Connector::new(connector_options()));

/// The time that a target has for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest response.
const MAX_RESPONSE: usize = 16 << 20;

/// The most files of an API.
const MAX_FILES: usize = 2_000;

/// The most services that a target may list.
const MAX_SERVICES: usize = 1_000;

/// The most rounds in which files that others import are asked for.
const MAX_ROUNDS: usize = 20;

/// The paths of the method, the present one first.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Services that are a part of servers, and not of their APIs.
const OWN: &str = "grpc.";

/// The fields of `ServerReflectionRequest`.
const FILE_BY_NAME: u32 = 3;
const FILE_OF_SYMBOL: u32 = 4;
const LIST_SERVICES: u32 = 7;

/// What a target says of its services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReflectedServices {
    /// The full names of the services.
    pub services: Vec<String>,
    /// An encoded `FileDescriptorSet` of all files.
    pub files: Vec<u8>,
}

/// Asks the targets of a pool for the descriptors of these services, or of all.
///
/// # Errors
/// Returns why none of the first targets describes them.
pub async fn reflect(pool: &Pool, wanted: &[String]) -> Result<ReflectedServices, String> {
    let choice = pool.choice();
    let mut failed = "no target is available".to_owned();
    for member in choice.members().take(3) {
        match Reflecting::new(member).services(wanted).await {
            Ok(reflected) => return Ok(reflected),
            Err(why) => failed = format!("{}: {why}", member.authority.to_str().unwrap_or_default()),
        }
    }
    Err(failed)
}

struct Reflecting<'m> {
    member: &'m Member,
    path: &'static str,
}

impl<'m> Reflecting<'m> {
    fn new(member: &'m Member) -> Self {
        Self { member, path: PATHS[0] }
    }

    async fn services(mut self, wanted: &[String]) -> Result<ReflectedServices, String> {
        let services = if wanted.is_empty() { self.list().await? } else { wanted.to_vec() };
        let mut files: BTreeMap<String, Bytes> = BTreeMap::new();
        let symbols: Vec<(u32, String)> = services.iter().map(|name| (FILE_OF_SYMBOL, name.clone())).collect();
        let mut asked = symbols;
        for _ in 0..MAX_ROUNDS {
            for reply in self.ask(&asked).await? {
                for file in files_of(&reply)? {
                    let (name, _) = name_and_imports(&file)?;
                    files.insert(name, file);
                }
            }
            if files.len() > MAX_FILES {
                return Err(format!("more than {MAX_FILES} files"));
            }
            let mut missing = BTreeSet::new();
            for file in files.values() {
                let (_, imports) = name_and_imports(file)?;
                missing.extend(imports.into_iter().filter(|name| !files.contains_key(name)));
            }
            if missing.is_empty() {
                let mut set = Vec::new();
                for file in files.values() {
                    put_tag(1, 2, &mut set);
                    put_bytes(file, &mut set);
                }
                return Ok(ReflectedServices { services, files: set });
            }
            asked = missing.into_iter().map(|name| (FILE_BY_NAME, name)).collect();
        }
        Err("its files import too many others".to_owned())
    }

    /// Returns the names of all services.
    async fn list(&mut self) -> Result<Vec<String>, String> {
        let replies = self.ask(&[(LIST_SERVICES, String::new())]).await?;
        let mut names = Vec::new();
        for list in replies.iter().flat_map(|reply| fields(reply, 6)) {
            for service in fields(&list, 1) {
                names.extend(fields(&service, 1).into_iter().filter_map(|name| String::from_utf8(name.to_vec()).ok()));
            }
        }
        names.retain(|name| !name.starts_with(OWN));
        if names.len() > MAX_SERVICES {
            return Err(format!("more than {MAX_SERVICES} services"));
        }
        if names.is_empty() { Err("it lists no service".to_owned()) } else { Ok(names) }
    }

    /// Sends the requests of one call, and returns the responses.
    async fn ask(&mut self, requests: &[(u32, String)]) -> Result<Vec<Bytes>, String> {
        let replies = self.ask_by(self.path, requests).await;
        match replies {
            Err((Some(GrpcStatus::Unimplemented), _)) if self.path == PATHS[0] => {
                self.path = PATHS[1];
                self.ask_by(self.path, requests).await.map_err(|(_, why)| why)
            }
            replies => replies.map_err(|(_, why)| why),
        }
    }

    async fn ask_by(&self, path: &str, requests: &[(u32, String)]) -> Result<Vec<Bytes>, (Option<GrpcStatus>, String)> {
        let plain = |why: String| (None, why);
        let mut body = BytesMut::new();
        for (field, text) in requests {
            let mut message = Vec::new();
            put_tag(*field, 2, &mut message);
            put_bytes(text.as_bytes(), &mut message);
            write_frame(0, &message, &mut body);
        }
        let head = self.head(path).map_err(|error| plain(error_text(&error)))?;
        let mut peer = self.member.peer.clone();
        peer.options.read_timeout = Some(CALL_TIMEOUT);
        peer.options.connection_timeout = Some(CALL_TIMEOUT);
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.options.set_http_version(2, 2);
        let sent = tokio::time::timeout(CALL_TIMEOUT, call(&CONNECTOR, &peer, head, body.freeze(), MAX_RESPONSE)).await;
        let reply = sent.map_err(|_| plain("no response in time".to_owned()))?.map_err(|e| plain(error_text(&e)))?;
        let status = reply.trailers.as_ref().and_then(GrpcStatus::of_fields);
        match status.or_else(|| GrpcStatus::of_fields(&reply.head.headers)) {
            Some(GrpcStatus::Ok) => {}
            Some(other) => return Err((Some(other), format!("reflection: {}", other.name()))),
            None => return Err(plain(format!("no response of gRPC, status {}", reply.head.status.as_u16()))),
        }
        let mut reader = FrameReader::new(MAX_RESPONSE as u32);
        reader.push(&reply.body);
        let mut replies = Vec::new();
        while let Some(frame) = reader.frame().map_err(|error| plain(error.to_string()))? {
            replies.push(frame.message);
        }
        if replies.len() == requests.len() { Ok(replies) } else { Err(plain("a response is missing".to_owned())) }
    }

    fn head(&self, path: &str) -> pingora::Result<RequestHeader> {
        let mut head = RequestHeader::build("POST", path.as_bytes(), None)?;
        head.insert_header(HOST, self.member.authority.clone())?;
        head.insert_header(CONTENT_TYPE, "application/grpc")?;
        head.insert_header(TE, "trailers")?;
        Ok(head)
    }
}

/// Returns the values of a field that are records with a length.
fn fields(message: &Bytes, wanted: u32) -> Vec<Bytes> {
    let (mut records, mut found) = (Records::new(message), Vec::new());
    while let Ok(Some((number, record))) = records.next() {
        if let (true, Record::Bytes(bytes)) = (number == wanted, record) {
            found.push(message.slice_ref(bytes));
        }
    }
    found
}

/// Returns the encoded files of a response.
fn files_of(reply: &Bytes) -> Result<Vec<Bytes>, String> {
    if let Some(error) = fields(reply, 7).first() {
        let text = fields(error, 2).first().map(|text| String::from_utf8_lossy(text).into_owned());
        return Err(format!("it has no such file or service: {}", text.unwrap_or_default()));
    }
    Ok(fields(reply, 4).iter().flat_map(|files| fields(files, 1)).collect())
}

/// Returns the name of an encoded file, and of those that it imports.
fn name_and_imports(file: &Bytes) -> Result<(String, Vec<String>), String> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "a name is not UTF-8".to_owned());
    let name = fields(file, 1).first().map(text).transpose()?.ok_or("a file has no name")?;
    Ok((name, fields(file, 3).iter().map(text).collect::<Result<_, _>>()?))
}
