//! The errors of a trigger address, with sentences for the person who copied it.

use thiserror::Error;

/// Why a text is not the address of a trigger. No variant contains a value of the query.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TriggerUrlError {
    #[error("trigger address is empty")]
    Empty,
    #[error("trigger address has {chars} characters, more than the 16384 a trigger accepts")]
    TooLong { chars: usize },
    #[error("trigger address begins or ends with {found:?}")]
    Wrapped { found: char },
    #[error("trigger address ends with a stray {found:?}")]
    TrailingJunk { found: char },
    #[error("trigger address contains a second address")]
    TwoAddresses,
    /// A placeholder such as `<region>` or `{postalCode}`.
    #[error("trigger address still contains a placeholder in brackets")]
    Placeholder,
    #[error("trigger address contains white space")]
    Whitespace,
    /// A control character inside, plain or percent-encoded.
    #[error("trigger address contains a control character")]
    Control,
    #[error("trigger address contains {found:?}, which is not ASCII")]
    NotAscii { found: char },
    #[error("trigger address starts with http://, a trigger listens on https only")]
    PlainHttp,
    #[error("trigger address must start with https://")]
    NotHttps,
    #[error("trigger address carries a user name before its host")]
    UserInfo,
    #[error("trigger address has no host")]
    NoHost,
    #[error("trigger address has a host that is neither a name nor an IP address")]
    BadHost,
    #[error("trigger address has a port that is not a number from 1 to 65535")]
    BadPort,
    /// Port 433, as one page of Microsoft's documentation misprints it.
    #[error("trigger address has port 433")]
    PortTypo,
    #[error("trigger address contains a '#', which ends an address before the trigger sees the rest")]
    Fragment,
    #[error("trigger address contains {found:?}, which an address cannot hold unencoded")]
    Character { found: char },
    #[error("trigger address has a '%' that is not followed by two hexadecimal digits")]
    Escape,
    /// Encoded once too often: `%252F`, or `?`, `=` and `&` themselves encoded.
    #[error("trigger address is percent-encoded once too often")]
    TwiceEncoded,
    /// `&amp;` or another spelling of `&` from HTML, XML or JSON.
    #[error("trigger address contains {spelling} in place of '&'")]
    EscapedAmpersand { spelling: &'static str },
    #[error("trigger address has its parameters in the path, the '?' before them is missing")]
    QuestionMarkLost,
    #[error("trigger address has a doubled slash or a dot segment in its path")]
    BadPath,
    #[error("{host} is where flows are designed, not where they are called")]
    DesignerAddress { host: String },
    /// An API for managing flows, or the audience of its tokens.
    #[error("{host} belongs to the management of flows, not to a trigger")]
    ManagementAddress { host: String },
    /// The trigger needs `api-version` and answers `MissingApiVersionParameter` without it.
    #[error("trigger address has no api-version")]
    MissingApiVersion,
    /// Other text was appended to the value of `api-version`.
    #[error("trigger address has an api-version that is neither a date nor a number")]
    BadApiVersion,
    #[error("trigger address has an empty {key}")]
    EmptyValue { key: &'static str },
    #[error("trigger address has {key} more than once")]
    RepeatedKey { key: &'static str },
    #[error(
        "trigger address carries no signature (sp, sv and sig are missing) and the route has no identity"
    )]
    CutAtAmpersand,
    #[error("trigger address carries sp or sv but no sig")]
    SignatureTorn,
    #[error("trigger address carries a signature (sig) although the route uses an identity")]
    SignedAndIdentity,
    /// Not usable for a request, for a reason none of the other variants names.
    #[error("trigger address cannot be used in a request")]
    Unusable,
}

impl TriggerUrlError {
    /// The correction, as a whole sentence, if one is known.
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
            Self::Control => "Type the line again or copy the URL from the trigger again.",
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
            Self::BadPort => "Remove the port; a trigger listens on 443.",
            Self::PortTypo => "Write :443, or remove the port.",
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
