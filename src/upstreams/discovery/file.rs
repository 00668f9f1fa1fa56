//! Targets from a file, which is read again when it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::written::{TargetText, specs};
use super::{Found, Lookup, Source};
use crate::upstreams::TargetSpec;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A YAML or JSON list of targets, as `targets` of an upstream is.
pub struct TargetFile {
    path: PathBuf,
    lookup: Arc<Lookup>,
    read: Mutex<Option<(SystemTime, u64, Vec<TargetSpec>)>>,
}

impl TargetFile {
    /// That file.
    pub fn new(path: PathBuf, lookup: Arc<Lookup>) -> Self {
        Self { path, lookup, read: Mutex::new(None) }
    }

    async fn specs(&self) -> Result<Vec<TargetSpec>, String> {
        let state = tokio::fs::metadata(&self.path).await.map_err(|e| e.to_string())?;
        let stamp = (state.modified().unwrap_or(SystemTime::UNIX_EPOCH), state.len());
        if let Some((modified, length, specs)) = &*self.read.lock()
            && (*modified, *length) == stamp
        {
            return Ok(specs.clone());
        }
        let text = tokio::fs::read_to_string(&self.path).await.map_err(|e| e.to_string())?;
        let targets: Vec<TargetText> = serde_yaml::from_str(&text).map_err(|e| format!("expected a list of targets: {e}"))?;
        let specs: Vec<TargetSpec> = targets.iter().map(TargetText::spec).collect();
        *self.read.lock() = Some((stamp.0, stamp.1, specs.clone()));
        Ok(specs)
    }
}

#[async_trait]
impl Source for TargetFile {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn discover(&self) -> Result<Found, String> {
        let found = specs(&self.specs().await?, &self.lookup).await?;
        Ok(Found { fresh_for: found.fresh_for.min(INTERVAL), ..found })
    }
}
