//! The lines of a page that can be pasted: a request with everything that the route demands of it.

use http::Method;

use crate::cli::vendor_pack::filled;
use crate::cli::vendor_pack::pack::{Pack, has_body};
use crate::cli::vendor_pack::signing::{self, Request, Signing, quoted, unquoted};
use crate::settings::{Checks, KeyPlace};

const HEADING: &str = "## Try it\n\n";
const CHECK: &str = "\nWith `-H 'x-flowgate-check: true'` nothing is started: the answer lists what each check says, once a second.\n";

impl Pack<'_> {
    pub(super) fn trial(&self) -> String {
        let method = self.route.methods.first().unwrap_or(&Method::POST);
        let example = self.example();
        let url = self.url();
        let request = Request {
            method,
            url: &url,
            body: &example.body,
        };
        let Some(signing) = self.signed(&request) else {
            return format!(
                "{HEADING}Only the vendor can sign a request, so there is no line to paste: send one from there.\n"
            );
        };
        let mut lines = Vec::new();
        let mut arguments = signing.arguments;
        if let Some(place) = self.caller.key {
            lines.push("KEY='...'".to_owned());
            match place {
                KeyPlace::Header(name) => arguments.push(format!("-H \"{name}: $KEY\"")),
                KeyPlace::Authorization => arguments.push("-H \"Authorization: Bearer $KEY\"".to_owned()),
                KeyPlace::Basic => arguments.push("-u \"any:$KEY\"".to_owned()),
                KeyPlace::Query(_) | KeyPlace::Path => {}
            }
        }
        lines.extend(signing.lines);
        if let Some(name) = self.id_field() {
            lines.push("DELIVERY=test-$(date +%s)".to_owned());
            arguments.push(format!("-H \"{name}: $DELIVERY\""));
        }
        if has_body(method) {
            arguments.push(format!("-H 'Content-Type: {}'", example.content_type));
            arguments.push(match self.caller.signature {
                Some(_) => "-d \"$BODY\"".to_owned(),
                None => format!("-d {}", quoted(&example.body)),
            });
        }
        let verb = match *method {
            Method::POST | Method::GET => String::new(),
            Method::HEAD => "-I ".to_owned(),
            ref other => format!("-X {other} "),
        };
        let url = self.quoted_url(url, signing.parameter);
        lines.push(
            format!("curl -i {verb}{url} {}", arguments.join(" "))
                .trim_end()
                .to_owned(),
        );
        let check = match self.route.checks {
            Checks::Answered => CHECK,
            Checks::Refused => "",
        };
        format!(
            "{HEADING}```sh\n{}\n```\n\nThe answer has `x-flowgate-answer: flow` where the flow has answered. The body is an example: the flow \
             may want another one.\n{check}",
            lines.join("\n")
        )
    }

    /// The address with a key that is a part of it, as it is written between double quotes of a shell.
    fn url(&self) -> String {
        let whole = format!("{}{}", self.address.base, self.address.path);
        match self.caller.key {
            Some(KeyPlace::Query(name)) => format!("{}?{}=$KEY", unquoted(&filled(&whole)), unquoted(name)),
            Some(KeyPlace::Path) => {
                let parts = whole.split("{key}").map(|part| unquoted(&filled(part)));
                parts.collect::<Vec<_>>().join("$KEY")
            }
            _ => unquoted(&filled(&whole)),
        }
    }

    fn quoted_url(&self, url: String, signature: Option<String>) -> String {
        if let Some(parameter) = signature {
            let mark = if url.contains('?') { '&' } else { '?' };
            return format!("\"{url}{mark}{parameter}\"");
        }
        match self.caller.key {
            Some(place) if place.is_in_url() => format!("\"{url}\""),
            _ => quoted(&filled(&format!("{}{}", self.address.base, self.address.path))),
        }
    }

    /// What a shell does to sign; nothing where there is no signature.
    fn signed(&self, request: &Request<'_>) -> Option<Signing> {
        match self.caller.signature {
            Some(signature) => signing::script(&signature.recipe, request),
            None => Some(Signing::default()),
        }
    }
}
