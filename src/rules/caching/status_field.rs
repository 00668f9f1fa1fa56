//! The response field `Cache-Status` (RFC 9211).

use std::fmt::Write;

/// The reason why a request was forwarded (RFC 9211, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardReason {
    /// The cache is not to be used for the request.
    Bypass,
    /// The method is not one that is served from the cache.
    Method,
    /// Nothing is stored for the URL.
    UriMiss,
    /// What is stored for the URL is for other requests.
    VaryMiss,
    /// The request wants it.
    Request,
    /// What is stored is stale.
    Stale,
}

impl ForwardReason {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// Defines [`CacheOutcome`] with the word for each.
macro_rules! outcomes {
    ($($(#[doc = $doc:literal])* $variant:ident = $word:literal;)*) => {
        /// What the cache did for a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CacheOutcome {
            $($(#[doc = $doc])* $variant,)*
        }

        impl CacheOutcome {
            /// All outcomes in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the word for it in metrics and logs.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

outcomes! {
    /// A fresh response was stored.
    Hit = "hit";
    /// A stale one was used, by the rules for that.
    Stale = "stale";
    /// A stored one was used after a target has confirmed it.
    Revalidated = "revalidated";
    /// A target responded, and the response was stored.
    Miss = "miss";
    /// The response to another request for the same was used.
    Collapsed = "collapsed";
    /// A target responded, and the response was not stored.
    Pass = "pass";
    /// The request had nothing to do with the cache.
    Bypass = "bypass";
}

/// How the cache has handled a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheHandling {
    /// Why the request was forwarded; `None` of a hit.
    pub forwarded: Option<ForwardReason>,
    /// For how many more seconds the response is fresh.
    pub ttl: Option<i64>,
    /// The status of the response to the forwarded request, where it is not that of this response.
    pub forward_status: Option<u16>,
    /// Whether the response was stored.
    pub stored: bool,
    /// Whether the request was joined to another one.
    pub collapsed: bool,
    /// A word beyond that.
    pub detail: Option<&'static str>,
}

/// Returns the member that the gateway adds.
pub fn cache_status(handling: &CacheHandling) -> String {
    let mut text = String::with_capacity(48);
    text.push_str("portcullis");
    match handling.forwarded {
        None => text.push_str("; hit"),
        Some(reason) => {
            text.push_str("; fwd=");
            text.push_str(reason.word());
        }
    }
    // Writing to a string never fails.
    if let Some(status) = handling.forward_status {
        let _ = write!(text, "; fwd-status={status}");
    }
    if let Some(ttl) = handling.ttl {
        let _ = write!(text, "; ttl={ttl}");
    }
    if handling.stored {
        text.push_str("; stored");
    }
    if handling.collapsed {
        text.push_str("; collapsed");
    }
    if let Some(detail) = handling.detail {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_their_order() {
        let hit = CacheHandling { ttl: Some(30), ..CacheHandling::default() };
        assert_eq!(cache_status(&hit), "portcullis; hit; ttl=30");
        let miss = CacheHandling {
            forwarded: Some(ForwardReason::UriMiss),
            forward_status: Some(200),
            stored: true,
            collapsed: true,
            detail: Some("x"),
            ..CacheHandling::default()
        };
        assert_eq!(cache_status(&miss), "portcullis; fwd=uri-miss; fwd-status=200; stored; collapsed; detail=x");
    }
}
