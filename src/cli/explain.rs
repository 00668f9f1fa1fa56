//! `explain`: prints which route a request takes, and why, with the code that serves traffic.

mod outcome;

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::compile::compile;
use crate::config::{Inherited, Loaded};
use crate::live::Live;
use crate::rules::path::{Ambiguity, normalise};
use crate::rules::routing::{PredicateResult, RequestFacts, RouteEntry, RouteMatch, Router, allow};
use crate::snapshot::Snapshot;
use crate::telemetry::{complain, say};
use outcome::Selection;

/// Show which route a request takes, through which filters, which was the runner-up, and what the target gets
#[derive(Debug, Args)]
#[command(
    after_help = "Example: portcullis explain -c conf/examples/demo.yaml GET http://localhost/api/v1/users/profile \
                  -H 'Accept: */*' --from 10.1.2.3"
)]
pub struct Explain {
    /// The configuration [default: $PORTCULLIS_CONFIG, else /etc/portcullis/portcullis.yaml]
    #[arg(long, short, value_name = "FILE", default_value_os_t = super::default_file(), hide_default_value = true)]
    pub config: PathBuf,
    /// The method
    pub method: Method,
    /// The URL, or a path alone
    pub url: String,
    /// A header, as in curl; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// The client's address
    #[arg(long, default_value = "127.0.0.1")]
    pub from: IpAddr,
    /// The listener at which it arrives [default: the first]
    #[arg(long)]
    pub listener: Option<String>,
}

struct ExplainedRequest {
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Explain {
    /// Explains the request. The exit code is 0 when a route matches and 1 when none does.
    pub fn execute(self) -> u8 {
        crate::tls::install_provider();
        let compiled = super::load_file(&self.config)
            .and_then(|loaded| compile(&loaded, &Live::default()).map(|snapshot| (loaded, snapshot)));
        let (loaded, snapshot) = match compiled {
            Ok(compiled) => compiled,
            Err(mistakes) => {
                complain!("{mistakes}");
                return 2;
            }
        };
        match self.request().and_then(|request| self.explain(&loaded, &snapshot, &request)) {
            Ok(found) => u8::from(!found),
            Err(text) => {
                complain!("portcullis: {text}");
                2
            }
        }
    }

    fn request(&self) -> Result<ExplainedRequest, String> {
        let wanted = || format!("expected http://HOST/PATH or /PATH, found {}", self.url);
        let uri: http::Uri = self.url.parse().map_err(|_| wanted())?;
        if !self.url.starts_with('/') && !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wanted());
        }
        let path = normalise(uri.path().as_bytes()).map_err(|e| format!("400 bad_path: {}", e.text()))?.into_owned();
        let mut headers = HeaderMap::new();
        for header in &self.header {
            let (name, value) =
                header.split_once(':').ok_or_else(|| format!("expected NAME: VALUE, found {header}"))?;
            let name: HeaderName = name.trim().parse().map_err(|_| format!("{name} is not a header name"))?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("{name} has no valid value"))?;
            headers.append(name, value);
        }
        let named = headers.get(http::header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let host = uri.host().unwrap_or(named).to_ascii_lowercase();
        let host = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host.as_str(), |(h, _)| h);
        Ok(ExplainedRequest { host: host.to_owned(), path, query: uri.query().map(str::to_owned), headers })
    }

    fn explain(&self, loaded: &Loaded, snapshot: &Snapshot, request: &ExplainedRequest) -> Result<bool, String> {
        let place = match &self.listener {
            None => snapshot.listeners.iter().position(|listener| listener.http().is_some()),
            Some(name) => Some(snapshot.listener(name).ok_or_else(|| format!("there is no listener {name}"))?),
        };
        let place = place.filter(|place| snapshot.listeners[*place].http().is_some());
        let place = place.ok_or("no route is explained without a listener of kind http")?;
        let router = snapshot.routers.get(place).ok_or("there is no listener")?;
        let question = RequestFacts {
            host: &request.host,
            path: &request.path,
            query: request.query.as_deref(),
            method: &self.method,
            headers: &request.headers,
            client: self.from,
        };
        let listener = loaded.redact(&snapshot.listeners[place].name);
        say!("{} {} (host {:?}, from {}, listener {listener})", self.method, request.path, request.host, self.from);
        candidates(router, &question, loaded, snapshot);
        match snapshot.find(place, &question) {
            RouteMatch::Found(entry) => {
                let entry = router.entry(entry);
                let route = &snapshot.routes[entry.route];
                Selection { loaded, snapshot, entry, listener: place }.print(self, request);
                let rejected = Ambiguity::of(&request.path).is_rejected_by(route.paths);
                if rejected {
                    say!(
                        "\nresponse: 400 bad_path: the path has an encoded slash or parameters, which the route rejects"
                    );
                }
                Ok(!rejected)
            }
            RouteMatch::OtherVersion(entry) => {
                let RouteEntry { route, predicates, .. } = router.entry(entry);
                let api = snapshot.routes[*route].versions.as_ref().zip(predicates.version.as_ref());
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                if let Some((api, rule)) = api {
                    let rejection = api.rejection(rule, &question, now);
                    let (status, detail) = (rejection.http_status(), loaded.redact(&rejection.detail));
                    say!("\nresponse: {status} {}: {detail}", rejection.reason.code());
                }
                Ok(false)
            }
            RouteMatch::NotFound => {
                say!("\nresponse: 404 route_not_found");
                Ok(false)
            }
            RouteMatch::MethodNotAllowed(methods) => {
                say!("\nresponse: 405 method_not_allowed, Allow: {}", allow(&methods));
                Ok(false)
            }
        }
    }
}

/// Prints the entries that match by host and path, in the order of precedence, and the result of their other
/// conditions.
fn candidates(router: &Router, question: &RequestFacts<'_>, loaded: &Loaded, snapshot: &Snapshot) {
    let mut selected: Option<RouteEntry> = None;
    let mut rank = 0;
    say!("\ncandidates by host and path, in the order of precedence:");
    router.candidates(question, &mut |_, entry: &RouteEntry| {
        let text = match entry.predicates.evaluate(question) {
            PredicateResult::Match => {
                rank += 1;
                match (rank, &selected) {
                    (2, Some(first)) => format!("runner-up: matches too; decided by {}", first.criterion(entry)),
                    (1, _) => {
                        selected = Some(entry.clone());
                        "selected".to_owned()
                    }
                    _ => "matches too".to_owned(),
                }
            }
            PredicateResult::Method => "not selected: its methods".to_owned(),
            PredicateResult::No(what) => format!("not selected: its {what}"),
        };
        let name = loaded.redact(&snapshot.routes[entry.route].name);
        let (host, path) = (loaded.redact(&entry.host.to_string()), loaded.redact(&entry.path.to_string()));
        say!("  {name:<20} {host:<20} {path:<28} {text}");
        ControlFlow::Continue(())
    });
}

/// Returns the filters of a route in the order in which they run on requests of a listener, and where each comes from.
pub fn filters(
    loaded: &Loaded,
    snapshot: &Snapshot,
    inherited: &Inherited<'_>,
    route: usize,
    listener: usize,
) -> Vec<String> {
    let chain = snapshot.routes[route].filters(Some(listener));
    let of_api =
        chain.filters().find(|filter| filter.is_of_api()).map(|filter| format!("openapi ({})", filter.stage()));
    let mut running = chain.filters().filter(|filter| !filter.is_of_api()).peekable();
    let selected = inherited.effective(route, listener);
    // Filters without effect in this route do not run.
    let runs = selected.into_iter().filter(|one| running.next_if(|filter| filter.key() == one.config.key()).is_some());
    let runs = runs.map(|one| {
        let when = one.when.map(|when| format!(", when {when}")).unwrap_or_default();
        loaded.redact(&format!("{} ({}){one}{when}", one.config.key(), one.config.stage()))
    });
    runs.chain(of_api).collect()
}
