//! Targets from a file, which is read again when it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::configured::{TargetText, specs};
use super::{Discovered, Lookup, TargetSource};
use crate::tls::{MAX_MATERIAL, read_text};
use crate::upstreams::TargetSpec;

/// The interval at which the file is checked.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A YAML or JSON list of targets, like `targets` of an upstream.
pub struct TargetFile {
    path: PathBuf,
    lookup: Arc<Lookup>,
    read: Mutex<Option<(SystemTime, u64, Vec<TargetSpec>)>>,
}

impl TargetFile {
    /// Returns the source for that file.
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
        let text = {
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || read_text(&path, MAX_MATERIAL)).await;
            read.unwrap_or_else(|e| Err(e.to_string()))?
        };
        let specs = parse(&text)?;
        *self.read.lock() = Some((stamp.0, stamp.1, specs.clone()));
        Ok(specs)
    }
}

#[async_trait]
impl TargetSource for TargetFile {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn discover(&self) -> Result<Discovered, String> {
        let found = specs(&self.specs().await?, &self.lookup).await;
        Ok(Discovered { fresh_for: found.fresh_for.min(FILE_CHECK_INTERVAL), ..found })
    }
}

/// Parses a list of targets, each as in the configuration.
fn parse(text: &str) -> Result<Vec<TargetSpec>, String> {
    let items: Vec<serde_yaml::Value> = serde_yaml::from_str(text).map_err(|error| {
        // The error text may quote the file, which may be any file.
        let at = error.location().map(|at| format!(", from line {} column {} on", at.line(), at.column()));
        format!("expected a list of targets in YAML{}", at.unwrap_or_default())
    })?;
    if items.is_empty() {
        return Err("expected a list of targets with at least one".to_owned());
    }
    let mut specs: Vec<TargetSpec> = Vec::with_capacity(items.len());
    let mut seen = ahash::AHashSet::new();
    for (index, item) in items.into_iter().enumerate() {
        let wanted = "an address with a port, or {address, weight, priority, zone} with a weight from 1 to 1000";
        let wrong = |why: &str| format!("expected a list of targets, and as [{index}] {wanted}: {why}");
        // The error of the full form says more than that neither form matches.
        let target = match item {
            serde_yaml::Value::Mapping(_) => serde_yaml::from_value(item).map(TargetText::Full),
            item => serde_yaml::from_value(item).map(TargetText::Short),
        };
        let target = target.map_err(|error| {
            let why = error.to_string();
            let quotes_nothing = ["expected ", "missing field "].iter().any(|start| why.starts_with(start));
            wrong(if quotes_nothing { &why } else { "it is something else" })
        })?;
        if let TargetText::Full(full) = &target
            && (!(1..=1_000).contains(&full.weight) || full.priority > 127)
        {
            return Err(wrong("its weight or priority is out of range"));
        }
        let spec = target.spec();
        if !seen.insert((spec.host.clone(), spec.port)) {
            return Err(wrong("it is there twice"));
        }
        specs.push(spec);
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_file_is_checked_as_the_configuration_is() {
        let specs = parse("- 10.0.0.1:80\n- {address: 'users.test:81', weight: 3, zone: a}\n").expect("a list");
        assert_eq!((specs[0].port, specs[1].weight, specs[1].zone.as_deref()), (80, 3, Some("a")));
        for wrong in [
            "[]",
            "{}",
            "- {adress: x}",
            "- 10.0.0.1",
            "- {address: '10.0.0.1:80', weight: 0}",
            "[10.0.0.1:80, 10.0.0.1:80]",
            "[bad",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("- 10.0.0.1:80\n- {adress: x}").expect_err("an error").contains("[1]"));
    }
}
