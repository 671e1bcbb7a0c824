//! The text that was signed, as pieces of the request in order. Vendors that sign fields instead of the body have a small
//! function each.

use std::borrow::Cow;
use std::cell::OnceCell;

use aws_lc_rs::digest;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;

use crate::material::decode;
use crate::model::signature::{Content, Encoding, Piece, Place, Template};
use crate::model::{BodyValues, Pointer, Secret};
use crate::policy::proof::signature::refusal::Unverified;
use crate::policy::proof::signature::request::Head;

pub(super) type Pieces<'p> = Vec<Cow<'p, [u8]>>;

/// What pieces are taken from.
#[derive(Debug)]
pub(super) struct Parts<'p> {
    pub head: Head<'p>,
    pub body: &'p [u8],
    pub values: &'p BodyValues<'p>,
    pub timestamp: Option<&'p str>,
    pub id: Option<&'p str>,
    /// The CRC-32 of the body, once a secret needed it: it is the same for all of them.
    pub crc: OnceCell<u32>,
}

/// Parameters of a form that are sorted. More are refused, because each takes more memory than its bytes.
const PARAMETERS_MAX: usize = 1024;

/// The fields that content of a vendor's own covers.
pub(super) fn pointers(content: &Content) -> Vec<Pointer> {
    match content {
        Content::Template(template) => template.pointers().cloned().collect(),
        Content::Twilio => Vec::new(),
        Content::Adyen => {
            let fields = ADYEN_FIELDS.map(|name| Pointer::of(&format!("{ADYEN_ITEM}{name}")));
            fields.into_iter().chain([Pointer::of(ADYEN_SECOND)]).collect()
        }
        Content::Sns => {
            let names = SNS_NOTIFICATION.iter().chain(&SNS_CONFIRMATION);
            let names = names.copied().chain(["SignatureVersion"]);
            let mut pointers: Vec<_> = names.map(sns_pointer).collect();
            pointers.dedup();
            pointers
        }
    }
}

/// Those of them that a sample has.
pub(super) fn sample_pointers(content: &Content) -> Vec<Pointer> {
    let second = Pointer::of(ADYEN_SECOND);
    let all = pointers(content).into_iter();
    all.filter(|pointer| *pointer != second).collect()
}

impl<'p> Parts<'p> {
    pub(super) fn pieces(&self, content: &'p Content, secret: &'p Secret) -> Result<Pieces<'p>, Unverified> {
        match content {
            Content::Template(template) => self.template(template, secret),
            Content::Twilio => self.twilio(),
            Content::Adyen => self.adyen(),
            Content::Sns => self.sns(secret),
        }
    }

    fn template(&self, template: &'p Template, secret: &'p Secret) -> Result<Pieces<'p>, Unverified> {
        let missing = |what: &str| Unverified::Missing(what.to_owned());
        let piece = |piece: &'p Piece| {
            let text = match piece {
                Piece::Text(text) => Cow::Borrowed(text.as_str()),
                Piece::Body => return Ok(Cow::Borrowed(self.body)),
                Piece::Timestamp => Cow::Borrowed(self.timestamp.ok_or_else(|| missing("the timestamp"))?),
                Piece::Id => Cow::Borrowed(self.id.ok_or_else(|| missing("the id of the delivery"))?),
                Piece::Url => Cow::Borrowed(self.head.url),
                Piece::UrlDecoded => Cow::Owned(hubspot_url(self.head.url)),
                Piece::Method => Cow::Borrowed(self.head.method.as_str()),
                Piece::At(place) => self.at(place)?.ok_or_else(|| missing(&place.to_string()))?,
                Piece::BodyCrc => Cow::Owned(self.crc.get_or_init(|| crc32(self.body)).to_string()),
                Piece::Secret => Cow::Borrowed(secret.expose()),
            };
            Ok(bytes(text))
        };
        template.0.iter().map(piece).collect()
    }

    fn at(&self, place: &Place) -> Result<Option<Cow<'p, str>>, Unverified> {
        match place {
            Place::Body(pointer) => Ok(self.values.get(pointer).map(Cow::Borrowed)),
            Place::Header(_) | Place::Query(_) => self.head.find(place),
        }
    }

    /// <https://www.twilio.com/docs/usage/security>: a form is covered as sorted parameters, any other body by its hash in the
    /// query, which the URL covers.
    fn twilio(&self) -> Result<Pieces<'p>, Unverified> {
        let mut pieces: Pieces<'p> = vec![Cow::Borrowed(self.head.url.as_bytes())];
        let hash = Place::query("bodySHA256");
        if let Some(stated) = self.head.find(&hash)? {
            let stated = decode(&stated, Encoding::Hex).unwrap_or_default();
            if digest::digest(&digest::SHA256, self.body).as_ref() != stated.as_slice() {
                return Err(Unverified::BodyHash(self.body.len()));
            }
            return Ok(pieces);
        }
        if self.body.is_empty() {
            return Ok(pieces);
        }
        let kind = self
            .head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        if !kind
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        {
            return Err(Unverified::Missing(hash.to_string()));
        }
        let mut form = parameters(self.body)?;
        form.sort_unstable();
        if form
            .windows(2)
            .any(|pair| matches!(pair, [(one, _), (other, _)] if one == other))
        {
            return Err(Unverified::Doubled("a parameter of the form".to_owned()));
        }
        pieces.extend(form.into_iter().flat_map(|(name, value)| [name, value]));
        Ok(pieces)
    }

    /// <https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures>. Each notification has a signature of its
    /// own, and Adyen sends one in a request; of several, only one would have been checked.
    fn adyen(&self) -> Result<Pieces<'p>, Unverified> {
        if self.values.get(&Pointer::of(ADYEN_SECOND)).is_some() {
            let what = "has more than one notification, and each is signed alone";
            return Err(Unverified::Body(what.to_owned()));
        }
        let mut pieces: Pieces<'p> = Vec::with_capacity(2 * ADYEN_FIELDS.len());
        for name in ADYEN_FIELDS {
            if !pieces.is_empty() {
                pieces.push(Cow::Borrowed(b":"));
            }
            let value = self.values.get(&Pointer::of(&format!("{ADYEN_ITEM}{name}")));
            pieces.push(Cow::Borrowed(value.unwrap_or_default().as_bytes()));
        }
        Ok(pieces)
    }

    /// <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>. Amazon signs messages of any topic of
    /// anyone, so the topic must be the one that is expected.
    fn sns(&self, topic: &Secret) -> Result<Pieces<'p>, Unverified> {
        let field = |name: &str| self.values.get(&sns_pointer(name));
        let names: &[&str] = match field("Type") {
            Some("Notification") => &SNS_NOTIFICATION,
            Some("SubscriptionConfirmation" | "UnsubscribeConfirmation") => &SNS_CONFIRMATION,
            _ => return Err(Unverified::Body("without a known `Type`".to_owned())),
        };
        if field("TopicArn") != Some(topic.expose()) {
            return Err(Unverified::OtherSubject("the topic of the message"));
        }
        let mut pieces: Pieces<'p> = Vec::new();
        for name in names {
            let Some(value) = field(name) else {
                if *name == "Subject" {
                    continue;
                }
                return Err(Unverified::Missing(format!("body:/{name}")));
            };
            pieces.push(Cow::Owned(format!("{name}\n").into_bytes()));
            pieces.push(Cow::Borrowed(value.as_bytes()));
            pieces.push(Cow::Borrowed(b"\n"));
        }
        Ok(pieces)
    }

    /// The hash under an RSA signature: only SNS still has an old one, and says so in a field that is not covered, because
    /// either hash needs Amazon's key.
    pub(super) fn rsa_hash(&self, content: &Content) -> &'static digest::Algorithm {
        match (content, self.values.get(&sns_pointer("SignatureVersion"))) {
            (Content::Sns, Some("1")) => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            _ => &digest::SHA256,
        }
    }
}

const ADYEN_ITEM: &str = "/notificationItems/0/NotificationRequestItem/";
const ADYEN_SECOND: &str = "/notificationItems/1";
const ADYEN_FIELDS: [&str; 8] = [
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "amount/value",
    "amount/currency",
    "eventCode",
    "success",
];

const SNS_NOTIFICATION: [&str; 6] = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const SNS_CONFIRMATION: [&str; 7] = [
    "Message",
    "MessageId",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

fn sns_pointer(name: &str) -> Pointer {
    Pointer::of(&format!("/{name}"))
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

type Parameter<'b> = (Cow<'b, [u8]>, Cow<'b, [u8]>);

/// Names and values of a form, decoded.
fn parameters(body: &[u8]) -> Result<Vec<Parameter<'_>>, Unverified> {
    let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let mut form = Vec::new();
    for pair in pairs {
        if form.len() == PARAMETERS_MAX {
            return Err(Unverified::TooMany("the form".to_owned()));
        }
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let mut next = || form_decode(halves.next().unwrap_or_default());
        form.push((next(), next()));
    }
    Ok(form)
}

fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'+') {
        return percent_decode(text).into();
    }
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// <https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation>: the characters
/// that are decoded before the URL is hashed.
fn hubspot_url(url: &str) -> String {
    const DECODED: [(&str, char); 12] = [
        ("%3A", ':'),
        ("%2F", '/'),
        ("%3F", '?'),
        ("%40", '@'),
        ("%21", '!'),
        ("%24", '$'),
        ("%27", '\''),
        ("%28", '('),
        ("%29", ')'),
        ("%2A", '*'),
        ("%2C", ','),
        ("%3B", ';'),
    ];
    let mut decoded = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((before, from)) = rest.find('%').and_then(|at| rest.split_at_checked(at)) {
        decoded.push_str(before);
        let code = from.get(..3).unwrap_or_default();
        let plain = DECODED.iter().find(|(known, _)| known.eq_ignore_ascii_case(code));
        let (text, after) = match plain {
            Some(_) => ("", from.get(3..).unwrap_or_default()),
            None => from.split_at_checked(1).unwrap_or((from, "")),
        };
        decoded.push_str(text);
        decoded.extend(plain.map(|(_, plain)| *plain));
        rest = after;
    }
    decoded.push_str(rest);
    decoded
}

/// What a byte adds to a CRC-32. Strangers choose the body, so it is not computed bit by bit.
const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let (mut rest, mut byte) = (table.as_mut_slice(), 0);
    while let Some((entry, others)) = rest.split_first_mut() {
        let (mut crc, mut bit) = (byte, 0);
        while bit < 8 {
            crc = crc_step(crc);
            bit += 1;
        }
        *entry = crc;
        (rest, byte) = (others, byte + 1);
    }
    table
};

/// One bit of a CRC-32.
const fn crc_step(crc: u32) -> u32 {
    (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
}

/// CRC-32 of IEEE 802.3.
fn crc32(body: &[u8]) -> u32 {
    let add = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        let of_byte = CRC_OF_BYTE.get(usize::from(low ^ byte));
        (crc >> 8) ^ of_byte.copied().unwrap_or_default()
    };
    !body.iter().fold(u32::MAX, add)
}

#[cfg(test)]
mod tests {
    use super::{crc_step, crc32, hubspot_url};

    #[test]
    fn a_crc_is_that_of_ieee() {
        // The check value of the catalogue of CRC algorithms.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        // Every entry of the table, against the definition.
        for byte in 0..=u8::MAX {
            let bits = |crc: u32, byte: u8| (0..8).fold(crc ^ u32::from(byte), |crc, _| crc_step(crc));
            assert_eq!(crc32(&[byte, 0x5A]), !bits(bits(u32::MAX, byte), 0x5A), "{byte}");
        }
    }

    #[test]
    fn a_hubspot_url_is_decoded_where_it_was_before_the_hash() {
        for (url, decoded) in [
            (
                "https://a.example/b?c=d%3A%2f%20%25%3f",
                "https://a.example/b?c=d:/%20%25?",
            ),
            ("https://a.example/é%", "https://a.example/é%"),
            ("%2", "%2"),
            ("%é", "%é"),
            ("%%3A", "%:"),
        ] {
            assert_eq!(hubspot_url(url), decoded);
        }
    }
}
