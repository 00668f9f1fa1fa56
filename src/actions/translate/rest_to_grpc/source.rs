//! The API that serves: of files, or as the target describes it (server reflection).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use serde_json::json;

use super::protos::describe_set;
use crate::live::Maintained;
use crate::rules::grpc::{Api, ApiScope, JsonStyle, openapi_document};
use crate::telemetry::metrics::KeySetState;
use crate::upstreams::{ReflectedServices, Upstream, reflect};

/// Time between two looks at the target.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Time until the first look after one that failed; it doubles up to the other.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The API that serves, and its document.
#[derive(Debug)]
pub struct Serving {
    /// The API.
    pub api: Arc<Api>,
    /// Its OpenAPI document, if that is wanted.
    pub document: Option<Bytes>,
}

impl Serving {
    /// Returns what serves an API.
    pub fn new(api: Api, style: Option<JsonStyle>) -> Self {
        let document = style.map(|style| openapi_document(&api, style).to_string().into());
        Self { api: Arc::new(api), document }
    }
}

/// The source of the API.
#[derive(Debug)]
pub struct ApiSource {
    current: ArcSwapOption<Serving>,
    reflection: Option<Reflection>,
}

/// How the target is asked.
#[derive(Debug)]
pub struct Reflection {
    /// The upstream whose targets are asked.
    pub upstream: Arc<Upstream>,
    /// The names of the services; none means all.
    pub services: Vec<String>,
    /// Whether methods without a rule have one.
    pub unruled: bool,
    /// The style of the document, if there is one.
    pub document: Option<JsonStyle>,
    /// What is known.
    pub state: Mutex<ReflectionState>,
    /// Whether it is kept up to date.
    pub started: AtomicBool,
}

/// What is known of the target.
#[derive(Debug, Default)]
pub struct ReflectionState {
    looked: Option<Instant>,
    error: Option<String>,
    last: ReflectedServices,
}

impl ApiSource {
    /// Returns the source of an API of files; `None` where that has errors.
    pub fn of_files(serving: Option<Serving>) -> Self {
        Self { current: ArcSwapOption::from_pointee(serving), reflection: None }
    }

    /// Returns the source of an API that the target describes.
    pub fn of_reflection(reflection: Reflection) -> Self {
        Self { current: ArcSwapOption::empty(), reflection: Some(reflection) }
    }

    /// Returns the API, if it is known.
    pub fn current(&self) -> arc_swap::Guard<Option<Arc<Serving>>> {
        self.current.load()
    }

    /// Returns why the API is not known.
    pub fn error(&self) -> String {
        let error = self.reflection.as_ref().and_then(|reflection| reflection.state.lock().error.clone());
        error.unwrap_or_else(|| "its target has not described it yet".to_owned())
    }

    /// Asks the target, and serves what it describes. What served before stays where that fails.
    async fn refresh(&self) -> Result<(), String> {
        let Some(reflection) = &self.reflection else { return Ok(()) };
        let reflected = reflect(&reflection.upstream.pool, &reflection.services).await;
        let result = match reflected {
            Ok(reflected) if self.current().is_some() && reflection.state.lock().last == reflected => Ok(()),
            Ok(reflected) => {
                let scope = (reflection.unruled, reflection.document);
                let compiled =
                    tokio::task::spawn_blocking(move || compile(&reflected, scope).map(|serving| (serving, reflected)));
                match compiled.await {
                    Ok(Ok((serving, reflected))) => {
                        self.current.store(Some(Arc::new(serving)));
                        reflection.state.lock().last = reflected;
                        Ok(())
                    }
                    Ok(Err(why)) => Err(why),
                    Err(_) => Err("its descriptors cannot be compiled".to_owned()),
                }
            }
            Err(why) => Err(why),
        };
        let mut state = reflection.state.lock();
        state.looked = Some(Instant::now());
        let error = result.as_ref().err().cloned();
        if let Some(error) = error.as_ref().filter(|error| state.error.as_ref() != Some(*error)) {
            log::warn!("the methods of upstream {} cannot be read: {error}", reflection.upstream.name);
        }
        state.error = error;
        result
    }

    async fn keep_fresh(source: Weak<Self>, mut failed: bool) {
        let mut pause = RETRY_INTERVAL;
        loop {
            tokio::time::sleep(if failed { pause } else { LOOK_INTERVAL }).await;
            let Some(this) = source.upgrade() else { return };
            failed = this.refresh().await.is_err();
            pause = if failed { (pause * 2).min(LOOK_INTERVAL) } else { RETRY_INTERVAL };
        }
    }
}

fn compile(reflected: &ReflectedServices, (unruled, document): (bool, Option<JsonStyle>)) -> Result<Serving, String> {
    let pool = describe_set(&reflected.files)?;
    let scope = ApiScope { files: &[], services: &reflected.services, unruled };
    let api = Api::new(&pool, &scope).map_err(|errors| errors.into_iter().next().unwrap_or_default())?;
    Ok(Serving::new(api, document))
}

impl Maintained for ApiSource {
    fn kind(&self) -> &'static str {
        "grpc_reflection"
    }

    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        let is_first = self.reflection.as_ref().is_some_and(|one| !one.started.swap(true, Ordering::AcqRel));
        async move {
            if is_first {
                let has_targets = || {
                    let pool = self.reflection.as_ref().map(|one| &one.upstream.pool);
                    pool.is_some_and(|pool| pool.choice().members().next().is_some())
                };
                let mut failed = self.refresh().await.is_err();
                // The targets of an upstream by name are looked up at the same time.
                for _ in 0..3 {
                    if !failed || has_targets() {
                        break;
                    }
                    tokio::time::sleep(RETRY_INTERVAL / 4).await;
                    failed = self.refresh().await.is_err();
                }
                tokio::spawn(Self::keep_fresh(Arc::downgrade(&self), failed));
            }
        }
        .boxed()
    }

    fn view(&self) -> serde_json::Value {
        let Some(reflection) = &self.reflection else { return json!({}) };
        let state = reflection.state.lock();
        json!({
            "source": reflection.upstream.name,
            "age_seconds": state.looked.map(|looked| looked.elapsed().as_secs()),
            "error": state.error,
            "services": state.last.services,
            "rules": self.current().as_ref().map(|serving| serving.api.rules.len()),
        })
    }

    fn key_set(&self) -> Option<KeySetState> {
        None
    }

    fn name_for_operators(&self, _label: &dyn Fn(&str) -> String) {}
}
