//! Active probes.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderName;
use pingora::http::ResponseHeader;
use pingora::lb::Backend;
use pingora::lb::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use pingora::upstreams::peer::HttpPeer;

use super::health::Thresholds;
use super::pool::{ActiveProbe, Members, ProbeKind, Transport};
use super::target::TargetSpec;
use crate::notation::Statuses;

/// Sends Pingora's probe and reports to our own state machine, whose verdict the registry is handed.
pub struct Probe {
    /// A check for each configured name: names differ in what TLS verifies and in `Host`.
    checks: HashMap<TargetSpec, Box<dyn HealthCheck + Send + Sync>>,
    timeout: Duration,
    thresholds: Thresholds,
    members: Weak<Members>,
}

impl Probe {
    /// The probe that a configuration describes, for targets that are spoken to in this way.
    pub fn new(active: &ActiveProbe, transport: &Transport, targets: &[TargetSpec], members: Weak<Members>) -> Self {
        let check = |spec: &TargetSpec| (spec.clone(), check(active, transport, spec));
        let checks = targets.iter().map(check).collect();
        Self { checks, timeout: active.timeout, thresholds: active.thresholds, members }
    }
}

fn check(active: &ActiveProbe, transport: &Transport, spec: &TargetSpec) -> Box<dyn HealthCheck + Send + Sync> {
    let peer = transport.apply(HttpPeer::new((std::net::Ipv4Addr::UNSPECIFIED, 1), false, String::new()), &spec.host);
    match &active.kind {
        ProbeKind::Tcp => {
            let mut check = if transport.tls.is_some() { TcpHealthCheck::new_tls(&peer.sni) } else { TcpHealthCheck::new() };
            check.peer_template.options = peer.options;
            check.peer_template.options.connection_timeout = Some(active.timeout);
            check
        }
        ProbeKind::Http { path, host, headers, status, expect_header } => {
            let host = host.clone().unwrap_or_else(|| spec.authority());
            let mut check = HttpHealthCheck::new(&host, transport.tls.is_some());
            check.peer_template = peer;
            check.peer_template.options.connection_timeout = Some(active.timeout);
            check.peer_template.options.read_timeout = Some(active.timeout);
            check.req.set_raw_path(path.as_bytes()).unwrap_or_default();
            for (name, value) in headers {
                let _ = check.req.insert_header(name.clone(), value.clone());
            }
            check.validator = Some(validator(status.clone(), expect_header.clone()));
            Box::new(check)
        }
    }
}

/// What a healthy answer has to have.
fn validator(status: Statuses, header: Option<HeaderName>) -> Validator {
    let unhealthy = |what: String| pingora::Error::e_explain(pingora::ErrorType::Custom("unhealthy answer"), what);
    Box::new(move |answer| {
        if !status.contains(answer.status.as_u16()) {
            return unhealthy(format!("status {}", answer.status.as_u16()));
        }
        match &header {
            Some(name) if !answer.headers.contains_key(name) => unhealthy(format!("the header {name} is missing")),
            _ => Ok(()),
        }
    })
}

type Validator = Box<dyn Fn(&ResponseHeader) -> pingora::Result<()> + Send + Sync>;

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, backend: &Backend) -> pingora::Result<()> {
        let Some(check) = backend.ext.get::<TargetSpec>().and_then(|spec| self.checks.get(spec)) else { return Ok(()) };
        let result = match tokio::time::timeout(self.timeout, check.check(backend)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // The cause at the root; what Pingora wraps it in shows whole structures.
                let root = error.root_cause();
                let context = root.downcast_ref::<pingora::BError>().and_then(|e| e.context.as_ref()).map(|c| c.as_str().to_owned());
                Err(context.unwrap_or_else(|| root.to_string()))
            }
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        };
        let Some(members) = self.members.upgrade() else { return Ok(()) };
        let Some(target) = members.target(backend) else { return Ok(()) };
        let failure = result.clone().err();
        if target.probed(result, self.thresholds) {
            members.health_changed(&target, failure.as_deref());
        }
        if target.is_healthy() { Ok(()) } else { pingora::Error::e_explain(pingora::ErrorType::ConnectError, failure.unwrap_or_default()) }
    }

    /// One: the counting is done by the target's own state machine.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
