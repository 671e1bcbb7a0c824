//! Independent implementations agree with ours: a server with Authlib gives us tokens, and MSAL for Python
//! gets one from the emulator with an assertion of the same form as ours. `.ci/run` runs these; elsewhere
//! they need `pip install --target target/interop authlib flask msal`, and then `PYTHONPATH=target/interop
//! cargo test --test interop -- --ignored`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "../emulator/mod.rs"]
mod emulator;
mod webhooks;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flowgate::counters::Counters;
use flowgate::entra::Identity;
use flowgate::settings;
use flowgate::settings::Environment;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::emulator::{Emulator, KeyKind, Leaf};

const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const CLIENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OID: &str = "99999999-8888-4777-8666-555555555555";
const SECRET: &str = "canary-client-secret~1";
const SCOPE: &str = "https://service.flow.microsoft.com//.default";

/// A program in Python; it is stopped with the test.
struct Python {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Python {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/interop")
            .join(script);
        let mut child = Command::new("python3")
            .arg(path)
            .args(arguments)
            .env("AUTHLIB_INSECURE_TRANSPORT", "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be started");
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(
            !line.is_empty(),
            "it ended; are its libraries there? pip install --target target/interop authlib flask msal, and set PYTHONPATH"
        );
        line.trim().to_owned()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have exited by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The token that an identity with these lines gets.
async fn token(folder: &Path, authority: &str, more: &str) -> String {
    let text = format!(
        "[[identity]]\nname = \"contoso\"\ntenant = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\nauthority = \"{authority}\"\n{more}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\nplain_http_from = [\"127.0.0.0/8\"]\n\
         [[route]]\nname = \"orders\"\npath = \"/orders\"\nanonymous = true\nidentity = \"contoso\"\n\
         trigger = \"https://flow.example/orders/invoke\"\n"
    );
    let environment = Environment::from_pairs([("SECRET", SECRET)]);
    let (config, _) = settings::parse(&text, &folder.join("flowgate.toml"), &environment)
        .unwrap_or_else(|report| panic!("{report}"));
    let identities = &config.identities;
    let identity = Identity::alone(
        &identities[0],
        identities,
        None,
        &Handle::current(),
        &Counters::new(),
    )
    .unwrap();
    let token = identity
        .token()
        .await
        .unwrap_or_else(|why| panic!("{}", why.error));
    token.text().expose().to_owned()
}

fn signing(emulator: &Emulator) -> Leaf {
    emulator.ca.client_leaf_with("flowgate.example", KeyKind::Rsa2048)
}

/// Names and values of the header and the claims of an assertion, without those that differ each time.
fn shape(assertion: &str) -> (Value, BTreeSet<String>) {
    let part = |index: usize| -> Value {
        let text = assertion.split('.').nth(index).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let claims = part(1);
    let mut members: BTreeSet<String> = claims.as_object().unwrap().keys().cloned().collect();
    for name in ["aud", "iss", "sub"] {
        members.insert(format!("{name} = {}", claims[name]));
    }
    let mut header = part(0);
    // MSAL pads it.
    let thumbprint = header["x5t#S256"]
        .as_str()
        .unwrap()
        .trim_end_matches('=')
        .to_owned();
    header["x5t#S256"] = thumbprint.into();
    // MSAL keeps the line ends of PEM in it, which RFC 7515 section 4.1.6 does not allow.
    let leaf = header["x5c"][0].as_str().unwrap().replace('\n', "");
    header["x5c"][0] = leaf.into();
    (header, members)
}

#[tokio::test]
#[ignore = "needs Python with libraries; .ci/run has them. By hand: pip install --target target/interop authlib flask msal && PYTHONPATH=target/interop cargo test --test interop -- --ignored --skip libraries"]
async fn an_independent_server_gives_us_tokens_for_a_secret_and_for_assertions() {
    let emulator = Emulator::start().await;
    let leaf = signing(&emulator);
    let folder = emulator.dir();
    std::fs::write(folder.join("public.pem"), &leaf.chain_pem).unwrap();
    std::fs::write(
        folder.join("signing.pem"),
        format!("{}{}", leaf.chain_pem, leaf.key_pem),
    )
    .unwrap();
    let public = folder.join("public.pem").display().to_string();
    let mut server = Python::start("server.py", &[TENANT, CLIENT, SECRET, &public, SCOPE]);
    let authority = format!("http://127.0.0.1:{}", server.line());
    let signing = |algorithm: &str| {
        format!("[[identity.certificate]]\nfile = \"file:signing.pem\"\nalgorithm = \"{algorithm}\"")
    };
    for proof in [
        "client_secret = \"env:SECRET\"".to_owned(),
        signing("PS256"),
        signing("RS256"),
    ] {
        let ours = token(folder, &authority, &proof).await;
        assert_eq!(ours, server.line(), "{proof}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python with libraries; .ci/run has them. By hand: pip install --target target/interop authlib flask msal && PYTHONPATH=target/interop cargo test --test interop -- --ignored --skip libraries"]
async fn an_assertion_of_msal_has_the_same_documented_fields_as_ours() {
    let emulator = Emulator::start().await;
    let leaf = signing(&emulator);
    emulator.entra.register_certificate(TENANT, CLIENT, &leaf, OID);
    let folder = emulator.dir().to_owned();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let certificate = file("certificate.pem", &leaf.chain_pem);
    let key = file("key.pem", &leaf.key_pem);
    file("signing.pem", &format!("{}{}", leaf.chain_pem, leaf.key_pem));
    let authority = emulator.entra.authority();
    let ca = emulator.ca_file().display().to_string();
    let tenant = format!("{authority}/{TENANT}");
    let mut client = Python::start("client.py", &[&tenant, CLIENT, SCOPE, &certificate, &key, &ca]);
    let theirs = tokio::task::spawn_blocking(move || client.line()).await.unwrap();
    let more =
        format!("ca_file = {ca:?}\n[[identity.certificate]]\nfile = \"file:signing.pem\"\nsend_chain = true");
    let ours = token(&folder, &authority, &more).await;
    assert_eq!(emulator.entra.issued(), [theirs, ours]);
    let assertions: Vec<_> = emulator
        .entra
        .requests()
        .iter()
        .map(|request| shape(request.field("client_assertion").unwrap()))
        .collect();
    assert_eq!(assertions[0].0, assertions[1].0, "the headers");
    let more: Vec<_> = assertions[1].1.symmetric_difference(&assertions[0].1).collect();
    assert!(
        more.iter().all(|name| *name == "nbf" || *name == "iat"),
        "{more:?}"
    );
}
