//! The pages of vendors: every block of settings is accepted as it is pasted, without any secret, and every vendor that the
//! overview promises has one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use flowgate::settings::{Environment, Secrets, Style, parse};

use super::{blocks, document, root};

/// What a reader has already when a vendor is added.
const AROUND: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[[listener.certificate]]
chain = "chain.pem"
key = "file:key.pem"
[[identity]]
name = "contoso"
tenant = "11111111-2222-4333-8444-555555555555"
client_id = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
client_secret = "env:CONTOSO_SECRET"
"#;

const TRIGGER: &str = "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/\
                       manual/paths/invoke?api-version=2016-06-01";

/// Presets that must be on a page, under the names of the settings.
const PROMISED: [&str; 35] = [
    "asana",
    "sns",
    "paypal",
    "github",
    "gitlab",
    "gitlab-token",
    "stripe",
    "shopify",
    "slack",
    "twilio",
    "sendgrid",
    "standard-webhooks",
    "clerk",
    "openai",
    "zoom",
    "hubspot",
    "atlassian",
    "docusign",
    "azure-devops",
    "teams",
    "meta",
    "square",
    "intercom",
    "pagerduty",
    "linear",
    "zendesk",
    "calendly",
    "mailgun",
    "adyen",
    "xero",
    "woocommerce",
    "dataverse",
    "business-central",
    "svix",
    "resend",
];

fn pages() -> Vec<String> {
    let folder = root().join("docs/vendors");
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| format!("docs/vendors/{name}")).collect()
}

/// The report about a block with a route for its caller, if it has mistakes.
fn report(block: &str, route: &str) -> Option<String> {
    let (_, rest) = block.split_once("name = \"").unwrap();
    let (caller, _) = rest.split_once('"').unwrap();
    let text = format!(
        "{AROUND}[[route]]\nname = \"hooks\"\npath = \"/hooks\"\ncallers = [\"{caller}\"]\nidentity = \"contoso\"\n\
         trigger = \"{TRIGGER}\"\n{route}{block}"
    );
    let nothing = Environment::from_pairs([("", ""); 0]).with(Secrets::Unresolved);
    let parsed = parse(&text, Path::new("flowgate.toml"), &nothing);
    parsed.err().map(|report| report.render(Style::Plain))
}

#[test]
fn the_settings_of_every_vendor_are_accepted_as_they_are_pasted() {
    let mut checked = 0;
    for page in pages() {
        for section in document(&page).split("\n## ").skip(1) {
            let title = section.lines().next().unwrap();
            let found: Vec<_> = blocks(section)
                .into_iter()
                .filter(|block| block.mark == "toml")
                .collect();
            assert!(!found.is_empty(), "{page}: {title} has no settings");
            // A reader sets it only where the section says so.
            let route = match section.contains("`public_url = ") {
                true => "public_url = \"https://hooks.example.com\"\n",
                false => "",
            };
            for block in found {
                assert_eq!(report(&block.text, route), None, "{page}: {title}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 28, "{checked}");
}

#[test]
fn every_promised_vendor_has_a_page() {
    let text: String = pages().iter().map(|page| document(page)).collect();
    let missing: BTreeSet<_> = PROMISED
        .into_iter()
        .filter(|preset| {
            !text.contains(&format!("preset = \"{preset}\"")) && !text.contains(&format!("`{preset}`"))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_vendor_that_signs_the_address_needs_the_line_that_its_page_names() {
    let twilio =
        "[[caller]]\nname = \"twilio\"\n[caller.signature]\npreset = \"twilio\"\nsecret = \"env:TOKEN\"\n";
    assert!(report(twilio, "").unwrap().contains("set public_url"));
    assert_eq!(
        report(twilio, "public_url = \"https://hooks.example.com\"\n"),
        None
    );
}
