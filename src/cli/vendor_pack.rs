//! `flowgate vendor-pack`: one page for the developer of a calling system, and the same as a definition for a custom connector.
//! It is made of the settings alone: no secret is read, and nothing about what is behind the route is in it.

mod pack;
mod signing;
mod swagger;
mod trial;

pub(super) use crate::cli::vendor_pack::pack::{BODY, Sender, has_body};

use std::fmt::Write as _;

use bytesize::ByteSize;
use http::Uri;

use crate::cli::load::{SettingsFile, load};
use crate::cli::outcome::{Outcome, WRONG};
use crate::cli::routes::shortened;
use crate::cli::vendor_pack::pack::{Address, Pack};
use crate::cli::vendors;
use crate::problem::{Again, Kind, Reason};
use crate::settings::{
    CallerSettings, CallersSettings, Checks, Config, Environment, KeyPlace, Rate, RouteSettings, Secrets,
};

/// Names that are listed when one is wrong.
const NAMES_SHOWN: usize = 10;
const HTTPS: u16 = 443;

#[derive(Debug, clap::Args)]
pub(super) struct VendorPack {
    #[command(flatten)]
    settings: SettingsFile,
    /// The route.
    route: String,
    /// The caller that the page is for. It can be left out where the route has one, or where none signs its requests.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Print a Swagger 2.0 definition in its place, for a custom connector of Power Platform.
    #[arg(long)]
    swagger: bool,
}

pub(super) fn vendor_pack(task: &VendorPack) -> Result<Outcome, Outcome> {
    let environment = Environment::of_process().with(Secrets::Unresolved);
    let (config, _) = load(&task.settings.config, &environment)?;
    let route = route_named(&config, &task.route)?;
    let pack = Pack {
        config: &config,
        route,
        address: address(&config, route),
        caller: sender(&config, route, task.caller.as_deref())?,
    };
    let mut outcome = Outcome::out(match task.swagger {
        true => swagger::definition(&pack).map_err(wrong)?,
        false => pack.page(),
    });
    if route.public_url.is_none() {
        outcome.err = format!(
            "flowgate: route \"{}\" has neither `public_url` nor `host`: replace HOST by the name under which callers know the \
             gateway, or set `public_url = \"https://HOST\"` and print this again\n",
            route.name
        );
    }
    Ok(outcome)
}

pub(super) fn route_named<'c>(config: &'c Config, name: &str) -> Result<&'c RouteSettings, Outcome> {
    let route = config.routes.iter().find(|route| route.name.as_str() == name);
    route.ok_or_else(|| {
        let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let listed = shortened(&names, NAMES_SHOWN);
        wrong(&format!("there is no route \"{name}\"; there are: {listed}"))
    })
}

pub(super) fn wrong(why: &str) -> Outcome {
    Outcome::failed(format!("flowgate: {why}\n"), WRONG)
}

fn address(config: &Config, route: &RouteSettings) -> Address {
    let listener = config.listeners.first();
    let port = listener.map_or(HTTPS, |listener| listener.address.port());
    let base = match &route.public_url {
        Some(url) => url.with(""),
        None if port == HTTPS => "https://HOST".to_owned(),
        None => format!("https://HOST:{port}"),
    };
    let uri = base.parse::<Uri>().ok();
    Address {
        port: uri.and_then(|uri| uri.port_u16()).unwrap_or(HTTPS),
        path: route.path.replace("{*", "{"),
        base,
    }
}

/// What a caller of a route sends; `wanted` is the name of one.
pub(super) fn sender<'c>(
    config: &'c Config,
    route: &'c RouteSettings,
    wanted: Option<&str>,
) -> Result<Sender<'c>, Outcome> {
    let names = match &route.callers {
        CallersSettings::Named(names) => names.as_slice(),
        CallersSettings::Anonymous => &[],
    };
    let callers = config
        .callers
        .iter()
        .filter(|caller| names.contains(&caller.name));
    let callers: Vec<_> = callers.collect();
    let listed = || {
        let names: Vec<_> = callers.iter().map(|caller| caller.name.as_str()).collect();
        shortened(&names, NAMES_SHOWN)
    };
    if let Some(name) = wanted {
        let caller = callers.iter().find(|caller| caller.name.as_str() == name);
        let caller = caller.ok_or_else(|| {
            let (route, listed) = (&route.name, listed());
            wrong(&format!(
                "caller \"{name}\" may not call route \"{route}\"; these may: {listed}"
            ))
        })?;
        return Ok(of_caller(caller, route));
    }
    match callers.as_slice() {
        [] => Ok(Sender::default()),
        [caller] => Ok(of_caller(caller, route)),
        several
            if several
                .iter()
                .all(|caller| caller.signature.is_none() && !caller.key_in_url) =>
        {
            Ok(Sender {
                key: places(route, false),
                ..Sender::default()
            })
        }
        _ => Err(wrong(&format!(
            "callers of route \"{}\" send different proofs; name one with --caller: {}",
            route.name,
            listed()
        ))),
    }
}

fn of_caller<'c>(caller: &'c CallerSettings, route: &'c RouteSettings) -> Sender<'c> {
    let key = places(route, caller.key_in_url);
    Sender {
        name: Some(&caller.name),
        key: key.filter(|_| !caller.keys.is_empty()),
        signature: caller.signature.as_ref(),
        rate: caller.rate.as_ref(),
        has_networks: !caller.networks.allow.is_empty(),
    }
}

/// The first place where the route reads keys of such callers.
fn places(route: &RouteSettings, in_url: bool) -> Option<&KeyPlace> {
    route.key_places.iter().find(|place| place.is_in_url() == in_url)
}

impl Pack<'_> {
    fn page(&self) -> String {
        let contact = self.route.contact.as_ref();
        let contact = contact.map_or("the operator who gave you this page", |contact| contact.text());
        let mut page = format!(
            "# Calling {}\n\nFor the developer of the system that calls it. There is no secret on this page.\n\n| what | value |\n| --- | --- |\n",
            self.route.name
        );
        for (what, value) in self.facts() {
            let _ = writeln!(page, "| {what} | {value} |");
        }
        let _ = writeln!(page, "| contact | {} |", contact.replace('|', "\\|"));
        let parts = [
            self.ports(),
            self.signature(),
            Some(self.trial()),
            Some(REPEAT.to_owned()),
        ];
        for part in parts.into_iter().flatten() {
            let _ = write!(page, "\n{part}");
        }
        let _ = write!(
            page,
            "\n## Errors\n\n| status | code | send again? | what happened |\n| --- | --- | --- | --- |\n"
        );
        for kind in Kind::ALL.iter().filter(|kind| self.can_answer(**kind)) {
            let row = kind.row();
            let again = match row.again {
                Again::Later => "yes",
                Again::No => "no",
            };
            let _ = writeln!(
                page,
                "| {} | `{}` | {again} | {} |",
                row.status.as_u16(),
                row.code,
                row.title
            );
        }
        let _ = write!(
            page,
            "\nWhen you ask about a call, name its `x-request-id`, which every answer has: {contact}.\n"
        );
        page
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Address { base, path, .. } = &self.address;
        let methods: Vec<_> = self
            .route
            .methods
            .iter()
            .map(|method| format!("`{method}`"))
            .collect();
        let mut facts = vec![
            ("address", format!("`{base}{path}`")),
            ("method", methods.join(" or ")),
        ];
        if path.contains('{') {
            facts.push((
                "parts in braces",
                "replace each by a value, percent-encoded".to_owned(),
            ));
        }
        if let Some(place) = self.caller.key {
            facts.push(("API key", described(place)));
        }
        if self.caller.signature.is_some() {
            facts.push(("signature", "on every request, as below".to_owned()));
        }
        if self.caller.key.is_none() && self.caller.signature.is_none() {
            facts.push(("key or signature", "none".to_owned()));
        }
        if self.caller.has_networks || !self.route.networks.allow.is_empty() {
            let text = "only addresses that the operator has listed are let in: say from which you call";
            facts.push(("networks", text.to_owned()));
        }
        facts.push(("content type", self.content_types()));
        if let Some(place) = self.delivery_id() {
            let text =
                format!("{place}: another one for each delivery, and the same when you send one again");
            facts.push(("id of the delivery", text));
        }
        facts.push(("largest body", ByteSize(self.route.body_bytes_max).to_string()));
        if let Some(rate) = self.caller.rate {
            facts.push(("your requests", rated(rate)));
        }
        if let Some(rate) = &self.route.rate {
            facts.push(("requests of all callers", rated(rate)));
        }
        let wait = self.route.upstream.response_timeout;
        facts.push((
            "wait for the answer",
            format!("at least {}", vendors::duration(wait)),
        ));
        facts.push(("connection", "TLS 1.2 or 1.3; HTTP/1.1 or HTTP/2".to_owned()));
        let unused = self.config.connections.idle_timeout;
        facts.push((
            "unused connections",
            format!("are closed after {}", vendors::duration(unused)),
        ));
        facts
    }

    fn ports(&self) -> Option<String> {
        let port = self.address.port;
        let known = self
            .caller
            .signature
            .map_or(&[][..], |signature| signature.habits.ports);
        if known.contains(&port) || (known.is_empty() && port == HTTPS) {
            return None;
        }
        let Some((last, first)) = known.split_last() else {
            return Some(format!(
                "**Port {port}:** some vendors send only to port 443. If yours refuses the address, ask for one without a port.\n"
            ));
        };
        let first: String = first.iter().map(|port| format!("{port}, ")).collect();
        Some(format!(
            "**Port {port}: this vendor refuses the address.** It sends only to these ports: {first}{last}.\n"
        ))
    }

    fn signature(&self) -> Option<String> {
        Some(signing::section(&self.caller.signature?.recipe))
    }

    /// Whether callers of this kind can get the answer.
    fn can_answer(&self, kind: Kind) -> bool {
        let (key, signature) = (self.caller.key.is_some(), self.caller.signature.is_some());
        match kind {
            Kind::SignatureInvalid => signature,
            Kind::CallerNotAllowed => key,
            Kind::HandshakeRefused => !self.route.handshakes.vendors.is_empty(),
            Kind::BodyInvalid => self.route.content.reading.is_some(),
            Kind::BodyTypeRefused => {
                self.route.content.types.is_some() || self.route.content.reading.is_some()
            }
            Kind::DeliveryIdMissing | Kind::DeliveryIdReused => self.delivery_id().is_some(),
            Kind::DeliveryInFlight => self.route.duplicates.is_some(),
            Kind::ChecksOff => self.route.checks == Checks::Refused,
            kind if kind.row().reason == Reason::Credential => key,
            _ => true,
        }
    }
}

const REPEAT: &str = "\
## Which answers to repeat

`x-flowgate-answer` says who has answered. `flow` or `api`: status and body are those of the flow or the API. `gateway` or `platform`: \
the body is `application/problem+json` with `code`, `retryable`, `run_started`, and `retry_after` in seconds where it is known.

- `retryable` is `true`: nothing has happened. Send the same request again, after `Retry-After`, or after a pause that grows with each try.
- `retryable` is `false` and `run_started` is `unknown` or `yes`, or no answer arrives: the work may have been done. Repeat only if the same \
request twice does no harm.
- Any other answer: the same request would fail in the same way.
";

fn described(place: &KeyPlace) -> String {
    match place {
        KeyPlace::Header(name) => format!("in the header field `{name}`"),
        KeyPlace::Authorization => "in `Authorization`, as `Bearer KEY`".to_owned(),
        KeyPlace::Basic => "password of HTTP Basic; the user name is ignored".to_owned(),
        KeyPlace::Query(name) => format!("in the query, as `?{name}=KEY`; keep the address secret"),
        KeyPlace::Path => "in the path, in place of `{key}`; keep the address secret".to_owned(),
    }
}

fn rated(rate: &Rate) -> String {
    let (requests, per, burst) = (rate.requests, vendors::duration(rate.per), rate.burst);
    format!("{requests} in {per} on average, {burst} at once; more get 429")
}

/// A path with a word in place of each parameter.
pub(super) fn filled(path: &str) -> String {
    let mut filled = String::with_capacity(path.len());
    for part in path.split_inclusive(['{', '}']) {
        match part.strip_suffix('}') {
            Some(name) => filled.push_str(&name.to_ascii_uppercase()),
            None => filled.push_str(part.trim_end_matches('{')),
        }
    }
    filled
}
