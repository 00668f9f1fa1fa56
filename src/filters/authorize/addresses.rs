//! The rules by address and by country.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::config::{Config, CountryConfig, UnknownCountry};
use crate::filters::CompileContext;
use crate::live::WatchedFile;
use crate::notation::{NetworkSource, Networks as Source, Place};
use crate::rules::identity::{Countries, Country, Networks};

/// Addresses from the configuration and from files.
#[derive(Debug, Default)]
struct AddressSet {
    own: Networks,
    files: Vec<Arc<WatchedFile<Networks>>>,
}

impl AddressSet {
    fn compile(sources: &[Source], place: &Place, context: &mut CompileContext<'_>) -> Option<Self> {
        let mut networks: Vec<IpNet> = Vec::new();
        let (mut files, mut complete) = (Vec::new(), true);
        for (index, source) in sources.iter().enumerate() {
            match &source.0 {
                NetworkSource::Network(network) => networks.push(*network),
                NetworkSource::File(path) => {
                    let path = context.base.join(path);
                    let opened =
                        context.live.networks(&path).map_err(|e| format!("cannot read {}: {e}", path.display()));
                    match context.mistakes.take(&place.index(index), opened) {
                        Some(file) => {
                            context.keep(file.clone());
                            files.push(file);
                        }
                        None => complete = false,
                    }
                }
            }
        }
        complete.then(|| Self { own: networks.into_iter().collect(), files })
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.own.contains(address) || self.files.iter().any(|file| file.content().contains(address))
    }
}

/// The rules by address.
#[derive(Debug)]
pub struct AddressRules {
    allow: Option<AddressSet>,
    deny: Option<AddressSet>,
}

impl AddressRules {
    /// Compiles the rules; returns `None` when errors were noted.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        let mut set = |key: &'static str, sources: &[Source]| {
            (!sources.is_empty()).then(|| AddressSet::compile(sources, &place.key(key), context))
        };
        let (allow, deny) =
            (set("allow_addresses", &config.allow_addresses), set("deny_addresses", &config.deny_addresses));
        Some(Self {
            allow: allow.map_or(Some(None), |set| set.map(Some))?,
            deny: deny.map_or(Some(None), |set| set.map(Some))?,
        })
    }

    /// Decides on an address.
    pub fn decide(&self, address: IpAddr) -> Result<(), String> {
        if self.deny.as_ref().is_some_and(|deny| deny.contains(address)) {
            return Err(format!("the address {address} is denied"));
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.contains(address)) {
            return Err(format!("the address {address} is none of those that are allowed"));
        }
        Ok(())
    }
}

/// The rules by country.
#[derive(Debug)]
pub struct CountryRules {
    database: Arc<WatchedFile<Countries>>,
    allow: Vec<Country>,
    deny: Vec<Country>,
    unknown: Option<UnknownCountry>,
}

impl CountryRules {
    /// Compiles the rules; returns `None` when errors were noted.
    pub fn compile(config: &CountryConfig, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.key("countries");
        let path = context.base.join(&config.database);
        let opened = context.live.countries(&path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        let database = context.mistakes.take(&place.key("database"), opened);
        let mut countries = |key: &'static str, codes: &[String]| -> Vec<Country> {
            let each = codes.iter().enumerate().filter_map(|(index, code)| {
                let country = Country::of(code).ok_or("expected a code of two letters (ISO 3166-1), such as DE");
                context.mistakes.take(&place.key(key).index(index), country.map_err(str::to_owned))
            });
            each.collect()
        };
        let (allow, deny) = (countries("allow", &config.allow), countries("deny", &config.deny));
        let has_lists = !config.allow.is_empty() || !config.deny.is_empty();
        match config.unknown {
            None if has_lists => {
                let text = "expected unknown: allow or unknown: deny, for addresses whose country is not known";
                context.mistakes.add(&place, text);
            }
            Some(_) if !has_lists => {
                context.mistakes.add(&place.key("unknown"), "has no effect without allow or deny");
            }
            _ => {}
        }
        let database = database?;
        context.keep(database.clone());
        Some(Self { database, allow, deny, unknown: config.unknown })
    }

    /// Returns the country of an address, if it is known.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        self.database.content().country(address)
    }

    /// Decides on an address.
    pub fn decide(&self, address: IpAddr) -> Result<(), String> {
        let Some(unknown) = self.unknown else { return Ok(()) };
        match self.country(address) {
            None if unknown == UnknownCountry::Deny => Err(format!("the country of {address} is not known")),
            Some(country) if self.deny.contains(&country) => Err(format!("the country {country:?} is denied")),
            Some(country) if !self.allow.is_empty() && !self.allow.contains(&country) => {
                Err(format!("the country {country:?} is none of those that are allowed"))
            }
            _ => Ok(()),
        }
    }
}
