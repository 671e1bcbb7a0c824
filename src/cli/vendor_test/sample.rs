//! The delivery that is sent: a request of the route, with the credentials of its caller.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::cli::vendor_pack::{BODY, Sender, filled, has_body};
use crate::cli::vendor_test::client::Destination;
use crate::model::{RequestId, Secret, clock};
use crate::policy::signature::{Sample, Signer, Unsignable};
use crate::settings::{KeyPlace, RouteSettings};

pub(super) struct Delivery<'t> {
    pub(super) route: &'t RouteSettings,
    pub(super) sender: &'t Sender<'t>,
    pub(super) key: Option<&'t Secret>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) content_type: HeaderValue,
    pub(super) path: Option<&'t str>,
}

impl Delivery<'_> {
    /// The request, and in words how it is signed.
    pub(super) fn request(self, to: &Destination) -> Result<(Request<Full<Bytes>>, String), String> {
        let Self { route, sender, .. } = self;
        let methods = &route.methods;
        let method = methods.iter().find(|method| has_body(method)).or(methods.first());
        let method = method.cloned().unwrap_or(Method::POST);
        let mut headers = HeaderMap::new();
        let body = match (self.body, has_body(&method)) {
            (Some(body), _) => body,
            (None, true) => BODY.as_bytes().to_vec(),
            (None, false) => Vec::new(),
        };
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, self.content_type);
        }
        let (mut path, mut described) = (
            self.path.map_or_else(|| route.path.to_string(), str::to_owned),
            Vec::new(),
        );
        if let Some((place, key)) = sender.key.zip(self.key) {
            put_key(place, key.expose(), &mut path, &mut headers)?;
            described.push("with the key".to_owned());
        }
        if self.path.is_none() {
            path = filled(&path);
        }
        let mut sample = Sample {
            method,
            url: to.url_of(&path),
            headers,
            body,
            id: RequestId::new().to_string(),
        };
        if let Some((name, signature)) = sender.name.zip(sender.signature) {
            let signer = Signer::build(name, signature).map_err(|error| error.to_string())?;
            let signed = signer.scheme().sign_sample(&mut sample, clock::wall());
            signed.map_err(|why| unsignable(name.as_str(), why))?;
            described.push(format!("signed as {name} signs"));
        }
        if described.is_empty() {
            described.push("without a credential".to_owned());
        }
        let target = to.target_of(&sample.url);
        let mut request = Request::builder()
            .method(sample.method)
            .uri(target)
            .body(Full::from(sample.body))
            .map_err(|error| format!("the path is none of a request: {error}"))?;
        *request.headers_mut() = sample.headers;
        let host =
            HeaderValue::try_from(to.host()).map_err(|_| "the host is none of a request".to_owned())?;
        request.headers_mut().insert(header::HOST, host);
        let agent = HeaderValue::from_static("flowgate-vendor-test");
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        Ok((request, described.join(" and ")))
    }
}

/// What is done in place of a signature that cannot be made here.
fn unsignable(caller: &str, why: Unsignable) -> String {
    let instead = match why {
        Unsignable::VendorKey | Unsignable::Certificate => {
            "have the vendor send a test from its own page and read its line in the access log, or test the route with a \
             caller that has a key"
        }
        Unsignable::NoSecret => "give the caller a secret that is valid now",
        Unsignable::Body => "give a JSON object with --body",
        Unsignable::CoversItself => {
            "have the vendor send a test from its own page and read its line in the access log"
        }
    };
    format!("requests of caller \"{caller}\" cannot be signed here: {why}; {instead}")
}

/// Puts a key where the route reads it.
fn put_key(place: &KeyPlace, key: &str, path: &mut String, headers: &mut HeaderMap) -> Result<(), String> {
    let escaped = utf8_percent_encode(key, NON_ALPHANUMERIC);
    let mut add = |name: HeaderName, value: String| {
        let mut value = HeaderValue::try_from(value).map_err(|_| "the key is no value of a header field")?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    match place {
        KeyPlace::Header(name) => add(name.clone(), key.to_owned()),
        KeyPlace::Authorization => add(header::AUTHORIZATION, format!("Bearer {key}")),
        KeyPlace::Basic => {
            let value = STANDARD.encode(format!("any:{key}"));
            add(header::AUTHORIZATION, format!("Basic {value}"))
        }
        KeyPlace::Query(name) => {
            let joiner = if path.contains('?') { '&' } else { '?' };
            let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
            path.push_str(&format!("{joiner}{name}={escaped}"));
            Ok(())
        }
        KeyPlace::Path => {
            *path = path.replace("{key}", &escaped.to_string());
            Ok(())
        }
    }
}
