//! `files`: sends the files of a folder.

mod folder;

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, ALLOW, HeaderValue};
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::{Reason, Rejection, RequestView};
use crate::filters::CodingName;
use crate::notation::{Folder as FolderPath, HeaderText, OneOrMany};
use crate::rules::files::FileName;
use crate::rules::payload::{Coding, rank_codings};

pub use folder::{Folder, Found, OpenedFile};

/// The files of a folder, for GET and HEAD. Names that begin with a dot (but for `/.well-known`) are not served, nor is
/// anything to which a symbolic link leads out of the folder.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Files")]
pub struct Config {
    /// The folder.
    pub root: FolderPath,
    /// The file that is sent for a folder; of several the first that is there. Default index.html.
    #[serde(default = "index")]
    pub index: OneOrMany<String>,
    /// The file that is sent where there is none of the requested name, such as `/index.html` for an application with
    /// routes of its own. Default: none, 404 is sent.
    pub fallback: Option<String>,
    /// Removes this prefix, by segments, from the path.
    pub strip_prefix: Option<String>,
    /// Codings whose files stand beside the others, as `app.js.br`, `app.js.gz` and `app.js.zst`: they are sent to
    /// clients that accept them; where a client accepts several equally, in this order. Default: none.
    #[serde(default = "no_codings")]
    pub precompressed: OneOrMany<CodingName>,
    /// The `Cache-Control` of the files. Default: none.
    pub cache_control: Option<HeaderText>,
}

fn index() -> OneOrMany<String> {
    OneOrMany::One("index.html".to_owned())
}

fn no_codings() -> OneOrMany<CodingName> {
    OneOrMany::Many(Vec::new())
}

/// The compiled action.
#[derive(Debug)]
pub struct Files {
    /// The folder.
    pub folder: Arc<Folder>,
    /// The `Cache-Control` of its files.
    pub cache_control: Option<HeaderValue>,
    /// The codings of files beside the others, in the order of preference.
    codings: Vec<Coding>,
    strip_prefix: Option<String>,
}

/// A file that a client requests.
#[derive(Debug)]
pub struct FileRequest<'a> {
    /// The action.
    pub files: &'a Files,
    /// The name.
    pub name: FileName,
}

impl Files {
    /// Returns whether a response depends on the codings that the client accepts.
    pub fn negotiates(&self) -> bool {
        !self.codings.is_empty()
    }

    /// Returns the codings in which a client prefers to get a file, in its order.
    pub fn codings_for(&self, headers: &HeaderMap) -> SmallVec<[Coding; 3]> {
        if self.codings.is_empty() {
            return SmallVec::new();
        }
        let accepted = headers.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
        rank_codings(&accepted.collect::<SmallVec<[&[u8]; 2]>>(), &self.codings)
    }

    /// Returns the name of the requested file; a path without the prefix is kept as it is.
    fn name(&self, path: &str) -> Option<FileName> {
        let stripped = self.strip_prefix.as_ref().and_then(|prefix| path.strip_prefix(prefix.as_str()));
        FileName::of_path(stripped.filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path))
    }
}

impl HttpAction for Files {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        let index = index_names(config, context);
        let mut codings = Vec::new();
        for (index, name) in config.precompressed.as_slice().iter().enumerate() {
            if codings.contains(&name.coding()) {
                let place = context.place.key("precompressed").index(index);
                context.mistakes.add(&place, "the coding is there already");
            }
            codings.push(name.coding());
        }
        if let Some(prefix) = &config.strip_prefix {
            context.check_strip_prefix(prefix);
        }
        let root = context.base.join(&config.root);
        let folder = Folder::new(std::path::absolute(&root).unwrap_or(root), index, fallback(config, context));
        let place = context.place.key("root");
        if let Err(error) = folder.check() {
            context.mistakes.add(&place, format!("cannot serve the files of {}: {error}", config.root.0.display()));
        } else if !folder.has_fallback() {
            let text = "there is no such file now: until there is, requests for it are rejected with 404";
            context.warnings.add(&context.place.key("fallback"), text);
        }
        Self {
            folder: Arc::new(folder),
            cache_control: config.cache_control.as_ref().map(|value| value.0.clone()),
            codings,
            strip_prefix: config.strip_prefix.clone(),
        }
    }

    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_> {
        if !matches!(view.request.method, Method::GET | Method::HEAD) {
            let rejection = Rejection::new(Reason::MethodNotAllowed, "allowed here: GET, HEAD");
            return ActionOutcome::Reject(rejection.header(ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        match self.name(view.request.uri.path()) {
            Some(name) => ActionOutcome::File(FileRequest { files: self, name }),
            None => ActionOutcome::Reject(Rejection::new(Reason::FileNotFound, "")),
        }
    }

    fn describe(&self) -> Vec<String> {
        vec![format!("files: {}", self.folder)]
    }
}

/// Compiles `index`.
fn index_names(config: &Config, context: &mut ActionContext<'_>) -> Vec<String> {
    let names = config.index.as_slice();
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            let place = context.place.key("index");
            let place = if matches!(config.index, OneOrMany::Many(_)) { place.index(index) } else { place };
            context.mistakes.add(&place, format!("expected the name of a file such as index.html, found \"{name}\""));
        }
    }
    names.to_vec()
}

/// Compiles `fallback`.
fn fallback(config: &Config, context: &mut ActionContext<'_>) -> Option<FileName> {
    let text = config.fallback.as_ref()?;
    let name = FileName::of_path(text).filter(|name| !name.is_folder() && !name.as_bytes().is_empty());
    if name.is_none() {
        let text = format!("expected the path of a file below the root, such as /index.html, found \"{text}\"");
        context.mistakes.add(&context.place.key("fallback"), text);
    }
    name
}
