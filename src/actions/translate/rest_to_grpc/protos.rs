//! Reads `.proto` files and descriptor sets, and what they import.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use protox::Compiler;
use protox::file::{DescriptorSetFileResolver, File, FileResolver, GoogleFileResolver};

use crate::actions::ActionContext;
use crate::notation;
use crate::rules::grpc::bundled_proto;
use crate::tls::{read_file, read_text};

/// The most bytes of a file.
const MAX_FILE: u64 = 16 << 20;

/// The most files.
const MAX_FILES: usize = 2_000;

/// The files that are a part of every API: errors have their types.
const ALWAYS: [&str; 2] = ["google/rpc/status.proto", "google/rpc/error_details.proto"];

/// The descriptors of an API.
#[derive(Debug)]
pub struct Described {
    /// The descriptors of all files.
    pub pool: DescriptorPool,
    /// The names of the files that were named, not imported.
    pub named: Vec<String>,
}

/// Finds files by the names of imports.
struct Protos {
    roots: Vec<PathBuf>,
    sets: Vec<DescriptorSetFileResolver>,
    read: Rc<RefCell<Vec<PathBuf>>>,
}

impl FileResolver for Protos {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let not_found = || protox::Error::file_not_found(name);
        let is_below = Path::new(name).components().all(|component| matches!(component, Component::Normal(_)));
        if !is_below {
            return Err(not_found());
        }
        if let Some(path) = self.roots.iter().map(|root| root.join(name)).find(|path| path.is_file()) {
            if self.read.borrow().len() >= MAX_FILES {
                return Err(protox::Error::new(format!("more than {MAX_FILES} files are imported")));
            }
            self.read.borrow_mut().push(path.clone());
            let text = read_text(&path, MAX_FILE)
                .map_err(|why| protox::Error::new(format!("{} cannot be read: {why}", path.display())))?;
            return File::from_source(name, &text);
        }
        let in_set = self.sets.iter().find_map(|set| set.open_file(name).ok());
        match (in_set, bundled_proto(name)) {
            (Some(file), _) => Ok(file),
            (None, Some(text)) => File::from_source(name, text),
            (None, None) => GoogleFileResolver::new().open_file(name),
        }
    }
}

/// Returns the descriptors of the files that a configuration names, or notes errors.
pub fn describe(config: &super::Config, context: &mut ActionContext<'_>) -> Option<Described> {
    let before = context.mistakes.count();
    let mut roots: Vec<PathBuf> = config.import_paths.iter().map(|path| context.base.join(&path.0)).collect();
    for (index, root) in roots.iter().enumerate().filter(|(_, root)| !root.is_dir()) {
        let place = context.place.key("import_paths").index(index);
        context.mistakes.add(&place, format!("{} is no folder", root.display()));
    }
    let (sets, mut named) = sets(config, context);
    let mut names = Vec::with_capacity(config.protos.len());
    for (index, proto) in config.protos.iter().enumerate() {
        let path = context.base.join(&proto.0);
        match import_name(&path, &mut roots) {
            Ok(name) => names.push((index, path, name)),
            Err(why) => context.mistakes.add(&context.place.key("protos").index(index), why),
        }
    }
    let read = Rc::new(RefCell::new(Vec::new()));
    let mut compiler = Compiler::with_file_resolver(Protos { roots: roots.clone(), sets, read: Rc::clone(&read) });
    for (index, path, name) in names {
        let place = context.place.key("protos").index(index);
        let found = roots.iter().map(|root| root.join(&name)).find(|found| found.is_file());
        match (found, path.is_file()) {
            (_, false) => context.mistakes.add(&place, format!("{} is no file", path.display())),
            (Some(found), true) if found != path => {
                let text = format!("{} has the name {name} of {}: set import_paths", path.display(), found.display());
                context.mistakes.add(&place, text);
            }
            _ => open(&mut compiler, &name, &place, context),
        }
        named.push(name);
    }
    let place = context.place.key("descriptor_sets");
    let of_sets: Vec<String> = named.iter().take(named.len().saturating_sub(config.protos.len())).cloned().collect();
    of_sets.iter().for_each(|name| open(&mut compiler, name, &place, context));
    let place = context.place.clone();
    ALWAYS.iter().for_each(|name| open(&mut compiler, name, &place, context));
    context.shared.files.append(&mut read.borrow_mut());
    (context.mistakes.count() == before).then(|| Described { pool: compiler.descriptor_pool(), named })
}

/// Returns the descriptors of an encoded set of files.
///
/// # Errors
/// Returns what is wrong with them.
pub fn describe_set(set: &[u8]) -> Result<DescriptorPool, String> {
    let malformed = || "its files are no descriptors".to_owned();
    let decoded = FileDescriptorSet::decode(set).map_err(|_| malformed())?;
    let resolver = DescriptorSetFileResolver::decode(set).map_err(|_| malformed())?;
    let mut compiler =
        Compiler::with_file_resolver(Protos { roots: Vec::new(), sets: vec![resolver], read: Rc::default() });
    let names = decoded.file.iter().map(|file| file.name().to_owned());
    for name in names.chain(ALWAYS.iter().map(|name| (*name).to_owned())) {
        compiler.open_file(&name).map_err(|error| format!("{error:?}"))?;
    }
    Ok(compiler.descriptor_pool())
}

fn open(compiler: &mut Compiler, name: &str, place: &notation::Place, context: &mut ActionContext<'_>) {
    if let Err(error) = compiler.open_file(name) {
        // Its debug form has file, line and column.
        context.mistakes.add(place, format!("{error:?}"));
    }
}

/// Returns the descriptor sets, and the names of the files in them.
fn sets(config: &super::Config, context: &mut ActionContext<'_>) -> (Vec<DescriptorSetFileResolver>, Vec<String>) {
    let (mut sets, mut named) = (Vec::new(), Vec::new());
    for (index, file) in config.descriptor_sets.iter().enumerate() {
        let place = context.place.key("descriptor_sets").index(index);
        let path = context.base.join(&file.0);
        let bytes = match read_file(&path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(why) => {
                context.mistakes.add(&place, format!("{} cannot be read: {why}", path.display()));
                continue;
            }
        };
        let decoded = FileDescriptorSet::decode(bytes.as_slice());
        match (decoded, DescriptorSetFileResolver::decode(bytes.as_slice())) {
            (Ok(decoded), Ok(resolver)) => {
                named.extend(decoded.file.iter().map(|file| file.name().to_owned()));
                sets.push(resolver);
            }
            _ => {
                let text =
                    format!("{} is no descriptor set (protoc --descriptor_set_out --include_imports)", path.display());
                context.mistakes.add(&place, text);
            }
        }
    }
    named.sort_unstable();
    named.dedup();
    (sets, named)
}

/// Returns the name by which a file is imported: its path below an import path. Without one its folder is added.
fn import_name(path: &Path, roots: &mut Vec<PathBuf>) -> Result<String, String> {
    let below = roots.iter().find_map(|root| path.strip_prefix(root).ok());
    let name = match below {
        Some(name) => name.to_path_buf(),
        None => {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(format!("{} is no file", path.display()));
            };
            roots.push(folder.to_path_buf());
            PathBuf::from(name)
        }
    };
    name.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()))
}
