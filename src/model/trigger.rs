//! The address of a flow's trigger: read once from the settings, kept byte for byte, printed without its
//! signature. It knows the hosts, paths and query keys that Microsoft uses and names the usual copying
//! mistakes. Whether a route should be signed or use an identity is for the settings to say; sending is left
//! to `flow`.

use std::fmt;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::model::Secret;

/// Longest address a trigger accepts, in characters (Microsoft Learn, "Limits of automated, scheduled, and
/// instant flows", and the same number for Logic Apps).
pub const ADDRESS_CHARS_MAX: usize = 16_384;

/// Query parameters by which a trigger is addressed and signed (Microsoft Learn, "Call, trigger, or nest workflows with
/// HTTPS endpoints in Azure Logic Apps"). None of them ever comes from a caller.
pub const OWN_PARAMETERS: [&str; 5] = ["sp", "sv", "sig", "se", "api-version"];

// An api-version is a date or a small number; what is longer is another parameter that ran into it.
const API_VERSION_CHARS_MAX: usize = 32;

const HTTPS_PORT: u16 = 443;

/// Which of the known shapes a trigger address has (Microsoft Learn, "Call, trigger, or nest workflows with
/// HTTPS endpoints in Azure Logic Apps" and "Troubleshoot common issues with triggers" of Power Automate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// `prod-NN.<region>.logic.azure.com`: Logic Apps Consumption, and flows from before the move of 2025.
    Consumption,
    /// `<environment>.environment.api.powerplatform.com/powerautomate/automations/direct/workflows/...`.
    PowerPlatform,
    /// The same host with a scale unit in its path: `.../direct/cu/<NN>/workflows/...`.
    PowerPlatformScaleUnit,
    /// `<app>.azurewebsites.net/api/<workflow>/triggers/<trigger>/invoke`: Logic Apps Standard.
    Standard,
    /// Any other https address.
    Other,
}

/// A national cloud of the Power Platform: it fixes where tokens come from and which audience a flow wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// The worldwide cloud.
    Public,
    /// United States government community cloud, on the worldwide Entra.
    Gcc,
    /// The same with the higher protection level, on the Entra for government.
    GccHigh,
    /// United States Department of Defense.
    Dod,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    /// Every cloud.
    pub const ALL: [Cloud; 5] = [
        Cloud::Public,
        Cloud::Gcc,
        Cloud::GccHigh,
        Cloud::Dod,
        Cloud::China,
    ];

    /// The name used in settings and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Gcc => "gcc",
            Self::GccHigh => "gcc-high",
            Self::Dod => "dod",
            Self::China => "china",
        }
    }

    /// The cloud of this name.
    pub fn from_name(name: &str) -> Option<Cloud> {
        Self::ALL.into_iter().find(|cloud| cloud.name() == name)
    }

    /// Where tokens are requested (Microsoft Learn, "National clouds and Microsoft Entra ID").
    pub const fn authority(self) -> &'static str {
        match self {
            Self::Public | Self::Gcc => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// The audience a flow compares letter by letter, last slash included (Microsoft Learn, "Add OAuth
    /// authentication for HTTP request triggers"). It is also the `resource` for managed identities.
    pub const fn audience(self) -> &'static str {
        match self {
            Self::Public => "https://service.flow.microsoft.com/",
            Self::Gcc => "https://gov.service.flow.microsoft.us/",
            Self::GccHigh => "https://high.service.flow.microsoft.us/",
            Self::Dod => "https://service.flow.appsplatform.us/",
            Self::China => "https://service.powerautomate.cn/",
        }
    }

    /// The scope that yields this audience: the audience and `/.default`. It keeps its second slash, because
    /// Entra cuts one off (Microsoft Learn, "Scopes and permissions in the Microsoft identity platform").
    pub const fn scope(self) -> &'static str {
        match self {
            Self::Public => "https://service.flow.microsoft.com//.default",
            Self::Gcc => "https://gov.service.flow.microsoft.us//.default",
            Self::GccHigh => "https://high.service.flow.microsoft.us//.default",
            Self::Dod => "https://service.flow.appsplatform.us//.default",
            Self::China => "https://service.powerautomate.cn//.default",
        }
    }
}

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
    /// The query with its question mark, or nothing.
    query: Secret,
    /// The path and query again, made once so that a request needs no parsing. It shares no memory with
    /// `query` and is not wiped: hyper takes no other type.
    whole: PathAndQuery,
    api_version: Option<String>,
    signature: Signature,
    site: Site,
    cloud: Option<Cloud>,
    family: Family,
}

/// What the query says about a shared access signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    Whole,
    /// `sp` or `sv` without `sig`.
    Torn,
    Absent,
}

/// Whose host it is, before the path is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    LogicApps,
    Environment,
    AppService,
    Unknown,
}

impl TriggerUrl {
    /// Reads an address as it was copied from the trigger.
    ///
    /// Any https address is accepted; one that no known flow has gets a [`TriggerUrl::warning`]. An explicit
    /// `:443` is dropped from the authority, everything from the path on is kept as it stands.
    ///
    /// # Errors
    /// [`TriggerUrlError`] names what happened to the address, and [`TriggerUrlError::hint`] how to mend it.
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
        if shape != Shape::Unknown {
            check_single(target)?;
        }
        check_path(path, shape)?;
        let keys = Keys::read(query.strip_prefix('?').unwrap_or(""))?;
        if shape != Shape::Unknown {
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

    /// The known shape this address has. Host and path must both fit; otherwise it is [`Family::Other`].
    pub fn family(&self) -> Family {
        self.family
    }

    /// The cloud this address lies in, where the host leaves no doubt.
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

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` header: the port is absent when it is 443 (RFC 9110, section 4.2.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path as configured.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of `api-version`, if it is one that may be shown.
    pub fn api_version(&self) -> Option<&str> {
        self.api_version.as_deref()
    }

    /// The part of the query that may be shown, without its question mark; empty if there is none.
    pub fn public_query(&self) -> String {
        self.api_version
            .as_ref()
            .map(|version| format!("api-version={version}"))
            .unwrap_or_default()
    }

    /// Whether the address carries a shared access signature (`sig`).
    pub fn is_signed(&self) -> bool {
        self.signature == Signature::Whole
    }

    /// Whether parts of a signature are there but `sig` is not, as in an address that lost its end.
    ///
    /// An address cut at its first `&` looks like one of a flow that wants a token, so only
    /// [`TriggerUrl::require_signed`] can find that mistake.
    pub fn looks_cut(&self) -> bool {
        self.signature == Signature::Torn
    }

    /// For a route without an identity: the signature must be there.
    ///
    /// # Errors
    /// [`TriggerUrlError::CutAtAmpersand`] without any part of a signature,
    /// [`TriggerUrlError::SignatureTorn`] with some.
    pub fn require_signed(&self) -> Result<(), TriggerUrlError> {
        match self.signature {
            Signature::Whole => Ok(()),
            Signature::Torn => Err(TriggerUrlError::SignatureTorn),
            Signature::Absent => Err(TriggerUrlError::CutAtAmpersand),
        }
    }

    /// For a route with an identity: the signature must not be there. A trigger refuses a request that
    /// carries both (Microsoft Learn, "Secure access and data in Azure Logic Apps").
    ///
    /// # Errors
    /// [`TriggerUrlError::SignedAndIdentity`].
    pub fn require_bearer(&self) -> Result<(), TriggerUrlError> {
        if self.is_signed() {
            return Err(TriggerUrlError::SignedAndIdentity);
        }
        Ok(())
    }

    /// What is odd about an accepted address, as a whole sentence for the operator.
    pub fn warning(&self) -> Option<String> {
        let host = &self.host;
        if self.site == Site::Unknown {
            return Some(format!(
                "{host} is not an address of a flow trigger known to Flowgate; compare it with the one the \
                 trigger shows, or leave it if a proxy or a test stands there."
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

    /// The exact path and query to send, ready for a request. It holds the signature: never print it.
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
    /// with a token must leave out. The result can hold other values of the query, so it is not for printing
    /// either.
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
    /// `rest` comes percent-encoded and may begin with a slash; nothing in it is encoded or repaired here.
    /// Empty segments are refused, because they make a doubled slash that the trigger does not match, and so
    /// are dot segments in every spelling, because a server that resolves them would reach another trigger.
    ///
    /// # Errors
    /// [`RelativePathError`] says what may not be in the path.
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

    /// Whether both addresses lead to the same place with the same bytes.
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

/// Why a relative path cannot be put behind the trigger's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RelativePathError {
    /// Two slashes in a row, or a slash at the end.
    #[error("relative path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, plain or percent-encoded, also between encoded slashes.
    #[error("relative path has a dot segment")]
    DotSegment,
    /// A character that a path cannot hold as it is, `?` and `#` among them.
    #[error("relative path has a character that is not allowed in a path")]
    Character,
    /// A control character in percent-encoding.
    #[error("relative path has an encoded control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("relative path has a broken percent-encoding")]
    Escape,
    /// The whole address would be longer than [`ADDRESS_CHARS_MAX`].
    #[error("relative path makes the address longer than 16384 characters")]
    TooLong,
}

/// Why a text is not the address of a trigger. No variant holds a value of the query.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TriggerUrlError {
    /// Nothing there.
    #[error("trigger address is empty")]
    Empty,
    /// Longer than [`ADDRESS_CHARS_MAX`].
    #[error("trigger address has {chars} characters, more than the 16384 a trigger accepts")]
    TooLong {
        /// Characters found.
        chars: usize,
    },
    /// White space, quotes or brackets came along with the address.
    #[error("trigger address begins or ends with {found:?}")]
    Wrapped {
        /// The stray character.
        found: char,
    },
    /// Punctuation stands where the address should have ended.
    #[error("trigger address ends with a stray {found:?}")]
    TrailingJunk {
        /// The stray character.
        found: char,
    },
    /// Two addresses in one text.
    #[error("trigger address contains a second address")]
    TwoAddresses,
    /// A placeholder such as `<region>` or `{postalCode}`.
    #[error("trigger address still contains a placeholder in brackets")]
    Placeholder,
    /// A blank or a line break inside.
    #[error("trigger address contains white space")]
    Whitespace,
    /// A control character inside, plain or percent-encoded.
    #[error("trigger address contains a control character")]
    Control,
    /// A character outside ASCII.
    #[error("trigger address contains {found:?}, which is not ASCII")]
    NotAscii {
        /// The first such character.
        found: char,
    },
    /// The address begins with `http://`.
    #[error("trigger address starts with http://, a trigger listens on https only")]
    PlainHttp,
    /// The address begins with anything else.
    #[error("trigger address must start with https://")]
    NotHttps,
    /// A name or password stands before the host.
    #[error("trigger address carries a user name before its host")]
    UserInfo,
    /// No host at all.
    #[error("trigger address has no host")]
    NoHost,
    /// The host is neither a name nor an IP address.
    #[error("trigger address has a host that is neither a name nor an IP address")]
    BadHost,
    /// The port is no number from 1 to 65535.
    #[error("trigger address has a port that is not a number from 1 to 65535")]
    BadPort,
    /// Port 433, as one page of Microsoft's documentation misprints it.
    #[error("trigger address has port 433")]
    PortTypo,
    /// A `#` and what follows it.
    #[error("trigger address contains a '#', which ends an address before the trigger sees the rest")]
    Fragment,
    /// A character that no address can hold as it is.
    #[error("trigger address contains {found:?}, which an address cannot hold unencoded")]
    Character {
        /// The character.
        found: char,
    },
    /// `%` without two hexadecimal digits.
    #[error("trigger address has a '%' that is not followed by two hexadecimal digits")]
    Escape,
    /// Encoded once too often: `%252F`, or `?`, `=` and `&` themselves encoded.
    #[error("trigger address is percent-encoded once too often")]
    TwiceEncoded,
    /// `&amp;` or another spelling of `&` from HTML, XML or JSON.
    #[error("trigger address contains {spelling} in place of '&'")]
    EscapedAmpersand {
        /// The spelling found.
        spelling: &'static str,
    },
    /// The parameters stand in the path.
    #[error("trigger address has its parameters in the path, the '?' before them is missing")]
    QuestionMarkLost,
    /// A dot segment or a doubled slash in the path of a trigger.
    #[error("trigger address has a doubled slash or a dot segment in its path")]
    BadPath,
    /// A page for people: a designer or a portal.
    #[error("{host} is where flows are designed, not where they are called")]
    DesignerAddress {
        /// The host found.
        host: String,
    },
    /// An interface for managing flows, or the audience of their tokens.
    #[error("{host} belongs to the management of flows, not to a trigger")]
    ManagementAddress {
        /// The host found.
        host: String,
    },
    /// The trigger needs `api-version` and answers `MissingApiVersionParameter` without it.
    #[error("trigger address has no api-version")]
    MissingApiVersion,
    /// Something else ran into the value of `api-version`.
    #[error("trigger address has an api-version that is neither a date nor a number")]
    BadApiVersion,
    /// A key with nothing behind it.
    #[error("trigger address has an empty {key}")]
    EmptyValue {
        /// The key.
        key: &'static str,
    },
    /// A key that may appear once appears again.
    #[error("trigger address has {key} more than once")]
    RepeatedKey {
        /// The key.
        key: &'static str,
    },
    /// The route needs a signature and the address has no part of one.
    #[error(
        "trigger address carries no signature (sp, sv and sig are missing) and the route has no identity"
    )]
    CutAtAmpersand,
    /// The route needs a signature and the address has only parts of one.
    #[error("trigger address carries sp or sv but no sig")]
    SignatureTorn,
    /// The route uses an identity and the address is signed.
    #[error("trigger address carries a signature (sig) although the route uses an identity")]
    SignedAndIdentity,
    /// Not usable for a request, for a reason none of the other variants names.
    #[error("trigger address cannot be used in a request")]
    Unusable,
}

impl TriggerUrlError {
    /// The correction, as a whole sentence, where one is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Empty => {
                "Save the flow once; the trigger \"When an HTTP request is received\" then shows its URL."
            }
            Self::TooLong { .. } | Self::TwoAddresses => "Copy the URL from the trigger again, once.",
            Self::Wrapped { .. } => {
                "Remove white space, quotes and brackets around the address; only https://... belongs there."
            }
            Self::TrailingJunk { .. } => {
                "Remove the character, or percent-encode it if it is part of the address."
            }
            Self::Placeholder => {
                "Put the real value in place of each <...> or {...}; a relative path ends at /invoke here, \
                 because callers bring the rest."
            }
            Self::Whitespace => {
                "Join the pieces; mail programs and terminals break long addresses into lines."
            }
            Self::Control => "Type the line anew or copy the URL from the trigger again.",
            Self::NotAscii { found: '\u{2026}' } => {
                "The address was shortened for display; copy the whole URL."
            }
            Self::NotAscii { .. } => "Percent-encode the character, or copy the URL from the trigger again.",
            Self::PlainHttp | Self::NotHttps => "Write https:// in front of the host.",
            Self::UserInfo => {
                "Remove everything between https:// and the host; credentials belong in an identity."
            }
            Self::NoHost => "An address has the form https://<host>/<path>?api-version=<version>.",
            Self::BadHost => {
                "Copy the host from the trigger again; letters, digits, '-', '_' and '.' are allowed."
            }
            Self::BadPort => "Leave the port away; a trigger listens on 443.",
            Self::PortTypo => "Write :443, or leave the port away.",
            Self::Fragment => "Remove the '#' and what follows; a '#' meant for the flow is written %25%23.",
            Self::Character { .. } => "Percent-encode the character, or copy the URL from the trigger again.",
            Self::Escape => "A literal '%' is written %25; check whether the end of the address was lost.",
            Self::TwiceEncoded => "Decode it once: %252F becomes %2F, %26 becomes & and %3D becomes =.",
            Self::EscapedAmpersand { .. } => "Write a plain & between the parameters.",
            Self::QuestionMarkLost => "Put a '?' between /invoke and api-version.",
            Self::BadPath => "Write one slash between the parts of the path and no '.' or '..' part.",
            Self::DesignerAddress { .. } | Self::ManagementAddress { .. } => {
                "Open the flow, select the trigger \"When an HTTP request is received\" and copy its URL."
            }
            Self::MissingApiVersion => {
                "Add ?api-version=1 for a flow of Power Automate, or copy the URL from the trigger again."
            }
            Self::BadApiVersion => "Separate api-version from the next parameter with a single &.",
            Self::EmptyValue { .. } => "Copy the URL from the trigger again; its value was lost.",
            Self::RepeatedKey { .. } => "Keep one of them; copy the URL from the trigger again if in doubt.",
            Self::CutAtAmpersand => {
                "The address was probably cut at the first & by a shell or a form: put it in quotes and \
                 copy it again. If the flow is not open to \"Anyone\", give the route an identity instead."
            }
            Self::SignatureTorn => {
                "The end of the address was lost; copy the URL from the trigger again, in quotes."
            }
            Self::SignedAndIdentity => {
                "A trigger accepts one scheme only: remove sp, sv and sig from the address, or remove the \
                 identity from the route if \"Anyone\" may trigger the flow."
            }
            Self::Unusable => return None,
        };
        Some(hint.to_owned())
    }
}

/// What stands around the address rather than in it.
fn check_surroundings(text: &str) -> Result<(), TriggerUrlError> {
    let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else {
        return Err(TriggerUrlError::Empty);
    };
    if text.chars().all(char::is_whitespace) {
        return Err(TriggerUrlError::Empty);
    }
    let chars = text.chars().count();
    if chars > ADDRESS_CHARS_MAX {
        return Err(TriggerUrlError::TooLong { chars });
    }
    if let Some(found) = [first, last].into_iter().find(|found| is_wrapping(*found)) {
        return Err(TriggerUrlError::Wrapped { found });
    }
    if first == '<' {
        return Err(TriggerUrlError::Wrapped { found: first });
    }
    // With an opening bracket inside, the last one closes a placeholder, which has its own error.
    if last == '>' && !text.contains('<') {
        return Err(TriggerUrlError::Wrapped { found: last });
    }
    Ok(())
}

fn is_wrapping(found: char) -> bool {
    // By number: typographic quotes, and the invisible characters that editors and chats put around a link.
    found.is_whitespace()
        || matches!(found, '"' | '\'' | '`' | '(' | '[' | '\u{ab}' | '\u{bb}')
        || matches!(found, '\u{2018}'..='\u{201f}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}

fn after_scheme(text: &str) -> Result<&str, TriggerUrlError> {
    let starts_with = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if starts_with("http://") {
        return Err(TriggerUrlError::PlainHttp);
    }
    if !starts_with("https://") {
        return Err(TriggerUrlError::NotHttps);
    }
    Ok(text.get("https://".len()..).unwrap_or(""))
}

/// Traces of the way the address was copied.
fn check_copy(text: &str) -> Result<(), TriggerUrlError> {
    if let Some(found) = text.chars().find(|found| !found.is_ascii()) {
        return Err(TriggerUrlError::NotAscii { found });
    }
    let lower = text.to_ascii_lowercase();
    for spelling in ["&amp;", "&#38;", "&#038;", "&#x26;", "\\u0026"] {
        if lower.contains(spelling) {
            return Err(TriggerUrlError::EscapedAmpersand { spelling });
        }
    }
    // Before white space, because a placeholder may contain blanks.
    if text.contains(['<', '>', '{', '}']) {
        return Err(TriggerUrlError::Placeholder);
    }
    if text.contains([' ', '\t', '\r', '\n']) {
        return Err(TriggerUrlError::Whitespace);
    }
    if text.contains(|found: char| found.is_ascii_control()) {
        return Err(TriggerUrlError::Control);
    }
    if text.contains('#') {
        return Err(TriggerUrlError::Fragment);
    }
    Ok(())
}

fn read_authority(authority: &str) -> Result<(String, u16), TriggerUrlError> {
    if authority.contains('@') {
        return Err(TriggerUrlError::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(TriggerUrlError::BadHost)?;
            host.parse::<Ipv6Addr>().map_err(|_| TriggerUrlError::BadHost)?;
            (host, port)
        }
        None => {
            let cut = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(cut).unwrap_or((authority, ""));
            check_name(host)?;
            (host, port)
        }
    };
    Ok((host.to_ascii_lowercase(), read_port(port)?))
}

fn read_port(text: &str) -> Result<u16, TriggerUrlError> {
    if text.is_empty() {
        return Ok(HTTPS_PORT);
    }
    let digits = text.strip_prefix(':').ok_or(TriggerUrlError::BadHost)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TriggerUrlError::BadPort);
    }
    match digits.parse::<u16>() {
        Ok(0) | Err(_) => Err(TriggerUrlError::BadPort),
        Ok(port) => Ok(port),
    }
}

fn check_name(host: &str) -> Result<(), TriggerUrlError> {
    if host.is_empty() {
        return Err(TriggerUrlError::NoHost);
    }
    // 253 and 63 are the limits of a name and of a label in DNS (RFC 1035, section 2.3.4).
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    if host.len() > 253 || !host.split('.').all(fits) {
        return Err(TriggerUrlError::BadHost);
    }
    // A name whose last label is a number would be taken for an IPv4 address by some readers and not by
    // others.
    let last = host.rsplit('.').next().unwrap_or(host);
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(TriggerUrlError::BadHost);
    }
    Ok(())
}

fn print_authority(host: &str, port: u16) -> String {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if port == HTTPS_PORT {
        return host;
    }
    format!("{host}:{port}")
}

/// Hosts for people. A leading dot stands for any subdomain.
const DESIGNERS: &[&str] = &[
    "make.powerautomate.com",
    "make.gov.powerautomate.us",
    "make.high.powerautomate.us",
    "make.powerautomate.appsplatform.us",
    "make.powerautomate.cn",
    "flow.microsoft.com",
    ".flow.microsoft.com",
    "make.powerapps.com",
    "make.gov.powerapps.us",
    "make.high.powerapps.us",
    "admin.powerplatform.microsoft.com",
    "portal.azure.com",
    "portal.azure.us",
    "portal.azure.cn",
];

/// Hosts of management interfaces and of the audiences of their tokens, asked before the designers.
const MANAGERS: &[&str] = &[
    "api.flow.microsoft.com",
    ".api.flow.microsoft.com",
    "service.flow.microsoft.com",
    "gov.service.flow.microsoft.us",
    "high.service.flow.microsoft.us",
    "service.flow.appsplatform.us",
    "service.powerautomate.cn",
    "management.azure.com",
    "management.usgovcloudapi.net",
    "management.chinacloudapi.cn",
    "api.powerplatform.com",
    "api.gov.powerplatform.microsoft.us",
    "api.high.powerplatform.microsoft.us",
    "api.appsplatform.us",
    "api.powerplatform.partner.microsoftonline.cn",
];

fn refuse_portal(host: &str) -> Result<(), TriggerUrlError> {
    let named = |entry: &&str| {
        if entry.starts_with('.') {
            host.ends_with(*entry)
        } else {
            host == *entry
        }
    };
    if MANAGERS.iter().any(named) {
        return Err(TriggerUrlError::ManagementAddress {
            host: host.to_owned(),
        });
    }
    if DESIGNERS.iter().any(named) {
        return Err(TriggerUrlError::DesignerAddress {
            host: host.to_owned(),
        });
    }
    Ok(())
}

/// The characters of path and query (RFC 3986, sections 3.3 and 3.4).
fn check_target(target: &str) -> Result<(), TriggerUrlError> {
    let odd = |found: &char| !(is_path_byte(*found as u8) || *found == '?');
    if let Some(found) = target.chars().find(odd) {
        return Err(TriggerUrlError::Character { found });
    }
    let mut rest = target.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (byte, tail) = unescape(rest).ok_or(TriggerUrlError::Escape)?;
            if byte.is_ascii_control() {
                return Err(TriggerUrlError::Control);
            }
            rest = tail;
        }
    }
    let junk = |found: &char| matches!(found, '&' | '?' | ',' | ';' | ':' | '.' | ')' | '\'' | '!' | '*');
    if let Some(found) = target.chars().next_back().filter(junk) {
        return Err(TriggerUrlError::TrailingJunk { found });
    }
    if target.ends_with("%20") {
        return Err(TriggerUrlError::TrailingJunk { found: ' ' });
    }
    Ok(())
}

/// A byte a path may hold as it is, `%` and `/` included.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'/' | b':' | b'@')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = text else {
        return None;
    };
    let high = char::from(*high).to_digit(16)?;
    let low = char::from(*low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok().map(|byte| (byte, rest))
}

/// What the path alone looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Consumption,
    PowerPlatform,
    PowerPlatformScaleUnit,
    Standard,
    Unknown,
}

fn shape_of(path: &str) -> Shape {
    let lower = path.to_ascii_lowercase();
    let segments: Vec<&str> = lower.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["powerautomate", "automations", "direct", "cu", _, rest @ ..] if is_invocation(rest) => {
            Shape::PowerPlatformScaleUnit
        }
        ["powerautomate", "automations", "direct", rest @ ..] if is_invocation(rest) => Shape::PowerPlatform,
        ["api", _, "triggers", _, "invoke", ..] => Shape::Standard,
        rest if is_invocation(rest) => Shape::Consumption,
        _ => Shape::Unknown,
    }
}

fn is_invocation(segments: &[&str]) -> bool {
    matches!(segments, ["workflows", _, "triggers", _, "paths", "invoke", ..])
}

/// Clouds by the end of an environment's host (Microsoft Learn, "IP address configuration" of Power
/// Automate).
const ENVIRONMENTS: [(&str, Cloud); 5] = [
    (".environment.api.powerplatform.com", Cloud::Public),
    (".environment.api.gov.powerplatform.microsoft.us", Cloud::Gcc),
    (".environment.api.high.powerplatform.microsoft.us", Cloud::GccHigh),
    (".environment.api.appsplatform.us", Cloud::Dod),
    (
        ".environment.api.powerplatform.partner.microsoftonline.cn",
        Cloud::China,
    ),
];

fn site_of(host: &str) -> (Site, Option<Cloud>) {
    for (suffix, cloud) in ENVIRONMENTS {
        if host.ends_with(suffix) {
            return (Site::Environment, Some(cloud));
        }
    }
    if host.ends_with(".logic.azure.com") {
        return (Site::LogicApps, Some(Cloud::Public));
    }
    if host.ends_with(".logic.azure.cn") {
        return (Site::LogicApps, Some(Cloud::China));
    }
    if let Some(region) = host.strip_suffix(".logic.azure.us") {
        // The regions usdodcentral and usdodeast hold the Department of Defense alone; usgov* is shared.
        let dod = region.split('.').any(|label| label.starts_with("usdod"));
        return (Site::LogicApps, dod.then_some(Cloud::Dod));
    }
    let standard = [".azurewebsites.net", ".azurewebsites.us", ".chinacloudsites.cn"];
    if standard.into_iter().any(|suffix| host.ends_with(suffix)) {
        return (Site::AppService, None);
    }
    (Site::Unknown, None)
}

fn family_of(site: Site, shape: Shape) -> Family {
    match (site, shape) {
        (Site::LogicApps, Shape::Consumption) => Family::Consumption,
        (Site::Environment, Shape::PowerPlatform) => Family::PowerPlatform,
        (Site::Environment, Shape::PowerPlatformScaleUnit) => Family::PowerPlatformScaleUnit,
        (Site::AppService, Shape::Standard) => Family::Standard,
        _ => Family::Other,
    }
}

fn check_single(target: &str) -> Result<(), TriggerUrlError> {
    let lower = target.to_ascii_lowercase();
    // An address may be the value of a parameter of its own; glued to something else it was pasted by
    // mistake.
    let glued = |at: usize| lower.as_bytes().get(at.wrapping_sub(1)) != Some(&b'=');
    if lower.match_indices("https://").any(|(at, _)| glued(at)) {
        return Err(TriggerUrlError::TwoAddresses);
    }
    Ok(())
}

fn check_path(path: &str, shape: Shape) -> Result<(), TriggerUrlError> {
    let lower = path.to_ascii_lowercase();
    if lower.contains("%3fapi-version") || lower.contains("%26sig") {
        return Err(TriggerUrlError::TwiceEncoded);
    }
    // The path is printed, so a signature that slipped into it must not get further.
    if ["sig=", "sig%3d", "sig%25", "api-version"]
        .into_iter()
        .any(|trace| lower.contains(trace))
    {
        return Err(TriggerUrlError::QuestionMarkLost);
    }
    if shape == Shape::Unknown {
        return Ok(());
    }
    let dots = |segment: &str| matches!(segment, "." | "..");
    if path.contains("//") || path.split('/').any(dots) {
        return Err(TriggerUrlError::BadPath);
    }
    if is_twice_encoded(path) {
        return Err(TriggerUrlError::TwiceEncoded);
    }
    Ok(())
}

/// Whether an encoded `%` stands before two hexadecimal digits. A lone `%25`, as in `%25%23`, is a plain
/// percent sign.
fn is_twice_encoded(text: &str) -> bool {
    text.match_indices("%25").any(|(at, mark)| {
        let rest = text.as_bytes().get(at + mark.len()..).unwrap_or(&[]);
        unescape(rest).is_some()
    })
}

/// The key of one pair as the trigger reads it: decoded, and without regard to case.
fn key_of(pair: &str) -> String {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    percent_decode_str(key).decode_utf8_lossy().to_ascii_lowercase()
}

/// The values of the keys Flowgate knows, as they stand in the query.
#[derive(Default)]
struct Keys<'a> {
    api_version: Option<&'a str>,
    sp: Option<&'a str>,
    sv: Option<&'a str>,
    sig: Option<&'a str>,
}

impl<'a> Keys<'a> {
    fn read(query: &'a str) -> Result<Self, TriggerUrlError> {
        let mut keys = Self::default();
        for pair in query.split('&') {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            let (slot, key) = match key_of(pair).as_str() {
                "api-version" => (&mut keys.api_version, "api-version"),
                "sp" => (&mut keys.sp, "sp"),
                "sv" => (&mut keys.sv, "sv"),
                "sig" => (&mut keys.sig, "sig"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(TriggerUrlError::RepeatedKey { key });
            }
            if value.is_empty() {
                return Err(TriggerUrlError::EmptyValue { key });
            }
        }
        Ok(keys)
    }

    /// What must hold where the path is that of a trigger, whatever the host.
    fn check_trigger(&self, target: &str) -> Result<(), TriggerUrlError> {
        let lower = target.to_ascii_lowercase();
        if ["api-version%3d", "%26sp%3d", "%26sig%3d"]
            .into_iter()
            .any(|trace| lower.contains(trace))
        {
            return Err(TriggerUrlError::TwiceEncoded);
        }
        let values = [self.api_version, self.sp, self.sv, self.sig];
        if values.into_iter().flatten().any(is_twice_encoded) {
            return Err(TriggerUrlError::TwiceEncoded);
        }
        if self.api_version.is_none() {
            return Err(TriggerUrlError::MissingApiVersion);
        }
        if self.plain_api_version().is_none() {
            return Err(TriggerUrlError::BadApiVersion);
        }
        Ok(())
    }

    /// The value of `api-version` if it can be nothing but a version, so that printing it gives nothing away.
    fn plain_api_version(&self) -> Option<&'a str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        self.api_version
            .filter(|value| value.len() <= API_VERSION_CHARS_MAX && value.bytes().all(plain))
    }

    fn signature(&self) -> Signature {
        if self.sig.is_some() {
            return Signature::Whole;
        }
        if self.sp.is_some() || self.sv.is_some() {
            return Signature::Torn;
        }
        Signature::Absent
    }
}

/// One pass over a relative path: characters, escapes, and every spelling of `/`, `\` and `.`.
fn check_relative(rest: &str) -> Result<(), RelativePathError> {
    let mut left = rest.as_bytes();
    let mut piece = Piece::default();
    let mut segment_bytes = 0usize;
    while let [first, tail @ ..] = left {
        left = tail;
        if !is_path_byte(*first) {
            return Err(RelativePathError::Character);
        }
        let mut byte = *first;
        if byte == b'%' {
            (byte, left) = unescape(left).ok_or(RelativePathError::Escape)?;
            // A percent sign that encodes another escape is decoded too: a server behind might decode twice.
            while let Some((inner, tail)) = unescape(left).filter(|_| byte == b'%') {
                (byte, left) = (inner, tail);
            }
        }
        if byte.is_ascii_control() {
            return Err(RelativePathError::Control);
        }
        if *first == b'/' && segment_bytes == 0 {
            return Err(RelativePathError::EmptySegment);
        }
        segment_bytes = if *first == b'/' { 0 } else { segment_bytes + 1 };
        match byte {
            b'/' | b'\\' => piece.end()?,
            b'.' => piece.dots += 1,
            _ => piece.others += 1,
        }
    }
    if segment_bytes == 0 {
        return Err(RelativePathError::EmptySegment);
    }
    piece.end()
}

/// What stands between two slashes of any spelling.
#[derive(Default)]
struct Piece {
    dots: usize,
    others: usize,
}

impl Piece {
    fn end(&mut self) -> Result<(), RelativePathError> {
        if self.others == 0 && (1..=2).contains(&self.dots) {
            return Err(RelativePathError::DotSegment);
        }
        *self = Self::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ADDRESS_CHARS_MAX;
    use super::Cloud;
    use super::Family;
    use super::RelativePathError;
    use super::TriggerUrl;
    use super::TriggerUrlError as Error;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const SIG: &str = "CANARYabcdefghijklmnopqrstuvwxyz0123456789_";

    fn old(host: &str) -> String {
        format!("https://{host}/workflows/{ID}/triggers/manual/paths/invoke?api-version=2016-06-01")
    }

    fn new(host: &str, unit: &str) -> String {
        format!(
            "https://{host}/powerautomate/automations/direct/{unit}workflows/{ID}\
             /triggers/manual/paths/invoke?api-version=1"
        )
    }

    fn signed(address: &str) -> String {
        format!("{address}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={SIG}")
    }

    fn u1() -> String {
        signed(&old("prod-12.westeurope.logic.azure.com:443"))
    }

    fn standard() -> String {
        format!(
            "https://app.azurewebsites.net:443/api/Order/triggers/When_an_HTTP_request_is_received/invoke\
             ?api-version=2022-05-01&sp=%2Ftriggers%2Fx%2Frun&sv=1.0&sig={SIG}"
        )
    }

    fn refused(address: &str) -> Error {
        match TriggerUrl::parse(address) {
            Err(error) => {
                assert!(!error.to_string().contains("CANARY"), "{error}");
                assert!(!error.to_string().ends_with('.'), "{error}");
                assert!(error.hint().is_some_and(|hint| hint.ends_with('.')), "{error}");
                error
            }
            Ok(url) => panic!("accepted {address}: {url}"),
        }
    }

    #[test]
    fn every_family_and_cloud_is_known_by_its_address() {
        let env = "0123456789abcdef0123456789abcd.ef.environment.api.powerplatform.com:443";
        let one = "default0123456789abcdef0123456789abcde.f.environment";
        let cases = [
            (u1(), Family::Consumption, Some(Cloud::Public)),
            (
                old("prod2-07.westus.logic.azure.com"),
                Family::Consumption,
                Some(Cloud::Public),
            ),
            (
                old("prod-03.usgovtexas.logic.azure.us:443"),
                Family::Consumption,
                None,
            ),
            (
                old("prod2-03.usgovtexas.logic.azure.us:443"),
                Family::Consumption,
                None,
            ),
            (
                old("prod-01.usdodcentral.logic.azure.us:443"),
                Family::Consumption,
                Some(Cloud::Dod),
            ),
            (
                old("prod-01.chinaeast2.logic.azure.cn:443"),
                Family::Consumption,
                Some(Cloud::China),
            ),
            (new(env, ""), Family::PowerPlatform, Some(Cloud::Public)),
            (signed(&new(env, "")), Family::PowerPlatform, Some(Cloud::Public)),
            (
                new(env, "cu/07/"),
                Family::PowerPlatformScaleUnit,
                Some(Cloud::Public),
            ),
            (
                new(&format!("{one}.api.gov.powerplatform.microsoft.us:443"), ""),
                Family::PowerPlatform,
                Some(Cloud::Gcc),
            ),
            (
                new(&format!("{one}.api.high.powerplatform.microsoft.us"), "cu/01/"),
                Family::PowerPlatformScaleUnit,
                Some(Cloud::GccHigh),
            ),
            (
                new(&format!("{one}.api.appsplatform.us"), ""),
                Family::PowerPlatform,
                Some(Cloud::Dod),
            ),
            (
                new(&format!("{one}.api.powerplatform.partner.microsoftonline.cn"), ""),
                Family::PowerPlatform,
                Some(Cloud::China),
            ),
            (standard(), Family::Standard, None),
        ];
        for (address, family, cloud) in cases {
            let url = TriggerUrl::parse(&address).unwrap();
            assert_eq!((url.family(), url.cloud()), (family, cloud), "{address}");
            assert_eq!(url.warning(), None, "{address}");
        }
    }

    #[test]
    fn the_presets_of_a_cloud_keep_every_slash() {
        for cloud in Cloud::ALL {
            assert_eq!(cloud.scope(), format!("{}/.default", cloud.audience()));
            assert!(cloud.scope().ends_with("//.default"), "{}", cloud.scope());
            assert!(!cloud.authority().ends_with('/'), "{}", cloud.authority());
            assert_eq!(Cloud::from_name(cloud.name()), Some(cloud));
        }
        assert_eq!(
            Cloud::Public.scope(),
            "https://service.flow.microsoft.com//.default"
        );
        assert_eq!(Cloud::from_name("Public"), None);
    }

    #[test]
    fn an_explicit_443_is_dropped_and_any_other_port_is_kept() {
        let url = TriggerUrl::parse(&u1()).unwrap();
        assert_eq!(
            (url.host(), url.port()),
            ("prod-12.westeurope.logic.azure.com", 443)
        );
        assert_eq!(url.authority(), "prod-12.westeurope.logic.azure.com");
        let url = TriggerUrl::parse(&old("LOCALHOST:8443")).unwrap();
        assert_eq!(
            (url.host(), url.port(), url.authority()),
            ("localhost", 8443, "localhost:8443")
        );
        let url = TriggerUrl::parse(&old("[::1]:8443")).unwrap();
        assert_eq!(
            (url.host(), url.port(), url.authority()),
            ("::1", 8443, "[::1]:8443")
        );
        let url = TriggerUrl::parse(&old("127.0.0.1")).unwrap();
        assert_eq!((url.host(), url.authority()), ("127.0.0.1", "127.0.0.1"));
    }

    #[test]
    fn path_and_query_leave_as_they_were_configured() {
        let address = u1();
        let url = TriggerUrl::parse(&address).unwrap();
        let sent = address
            .strip_prefix("https://prod-12.westeurope.logic.azure.com:443")
            .unwrap();
        assert_eq!(url.path_and_query().as_str(), sent);
        assert_eq!(url.exposed_path_and_query().expose(), sent);
        assert_eq!(
            TriggerUrl::parse("https://localhost")
                .unwrap()
                .path_and_query()
                .as_str(),
            "/"
        );
        assert_eq!(
            TriggerUrl::parse("https://localhost?a=1")
                .unwrap()
                .path_and_query()
                .as_str(),
            "/?a=1"
        );
    }

    #[test]
    fn the_signature_is_never_shown() {
        let url = TriggerUrl::parse(&format!("{}&code=CANARY", u1())).unwrap();
        let shown = format!(
            "{url} {url:?} {:?} {}",
            url.exposed_path_and_query(),
            url.public_query()
        );
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(shown.contains("/paths/invoke?api-version=2016-06-01"), "{shown}");
        assert!(!shown.contains("sp="), "{shown}");
    }

    #[test]
    fn the_unsigned_query_keeps_every_other_byte() {
        let url =
            TriggerUrl::parse("https://localhost/a?b=%2f&SIG=1&api-version=1&sp=x&%73v=2&c=/&d").unwrap();
        assert_eq!(url.path_and_query_unsigned(), "/a?b=%2f&api-version=1&c=/&d");
        assert!(url.is_signed());
        let bare = TriggerUrl::parse("https://localhost/a?sig=1").unwrap();
        assert_eq!(bare.path_and_query_unsigned(), "/a");
    }

    #[test]
    fn an_unknown_host_is_accepted_with_a_warning() {
        let url = TriggerUrl::parse(&old("localhost:8443")).unwrap();
        assert_eq!((url.family(), url.cloud()), (Family::Other, None));
        let warning = url.warning().unwrap();
        assert!(
            warning.contains("localhost is not an address of a flow trigger known to Flowgate"),
            "{warning}"
        );
        let url = TriggerUrl::parse("https://prod-1.westus.logic.azure.com/hook").unwrap();
        assert!(url.warning().unwrap().contains("/invoke"), "{url}");
    }

    #[test]
    fn a_url_cut_at_the_ampersand_is_named() {
        let cut = TriggerUrl::parse(&old("prod-12.westeurope.logic.azure.com")).unwrap();
        assert!(!cut.looks_cut());
        assert_eq!(cut.require_bearer(), Ok(()));
        let error = cut.require_signed().unwrap_err();
        assert_eq!(error, Error::CutAtAmpersand);
        assert!(error.hint().unwrap().contains("first &"), "{error}");
    }

    #[test]
    fn a_signature_that_lost_its_end_is_named() {
        let address = format!(
            "{}&sp=%2Ftriggers%2Fmanual%2Frun",
            old("prod-12.westeurope.logic.azure.com")
        );
        let url = TriggerUrl::parse(&address).unwrap();
        assert!(url.looks_cut() && !url.is_signed());
        assert_eq!(url.require_signed(), Err(Error::SignatureTorn));
        assert!(url.warning().is_some());
    }

    #[test]
    fn a_signed_url_and_an_identity_exclude_each_other() {
        let url = TriggerUrl::parse(&u1()).unwrap();
        assert_eq!(url.require_signed(), Ok(()));
        let error = url.require_bearer().unwrap_err();
        assert_eq!(error, Error::SignedAndIdentity);
        assert!(error.hint().unwrap().contains("one scheme only"), "{error}");
    }

    #[test]
    fn a_trace_of_copying_around_the_address_is_named() {
        let u1 = u1();
        let cases = [
            (String::new(), Error::Empty),
            ("  \n".to_owned(), Error::Empty),
            (
                "x".repeat(ADDRESS_CHARS_MAX + 1),
                Error::TooLong {
                    chars: ADDRESS_CHARS_MAX + 1,
                },
            ),
            (format!(" {u1}"), Error::Wrapped { found: ' ' }),
            (format!("{u1}\n"), Error::Wrapped { found: '\n' }),
            (format!("\"{u1}\""), Error::Wrapped { found: '"' }),
            (format!("<{u1}>"), Error::Wrapped { found: '<' }),
            (format!("{u1}>"), Error::Wrapped { found: '>' }),
            (
                format!("\u{201c}{u1}\u{201d}"),
                Error::Wrapped { found: '\u{201c}' },
            ),
            (format!("\u{feff}{u1}"), Error::Wrapped { found: '\u{feff}' }),
            (format!("{u1},"), Error::TrailingJunk { found: ',' }),
            (format!("{u1})"), Error::TrailingJunk { found: ')' }),
            (format!("{u1}&"), Error::TrailingJunk { found: '&' }),
            (format!("{u1}%20"), Error::TrailingJunk { found: ' ' }),
            (format!("{u1}{u1}"), Error::TwoAddresses),
            (u1.replace("westeurope", "<region>"), Error::Placeholder),
            (
                u1.replace("/invoke", "/invoke/address/{postalCode}"),
                Error::Placeholder,
            ),
            (u1.replace("&sv", " &sv"), Error::Whitespace),
            (u1.replace("&sv", "\n&sv"), Error::Whitespace),
            (u1.replace("&sv", "\u{1b}&sv"), Error::Control),
            (u1.replace("&sv", "%0A&sv"), Error::Control),
            (
                u1.replace("manual/", "m\u{e4}nual/"),
                Error::NotAscii { found: '\u{e4}' },
            ),
            (format!("{u1}\u{2026}"), Error::NotAscii { found: '\u{2026}' }),
        ];
        for (address, error) in cases {
            assert_eq!(refused(&address), error, "{address}");
        }
    }

    #[test]
    fn a_mistake_before_the_path_is_named() {
        let u1 = u1();
        let cases = [
            (u1.replace("https", "http"), Error::PlainHttp),
            (u1.replace("https://", ""), Error::NotHttps),
            (u1.replace("https://", "ftp://"), Error::NotHttps),
            (u1.replace("https://", "https://user:CANARY@"), Error::UserInfo),
            ("https:///workflows".to_owned(), Error::NoHost),
            ("https://:443/".to_owned(), Error::NoHost),
            ("https://a..b/".to_owned(), Error::BadHost),
            ("https://a.b./".to_owned(), Error::BadHost),
            ("https://999.1.1.1/".to_owned(), Error::BadHost),
            ("https://[::1/".to_owned(), Error::BadHost),
            ("https://[::g]/".to_owned(), Error::BadHost),
            ("https://a:0/".to_owned(), Error::BadPort),
            ("https://a:65536/".to_owned(), Error::BadPort),
            ("https://a:+1/".to_owned(), Error::BadPort),
            ("https://a:/".to_owned(), Error::BadPort),
            (u1.replace(":443", ":433"), Error::PortTypo),
        ];
        for (address, error) in cases {
            assert_eq!(refused(&address), error, "{address}");
        }
    }

    #[test]
    fn a_mistake_in_path_or_query_is_named() {
        let u1 = u1();
        let u4 = new(
            "0123456789abcdef0123456789abcd.ef.environment.api.powerplatform.com",
            "",
        );
        let cases = [
            (format!("{u1}#x"), Error::Fragment),
            (u1.replace("&sv", "\\&sv"), Error::Character { found: '\\' }),
            (u1.replace("%2Fmanual", "%2"), Error::Escape),
            (u1.replace("%2F", "%252F"), Error::TwiceEncoded),
            (u1.replace("%2F", "%25252F"), Error::TwiceEncoded),
            (u1.replace("?api-version", "%3Fapi-version"), Error::TwiceEncoded),
            (
                u1.replace("&sp", "%26sp").replace("sp=", "sp%3D"),
                Error::TwiceEncoded,
            ),
            (
                u1.replace('&', "&amp;"),
                Error::EscapedAmpersand { spelling: "&amp;" },
            ),
            (
                u1.replace('&', "\\u0026"),
                Error::EscapedAmpersand { spelling: "\\u0026" },
            ),
            (u1.replace('?', "&"), Error::QuestionMarkLost),
            (u1.replace("/invoke", "/invoke//x"), Error::BadPath),
            (u1.replace("/invoke", "/invoke/../x"), Error::BadPath),
            (u4.replace("?api-version=1", ""), Error::MissingApiVersion),
            (
                old("localhost:8443").replace("api-version", "version"),
                Error::MissingApiVersion,
            ),
            (u1.replace("&sp", "?sp"), Error::BadApiVersion),
            (
                u1.replace("2016-06-01", ""),
                Error::EmptyValue { key: "api-version" },
            ),
            (u1.replace(SIG, ""), Error::EmptyValue { key: "sig" }),
            (format!("{u1}&sig=x"), Error::RepeatedKey { key: "sig" }),
            (
                format!("{u1}&Api-Version=1"),
                Error::RepeatedKey { key: "api-version" },
            ),
            (format!("{u1}&sp=x"), Error::RepeatedKey { key: "sp" }),
            (format!("{u1}&sv=x"), Error::RepeatedKey { key: "sv" }),
        ];
        for (address, error) in cases {
            assert_eq!(refused(&address), error, "{address}");
        }
    }

    #[test]
    fn a_designer_or_management_address_is_not_a_trigger() {
        for host in [
            "make.powerautomate.com",
            "make.gov.powerautomate.us",
            "flow.microsoft.com",
            "us.flow.microsoft.com",
            "make.powerapps.com",
            "portal.azure.com",
        ] {
            let error = refused(&format!("https://{host}/environments/x/flows/y/details"));
            assert_eq!(
                error,
                Error::DesignerAddress {
                    host: host.to_owned()
                }
            );
        }
        for host in [
            "api.flow.microsoft.com",
            "emea.api.flow.microsoft.com",
            "management.azure.com",
            "api.powerplatform.com",
            "service.flow.microsoft.com",
        ] {
            let error = refused(&format!("https://{host}/x?api-version=2016-11-01"));
            assert_eq!(
                error,
                Error::ManagementAddress {
                    host: host.to_owned()
                }
            );
        }
    }

    #[test]
    fn an_address_may_be_the_value_of_another_parameter() {
        let url = TriggerUrl::parse(&format!("{}&source=https://erp.example", u1())).unwrap();
        assert_eq!(url.family(), Family::Consumption);
        let hash = u1().replace("/invoke", "/invoke/a%25%23b");
        assert_eq!(TriggerUrl::parse(&hash).unwrap().family(), Family::Consumption);
    }

    #[test]
    fn a_relative_path_stands_between_invoke_and_the_query() {
        let url = TriggerUrl::parse("https://localhost:1/workflows/i/triggers/m/paths/invoke?api-version=1")
            .unwrap();
        let whole = "/workflows/i/triggers/m/paths/invoke/address/12345?api-version=1";
        for rest in ["address/12345", "/address/12345"] {
            assert_eq!(url.with_relative(rest).unwrap().as_str(), whole);
        }
        assert_eq!(url.with_relative("").unwrap(), *url.path_and_query());
        let slashed =
            TriggerUrl::parse("https://localhost:1/workflows/i/triggers/m/paths/invoke/?api-version=1")
                .unwrap();
        assert_eq!(slashed.with_relative("/address/12345").unwrap().as_str(), whole);
        assert!(url.with_relative("a%20b/c.d/...e/%25%23").is_ok());
    }

    #[test]
    fn a_relative_path_cannot_leave_the_trigger() {
        let url = TriggerUrl::parse(&u1()).unwrap();
        let cases = [
            ("//a", RelativePathError::EmptySegment),
            ("a//b", RelativePathError::EmptySegment),
            ("a/", RelativePathError::EmptySegment),
            ("..", RelativePathError::DotSegment),
            ("a/../b", RelativePathError::DotSegment),
            ("./a", RelativePathError::DotSegment),
            ("%2e%2E/a", RelativePathError::DotSegment),
            (".%2e", RelativePathError::DotSegment),
            ("%252e%25252e", RelativePathError::DotSegment),
            ("a%2f..%2Fb", RelativePathError::DotSegment),
            ("a%5c..%5Cb", RelativePathError::DotSegment),
            ("a%252f..", RelativePathError::DotSegment),
            ("a?b", RelativePathError::Character),
            ("a#b", RelativePathError::Character),
            ("a b", RelativePathError::Character),
            ("a\\b", RelativePathError::Character),
            ("\u{e4}", RelativePathError::Character),
            ("a%00", RelativePathError::Control),
            ("a%250d", RelativePathError::Control),
            ("a%zz", RelativePathError::Escape),
            ("a%2", RelativePathError::Escape),
            (&"x".repeat(ADDRESS_CHARS_MAX), RelativePathError::TooLong),
        ];
        for (rest, error) in cases {
            assert_eq!(url.with_relative(rest).unwrap_err(), error, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_the_parser(text in any::<String>(), tail in "[ -~]{0,60}") {
            let _ = TriggerUrl::parse(&text);
            for address in [format!("https://{tail}"), format!("{}{tail}", u1())] {
                match TriggerUrl::parse(&address) {
                    Ok(url) => {
                        let _ = (url.warning(), url.with_relative(&text), url.with_relative(&tail));
                    }
                    Err(error) => { let _ = error.hint(); }
                }
            }
        }

        #[test]
        fn an_address_printed_and_parsed_again_is_the_same(
            host in "[a-z]{1,9}(\\.[a-z]{2,5}){0,2}",
            port in 1u16..,
            path in "(/[A-Za-z0-9_.~-]{1,8}){0,4}/x",
            query in "(\\?[a-z]{4,6}=[A-Za-z0-9%/:@]{0,6}x)?",
        ) {
            let address = format!("https://{host}:{port}{path}{query}");
            let Ok(url) = TriggerUrl::parse(&address) else { return Ok(()) };
            prop_assert_eq!(url.path_and_query().as_str(), format!("{path}{query}"));
            let printed = format!("https://{}{}", url.authority(), url.exposed_path_and_query().expose());
            let again = TriggerUrl::parse(&printed).unwrap();
            prop_assert!(again.same_as(&url));
            prop_assert_eq!(again.port(), port);
        }

        #[test]
        fn no_spelling_of_the_query_shows_the_signature(
            before in "[a-zA-Z0-9&=%.]{0,20}",
            after in "[a-zA-Z0-9&=%./-]{0,20}",
        ) {
            let base = old("prod-12.westeurope.logic.azure.com");
            for address in [
                format!("{base}{before}&sig={SIG}{after}"),
                format!("https://localhost/{before}?{after}&sig={SIG}"),
                format!("https://localhost/x?sig={SIG}&{after}"),
            ] {
                let shown = match TriggerUrl::parse(&address) {
                    Ok(url) => format!("{url} {url:?} {:?} {}", url.warning(), url.public_query()),
                    Err(error) => format!("{error} {error:?} {:?}", error.hint()),
                };
                prop_assert!(!shown.contains("CANARY"), "{}", shown);
            }
        }

        #[test]
        fn an_accepted_relative_path_adds_neither_query_nor_dots(rest in "[a-z./?#%25ef\\\\-]{0,20}") {
            let url = TriggerUrl::parse(&u1()).unwrap();
            let Ok(sent) = url.with_relative(&rest) else { return Ok(()) };
            prop_assert_eq!(sent.query(), url.path_and_query().query());
            let decoded = percent_encoding::percent_decode_str(sent.path()).decode_utf8_lossy().into_owned();
            prop_assert!(!decoded.split(['/', '\\']).any(|part| part == ".." || part == "."), "{}", decoded);
            prop_assert!(!sent.path().contains("//"));
        }
    }
}
