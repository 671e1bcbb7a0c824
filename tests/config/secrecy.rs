//! Wherever a secret is pasted into settings or a list, no report repeats it or a part of it.

use std::fs;
use std::path::Path;

use flowgate::settings::{Environment, Secrets, Style, parse};
use proptest::prelude::ProptestConfig;
use proptest::prop_assert;

/// Parts of a secret with this length may not be shown either.
const PIECE: usize = 8;

/// Lines with `@` in the place of a secret. Most are not TOML, and some are valid settings.
const LINES: [&str; 71] = [
    "@",
    "@ = 1",
    "@ = \"x\"",
    "\"@\" = \"x\"",
    "a.@ = true",
    "[@]",
    "[[@]]",
    "[@",
    "[identity.@]",
    "[[caller.key]] @",
    "# @",
    "worker = 1 # @",
    "[[route] # @",
    "client_secret: @",
    "client_secret @",
    "client_secret = @",
    "client_secret = \"@",
    "client_secret = \"\"\"\n@\n\"\"\"",
    "client_secret = \"\"\"\n@",
    "client_secret = '@'\nclient_secret = '@'",
    "Client_Secret = \"@\"",
    "clientSecret = \"@\"",
    "\"client\\u005fsecret\" = \"@\"",
    "password \"@\"",
    "password = { value = \"@\" }",
    "pepper = [\"@\"]",
    "pepper = \"env:@\"",
    "pepper = \"env: @\"",
    "pepper = \"file:@\"",
    "pepper = \"keyvault:@\"",
    "pepper = \"keyvault:https://contoso.vault.azure.net/secrets/a/@\"",
    "pepper = \"keyvault:https://contoso.vault.azure.net/secrets/@\"",
    "pepper = \"hmac-sha256:@\"",
    "x-api-key: @",
    "export KEY=@",
    "curl -H 'x-api-key: @' https://hooks.example/orders",
    "Key for \"shop\", shown once:\n\n    @\n\n[[caller.key]]",
    "-----BEGIN PRIVATE KEY-----\n@\n-----END PRIVATE KEY-----",
    "trigger = \"https://a.example/x?code=@\"",
    "trigger = \"https://a.example/x?api-version=@\"",
    "trigger = \"https://a.example/x?sp=@&sv=@\"",
    "trigger = https://a.example/x?code=@",
    "trigger: \"https://a.example/x?code=@\"",
    "trigger = \"https://@.example/x\"",
    "trigger = \"https://a.example/@\"",
    "trigger = \"https://me:@@a.example/\"",
    "trigger = \"env:@\"",
    "trigger = \"file:@\"",
    "[[route]]\nname = \"@\"\nname = \"x\"",
    "[[route]]\nname = \"a @\"",
    "[[route]]\nname = \"@\"\n[[route]]\nname = \"@\"",
    "[[route]]\nhost = \"@:1\"",
    "[[route]]\npath = \"@\"",
    "[[route]]\npath = \"/{@}/{@}\"",
    "[[route]]\npath = \"/:@\"",
    "[[route]]\nmethods = [\"@\", \"@\", \"é@\"]",
    "[[route]]\nkey_from = [\"@-a\", \"header:@\", \"header:content-@\"]",
    "[[route]]\nquery = [\"@\", \"@\"]",
    "[[route]]\ncallers = [\"@\"]\nidentity = \"@\"",
    "[[route]]\nrate = { requests = 1, per = \"@\" }\nbody_size_max = \"@\"\nanonymous = \"@\"",
    "[[caller]]\nname = \"@\"\nkeys_file = \"@\"\nnetworks = [\"@\", \"10.0.0.1/@\"]\nnetworks_file = \"@\"",
    "[[caller]]\n[[caller.key]]\nlabel = \"@\"\ndigest = \"@\"\nexpires = \"@\"",
    "[[identity]]\nname = \"@\"\ntenant = \"@\"\nclient_id = \"@\"\nauthority = \"@\"\nscope = \"@\"",
    "[[identity]]\ntenant = \"organizations @\"\nclient_id = \"{@}\"\nauthority = \"https://@\"\nscope = \"api://@\"",
    "[[identity]]\ntoken_file = \"@\"\nca_file = \"@\"",
    "[[identity]]\n[[identity.certificate]]\nfile = \"@\"\nkey = \"@\"\npassword = \"@\"",
    "[[listener]]\naddress = \"@\"\nhealth_path = \"@\"\nhttp2 = \"@\"",
    "[[listener]]\naddress = \"@:80\"\n[[listener.certificate]]\nchain = \"@\"\nkey = \"@\"\nnames = [\"@\"]",
    "[log]\nlevel = @\nformat = \"@\"",
    "[log]\nlevel = \"@\"\nformat = \"@\"",
    "[connections]\nmax = @\nhead_timeout = \"@\"",
];

/// Lines of lists of keys and networks.
const LIST_LINES: [&str; 13] = [
    "@",
    "@ @",
    "erp @",
    "erp @ # @",
    "@ sha256:12",
    "erp sha256:@",
    "erp hmac-sha256:@ expires=@",
    "erp sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a expires=@",
    "erp sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a enabled=@ @",
    "erp: @",
    "10.0.0.1/8 # @",
    "10.0.0.0/8 @",
    "10.0.0.0/@",
];

fn shown(text: &str, origin: &Path, secrets: Secrets) -> String {
    let environment = Environment::from_pairs([("", ""); 0]).with(secrets);
    match parse(text, origin, &environment) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(report) => {
            let texts = report.mistakes().iter().map(|mistake| {
                let hint = mistake.hint().unwrap_or_default();
                format!("{}\n{hint}\n", mistake.what())
            });
            let texts: String = texts.collect();
            format!("{texts}{}{report:?}", report.render(Style::Plain))
        }
    }
}

/// The first part of the secret that appears in the text.
fn piece_in<'a>(secret: &'a str, shown: &str) -> Option<&'a str> {
    let mut pieces = (0..=secret.len() - PIECE).map(|at| &secret[at..at + PIECE]);
    pieces.find(|piece| shown.to_lowercase().contains(&piece.to_lowercase()))
}

/// Random letters and digits with the other characters of keys, and never the words of a sentence.
const SECRET: &str =
    "[A-Z][a-z][0-9][A-Za-z0-9]{3}[A-Za-z0-9+/_~-]{2,30}[0-9][a-z][A-Z][0-9][a-z]{2}[0-9]={0,2}";

proptest::proptest! {
    // A case that fails is printed whole, so no file with failures is needed.
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_secret_anywhere_in_settings_is_in_no_report(secret in SECRET) {
        let minimal = include_str!("../../config/minimal.toml");
        for line in LINES {
            let line = line.replace('@', &secret);
            for (text, secrets) in [
                (format!("{line}\n"), Secrets::Resolved),
                (format!("{minimal}\n{line}\n"), Secrets::Unresolved),
                (format!("{minimal}\nmethods = [\n{line}\n[log]\nlevel = 1\n"), Secrets::Resolved),
            ] {
                let shown = shown(&text, Path::new("no-such-folder/flowgate.toml"), secrets);
                let piece = piece_in(&secret, &shown);
                prop_assert!(piece.is_none(), "{piece:?} of {line} in\n{shown}");
            }
        }
    }

    #[test]
    fn a_secret_anywhere_in_a_list_is_in_no_report(secret in SECRET, hex in "[0-9a-f]{8}[a-f][0-9][a-f0-9]{22}") {
        let folder = tempfile::tempdir().unwrap();
        for secret in [secret, hex] {
            let text = LIST_LINES.map(|line| line.replace('@', &secret)).join("\n");
            fs::write(folder.path().join("list.txt"), text).unwrap();
            for key in ["keys_file", "networks_file"] {
                let text = format!("[[caller]]\nname = \"shop\"\n{key} = \"list.txt\"\n");
                let shown = shown(&text, &folder.path().join("flowgate.toml"), Secrets::Resolved);
                prop_assert!(shown.contains("list.txt:"), "{shown}");
                let piece = piece_in(&secret, &shown);
                prop_assert!(piece.is_none(), "{piece:?} in\n{shown}");
            }
        }
    }
}

#[test]
fn what_cannot_be_a_secret_is_shown_where_the_file_is_no_toml() {
    let text = "[connections]\nmax = 100 head_timeout = \"10s\" level = \"info\" 10.0.0.0/8 true 2027-01-31 hunter2\n";
    let shown = shown(text, Path::new("flowgate.toml"), Secrets::Resolved);
    let line = "max = 100 head_timeout = \"10s\" level = \"info\" 10.0.0.0/8 true 2027-01-31 *******";
    assert!(shown.contains(line), "{shown}");
}
