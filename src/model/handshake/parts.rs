//! What a row of a challenge is made of: marks, tokens and their forms, conditions, replies.

use std::ops::RangeInclusive;

use http::HeaderName;

use crate::model::signature::Place;

/// What is done about it besides the answer.
#[derive(Debug)]
pub enum Beside {
    Nothing,
    /// The address that the message names is called first; the subscription of the topic begins with that.
    Confirm {
        url: Place,
        topic: Place,
    },
    /// The subscription of the topic has ended, which the operator should know.
    Warn {
        topic: Place,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Mark {
    Is(&'static str),
    Begins(&'static str),
    Absent,
}

#[derive(Debug)]
pub enum TokenPlace {
    At(Place),
    /// All of the body behind this.
    BodyAfter(&'static str),
}

/// Characters and length of a token; anything else is not sent back.
#[derive(Debug, Clone)]
pub struct TokenForm {
    /// In the words of a refusal.
    pub characters: &'static str,
    pub fits: fn(u8) -> bool,
    pub bytes: RangeInclusive<usize>,
    /// How one with spaces begins: nobody chooses a sentence that is sent back.
    pub sentence: Option<&'static str>,
}

/// What must hold before anything is answered.
#[derive(Debug)]
pub enum Requires {
    Nothing,
    /// The signature of a caller that signs here.
    Signature(Place),
    /// A parameter of the query with the `verify_token` of the route.
    VerifyToken(&'static str),
    /// A caller of the route that signs here: the answer is made with its secret.
    Secret(Place),
    /// An operator has opened the route for it, and a caller of the route signs here: the token is its secret from now on.
    Enrolment(Place),
}

#[derive(Debug)]
pub struct Reply {
    pub fields: Vec<(HeaderName, Value)>,
    pub body: ReplyBody,
}

#[derive(Debug, Clone, Copy)]
pub enum Value {
    Token,
    Fixed(&'static str),
    /// HMAC-SHA256 of the token, with the secret of the caller.
    HmacHex,
    /// The same in base64, behind `sha256=`.
    HmacBase64,
}

#[derive(Debug)]
pub enum ReplyBody {
    Empty,
    /// The token alone, as plain text.
    Text,
    Json(&'static [(&'static str, Value)]),
}

/// Whether deliveries have the token, too, and every 2xx answer to them must have the fields of the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    Once,
    InEveryAnswer,
}

/// What of a request shows that it is a challenge, and how early it can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The head has all of it.
    Head,
    /// Its body has to be read, which nobody has signed.
    Body,
    /// Its body is read and its signature checked, as of a delivery.
    Signed,
}

impl TokenForm {
    pub(super) fn fits_text<'t>(&self, mut text: impl Iterator<Item = &'t [u8]> + Clone) -> bool {
        let length = text.clone().map(<[u8]>::len).fold(0, usize::saturating_add);
        self.bytes.contains(&length) && text.all(|piece| piece.iter().all(|byte| (self.fits)(*byte)))
    }
}

pub(super) fn empty() -> Reply {
    Reply {
        fields: Vec::new(),
        body: ReplyBody::Empty,
    }
}

pub(super) fn text() -> Reply {
    Reply {
        fields: Vec::new(),
        body: ReplyBody::Text,
    }
}

pub(super) fn json(members: &'static [(&'static str, Value)]) -> Reply {
    Reply {
        fields: Vec::new(),
        body: ReplyBody::Json(members),
    }
}

pub(super) fn guid() -> TokenForm {
    TokenForm {
        characters: "hexadecimal digits and -",
        fits: |byte| byte.is_ascii_hexdigit() || byte == b'-',
        bytes: 36..=36,
        sentence: None,
    }
}

pub(super) fn digits() -> TokenForm {
    TokenForm {
        characters: "digits",
        fits: |byte| byte.is_ascii_digit(),
        bytes: 1..=20,
        sentence: None,
    }
}

pub(super) fn word(bytes: RangeInclusive<usize>) -> TokenForm {
    TokenForm {
        characters: "letters, digits, - and _",
        fits: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
        bytes,
        sentence: None,
    }
}

/// Base64 of either alphabet. The length is that of a UUID or a digest; no document states it. The answer is the signature of
/// a body with these characters alone, so such a body is no delivery: see `is_signed_for_anybody`.
pub(super) fn crc_token() -> TokenForm {
    TokenForm {
        characters: "those of base64",
        fits: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'='),
        bytes: 16..=128,
        sentence: None,
    }
}

pub(super) fn host_name() -> TokenForm {
    TokenForm {
        characters: "letters, digits, - and dots",
        fits: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'),
        bytes: 1..=253,
        sentence: None,
    }
}

/// The token of Graph is a sentence: "Validation: Testing client application reachability for subscription Request-Id: ...".
pub(super) fn sentence() -> TokenForm {
    TokenForm {
        characters: "letters, digits, spaces and -._~:/+=,",
        fits: |byte| byte.is_ascii_alphanumeric() || b" -._~:/+=,".contains(&byte),
        bytes: 1..=1024,
        sentence: Some("Validation: Testing client application reachability for subscription"),
    }
}
