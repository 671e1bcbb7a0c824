//! How vendors ask whether an address wants their webhooks, as plain data: one row for each kind of challenge, with how it is
//! recognised, what must hold before it is answered, what its token looks like and what is answered. `policy/handshake` is the
//! machine that answers with it.

mod parts;

use std::sync::LazyLock;

use http::{HeaderName, Method};

pub use parts::{Beside, Mark, Repeats, Reply, ReplyBody, Requires, Stage, TokenForm, TokenPlace, Value};

use crate::model::handshake::parts::{crc_token, digits, empty, guid, host_name, json, sentence, text, word};
use crate::model::signature::Place;

/// A vendor whose challenges are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    AdobeSign,
    Asana,
    BusinessCentral,
    CloudEvents,
    Dropbox,
    EventGrid,
    Graph,
    Meta,
    Monday,
    Okta,
    SharePoint,
    Slack,
    Smartsheet,
    Sns,
    Twitch,
    WooCommerce,
    X,
    Zoom,
}

impl Vendor {
    pub const ALL: [Self; 18] = [
        Self::AdobeSign,
        Self::Asana,
        Self::BusinessCentral,
        Self::CloudEvents,
        Self::Dropbox,
        Self::EventGrid,
        Self::Graph,
        Self::Meta,
        Self::Monday,
        Self::Okta,
        Self::SharePoint,
        Self::Slack,
        Self::Smartsheet,
        Self::Sns,
        Self::Twitch,
        Self::WooCommerce,
        Self::X,
        Self::Zoom,
    ];

    /// As settings and log name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdobeSign => "adobe-sign",
            Self::Asana => "asana",
            Self::BusinessCentral => "business-central",
            Self::CloudEvents => "cloudevents",
            Self::Dropbox => "dropbox",
            Self::EventGrid => "event-grid",
            Self::Graph => "graph",
            Self::Meta => "meta",
            Self::Monday => "monday",
            Self::Okta => "okta",
            Self::SharePoint => "sharepoint",
            Self::Slack => "slack",
            Self::Smartsheet => "smartsheet",
            Self::Sns => "sns",
            Self::Twitch => "twitch",
            Self::WooCommerce => "woocommerce",
            Self::X => "x",
            Self::Zoom => "zoom",
        }
    }
}

/// One kind of challenge.
#[derive(Debug)]
pub struct Handshake {
    pub vendor: Vendor,
    pub method: Method,
    /// What a request must have beside the token to be one.
    pub marks: Vec<(Place, Mark)>,
    pub token: TokenPlace,
    pub form: TokenForm,
    pub requires: Requires,
    pub reply: Reply,
    pub repeats: Repeats,
    pub beside: Beside,
}

/// Whether a text, in pieces, is one whose HMAC anybody gets as the answer to a challenge, from a caller that signs in one of
/// these fields. It proves nothing about who sent it.
pub fn is_signed_for_anybody<'t>(
    mut fields: impl Iterator<Item = &'t HeaderName>,
    text: impl Iterator<Item = &'t [u8]> + Clone,
) -> bool {
    fields.any(|field| {
        HANDSHAKES.iter().any(|row| {
            let is_asked = matches!(&row.requires, Requires::Secret(Place::Header(known)) if known == field);
            is_asked && row.form.fits_text(text.clone())
        })
    })
}

static HANDSHAKES: LazyLock<Vec<Handshake>> = LazyLock::new(handshakes);

impl Handshake {
    pub fn of(vendor: Vendor) -> impl Iterator<Item = &'static Self> {
        HANDSHAKES.iter().filter(move |row| row.vendor == vendor)
    }

    pub fn stage(&self) -> Stage {
        if matches!(self.requires, Requires::Signature(_)) {
            return Stage::Signed;
        }
        let in_body = |place: &Place| place.pointer().is_some();
        let token_in_body = match &self.token {
            TokenPlace::At(place) => in_body(place),
            TokenPlace::BodyAfter(_) => true,
        };
        match token_in_body || self.marks.iter().any(|(place, _)| in_body(place)) {
            true => Stage::Body,
            false => Stage::Head,
        }
    }

    /// Where a caller of the route has to sign.
    pub fn signed_in(&self) -> Option<&Place> {
        match &self.requires {
            Requires::Signature(place) | Requires::Secret(place) | Requires::Enrolment(place) => Some(place),
            Requires::Nothing | Requires::VerifyToken(_) => None,
        }
    }

    pub fn has_hmac(&self) -> bool {
        let ReplyBody::Json(members) = &self.reply.body else {
            return false;
        };
        let is_hmac = |value: &Value| matches!(value, Value::HmacHex | Value::HmacBase64);
        members.iter().any(|(_, value)| is_hmac(value))
    }
}

fn handshakes() -> Vec<Handshake> {
    let rows = [microsoft(), with_get(), unsigned(), signed(), subscriptions()];
    rows.into_iter().flatten().collect()
}

fn microsoft() -> Vec<Handshake> {
    const ORIGIN: &str = "webhook-request-origin";
    let allowed = || Reply {
        fields: vec![
            (field("webhook-allowed-origin"), Value::Token),
            (field("webhook-allowed-rate"), Value::Fixed("*")),
        ],
        body: ReplyBody::Empty,
    };
    let validation =
        |vendor, parameter| row(vendor, Method::POST, Place::query(parameter), sentence(), text());
    vec![
        row(
            Vendor::EventGrid,
            Method::POST,
            Place::body("/0/data/validationCode"),
            guid(),
            json(&[("validationResponse", Value::Token)]),
        )
        .mark(
            Place::header("aeg-event-type"),
            Mark::Is("SubscriptionValidation"),
        )
        .mark(
            Place::body("/0/eventType"),
            Mark::Is("Microsoft.EventGrid.SubscriptionValidationEvent"),
        ),
        row(
            Vendor::EventGrid,
            Method::OPTIONS,
            Place::header(ORIGIN),
            host_name(),
            allowed(),
        )
        .mark(Place::header(ORIGIN), Mark::Is("eventgrid.azure.net")),
        row(
            Vendor::CloudEvents,
            Method::OPTIONS,
            Place::header(ORIGIN),
            host_name(),
            allowed(),
        ),
        validation(Vendor::Graph, "validationToken"),
        validation(Vendor::SharePoint, "validationtoken"),
        validation(Vendor::BusinessCentral, "validationToken"),
    ]
}

/// Those that ask with a method that no delivery has.
fn with_get() -> Vec<Handshake> {
    const CLIENT_ID: &str = "x-adobesign-clientid";
    let adobe = json(&[("xAdobeSignClientId", Value::Token)]);
    let adobe = Reply {
        fields: vec![(field(CLIENT_ID), Value::Token)],
        ..adobe
    };
    vec![
        row(
            Vendor::Meta,
            Method::GET,
            Place::query("hub.challenge"),
            digits(),
            text(),
        )
        .mark(Place::query("hub.mode"), Mark::Is("subscribe"))
        .requires(Requires::VerifyToken("hub.verify_token")),
        row(
            Vendor::X,
            Method::GET,
            Place::query("crc_token"),
            crc_token(),
            json(&[("response_token", Value::HmacBase64)]),
        )
        .requires(Requires::Secret(Place::header("x-twitter-webhooks-signature"))),
        row(
            Vendor::Dropbox,
            Method::GET,
            Place::query("challenge"),
            word(1..=256),
            text(),
        ),
        row(
            Vendor::Okta,
            Method::GET,
            Place::header("x-okta-verification-challenge"),
            word(1..=256),
            json(&[("verification", Value::Token)]),
        ),
        Handshake {
            repeats: Repeats::InEveryAnswer,
            ..row(
                Vendor::AdobeSign,
                Method::GET,
                Place::header(CLIENT_ID),
                word(1..=128),
                adobe,
            )
        },
    ]
}

/// Those that ask with POST, as deliveries come, and sign nothing.
fn unsigned() -> Vec<Handshake> {
    let smartsheet = json(&[("smartsheetHookResponse", Value::Token)]);
    let smartsheet = Reply {
        fields: vec![(field("smartsheet-hook-response"), Value::Token)],
        ..smartsheet
    };
    vec![
        row(
            Vendor::Smartsheet,
            Method::POST,
            Place::header("smartsheet-hook-challenge"),
            guid(),
            smartsheet,
        ),
        row(
            Vendor::Monday,
            Method::POST,
            Place::body("/challenge"),
            word(1..=256),
            json(&[("challenge", Value::Token)]),
        )
        .mark(Place::header("content-type"), Mark::Begins("application/json"))
        .mark(Place::body("/event"), Mark::Absent),
        row(
            Vendor::Asana,
            Method::POST,
            Place::header("x-hook-secret"),
            word(32..=128),
            Reply {
                fields: vec![(field("x-hook-secret"), Value::Token)],
                body: ReplyBody::Empty,
            },
        )
        .requires(Requires::Enrolment(Place::header("x-hook-signature"))),
        // The ping that it sends when a webhook is saved.
        Handshake {
            token: TokenPlace::BodyAfter("webhook_id="),
            ..row(
                Vendor::WooCommerce,
                Method::POST,
                Place::body("/"),
                digits(),
                empty(),
            )
        }
        .mark(
            Place::header("content-type"),
            Mark::Begins("application/x-www-form-urlencoded"),
        ),
    ]
}

fn signed() -> Vec<Handshake> {
    vec![
        row(
            Vendor::Slack,
            Method::POST,
            Place::body("/challenge"),
            word(1..=256),
            text(),
        )
        .mark(Place::body("/type"), Mark::Is("url_verification"))
        .requires(Requires::Signature(Place::header("x-slack-signature"))),
        row(
            Vendor::Zoom,
            Method::POST,
            Place::body("/payload/plainToken"),
            word(22..=22),
            json(&[("plainToken", Value::Token), ("encryptedToken", Value::HmacHex)]),
        )
        .mark(Place::body("/event"), Mark::Is("endpoint.url_validation"))
        .requires(Requires::Signature(Place::header("x-zm-signature"))),
        row(
            Vendor::Twitch,
            Method::POST,
            Place::body("/challenge"),
            word(1..=256),
            text(),
        )
        .mark(
            Place::header("twitch-eventsub-message-type"),
            Mark::Is("webhook_callback_verification"),
        )
        .requires(Requires::Signature(Place::header(
            "twitch-eventsub-message-signature",
        ))),
    ]
}

/// What Amazon SNS sends when a topic is to be delivered here, and when it is no longer.
fn subscriptions() -> Vec<Handshake> {
    let topic = || Place::body("/TopicArn");
    let message = |kind, beside| {
        let token = Place::body("/Token");
        let row = Handshake {
            beside,
            ..row(Vendor::Sns, Method::POST, token, word(16..=1024), empty())
        };
        row.mark(Place::body("/Type"), Mark::Is(kind))
            .requires(Requires::Signature(Place::body("/Signature")))
    };
    let confirm = Beside::Confirm {
        url: Place::body("/SubscribeURL"),
        topic: topic(),
    };
    vec![
        message("SubscriptionConfirmation", confirm),
        message("UnsubscribeConfirmation", Beside::Warn { topic: topic() }),
    ]
}

/// Answered to anybody.
fn row(vendor: Vendor, method: Method, token: Place, form: TokenForm, reply: Reply) -> Handshake {
    Handshake {
        vendor,
        method,
        marks: Vec::new(),
        token: TokenPlace::At(token),
        form,
        requires: Requires::Nothing,
        reply,
        repeats: Repeats::Once,
        beside: Beside::Nothing,
    }
}

impl Handshake {
    fn mark(mut self, place: Place, mark: Mark) -> Self {
        self.marks.push((place, mark));
        self
    }

    fn requires(self, requires: Requires) -> Self {
        Self { requires, ..self }
    }
}

const fn field(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::{HANDSHAKES, Handshake, Requires, Stage, Vendor, is_signed_for_anybody};

    #[test]
    fn no_token_that_is_sent_back_can_be_markup() {
        for row in HANDSHAKES.iter() {
            for byte in *b"<>\"'&\\\r\n\0\x7f\xc3" {
                assert!(!(row.form.fits)(byte), "{:?} {byte}", row.vendor);
            }
            assert!(
                *row.form.bytes.start() > 0 && *row.form.bytes.end() <= 1024,
                "{:?}",
                row.vendor
            );
        }
    }

    #[test]
    fn what_is_signed_for_anybody_is_known_as_such() {
        let field = HeaderName::from_static("x-twitter-webhooks-signature");
        let other = HeaderName::from_static("x-signature");
        let is_for_anybody = |field, text: &[&str]| {
            let pieces = text.iter().map(|piece| piece.as_bytes());
            is_signed_for_anybody([field].into_iter(), pieces)
        };
        for token in ["transfer=100000EUR", "1234567890123456789", &"a".repeat(128)] {
            assert!(is_for_anybody(&field, &[token]), "{token}");
            assert!(is_for_anybody(&field, &[&token[..7], &token[7..]]), "{token}");
            assert!(!is_for_anybody(&other, &[token]), "{token}");
        }
        for event in [r#"{"for_user_id":"1"}"#, "", "short", &"a".repeat(129)] {
            assert!(!is_for_anybody(&field, &[event]), "{event}");
        }
        // Every answer that is computed without a signature is known here.
        for row in HANDSHAKES.iter().filter(|row| row.has_hmac()) {
            let is_signed_first = row.stage() == Stage::Signed;
            assert!(
                is_signed_first || matches!(row.requires, Requires::Secret(_)),
                "{:?}",
                row.vendor
            );
        }
    }

    #[test]
    fn a_vendor_is_answered_as_early_as_its_challenge_allows() {
        let stage = |vendor| Handshake::of(vendor).next().unwrap().stage();
        assert_eq!(stage(Vendor::Graph), Stage::Head);
        assert_eq!(stage(Vendor::EventGrid), Stage::Body);
        assert_eq!(stage(Vendor::WooCommerce), Stage::Body);
        assert_eq!(stage(Vendor::Slack), Stage::Signed);
        assert_eq!(stage(Vendor::Sns), Stage::Signed);
        assert_eq!(Handshake::of(Vendor::EventGrid).count(), 2);
    }
}
