//! Promises about the settings: the samples of `config/` work, the reference contains every key, a report
//! shows every mistake with line and caret, and no report shows a secret.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "a test fails by panicking, some measure time, and a whole report is long"
)]

#[path = "config/secrecy.rs"]
mod secrecy;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowgate::settings::{Environment, Secrets, Severity, Style, load, parse, schema};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

const SAMPLES: [&str; 5] = [
    "flowgate.toml",
    "minimal.toml",
    "webhook-vendor.toml",
    "on-prem.toml",
    "behind-balancer.toml",
];

const SIGNED: &str = "https://prod-00.westeurope.logic.azure.com/workflows/00000000000000000000000000000000/triggers/manual/paths/invoke?api-version=2016-10-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary-signature";

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// Certificates that openssl created.
fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates")
}

/// A folder with the samples and all files that they name.
fn installation() -> (tempfile::TempDir, Environment) {
    let root = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = root.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (config, certs, secrets) = (folder("config"), folder("certs"), folder("secrets"));
    for name in SAMPLES {
        fs::copy(samples().join(name), config.join(name)).unwrap();
    }
    let now = SystemTime::now();
    let mut partners_key = String::new();
    for (file, name) in [
        ("hooks", "hooks.example.com"),
        ("partners", "partners.example.com"),
        ("site", "localhost"),
        ("gateway", "gateway.example"),
        ("inspection-ca", "inspection.example"),
    ] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = now.into();
        params.not_after = (now + Duration::from_secs(90 * 86_400)).into();
        if file == "inspection-ca" {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        fs::write(
            certs.join(format!("{file}.pem")),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        write_secret(&certs.join(format!("{file}.key")), &key.serialize_pem());
        if file == "partners" {
            partners_key = key.serialize_pem();
        }
    }
    let signing = fs::read_to_string(certificates().join("client.key")).unwrap();
    let signed = fs::read_to_string(certificates().join("client.pem")).unwrap();
    let pfx = fs::read(certificates().join("client.pfx")).unwrap();
    write_secret(
        &secrets.join("contoso-invoices.pem"),
        &format!("{signed}{signing}"),
    );
    write_secret(&secrets.join("contoso-pfx-password"), "canary-password\n");
    write_secret(&certs.join("shop.pfx"), "");
    fs::write(
        certs.join("shop.pfx"),
        fs::read(certificates().join("site.pfx")).unwrap(),
    )
    .unwrap();
    fs::write(certs.join("contoso-invoices-2.pem"), signed).unwrap();
    for name in [
        "flow-token",
        "federated-token",
        "pepper",
        "client-secret",
        "signed-in",
    ] {
        write_secret(&secrets.join(name), "canary-of-more-than-16-bytes\n");
    }
    fs::write(
        config.join("erp-networks.txt"),
        "# plant\n192.0.2.0/25\n2001:db8:2::/48 # office\n",
    )
    .unwrap();
    fs::write(config.join("blocked-networks.txt"), "198.51.100.7\n").unwrap();
    fs::write(
        config.join("invoice.schema.json"),
        "{\"required\": [\"number\"]}\n",
    )
    .unwrap();
    fs::write(config.join("vendor-networks.txt"), "203.0.113.0/24\n").unwrap();
    let keys = format!(
        "first sha256:{}\nold sha256:{} enabled=false\n",
        "3".repeat(64),
        "4".repeat(64)
    );
    fs::write(config.join("partner-keys.txt"), &keys).unwrap();
    fs::write(config.join("warehouse-keys.txt"), &keys).unwrap();
    let environment = Environment::from_pairs([
        ("FLOWGATE_CLIENT_SECRET", "canary-secret"),
        ("FLOWGATE_CONTOSO_SECRET", "canary-secret"),
        ("FLOWGATE_CONTOSO_SECRET_2", "canary-secret-2"),
        ("FLOWGATE_CONTOSO_KEY", signing.as_str()),
        ("FLOWGATE_CONTOSO_PFX", STANDARD.encode(pfx).as_str()),
        ("FLOWGATE_GITHUB_SECRET", "canary-webhook"),
        (
            "FLOWGATE_SNS_TOPIC_ARN",
            "arn:aws:sns:eu-central-1:123456789012:orders",
        ),
        ("FLOWGATE_ACME_SECRET_2026", "canary-webhook-2026"),
        ("FLOWGATE_ACME_SECRET_2027", "canary-webhook-2027"),
        ("FLOWGATE_META_VERIFY_TOKEN", "canary-verify-token"),
        ("FLOWGATE_SEAL", "canary-seal-of-more-than-16-bytes"),
        ("FLOWGATE_FLOWS_PASSWORD", "canary-password"),
        ("FLOWGATE_PEPPER", "canary-pepper-of-more-than-16-bytes"),
        (
            "FLOWGATE_RUN_ADDRESSES",
            "canary-run-addresses-of-more-than-16-bytes",
        ),
        ("FLOWGATE_PARTNERS_KEY", partners_key.as_str()),
        ("FLOWGATE_SHOP_PASSWORD", "canary-password"),
        ("FLOWGATE_NEWSLETTER_TRIGGER", SIGNED),
        ("FLOWGATE_ALARM_TRIGGER", SIGNED),
    ]);
    (root, environment)
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn no_variables() -> Environment {
    Environment::from_pairs([("", ""); 0])
}

/// The report about a text that needs no other files.
#[track_caller]
fn report(text: &str) -> String {
    match parse(text, Path::new("flowgate.toml"), &no_variables()) {
        Ok(_) => panic!("there is no mistake in {text}"),
        Err(report) => report.render(Style::Plain),
    }
}

/// The warning that applies to all settings, because the address of a caller behind a load balancer is
/// unknown.
const UNLIMITED_BEHIND_A_BALANCER: &str =
    "wrong keys are not limited on this listener: all callers have the address of the balancer";

#[test]
fn every_sample_works_with_the_warnings_it_must_have_alone() {
    let (root, environment) = installation();
    for name in SAMPLES {
        match load(&root.path().join("config").join(name), &environment) {
            Ok((config, warnings)) => {
                // The ids in samples are meant to be replaced.
                let shown = warnings.iter().map(|warning| warning.what());
                let shown: Vec<_> = shown.filter(|what| !what.ends_with("is a placeholder")).collect();
                let expected: &[&str] = match name {
                    "behind-balancer.toml" => &[UNLIMITED_BEHIND_A_BALANCER],
                    _ => &[],
                };
                assert_eq!(shown, expected, "{name}");
                assert!(
                    !format!("{config:?}").contains("canary"),
                    "{name} prints a secret"
                );
            }
            Err(report) => panic!("{report}"),
        }
    }
}

#[test]
fn every_sample_can_be_checked_without_its_secrets() {
    for name in SAMPLES {
        let checked = load(&samples().join(name), &no_variables().with(Secrets::Unresolved));
        let (_, warnings) = checked.unwrap_or_else(|report| panic!("{report}"));
        for warning in warnings {
            let is_expected = warning
                .what()
                .ends_with("is not on this machine and was not checked")
                || warning.what().ends_with("is a placeholder")
                || (name == "behind-balancer.toml" && warning.what() == UNLIMITED_BEHIND_A_BALANCER);
            assert!(is_expected, "{warning}");
        }
    }
}

#[test]
fn samples_are_known_to_this_test() {
    let found: BTreeSet<_> = fs::read_dir(samples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, SAMPLES.iter().map(|name| (*name).to_owned()).collect());
}

/// Every key of a schema, as `table.key`.
fn keys_of_schema(
    node: &serde_json::Value,
    root: &serde_json::Value,
    path: &str,
    keys: &mut BTreeSet<String>,
) {
    if let Some(reference) = node["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return keys_of_schema(target, root, path, keys);
    }
    for branch in node["anyOf"].as_array().into_iter().flatten() {
        keys_of_schema(branch, root, path, keys);
    }
    if !node["items"].is_null() {
        keys_of_schema(&node["items"], root, path, keys);
    }
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(property["description"].is_string(), "{path} has no description");
        keys_of_schema(property, root, &path, keys);
        keys.insert(path);
    }
}

fn keys_of_file(value: &toml::Value, path: &str, keys: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let path = format!("{path}.{name}");
                keys_of_file(value, &path, keys);
                keys.insert(path);
            }
        }
        toml::Value::Array(list) => list.iter().for_each(|value| keys_of_file(value, path, keys)),
        _ => {}
    }
}

#[test]
fn the_reference_leaves_no_key_out() {
    let schema = schema();
    let mut known = BTreeSet::new();
    keys_of_schema(&schema, &schema, "", &mut known);
    assert!(
        known.contains(".listener.certificate.chain") && known.contains(".route.rate.burst"),
        "{known:?}"
    );
    let text = fs::read_to_string(samples().join("flowgate.toml")).unwrap();
    let mut shown = BTreeSet::new();
    keys_of_file(&toml::Value::Table(text.parse().unwrap()), "", &mut shown);
    assert_eq!(shown, known);
}

/// Holds the values of the reference against the defaults of the rows; a value that is an example has a comment that says
/// what the default is.
fn compare_defaults(schema: &serde_json::Value, shown: &serde_json::Value, path: &str, text: &str) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let (path, shown) = (format!("{path}.{key}"), &shown[key]);
        if let Some(list) = shown
            .as_array()
            .filter(|list| list.iter().any(serde_json::Value::is_object))
        {
            for table in list {
                compare_defaults(&property["items"], table, &path, text);
            }
        } else if let Some(default) = property.get("default").filter(|_| !shown.is_null()) {
            let line = format!("{key} = ");
            let lines: Vec<_> = text.lines().collect();
            let explained = lines
                .iter()
                .enumerate()
                .filter(|(_, found)| found.starts_with(&line));
            let mut explained = explained.map(|(number, _)| {
                let comment = lines[..number]
                    .iter()
                    .rev()
                    .take_while(|above| above.starts_with('#'));
                comment.fold(String::new(), |all, above| format!("{above} {all}"))
            });
            let is_explained = explained.any(|comment| comment.to_lowercase().contains("default"));
            assert!(
                shown == default || is_explained,
                "{path} is {shown}, its default is {default}"
            );
        } else if shown.is_object() {
            compare_defaults(property, shown, &path, text);
        }
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let text = fs::read_to_string(samples().join("flowgate.toml")).unwrap();
    let shown: toml::Table = text.parse().unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    compare_defaults(&schema(), &shown, "", &text);
    let connections = &schema()["properties"]["connections"]["properties"];
    assert_eq!(connections["max"]["default"], 10_000);
    assert_eq!(connections["max"]["maximum"], 10_000_000);
    assert_eq!(connections["max"]["x-change"], "restart");
    assert_eq!(connections["head_size_max"]["default"], "32 KiB");
}

#[test]
fn one_run_shows_every_mistake_with_line_and_caret() {
    let text = r#"
[gateway]
worker = 2
drain_timeout = 30

[[listener]]
adress = "0.0.0.0:8443"
http2 = "yes"
plain_http = "private-networks"
plain_http_from = ["10.0.0.1/8"]

[[caller]]
name = "shop"
networks = ["10.0.0.0/8"]

[[route]]
name = "orders"
path = "orders"
callers = ["shpo"]
identity = "contoso"
"#;
    assert_eq!(
        report(text),
        r#"error: unknown key `worker`
 --> flowgate.toml:3:1
  |
3 | worker = 2
  | ^^^^^^
  |
  = help: did you mean `workers`?

error: expected a duration such as "30s" or "1h30m", found a whole number
 --> flowgate.toml:4:17
  |
4 | drain_timeout = 30
  |                 ^^
  |
  = help: a duration has a unit and is written in quotes, for example "10s"

error: unknown key `adress`
 --> flowgate.toml:7:1
  |
7 | adress = "************"
  | ^^^^^^
  |
  = help: did you mean `address`?

error: expected true or false, found a string
 --> flowgate.toml:8:9
  |
8 | http2 = "yes"
  |         ^^^^^
  |
  = help: write it without quotes

error: the network has bits set beyond its prefix length
  --> flowgate.toml:10:20
   |
10 | plain_http_from = ["10.0.0.1/8"]
   |                    ^^^^^^^^^^^^
   |
   = help: write 10.0.0.0/8, or 10.0.0.1 for the one address

error: `trigger` is missing
  --> flowgate.toml:16:1
   |
16 | [[route]]
   | ^^^^^^^^^
   |
   = help: copy the address from the trigger of the flow

error: a path starts with a slash
  --> flowgate.toml:18:8
   |
18 | path = "orders"
   |        ^^^^^^^^
   |
   = help: write "/orders"

error: there is no caller "shpo"
  --> flowgate.toml:19:12
   |
19 | callers = ["shpo"]
   |            ^^^^^^
   |
   = help: did you mean "shop"?

error: there is no identity "contoso"
  --> flowgate.toml:20:12
   |
20 | identity = "contoso"
   |            ^^^^^^^^^
   |
   = help: add [[identity]] with name = "contoso"

9 mistakes
"#
    );
}

#[test]
fn a_clash_shows_both_places() {
    let text = r#"
[[listener]]
address = "0.0.0.0:8443"
plain_http = "private-networks"
plain_http_from = ["10.0.0.0/8"]

[[caller]]
name = "shop"
networks = ["10.0.0.0/8"]
[[caller.key]]
label = "a"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

[[caller]]
name = "shop"
[[caller.key]]
label = "a"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

[[route]]
name = "orders"
path = "/orders/{id}"
callers = ["shop"]
signed = true
trigger = "https://t.example/?sp=1&sig=canary"

[[route]]
name = "orders2"
path = "/orders/{number}"
anonymous = true
callers = ["shop"]
signed = true
trigger = "env:SIGNED"
"#;
    let environment = Environment::from_pairs([("SIGNED", SIGNED)]);
    let report = parse(text, Path::new("flowgate.toml"), &environment).unwrap_err();
    assert_eq!(
        report.render(Style::Plain),
        r#"error: the caller "shop" is there twice
  --> flowgate.toml:15:8
   |
15 | name = "shop"
   |        ^^^^^^
   |
  ::: flowgate.toml:8:8
   |
 8 | name = "shop"
   |        ------ first here

error: the same key is given twice
  --> flowgate.toml:18:10
   |
18 | digest = "sha256:****************************************************************"
   |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
  ::: flowgate.toml:12:10
   |
12 | digest = "sha256:****************************************************************"
   |          ------------------------------------------------------------------------- first here

error: a trigger address with a signature must not be written into the settings file
  --> flowgate.toml:25:11
   |
25 | trigger = "https://t.example/?sp=1&sig=******"
   |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: anyone who has the signature can start the flow; keep the address in an environment variable or a file, and write trigger = "env:NAME" or "file:PATH" here

error: the route clashes with the route "orders"
  --> flowgate.toml:29:8
   |
29 | path = "/orders/{number}"
   |        ^^^^^^^^^^^^^^^^^^
   |
  ::: flowgate.toml:22:8
   |
22 | path = "/orders/{id}"
   |        -------------- declared here
   |
   = help: /orders/{id} and this path match the same requests

error: a route either lists its callers or is open to everybody
  --> flowgate.toml:30:13
   |
30 | anonymous = true
   |             ^^^^
   |
  ::: flowgate.toml:31:11
   |
31 | callers = ["shop"]
   |           -------- callers are listed here

5 mistakes
"#
    );
}

#[test]
fn all_syntax_errors_come_in_one_report() {
    let text = "[gateway\nworkers = 2\n[log]\nlevel = info\n[admin]\naddress = \"127.0.0.1\n";
    assert_eq!(
        report(text),
        r#"error: this is not TOML: unclosed table, expected `]`
 --> flowgate.toml:1:9
  |
1 | [gateway
  |         ^

error: this is not TOML: invalid float, expected `inf`
 --> flowgate.toml:4:9
  |
4 | level = info
  |         ^^^^
  |
  = help: text is written in quotes

error: this is not TOML: invalid basic string, expected `"`
 --> flowgate.toml:6:21
  |
6 | address = "127.0.0.1
  |                     ^

3 mistakes
"#
    );
}

#[test]
fn a_key_given_twice_does_not_hide_other_mistakes() {
    let text = "[log]\nlevel = \"info\"\nlevel = \"warn\"\nformat = \"xml\"\n[[listener]]\n";
    assert_eq!(
        report(text),
        r#"error: `route` is missing
--> flowgate.toml
 = help: add [[route]] with a name, a path, callers and the address of a trigger

error: this key is given twice in the same table
 --> flowgate.toml:3:1
  |
3 | level = "warn"
  | ^^^^^

error: unknown value
 --> flowgate.toml:4:10
  |
4 | format = "xml"
  |          ^^^^^
  |
  = help: write "auto" or "json" or "text"

error: `address` is missing
 --> flowgate.toml:5:1
  |
5 | [[listener]]
  | ^^^^^^^^^^^^
  |
  = help: write for example address = "0.0.0.0:8443"

error: the listener has no certificate
 --> flowgate.toml:5:1
  |
5 | [[listener]]
  | ^^^^^^^^^^^^
  |
  = help: add [[listener.certificate]] with chain and key; where a load balancer before the gateway ends TLS, set plain_http = "behind-tls-balancer"

5 mistakes
"#
    );
}

#[test]
fn brackets_are_corrected() {
    let text = "log = 2027-01-31\nroute = 1\n[listener]\naddress = \"0.0.0.0:1\"\n[[gateway]]\nworkers = 1\n\
                [limits]\ngateway = [1, \"1s\"]\n";
    assert_eq!(
        report(text),
        r#"error: expected a table, found a date
 --> flowgate.toml:1:7
  |
1 | log = 2027-01-31
  |       ^^^^^^^^^^

error: expected a list of tables, found a whole number
 --> flowgate.toml:2:9
  |
2 | route = 1
  |         ^
  |
  = help: write [[route]], with double brackets

error: expected a list of tables, found a table
 --> flowgate.toml:3:1
  |
3 | [listener]
  | ^^^^^^^^^^
  |
  = help: write [[listener]], with double brackets

error: expected a table, found a list of tables
 --> flowgate.toml:5:1
  |
5 | [[gateway]]
  | ^^^^^^^^^^^
  |
  = help: write [gateway], with single brackets

error: expected a table, found a list
 --> flowgate.toml:8:11
  |
8 | gateway = [1, "1s"]
  |           ^^^^^^^^^

5 mistakes
"#
    );
}

#[test]
fn a_table_below_a_list_is_corrected_with_its_whole_name() {
    let shown = report("[[caller]]\nname = \"shop\"\n[caller.key]\nlabel = \"a\"\n");
    assert!(
        shown.contains("write [[caller.key]], with double brackets"),
        "{shown}"
    );
}

#[test]
fn a_text_that_is_a_list_or_a_table_is_corrected() {
    for (lines, key) in [
        ("trigger = [\"a\"]", "trigger"),
        ("[[route.trigger]]\naddress = \"a\"", "trigger"),
        ("[route.name]\nvalue = \"a\"", "name"),
    ] {
        let shown = report(&format!("[[route]]\n{lines}\n"));
        let hint = format!("write one text, {key} = \"...\"");
        assert!(shown.contains(&hint), "{shown}");
    }
}

#[test]
fn a_rate_without_a_window_is_corrected() {
    for line in ["rate = 10", "rate = \"10/s\""] {
        let shown = report(&format!("[[route]]\n{line}\n"));
        let hint = "write rate = { requests = 10, per = \"1s\" }";
        assert!(shown.contains(hint), "{shown}");
    }
}

#[test]
fn a_missing_bracket_is_one_mistake_in_its_line() {
    let text = fs::read_to_string(samples().join("flowgate.toml")).unwrap();
    let brackets = text.match_indices(['[', ']', '{', '}']);
    let mut tried = 0;
    for (at, bracket) in brackets {
        let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..].lines().next().unwrap();
        let is_code =
            !line[..at - start].contains('#') && line[..at - start].matches('"').count().is_multiple_of(2);
        if !is_code {
            continue;
        }
        let broken = format!("{}{}", &text[..at], &text[at + 1..]);
        let Err(report) = parse(&broken, &samples().join("flowgate.toml"), &no_variables()) else {
            panic!("without {bracket} the line is taken: {line}");
        };
        // `[x]` for `[[x]]` is valid TOML, and a value without its opening bracket is an error only in its
        // own line.
        let syntax: Vec<_> = report
            .mistakes()
            .iter()
            .filter(|mistake| mistake.what().starts_with("this is not TOML"))
            .collect();
        let number = text[..at].matches('\n').count() + 1;
        let lines: Vec<_> = syntax.iter().map(|mistake| mistake.line().unwrap()).collect();
        tried += 1;
        assert_eq!(lines, [number], "without {bracket}: {line}\n{report}");
    }
    assert!(tried > 50, "{tried}");
}

#[test]
fn no_report_shows_a_secret() {
    let lines = [
        "[keys]\npepper = \"canary-1\"",
        "[keys]\npeper = \"canary-2\"",
        "[keys]\npepper = canary-3",
        "[keys]\npepper = \"canary-4",
        "[keys]\npepper = 5\npepper = \"canary-5\"",
        "[[identity]]\nclient_secret = \"canary-6\"",
        "[[identity]]\nclient_secret = [\"canary-7\"]",
        "[[identity]]\nclient_secret = { value = \"canary-8\" }",
        "[[identity]]\n[[identity.secret]]\nvalue = \"canary-29\"",
        "[[identity]]\nsecret = \"canary-30\"",
        "[[identity]]\n[[identity.certificate]]\nfile = \"\"\"-----BEGIN PRIVATE KEY-----\ncanary-31\n\"\"\"",
        "[[identity]]\n[[identity.certificate]]\npassword = \"canary-32\"",
        "[[identity]]\n[[identity.certificate]]\nkey = \"canary-33\"",
        "[[identity]]\n[identity.certificate]\nfile = \"canary-34\"",
        "[[identity]]\nclientsecret = \"canary-9\"",
        "[[identity]]\nclient_id = \"canary-10\"",
        "[[identity]]\npassword = \"canary-11\"",
        "[[identity]]\nauthority = \"https://user:canary-12@login.example\"",
        "[[identity]]\nclient_secret = \"env:canary 13\"",
        "[[identity]]\nclient_secret = \"env:NOT_SET\" # canary-14",
        "[[caller]]\nkey = [{ label = \"a\", digest = \"canary-15\" }]",
        "[[caller.key]]\ndigest = \"sha256:canary-16\"",
        "[[caller]]\nkey = \"canary-17\"",
        "[[listener.certificate]]\nkey = \"\"\"-----BEGIN PRIVATE KEY-----\ncanary-18\n\"\"\"",
        "[[route]]\ntrigger = \"https://a.example/x?sig=canary-19\"",
        "[[route]]\ntrigger = \"http://a.example/x?sp=1&sig=canary-20&sv=1\"",
        "[[route]]\ntrigger = [\"https://a.example/x?sig=canary-21\"]",
        "[[route]]\ntriger = \"https://a.example/x?SIG=canary-22\"",
        "[[route]]\ntrigger = \"https://a.example/x%3Fsig%3Dcanary-23\"",
        "[[route]]\nhost = \"https://a.example/x?sig=canary-24\"",
        "[[route]]\npath = \"a?sig=canary-26\"",
        "[[route]]\npath = \"/:sig=canary-27\"",
        "[[route]]\nidentity = \"canary-28~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        "[[route]]\nenabled = true\nx-api-key = \"canary-25\"",
    ];
    for text in lines {
        let shown = report(text);
        assert!(!shown.contains("canary"), "{shown}");
        let all = lines.join("\n");
        assert!(!report(&all).contains("canary"));
    }
}

#[test]
fn a_secret_in_the_environment_is_never_shown() {
    let text = "[[identity]]\nname = \"a\"\nclient_secret = \"env:S\"\n[[route]]\nname = \"r\"\n\
        signed = true\n\
                trigger = \"env:T\"\n[[listener]]\n[[listener.certificate]]\nchain = \"x\"\n\
                    key = \"env:K\"\n";
    let environment = Environment::from_pairs([
        ("S", "canary-1"),
        ("T", "http://x/?sig=canary-2"),
        ("K", "canary-3"),
    ]);
    let report = parse(text, Path::new("flowgate.toml"), &environment).unwrap_err();
    assert!(!format!("{report} {report:?}").contains("canary"), "{report}");
}

#[test]
fn a_file_of_nothing_but_mistakes_gives_a_report_of_bounded_length() {
    let text: String = (0..1000)
        .map(|number| format!("[[caller]]\nname = \"a b {number}\"\n"))
        .collect();
    let shown = report(&text);
    assert!(
        shown.ends_with("100 mistakes; the rest is not shown\n"),
        "{shown}"
    );
}

#[test]
fn a_settings_file_that_is_not_there_is_a_mistake() {
    let report = load(Path::new("no/such.toml"), &no_variables()).unwrap_err();
    assert_eq!(
        report.render(Style::Plain),
        "error: file no/such.toml does not exist\n--> no/such.toml\n\n1 mistake\n"
    );
    assert_eq!(report.mistakes()[0].severity(), Severity::Mistake);
    assert_eq!(report.mistakes()[0].line(), None);
}

#[test]
fn colour_is_for_terminals_only() {
    let report = parse("x = 1", Path::new("flowgate.toml"), &no_variables()).unwrap_err();
    assert!(!report.render(Style::Plain).contains('\u{1b}'));
    assert!(report.render(Style::Color).contains('\u{1b}'));
}

#[test]
fn long_lists_load_in_no_time() {
    let (root, environment) = installation();
    let config = root.path().join("config");
    let keys: String = (0..100_000u32)
        .map(|number| format!("key-{number} sha256:{number:064x}\n"))
        .collect();
    fs::write(config.join("partner-keys.txt"), keys).unwrap();
    let networks: String = (0..100_000u32)
        .map(|number| format!("{}\n", std::net::Ipv4Addr::from(0x0a00_0000 + number)))
        .collect();
    fs::write(config.join("erp-networks.txt"), networks).unwrap();
    let started = Instant::now();
    let (config, _) =
        load(&config.join("flowgate.toml"), &environment).unwrap_or_else(|report| panic!("{report}"));
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        config
            .callers
            .iter()
            .map(|caller| caller.keys.len())
            .sum::<usize>(),
        100_002
    );
    assert!(
        config
            .routes
            .iter()
            .any(|route| route.networks.allow.len() > 100_000)
    );
}

#[test]
fn ten_thousand_routes_load_in_bounded_time() {
    let (root, environment) = installation();
    let path = root.path().join("config/minimal.toml");
    let text = fs::read_to_string(&path).unwrap();
    let mut text = text.replace("00000000-0000-0000-0000", "11111111-2222-4333-8444");
    let route = text[text.find("[[route]]").unwrap()..].to_owned();
    for number in 0..10_000 {
        text.push_str(
            &route
                .replace("\"orders\"", &format!("\"orders-{number}\""))
                .replace("\"/orders\"", &format!("\"/{number}/orders/{{id}}\"")),
        );
    }
    let started = Instant::now();
    let (config, _) = parse(&text, &path, &environment).unwrap_or_else(|report| panic!("{report}"));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(config.routes.len(), 10_001);
}

#[test]
fn a_large_file_full_of_mistakes_is_refused_in_bounded_time() {
    let callers: String = (0..5000)
        .map(|number| format!("[[caller]]\nname = \"caller-{number}\"\nnetworks = [\"10.0.0.0/8\"]\n"))
        .collect();
    let routes: String = (0..5000)
        .map(|number| {
            let wrong = if number % 100 == 0 { "methods = 1\n" } else { "" };
            format!("[[route]]\nname = \"r{number}\"\n{wrong}callers = [\"coller-{number}\"]\n")
        })
        .collect();
    let started = Instant::now();
    let shown = report(&format!("{callers}{routes}"));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    assert!(shown.ends_with("the rest is not shown\n"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn the_check_fails_only_with_a_report_whatever_the_text(
        start in 0usize..2000,
        length in 0usize..60,
        put in "[\\[\\]{}\"'=#.,a-z0-9ü \n\\\\]{0,12}",
    ) {
        let text = fs::read_to_string(samples().join("minimal.toml")).unwrap();
        let start = start.min(text.len());
        let end = (start + length).min(text.len());
        let Some((before, after)) = text.get(..start).zip(text.get(end..)) else { return Ok(()) };
        let text = format!("{before}{put}{after}");
        let environment = no_variables().with(Secrets::Unresolved);
        if let Err(report) = parse(&text, &samples().join("minimal.toml"), &environment) {
            proptest::prop_assert!(!report.mistakes().is_empty());
            proptest::prop_assert!(report.to_string().contains("mistake"));
        }
    }
}

#[test]
fn the_digest_of_settings_covers_every_file_they_name_and_no_secret() {
    let (root, environment) = installation();
    let path = root.path().join("config/flowgate.toml");
    let digest = || {
        let loaded = load(&path, &environment);
        let (config, _) = loaded.unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
        config.digest.to_string()
    };
    let first = digest();
    assert_eq!(digest(), first, "the same files, the same digest");
    for name in ["pepper", "flow-token", "signed-in"] {
        write_secret(
            &root.path().join("secrets").join(name),
            "canary-of-another-32-characters",
        );
    }
    assert_eq!(digest(), first, "no secret is part of it");
    let named = fs::read_to_string(&path).unwrap();
    let mut seen = vec![first];
    for (file, more) in [
        ("erp-networks.txt", "192.0.2.128/25\n"),
        ("partner-keys.txt", &format!("third sha256:{}\n", "5".repeat(64))),
    ] {
        assert!(named.contains(file), "{file}");
        let file = root.path().join("config").join(file);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text + more).unwrap();
        let changed = digest();
        assert!(!seen.contains(&changed), "{}", file.display());
        seen.push(changed);
    }
    let authority = root.path().join("certs/inspection-ca.pem");
    assert!(named.contains("inspection-ca.pem"));
    fs::copy(certificates().join("client.pem"), authority).unwrap();
    assert!(!seen.contains(&digest()), "trusted authorities count");
}
