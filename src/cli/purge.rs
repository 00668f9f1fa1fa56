//! `purge`: removes stored responses from the caches of a running gateway.

use clap::Args;
use http::{Method, StatusCode};
use serde_json::json;

use super::operator::{CommandFailed, Operator, counted, print_error};
use crate::telemetry::say;

/// Remove stored responses from the caches of a running gateway
#[derive(Debug, Args)]
#[command(after_help = "When it returns, no request finds what was purged, also after a restart. \
        Example: portcullis purge --tag product-7 --tag category-2")]
pub struct PurgeCommand {
    /// A URL: all its variants
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// All URLs that begin with this
    #[arg(long, value_name = "URL")]
    pub prefix: Vec<String>,
    /// All responses with this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Everything
    #[arg(long)]
    pub all: bool,
    /// Mark as stale only: the next request validates it, or gets it where stale responses may be served
    #[arg(long)]
    pub soft: bool,
    /// The cache [default: all]
    #[arg(long, value_name = "NAME")]
    pub cache: Option<String>,
    /// The gateway
    #[command(flatten)]
    pub operator: Operator,
}

impl PurgeCommand {
    /// Purges.
    pub fn execute(self) -> u8 {
        self.purge().err().unwrap_or(0)
    }

    fn purge(&self) -> Result<(), CommandFailed> {
        if self.url.is_empty() && self.prefix.is_empty() && self.tag.is_empty() && !self.all {
            print_error("what to purge: give --url, --prefix, --tag or --all");
            return Err(2);
        }
        let gateway = self.operator.load().and_then(|loaded| self.operator.gateway(loaded.as_ref()))?;
        let body = json!({
            "url": self.url, "prefix": self.prefix, "tag": self.tag, "all": self.all, "soft": self.soft,
        });
        let path = match &self.cache {
            Some(name) => format!("/caches/{name}/purge"),
            None => "/caches/purge".to_owned(),
        };
        let (status, body) = gateway.request(Method::POST, &path, body.to_string().into_bytes())?;
        let response = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        if status != StatusCode::OK {
            let why = response["error"].as_str();
            return Err(print_error(why.unwrap_or("the running gateway has no caches, or is another version")));
        }
        let names = response["caches"].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(|name| name.as_str()).collect();
        let count = usize::try_from(response["purged"].as_u64().unwrap_or_default()).unwrap_or_default();
        say!("{} in {}", counted(count, "purge"), names.join(", "));
        Ok(())
    }
}
