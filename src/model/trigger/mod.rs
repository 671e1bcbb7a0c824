//! The address of a flow's trigger: parsed once from the settings, kept byte for byte, printed without its
//! signature. It knows the hosts, paths and query keys that Microsoft uses, and names the usual copying
//! mistakes. The settings decide whether a route is signed or uses an identity; `flow` sends the requests.

mod authority;
mod copied;
mod error;
mod escape;
mod relative;
mod site;
mod target;

use std::fmt;

use http::uri::PathAndQuery;

pub use copied::ADDRESS_CHARS_MAX;
pub use error::TriggerUrlError;
pub use relative::RelativePathError;
pub use site::Family;

use crate::model::trigger::authority::{print_authority, read_authority};
use crate::model::trigger::copied::{after_scheme, check_copy, check_path, check_single, check_surroundings};
use crate::model::trigger::relative::check_relative;
use crate::model::trigger::site::{Site, family_of, refuse_portal, shape_of, site_of};
use crate::model::trigger::target::{Keys, Signature, check_target, key_of};
use crate::model::{Cloud, Secret};

/// Query parameters by which a trigger is addressed and signed (Microsoft Learn, "Call, trigger, or nest workflows with
/// HTTPS endpoints in Azure Logic Apps"). None of them ever comes from a caller.
pub const OWN_PARAMETERS: [&str; 5] = ["sp", "sv", "sig", "se", "api-version"];

/// The checked address of a trigger.
///
/// Path and query are those of the settings, byte for byte, because a signature covers them. `Display` and
/// `Debug` show scheme, host, path and `api-version`, and no other value of the query.
#[derive(Clone)]
pub struct TriggerUrl {
    host: String,
    port: u16,
    authority: String,
    path: String,
    /// The query with its question mark, or empty.
    query: Secret,
    /// Path and query again, parsed once for all requests. It shares no memory with `query` and is not wiped:
    /// hyper accepts no other type.
    whole: PathAndQuery,
    api_version: Option<String>,
    signature: Signature,
    site: Site,
    cloud: Option<Cloud>,
    family: Family,
}

impl TriggerUrl {
    /// Parses an address as it was copied from the trigger.
    ///
    /// Any https address is accepted; one that no known flow has gets a [`TriggerUrl::warning`]. An explicit
    /// `:443` is dropped from the authority; path and query are kept unchanged.
    pub fn parse(text: &str) -> Result<TriggerUrl, TriggerUrlError> {
        check_surroundings(text)?;
        let rest = after_scheme(text)?;
        check_copy(text)?;
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(cut).unwrap_or((rest, ""));
        let (host, port) = read_authority(authority)?;
        refuse_portal(&host)?;
        check_target(target)?;

        let cut = target.find('?').unwrap_or(target.len());
        let (path, query) = target.split_at_checked(cut).unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        let shape = shape_of(path);
        let (site, cloud) = site_of(&host);
        if shape != Family::Other {
            check_single(target)?;
        }
        check_path(path, shape)?;
        let keys = Keys::read(query.strip_prefix('?').unwrap_or(""))?;
        if shape != Family::Other {
            keys.check_trigger(target)?;
        }
        if site != Site::Unknown && port == 433 {
            return Err(TriggerUrlError::PortTypo);
        }

        let sent = format!("{path}{query}");
        Ok(TriggerUrl {
            authority: print_authority(&host, port),
            host,
            port,
            path: path.to_owned(),
            query: Secret::new(query),
            whole: PathAndQuery::try_from(sent).map_err(|_| TriggerUrlError::Unusable)?,
            api_version: keys.plain_api_version().map(str::to_owned),
            signature: keys.signature(),
            family: family_of(site, shape),
            site,
            cloud,
        })
    }

    /// The known form of this address. Host and path must both fit; otherwise it is [`Family::Other`].
    pub fn family(&self) -> Family {
        self.family
    }

    /// The cloud of this address, if the host identifies one.
    ///
    /// `logic.azure.us` serves three clouds and is certain only in a DoD region. A Standard app has none: its
    /// owner chooses the audience.
    pub fn cloud(&self) -> Option<Cloud> {
        self.cloud
    }

    /// The host, lower-case, an IPv6 address without brackets: the name to resolve and to check the
    /// certificate for.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` header: the port is absent when it is 443 (RFC 9110, section 4.2.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of `api-version`, if it is one that may be shown.
    pub fn api_version(&self) -> Option<&str> {
        self.api_version.as_deref()
    }

    /// Whether the address carries a shared access signature (`sig`).
    pub fn is_signed(&self) -> bool {
        self.signature == Signature::Whole
    }

    /// Whether parts of a signature are present without `sig`, as in an address that was cut off.
    ///
    /// An address cut at its first `&` looks like one of a flow that wants a token, so only
    /// [`TriggerUrl::require_signed`] can find that mistake.
    pub fn looks_cut(&self) -> bool {
        self.signature == Signature::Torn
    }

    /// For a route without an identity: the signature must be present.
    pub fn require_signed(&self) -> Result<(), TriggerUrlError> {
        match self.signature {
            Signature::Whole => Ok(()),
            Signature::Torn => Err(TriggerUrlError::SignatureTorn),
            Signature::Absent => Err(TriggerUrlError::CutAtAmpersand),
        }
    }

    /// For a route with an identity: the signature must be absent. A trigger refuses a request that carries
    /// both (Microsoft Learn, "Secure access and data in Azure Logic Apps").
    pub fn require_bearer(&self) -> Result<(), TriggerUrlError> {
        if self.is_signed() {
            return Err(TriggerUrlError::SignedAndIdentity);
        }
        Ok(())
    }

    pub fn has_known_host(&self) -> bool {
        self.site != Site::Unknown
    }

    /// Whether only Microsoft's flow service can answer at this host and port. Under `azurewebsites.net`
    /// anyone can.
    pub fn is_on_flow_service(&self) -> bool {
        matches!(self.site, Site::LogicApps | Site::Environment) && self.port == 443
    }

    /// Why an accepted address is unusual, as a whole sentence for the operator.
    pub fn warning(&self) -> Option<String> {
        let host = &self.host;
        if !self.has_known_host() {
            return Some(format!(
                "{host} is not an address of a flow trigger known to Flowgate; compare it with the one the \
                 trigger shows, or keep it if it is the address of a proxy or a test."
            ));
        }
        if self.family == Family::Other {
            return Some(format!(
                "The path on {host} is not that of a flow trigger known to Flowgate; it usually ends in \
                 /invoke."
            ));
        }
        if self.looks_cut() {
            return Some(
                "The address carries parts of a signature (sp or sv) but no sig; a route with an identity \
                 needs none of them."
                    .to_owned(),
            );
        }
        None
    }

    /// The exact path and query to send, ready for a request. It contains the signature: never print it.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.whole
    }

    /// The exact path and query to send, as a secret text.
    pub fn exposed_path_and_query(&self) -> Secret {
        Secret::new(format!("{}{}", self.path, self.query.expose()))
    }

    /// The path and query without `sp`, `sv` and `sig`; everything else keeps its bytes and its order.
    ///
    /// The address of a Logic App with an authorization policy still carries a signature, which a request
    /// with a token must leave out. The result may contain other values of the query, so it must not be
    /// printed either.
    pub fn path_and_query_unsigned(&self) -> String {
        let mut kept = self.path.clone();
        let mut mark = '?';
        for pair in self.query.expose().strip_prefix('?').unwrap_or("").split('&') {
            let key = key_of(pair);
            if pair.is_empty() || matches!(key.as_str(), "sp" | "sv" | "sig") {
                continue;
            }
            kept.push(mark);
            kept.push_str(pair);
            mark = '&';
        }
        kept
    }

    /// The path and query to send with a relative path between `/invoke` and the query, joined by one slash
    /// (Microsoft Learn, "Call, trigger, or nest workflows with HTTPS endpoints in Azure Logic Apps").
    ///
    /// `rest` is percent-encoded and may begin with a slash; nothing in it is encoded or repaired here. Empty
    /// segments are refused, because the trigger does not match a doubled slash, and so are dot segments in
    /// every spelling, because a server that resolves them would reach another trigger.
    pub fn with_relative(&self, rest: &str) -> Result<PathAndQuery, RelativePathError> {
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(self.whole.clone());
        }
        check_relative(rest)?;
        let prefix = self.path.strip_suffix('/').unwrap_or(&self.path);
        let query = self.query.expose();
        let bytes = prefix.len() + 1 + rest.len() + query.len();
        if "https://".len() + self.authority.len() + bytes > ADDRESS_CHARS_MAX {
            return Err(RelativePathError::TooLong);
        }
        let mut joined = String::with_capacity(bytes);
        joined.push_str(prefix);
        joined.push('/');
        joined.push_str(rest);
        joined.push_str(query);
        PathAndQuery::try_from(joined).map_err(|_| RelativePathError::Character)
    }

    /// Whether both addresses have the same host, port, path and query, byte for byte.
    pub fn same_as(&self, other: &TriggerUrl) -> bool {
        self.authority == other.authority
            && self.path == other.path
            && self.query.same_as(other.query.expose())
    }
}

impl fmt::Display for TriggerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority, self.path)?;
        match &self.api_version {
            Some(version) => write!(f, "?api-version={version}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for TriggerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TriggerUrl({self})")
    }
}

#[cfg(test)]
mod tests;
