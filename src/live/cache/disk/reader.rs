//! The body of a response that is read from its file.

use std::sync::Arc;

use bytes::Bytes;

use super::file::{BLOCK, FileError, StoredFile};
use super::{READ_AHEAD, Shared};
use crate::live::cache::body::BodyError;

/// Reads the body of a file, some blocks at a time.
#[derive(Debug)]
pub struct FileReader {
    shared: Arc<Shared>,
    file: Arc<StoredFile>,
    /// The place of the first byte of the blocks that were read last, and the blocks.
    blocks: (u64, Vec<Bytes>),
}

impl FileReader {
    pub(super) fn new(shared: Arc<Shared>, file: StoredFile, blocks: (u64, Vec<Bytes>)) -> Self {
        Self { shared, file: Arc::new(file), blocks }
    }

    /// Returns the length of the body.
    pub fn length(&self) -> u64 {
        self.file.length
    }

    /// Returns the whole body, if it has been read.
    pub fn whole(&self) -> Option<&[Bytes]> {
        let (at, blocks) = &self.blocks;
        let read: usize = blocks.iter().map(Bytes::len).sum();
        (*at == 0 && read as u64 == self.file.length).then_some(&blocks[..])
    }

    /// Returns the bytes from a place on, up to the end of their block; `None` at `end`, or at the end of the body.
    ///
    /// # Errors
    /// When a block is damaged or cannot be read; then the response is dropped.
    pub async fn read(&mut self, at: u64, end: Option<u64>) -> Result<Option<Bytes>, BodyError> {
        let end = end.unwrap_or(self.file.length).min(self.file.length);
        if at >= end {
            return Ok(None);
        }
        if self.block_at(at).is_none() {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            // From the beginning of the block on, which is before `at`.
            let most = most.saturating_add(BLOCK).min(READ_AHEAD);
            let file = Arc::clone(&self.file);
            match self.shared.read(move |reading| file.read_blocks(at, most, reading)).await {
                Some(Ok(blocks)) => self.blocks = blocks,
                Some(Err(error)) => return Err(self.fail(error)),
                None => return Err(BodyError::Damaged),
            }
        }
        let Some((begin, block)) = self.block_at(at) else { return Err(BodyError::Damaged) };
        let from = usize::try_from(at - begin).unwrap_or(usize::MAX);
        let to = usize::try_from(end - begin).unwrap_or(usize::MAX).min(block.len());
        Ok(Some(block.slice(from..to)))
    }

    /// Returns the block that has a place, of those that were read last, and the place of its first byte.
    fn block_at(&self, at: u64) -> Option<(u64, &Bytes)> {
        let (first, blocks) = &self.blocks;
        let number = usize::try_from(at.checked_sub(*first)?).ok()? / BLOCK;
        let begin = first + (number * BLOCK) as u64;
        blocks.get(number).filter(|block| at < begin + block.len() as u64).map(|block| (begin, block))
    }

    fn fail(&self, error: FileError) -> BodyError {
        let (key, variant) = &self.file.key;
        self.shared.drop_file(key, variant.as_ref(), error);
        BodyError::Damaged
    }
}
