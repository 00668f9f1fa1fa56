//! The country of an address, from a database in MaxMind's format (MaxMind DB file format, version 2.0).

use std::fmt;
use std::net::IpAddr;

use maxminddb::{PathElement, Reader};

/// A country by its code (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// Returns the country with that code of two letters, whatever their case.
    pub fn of(code: &str) -> Option<Self> {
        let letters: [u8; 2] = code.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_alphabetic).then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }

    /// Returns its code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A database of countries or cities, in memory.
pub struct Countries {
    reader: Reader<Vec<u8>>,
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Countries({})", self.kind())
    }
}

impl Countries {
    /// Reads a database.
    ///
    /// # Errors
    /// Returns why the content is no database.
    pub fn parse(content: Vec<u8>) -> Result<Self, String> {
        let reader = Reader::from_source(content).map_err(|error| format!("it is no MaxMind database: {error}"))?;
        Ok(Self { reader })
    }

    /// Returns its kind: `GeoLite2-Country`.
    pub fn kind(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// Returns the time at which it was built, in seconds since 1970.
    pub fn built(&self) -> u64 {
        self.reader.metadata().build_epoch
    }

    /// Returns the country in which an address is used; `None` where the database does not have it, as for private
    /// addresses, and where its entry cannot be read.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        let found = self.reader.lookup(address.to_canonical()).ok()?;
        let code: Option<&str> =
            found.decode_path(&[PathElement::Key("country"), PathElement::Key("iso_code")]).ok()?;
        Country::of(code?)
    }
}
