//! The errors of a trigger address, with sentences for the person who copied it.

use thiserror::Error;

/// Why a text is not the address of a trigger. No variant contains a value of the query.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TriggerUrlError {
    /// The text is empty.
    #[error("trigger address is empty")]
    Empty,
    /// Longer than [`ADDRESS_CHARS_MAX`](crate::model::trigger::ADDRESS_CHARS_MAX).
    #[error("trigger address has {chars} characters, more than the 16384 a trigger accepts")]
    TooLong {
        /// Characters found.
        chars: usize,
    },
    /// White space, quotes or brackets around the address.
    #[error("trigger address begins or ends with {found:?}")]
    Wrapped {
        /// The stray character.
        found: char,
    },
    /// Punctuation at the end of the address.
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
    /// A name or password before the host.
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
    /// A character that must be encoded in an address.
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
    /// Parameters in the path.
    #[error("trigger address has its parameters in the path, the '?' before them is missing")]
    QuestionMarkLost,
    /// A dot segment or a doubled slash in the path of a trigger.
    #[error("trigger address has a doubled slash or a dot segment in its path")]
    BadPath,
    /// A page of a designer or a portal.
    #[error("{host} is where flows are designed, not where they are called")]
    DesignerAddress {
        /// The host found.
        host: String,
    },
    /// An API for managing flows, or the audience of its tokens.
    #[error("{host} belongs to the management of flows, not to a trigger")]
    ManagementAddress {
        /// The host found.
        host: String,
    },
    /// The trigger needs `api-version` and answers `MissingApiVersionParameter` without it.
    #[error("trigger address has no api-version")]
    MissingApiVersion,
    /// Other text was appended to the value of `api-version`.
    #[error("trigger address has an api-version that is neither a date nor a number")]
    BadApiVersion,
    /// A key without a value.
    #[error("trigger address has an empty {key}")]
    EmptyValue {
        /// The key.
        key: &'static str,
    },
    /// A key that may appear only once is repeated.
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
