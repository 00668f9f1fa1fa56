//! Active probes.

use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use pingora::lb::Backend;
use pingora::lb::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use pingora::upstreams::peer::HttpPeer;

use super::health::Thresholds;
use super::pool::{ActiveProbe, Members, ProbeKind, Transport};

/// Sends Pingora's probe and reports to our own state machine, whose verdict the registry is handed.
pub struct Probe {
    check: Box<dyn HealthCheck + Send + Sync>,
    timeout: Duration,
    thresholds: Thresholds,
    members: Weak<Members>,
}

impl Probe {
    /// The probe that a configuration describes, for targets that are spoken to in this way.
    pub fn new(active: &ActiveProbe, transport: &Transport, name: &str, members: Weak<Members>) -> Self {
        let check: Box<dyn HealthCheck + Send + Sync> = match &active.kind {
            ProbeKind::Tcp => {
                let mut check = TcpHealthCheck::new();
                check.peer_template.options.connection_timeout = Some(active.timeout);
                check
            }
            ProbeKind::Http { path, host, headers, status, expect_header } => {
                let host = host.clone().unwrap_or_else(|| name.to_owned());
                let mut check = HttpHealthCheck::new(&host, transport.tls.is_some());
                check.peer_template = transport.apply(HttpPeer::new((std::net::Ipv4Addr::UNSPECIFIED, 1), false, String::new()), name);
                check.peer_template.options.connection_timeout = Some(active.timeout);
                check.peer_template.options.read_timeout = Some(active.timeout);
                check.req.set_raw_path(path.as_bytes()).unwrap_or_default();
                for (name, value) in headers {
                    let _ = check.req.insert_header(name.clone(), value.clone());
                }
                let (status, header) = (status.clone(), expect_header.clone());
                check.validator = Some(Box::new(move |answer| {
                    if !status.contains(answer.status.as_u16()) {
                        return pingora::Error::e_explain(pingora::ErrorType::HTTPStatus(answer.status.as_u16()), "not a status of a healthy target");
                    }
                    match &header {
                        Some(name) if !answer.headers.contains_key(name) => {
                            pingora::Error::e_explain(pingora::ErrorType::InvalidHTTPHeader, format!("the header {name} is missing"))
                        }
                        _ => Ok(()),
                    }
                }));
                Box::new(check)
            }
        };
        Self { check, timeout: active.timeout, thresholds: active.thresholds, members }
    }
}

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, backend: &Backend) -> pingora::Result<()> {
        let result = match tokio::time::timeout(self.timeout, self.check.check(backend)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
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
