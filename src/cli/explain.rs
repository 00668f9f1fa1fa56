//! `explain`: which route a request takes, and why, by the very code that serves traffic.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::compile::compile;
use crate::config::{Inherited, Loaded, load};
use crate::live::Live;
use crate::notation::Mistakes;
use crate::rules::path::{Ambiguity, normalise};
use crate::rules::routing::{Entry, Question, Router, Ruling, Verdict, allow};
use crate::snapshot::Snapshot;
use crate::telemetry::{complain, say};

/// Tell which route a request takes, through which filters, and which was the runner-up
#[derive(Debug, Args)]
#[command(after_help = "Example: portcullis explain -c conf/examples/demo.yaml GET http://localhost/api/v1/users/profile \
                  -H 'Accept: */*' --from 10.1.2.3")]
pub struct Explain {
    /// The configuration
    #[arg(long, short, value_name = "FILE")]
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
    /// The listener that it arrives at [default: the first]
    #[arg(long)]
    pub listener: Option<String>,
}

struct Asked {
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Explain {
    /// Explains. 0 when a route matches, 1 when none does.
    pub fn execute(self) -> u8 {
        crate::tls::install_provider();
        let compiled = load(&self.config).and_then(|loaded| compile(&loaded, &Live::default()).map(|snapshot| (loaded, snapshot)));
        let (loaded, snapshot) = match compiled {
            Ok(compiled) => compiled,
            Err(mistakes) => {
                complain!("{mistakes}");
                return 2;
            }
        };
        match self.asked().and_then(|asked| self.explain(&loaded, &snapshot, &asked)) {
            Ok(found) => u8::from(!found),
            Err(text) => {
                complain!("portcullis: {text}");
                2
            }
        }
    }

    fn asked(&self) -> Result<Asked, String> {
        let wanted = || format!("expected http://HOST/PATH or /PATH, found {}", self.url);
        let uri: http::Uri = self.url.parse().map_err(|_| wanted())?;
        if !self.url.starts_with('/') && !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wanted());
        }
        let path = normalise(uri.path().as_bytes()).map_err(|e| format!("400 bad_path: {}", e.text()))?.into_owned();
        let mut headers = HeaderMap::new();
        for header in &self.header {
            let (name, value) = header.split_once(':').ok_or_else(|| format!("expected NAME: VALUE, found {header}"))?;
            let name: HeaderName = name.trim().parse().map_err(|_| format!("{name} names no header"))?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| format!("{name} has no valid value"))?;
            headers.append(name, value);
        }
        let named = headers.get(http::header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let host = uri.host().unwrap_or(named).to_ascii_lowercase();
        let host = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host.as_str(), |(h, _)| h);
        Ok(Asked { host: host.to_owned(), path, query: uri.query().map(str::to_owned), headers })
    }

    fn explain(&self, loaded: &Loaded, snapshot: &Snapshot, asked: &Asked) -> Result<bool, String> {
        let place = match &self.listener {
            None => 0,
            Some(name) => snapshot.listener(name).ok_or_else(|| format!("there is no listener {name}"))?,
        };
        let router = snapshot.routers.get(place).ok_or("there is no listener")?;
        let question = Question {
            host: &asked.host,
            path: &asked.path,
            query: asked.query.as_deref(),
            method: &self.method,
            headers: &asked.headers,
            client: self.from,
        };
        let listener = loaded.redact(&snapshot.listeners[place].name);
        say!("{} {} (host {:?}, from {}, listener {listener})", self.method, asked.path, asked.host, self.from);
        candidates(router, &question, loaded, snapshot);
        match snapshot.find(place, &question) {
            Verdict::Found(entry) => {
                let route = &snapshot.routes[router.entry(entry).route];
                tell_route(loaded, snapshot, router.entry(entry).route, place);
                let rejected = Ambiguity::of(&asked.path).is_rejected_by(route.paths);
                if rejected {
                    say!("\nanswer: 400 bad_path: the path has an encoded slash or parameters, which the route rejects");
                }
                Ok(!rejected)
            }
            Verdict::NotFound => {
                say!("\nanswer: 404 route_not_found");
                Ok(false)
            }
            Verdict::MethodNotAllowed(methods) => {
                say!("\nanswer: 405 method_not_allowed, Allow: {}", allow(&methods));
                Ok(false)
            }
        }
    }
}

/// Whoever fits by host and path, best first, and what the rest of its conditions say.
fn candidates(router: &Router, question: &Question<'_>, loaded: &Loaded, snapshot: &Snapshot) {
    let mut rank = 0;
    say!("\ncandidates by host and path, in the order of precedence:");
    router.candidates(question, &mut |_, entry: &Entry| {
        let text = match entry.predicates.judge(question) {
            Ruling::Match => {
                rank += 1;
                match rank {
                    1 => "taken".to_owned(),
                    2 => "runner-up: matches too, with less precedence".to_owned(),
                    _ => "matches too".to_owned(),
                }
            }
            Ruling::Method => "not taken: its methods".to_owned(),
            Ruling::No(what) => format!("not taken: its {what}"),
        };
        let (name, path) = (loaded.redact(&snapshot.routes[entry.route].name), loaded.redact(&entry.path.to_string()));
        say!("  {name:<24} {path:<32} {text}");
        ControlFlow::Continue(())
    });
}

/// Returns the filters of a route in the order in which they run on requests of a listener, and where each comes from.
pub fn filters(loaded: &Loaded, snapshot: &Snapshot, inherited: &Inherited<'_>, route: usize, listener: usize) -> Vec<String> {
    let mut running = snapshot.routes[route].filters(Some(listener)).filters().iter().peekable();
    let selected = inherited.effective(route, listener);
    // What has nothing to work on in this route does not run.
    let runs = selected.into_iter().filter(|one| running.next_if(|filter| filter.key() == one.config.key()).is_some());
    runs.map(|one| loaded.redact(&format!("{} ({}){one}", one.config.key(), one.config.stage()))).collect()
}

fn tell_route(loaded: &Loaded, snapshot: &Snapshot, index: usize, listener: usize) {
    let route = &snapshot.routes[index];
    say!("\nroute: {}", loaded.redact(&route.name));
    let inherited = Inherited::new(loaded, &mut Mistakes::default());
    for filter in filters(loaded, snapshot, &inherited, index, listener) {
        say!("  filter: {filter}");
    }
    for line in route.action.describe() {
        say!("  {}", loaded.redact(&line));
    }
}
