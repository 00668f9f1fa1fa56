//! Changes that need a whole document, and the step that collects one.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::edit::MemberEdit;
use super::fields::{FieldPath, Fields};
use super::scan::Editor;
use super::set::{SetPaths, SetValues};
use super::step::{Opaque, Step};

/// The change of a whole document.
pub type DocumentChange = Box<dyn FnOnce(&[u8]) -> Result<Vec<u8>, Opaque> + Send + Sync>;

/// Collects a body up to a limit, and passes on at its end what a change makes of it.
pub struct DocumentStep {
    body: Vec<u8>,
    most: usize,
    change: Option<DocumentChange>,
}

impl fmt::Debug for DocumentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentStep").field("most", &self.most).finish_non_exhaustive()
    }
}

impl DocumentStep {
    /// Returns a step for a body of at most that many bytes.
    pub fn new(most: usize, change: DocumentChange) -> Self {
        Self { body: Vec::new(), most, change: Some(change) }
    }
}

impl Step for DocumentStep {
    fn holds_head(&self) -> bool {
        true
    }

    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        if self.body.len() + part.len() > self.most {
            return Err(Opaque::TooLarge);
        }
        self.body.extend_from_slice(part);
        // A response to HEAD, or with 304, has no body, whatever the change would make.
        if end
            && !self.body.is_empty()
            && let Some(change) = self.change.take()
        {
            out.extend_from_slice(&change(&std::mem::take(&mut self.body))?);
        }
        Ok(())
    }
}

/// Applies an edit to a whole document.
///
/// # Errors
/// As [`Step::push`].
pub fn edit_document<E>(edit: &E, document: &[u8]) -> Result<Vec<u8>, Opaque>
where
    E: MemberEdit + fmt::Debug + Sync,
{
    let mut out = Vec::with_capacity(document.len() + 64);
    Editor::new(edit).push(document, true, &mut out)?;
    Ok(out)
}

/// Returns an error unless the document is JSON in UTF-8 (RFC 8259).
///
/// # Errors
/// [`Opaque::NotUtf8`] or [`Opaque::NotJson`].
pub fn check_json(document: &[u8]) -> Result<&RawValue, Opaque> {
    let text = std::str::from_utf8(document).map_err(|_| Opaque::NotUtf8)?;
    serde_json::from_str(text).map_err(|_| Opaque::NotJson)
}

/// Returns an error unless the text is one JSON document, or several that follow each other (RFC 7464 and NDJSON).
///
/// # Errors
/// [`Opaque::NotUtf8`] or [`Opaque::NotJson`].
pub fn check_json_texts(text: &[u8]) -> Result<(), Opaque> {
    let text = std::str::from_utf8(text).map_err(|_| Opaque::NotUtf8)?;
    for part in text.split('\u{1e}') {
        let documents = serde_json::Deserializer::from_str(part).into_iter::<serde::de::IgnoredAny>();
        documents.into_iter().try_for_each(|document| document.map(drop)).map_err(|_| Opaque::NotJson)?;
    }
    Ok(())
}

/// A move of a value from one place of a document to another.
#[derive(Debug)]
pub struct Move {
    from: FieldPath,
    to: FieldPath,
    source: Fields,
    target: Arc<SetPaths>,
    /// Whether the value stays where it is, too.
    copies: bool,
}

impl Move {
    /// Compiles a move. What is at the new place is replaced; objects above it are created.
    ///
    /// # Errors
    /// When a path may select several places, or one is within the other.
    pub fn new(from: FieldPath, to: FieldPath, copies: bool) -> Result<Self, String> {
        if !from.is_single() || !to.is_single() {
            return Err("expected paths to one place, without *, ** and []".to_owned());
        }
        if to.is_within(&from) || from.is_within(&to) {
            return Err("one place is within the other".to_owned());
        }
        let (from, to) = (from.explicit(), to.explicit());
        let source = Fields::new(std::slice::from_ref(&from))?;
        Ok(Self { source, target: Arc::new(SetPaths::new(std::slice::from_ref(&to), false)?), from, to, copies })
    }

    /// Returns the document with the value at its new place; unchanged where it has no such value, or nothing can be at
    /// the new place because what is above it is no object.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn apply(&self, document: Vec<u8>) -> Result<Vec<u8>, Opaque> {
        let Some(value) = self.from.value_in(check_json(&document)?) else { return Ok(document) };
        let value = Bytes::copy_from_slice(value.get().as_bytes());
        let without = if self.copies { None } else { Some(edit_document(&self.source, &document)?) };
        let set = SetValues::new(Arc::clone(&self.target), vec![Some(value)]);
        let moved = edit_document(&set, without.as_deref().unwrap_or(&document))?;
        let has_arrived = self.to.value_in(check_json(&moved)?).is_some();
        Ok(if has_arrived { moved } else { document })
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
pub(super) mod tests;
