//! `caches`: the stores of responses that the filter `cache` uses.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{FilePath, Size};

/// A store of responses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// The most memory: heads, bodies and index, and what is being received. With `0B` and `disk` only what is being
    /// received and written is in memory, 64MiB at most. Default 256MiB.
    pub memory: Size,
    /// The largest body that is stored; a larger one is passed on. Default 8MiB.
    pub max_object: Size,
    /// Files that outlive the process. Default: none.
    pub disk: Option<CacheDisk>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { memory: Size(256 << 20), max_object: Size(8 << 20), disk: None }
    }
}

/// The files of a cache.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheDisk {
    /// The folder, which is created if it does not exist, for the gateway's user alone. No other cache, and no other
    /// instance, uses it.
    pub path: FilePath,
    /// The most bytes of all files.
    pub size: Size,
}
