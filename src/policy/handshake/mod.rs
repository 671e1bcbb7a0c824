//! Answers the challenges by which vendors make sure that an address wants their webhooks, so that none of them starts a
//! flow. `model/handshake` has the vendors. What is sent back is a token of the exact alphabet and length of the vendor, or an
//! HMAC of one: anything else is refused, so that nobody can use an address to have markup sent or a delivery signed.

mod reply;
mod request;
mod subscription;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response};
use memchr::memmem;

use crate::model::handshake::{Beside, Handshake, Mark, Repeats, Requires, Stage, TokenPlace};
use crate::model::signature::Place;
use crate::model::{BodyValues, CallerName, Extent, KeyLabel, Pointer, Secret};
use crate::policy::caller::{Caller, Callers};
use crate::policy::handshake::request::{parameter, value};
use crate::policy::proof::signature::Signer;
use crate::problem::{Kind, Problem};
use crate::settings::{CallersSettings, HandshakeSettings};

pub use subscription::Confirmation;

/// A larger body is a challenge only if a word of the vendor marks it as one. The longest known challenge is Event Grid's, with
/// some 800 bytes.
pub const CHALLENGE_BYTES_MAX: usize = 4096;
/// What the log names as the handshake where a URL was only tested.
const REACHABLE: &str = "reachable";

/// The challenges that one route answers.
#[derive(Debug)]
pub struct Handshakes {
    rows: Box<[&'static Handshake]>,
    verify_token: Option<Secret>,
    reachable: Box<[Method]>,
    /// What the callers of the route sign with.
    signers: Box<[(CallerName, Arc<Signer>)]>,
}

/// A challenge that was recognised, and not yet answered.
#[derive(Debug)]
pub struct Challenge<'h> {
    handshakes: &'h Handshakes,
    /// None where somebody only tests whether the address is there.
    row: Option<&'static Handshake>,
    /// The token as it came, or why there is not exactly one.
    token: Result<String, String>,
    /// What the parameter is that must be the `verify_token`.
    word: Option<String>,
    /// What it says of a subscription: where it is confirmed, and its topic.
    subscription: Option<(Option<String>, String)>,
    /// The secret that signed it.
    signed_with: Option<(Arc<Signer>, KeyLabel)>,
}

/// The answer to a challenge.
#[derive(Debug)]
pub struct Answered {
    /// The vendor, as the log names it.
    pub vendor: &'static str,
    pub response: Response<Bytes>,
    pub beside: AlsoDue,
}

/// What is due besides it.
#[derive(Debug)]
pub enum AlsoDue {
    Nothing,
    /// First this is called; if that fails, the answer is another.
    Confirm(Confirmation),
    /// The operator should know this.
    Warning(String),
    /// First this becomes a secret of the caller; if that is not to be, the answer is another.
    Enrol {
        caller: CallerName,
        secret: Secret,
    },
}

impl Handshakes {
    /// None for a route that answers no challenge.
    pub fn build(
        settings: &HandshakeSettings,
        listed: &CallersSettings,
        callers: &Callers,
    ) -> Option<Box<Self>> {
        if settings.vendors.is_empty() && settings.reachable.is_empty() {
            return None;
        }
        let names = match listed {
            CallersSettings::Named(names) => names.as_slice(),
            CallersSettings::Anonymous => &[],
        };
        Some(Box::new(Self {
            rows: settings
                .vendors
                .iter()
                .flat_map(|vendor| Handshake::of(*vendor))
                .collect(),
            verify_token: settings.verify_token.clone(),
            reachable: settings.reachable.as_slice().into(),
            signers: names
                .iter()
                .filter_map(|name| Some((name.clone(), callers.signer(name)?.clone())))
                .collect(),
        }))
    }

    /// The challenge that a head is by itself.
    pub fn of_head(&self, head: &Parts) -> Option<Challenge<'_>> {
        self.find(Stage::Head, head, b"").or_else(|| {
            self.reachable.contains(&head.method).then(|| Challenge {
                handshakes: self,
                row: None,
                token: Ok(String::new()),
                word: None,
                subscription: None,
                signed_with: None,
            })
        })
    }

    /// Whether the body may be a challenge that nobody signs.
    pub fn needs_body(&self, head: &Parts) -> bool {
        let mut rows = self.rows.iter().filter(|row| row.stage() == Stage::Body);
        rows.any(|row| row.method == head.method && marks_of_head(row, head))
    }

    /// The challenge in a body that nobody has signed.
    pub fn of_body(&self, head: &Parts, body: &[u8]) -> Option<Challenge<'_>> {
        self.find(Stage::Body, head, body)
    }

    /// The challenge in a body whose signature was right.
    pub fn of_signed(
        &self,
        head: &Parts,
        body: &[u8],
        caller: &Caller,
        callers: &Callers,
    ) -> Option<Challenge<'_>> {
        let label = caller.signed.as_ref()?.with.clone();
        let signer = callers.signer(&caller.name)?;
        let challenge = self.find(Stage::Signed, head, body)?;
        let place = challenge.row?.signed_in()?;
        signer.signs_in(place).then(|| Challenge {
            signed_with: Some((signer.clone(), label)),
            ..challenge
        })
    }

    /// The fields that the answer to a delivery must have, if it succeeds.
    pub fn in_answer(&self, head: &Parts) -> Option<(HeaderName, HeaderValue)> {
        let row = self
            .rows
            .iter()
            .find(|row| row.repeats == Repeats::InEveryAnswer)?;
        let TokenPlace::At(place) = &row.token else {
            return None;
        };
        let token = value(head, place).ok()??;
        check_form(row, &token).ok()?;
        let (name, _) = row.reply.fields.first()?;
        Some((name.clone(), HeaderValue::try_from(&*token).ok()?))
    }

    /// A caller of the route that signs here.
    fn signer(&self, place: &Place) -> Option<&(CallerName, Arc<Signer>)> {
        self.signers.iter().find(|(_, signer)| signer.signs_in(place))
    }

    fn find(&self, stage: Stage, head: &Parts, body: &[u8]) -> Option<Challenge<'_>> {
        let mut rows = self
            .rows
            .iter()
            .filter(|row| row.stage() == stage && row.method == head.method);
        rows.find_map(|row| self.recognise(row, head, body))
    }

    fn recognise(&self, row: &'static Handshake, head: &Parts, body: &[u8]) -> Option<Challenge<'_>> {
        if !marks_of_head(row, head) {
            return None;
        }
        if !may_be(row, body) {
            return None;
        }
        let pointers = pointers(row);
        // A body that is no JSON, or has a key twice, is no challenge of a vendor's.
        let values = BodyValues::read(body, &pointers, Extent::Whole).ok()?;
        let in_body = |place: &Place| place.pointer().and_then(|pointer| values.get(pointer));
        let mut marks = row.marks.iter().filter(|(place, _)| place.pointer().is_some());
        if !marks.all(|(place, mark)| fits(*mark, in_body(place))) {
            return None;
        }
        let token = match &row.token {
            TokenPlace::At(place @ Place::Body(_)) => Ok(in_body(place)?.to_owned()),
            TokenPlace::At(place) => value(head, place).transpose()?.map(Cow::into_owned),
            TokenPlace::BodyAfter(beginning) => {
                let rest = body.strip_prefix(beginning.as_bytes())?;
                let text = std::str::from_utf8(rest).map(str::to_owned);
                text.map_err(|_| "the token is no text".to_owned())
            }
        };
        let word = match row.requires {
            Requires::VerifyToken(name) => parameter(head, name).ok().flatten().map(Cow::into_owned),
            _ => None,
        };
        let subscription = match &row.beside {
            Beside::Nothing => None,
            Beside::Confirm { url, topic } => {
                Some((in_body(url).map(str::to_owned), in_body(topic)?.to_owned()))
            }
            Beside::Warn { topic } => Some((None, in_body(topic)?.to_owned())),
        };
        Some(Challenge {
            handshakes: self,
            row: Some(row),
            token,
            word,
            subscription,
            signed_with: None,
        })
    }
}

impl Challenge<'_> {
    /// The vendor, as the log names it.
    pub fn vendor(&self) -> &'static str {
        self.row.map_or(REACHABLE, |row| row.vendor.name())
    }

    /// Whether a caller has signed it.
    pub fn is_signed(&self) -> bool {
        self.signed_with.is_some()
    }

    /// # Errors
    /// `handshake-refused`, with the same words whatever is wrong.
    pub fn answer(self, now: SystemTime) -> Result<Answered, Problem> {
        let Some(row) = self.row else {
            return Ok(Answered {
                vendor: REACHABLE,
                response: Response::new(Bytes::new()),
                beside: AlsoDue::Nothing,
            });
        };
        let vendor = row.vendor.name();
        let refused = |why: String| {
            Problem::from(Kind::HandshakeRefused).because(format!("handshake of {vendor}: {why}"))
        };
        if let Requires::VerifyToken(name) = row.requires {
            let expected = self.handshakes.verify_token.as_ref();
            let is_right = expected
                .zip(self.word.as_deref())
                .is_some_and(|(known, word)| known.same_as(word));
            if !is_right {
                return Err(refused(format!("{name} is not the `verify_token` of the route")));
            }
        }
        let token = self.token.as_ref().map_err(|why| refused(why.clone()))?;
        check_form(row, token).map_err(refused)?;
        let hmac = match row.has_hmac() {
            true => self.hmac(row, token, now).ok_or_else(|| {
                refused(
                    "no caller of the route has a secret in force with which it could be answered".to_owned(),
                )
            })?,
            false => Vec::new(),
        };
        let beside = self.also_due(row, token).map_err(|why| refused(why.to_owned()))?;
        let response = reply::build(&row.reply, token, &hmac);
        let response = response.ok_or_else(|| refused("the token fits no header field".to_owned()))?;
        Ok(Answered {
            vendor,
            response,
            beside,
        })
    }

    fn also_due(&self, row: &Handshake, token: &str) -> Result<AlsoDue, &'static str> {
        if let Requires::Enrolment(place) = &row.requires {
            let signer = self.handshakes.signer(place);
            let (caller, _) = signer.ok_or("no caller of the route signs as this vendor does")?;
            return Ok(AlsoDue::Enrol {
                caller: caller.clone(),
                secret: Secret::new(token),
            });
        }
        let Some((url, topic)) = &self.subscription else {
            return Ok(AlsoDue::Nothing);
        };
        if !matches!(row.beside, Beside::Confirm { .. }) {
            let topic = subscription::shown(topic);
            return Ok(AlsoDue::Warning(format!(
                "{} has ended the subscription of {topic} and delivers it here no more; if nobody wanted that, subscribe it \
                 again",
                row.vendor.name()
            )));
        }
        let url = url.as_deref().ok_or("SubscribeURL is missing")?;
        let (signer, _) = self.signed_with.as_ref().ok_or("nobody has signed it")?;
        Confirmation::read(url, topic, token, &signer.scheme()).map(AlsoDue::Confirm)
    }

    fn hmac(&self, row: &Handshake, token: &str, now: SystemTime) -> Option<Vec<u8>> {
        if let Some((signer, label)) = &self.signed_with {
            return signer.scheme().hmac_sha256(Some(label), token, now);
        }
        let place = row.signed_in()?;
        let (_, signer) = self.handshakes.signer(place)?;
        signer.scheme().hmac_sha256(None, token, now)
    }
}

fn marks_of_head(row: &Handshake, head: &Parts) -> bool {
    let mut marks = row.marks.iter().filter(|(place, _)| place.pointer().is_none());
    marks.all(|(place, mark)| value(head, place).is_ok_and(|value| fits(*mark, value.as_deref())))
}

/// Whether a body is worth reading: most are those of deliveries, of any size.
fn may_be(row: &Handshake, body: &[u8]) -> bool {
    let mut is_marked = false;
    for (place, mark) in &row.marks {
        if let Mark::Is(word) = mark {
            is_marked = true;
            if place.pointer().is_some() && memmem::find(body, word.as_bytes()).is_none() {
                return false;
            }
        }
    }
    is_marked || body.len() <= CHALLENGE_BYTES_MAX
}

fn fits(mark: Mark, value: Option<&str>) -> bool {
    match (mark, value) {
        (Mark::Is(expected), Some(value)) => value == expected,
        (Mark::Begins(expected), Some(value)) => {
            let begin = value.get(..expected.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(expected))
        }
        (Mark::Absent, value) => value.is_none(),
        (_, None) => false,
    }
}

fn pointers(row: &Handshake) -> Vec<Pointer> {
    let token = match &row.token {
        TokenPlace::At(place) => Some(place),
        TokenPlace::BodyAfter(_) => None,
    };
    let subscription = match &row.beside {
        Beside::Nothing => [None, None],
        Beside::Confirm { url, topic } => [Some(url), Some(topic)],
        Beside::Warn { topic } => [None, Some(topic)],
    };
    let places = row.marks.iter().map(|(place, _)| place).chain(token);
    let places = places.chain(subscription.into_iter().flatten());
    places.filter_map(|place| place.pointer().cloned()).collect()
}

/// Why a token is not one of the vendor's, without a part of it.
fn check_form(row: &Handshake, token: &str) -> Result<(), String> {
    let form = &row.form;
    if !form.bytes.contains(&token.len()) {
        let (least, most) = (form.bytes.start(), form.bytes.end());
        return Err(format!(
            "the token has {} bytes, not {least} to {most}",
            token.len()
        ));
    }
    if !token.bytes().all(form.fits) {
        return Err(format!("the token has characters other than {}", form.characters));
    }
    match form.sentence {
        Some(beginning) if token.contains(' ') && !token.starts_with(beginning) => Err(format!(
            "the token is a sentence that does not begin with `{beginning}`"
        )),
        _ => Ok(()),
    }
}
