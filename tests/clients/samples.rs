//! The samples of docs/samples do what they promise: they show the flow's answer, repeat a request only where no run has
//! started, and report anything else. What cannot run here is parsed.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::emulator::{Answer, ErrorBody, Trigger};
use crate::harness::{KEY, TENANT, World, caller};

const ORDER: &str = "{\"order\": 17}";
/// The key of another caller than `shop`.
const OTHER_KEY: &str = "canary-key-of-another-0123456789";

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("docs/samples")
        .join(name)
}

/// Runs a sample against a flow that answers in this way, and says how many runs it started.
async fn order(program: &[&str], file: &str, key: &str, answers: &[Answer]) -> (Output, usize) {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    for answer in answers {
        trigger.next(answer.clone());
    }
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(sample(file))
        .arg(ORDER)
        .env(
            "FLOWGATE_URL",
            format!("https://localhost:{}/orders", gateway.address.port()),
        )
        .env("FLOWGATE_KEY", key)
        // The one that curl reads, and the one that OpenSSL reads for the others.
        .env("CURL_CA_BUNDLE", world.emulator.ca_file())
        .env("SSL_CERT_FILE", world.emulator.ca_file());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let runs = trigger.runs();
    if runs > 0 {
        assert_eq!(trigger.last_request().text(), ORDER);
        assert_eq!(
            trigger.last_request().header("content-type"),
            Some("application/json")
        );
    }
    (output, usize::try_from(runs).unwrap())
}

/// Everything that a sample promises.
async fn keeps_its_promises(program: &[&str], file: &str) {
    let accepted = Answer::json(200, &json!({"accepted": true}));
    let throttled = || Answer::throttled(Some("1"), ErrorBody::Envelope);
    for (key, answers, runs, words) in [
        (KEY, vec![accepted.clone()], 1, "\"accepted\":true"),
        // The platform refuses once before any run.
        (KEY, vec![throttled(), accepted.clone()], 1, "\"accepted\":true"),
        // A run has started, so the request is not sent again.
        (KEY, vec![Answer::no_response()], 1, "flow-no-response"),
        ("guess", vec![], 0, "key-unknown"),
        // An answer of the flow itself is not Flowgate's to explain.
        (
            KEY,
            vec![Answer::json(422, &json!({"retryable": true}))],
            1,
            "422",
        ),
    ] {
        let (output, started) = order(program, file, key, &answers).await;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        let is_accepted = words.contains("accepted");
        assert_eq!(output.status.success(), is_accepted, "{file}: {out}{err}");
        assert!(
            if is_accepted { &out } else { &err }.contains(words),
            "{file}: {words}: {out}{err}"
        );
        assert_eq!(started, runs, "{file}: {words}");
        assert!(
            !out.contains(key) && !err.contains(key),
            "{file} prints the key: {out}{err}"
        );
    }
}

/// Callers of the pages that `flowgate vendor-pack` prints, with their secrets. Together they have every algorithm that a shell
/// can compute, every form of secret, encoding and timestamp, and every place but the body.
const SIGNERS: [(&str, &str); 12] = [
    ("github", "secret-of-the-webhook"),
    ("stripe", "whsec_of_the_endpoint"),
    ("standard-webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    (
        "adyen-platform",
        "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    ),
    ("authorize-net", "secret-of-512-bits"),
    ("azure-devops", "user:password"),
    ("gitlab-token", "token-of-gitlab"),
    ("hubspot", "client-secret"),
    ("intercom", "secret-of-160-bits"),
    ("pandadoc", "key-in-the-query"),
    ("slack", "signing-secret"),
    ("zendesk", "secret-with-dates"),
];

#[tokio::test]
#[ignore = "needs curl and openssl: cargo test --test clients -- --ignored samples::shell"]
async fn shell_lines_of_a_vendor_pack_are_accepted_as_they_are_pasted() {
    let mut world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    let mut callers = String::new();
    let mut names = "\"shop\"".to_owned();
    for (name, secret) in SIGNERS {
        let variable = format!("SECRET_OF_{}", name.replace('-', "_"));
        callers += &format!(
            "[[caller]]\nname = \"{name}\"\n[caller.signature]\npreset = \"{name}\"\nsecret = \"env:{variable}\"\n"
        );
        names += &format!(", \"{name}\"");
        world.secrets.push((variable, secret.to_owned()));
    }
    // HubSpot signs the address, so the port must be known before.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listening = format!("[[listener]]\naddress = \"127.0.0.1:{port}\"");
    let base = world
        .base()
        .replace("[[listener]]\naddress = \"127.0.0.1:0\"", &listening);
    let more = format!(
        "callers = [{names}]\nkey_from = [\"header:x-api-key\"]\npublic_url = \"https://localhost:{port}\""
    );
    let route = world.route("orders", "/orders/{id}", &trigger.url(), &more);
    let _gateway = world.start(&format!("{base}{callers}{route}"));
    for (name, secret) in SIGNERS.into_iter().chain([("shop", KEY)]) {
        pasted(&world, "orders", name, &[secret]).await;
    }
    assert_eq!(trigger.runs(), 13);
}

/// Runs the lines of a page with these values for its secrets.
async fn pasted(world: &World, route: &str, caller: &str, secrets: &[&str]) {
    let page = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["vendor-pack", route, "--caller", caller, "--config"])
        .arg(world.dir().join("flowgate.toml"))
        .output()
        .unwrap();
    let page = String::from_utf8(page.stdout).unwrap();
    let (_, rest) = page
        .split_once("```sh\n")
        .unwrap_or_else(|| panic!("{caller}: {page}"));
    let (lines, _) = rest.split_once("```").unwrap();
    let mut script = lines.to_owned();
    for secret in secrets {
        script = script.replacen("'...'", &format!("'{secret}'"), 1);
    }
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", &script])
        .env("CURL_CA_BUNDLE", world.emulator.ca_file());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap())
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let is_accepted = answer.contains(" 202") && answer.contains("x-flowgate-answer: flow");
    assert!(is_accepted, "{route} {caller}: {script}\n{answer}");
}

#[tokio::test]
#[ignore = "needs curl and openssl: cargo test --test clients -- --ignored samples::shell"]
async fn shell_lines_of_a_vendor_pack_have_what_the_route_demands() {
    let mut world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT));
    let in_url = caller("pandadoc", KEY).replace("\n[[caller.key]]", "\nkey_in_url = true\n[[caller.key]]");
    let signed = "[caller.signature]\npreset = \"pandadoc\"\nsecret = \"env:PANDADOC\"\n";
    let other = caller("other", OTHER_KEY);
    world
        .secrets
        .push(("PANDADOC".to_owned(), "key-in-the-query".to_owned()));
    let forms = "callers = [\"other\"]\ncontent_types = [\"application/x-www-form-urlencoded\"]\n\
                 [route.duplicates]\nby = \"idempotency-key\"";
    let query =
        "callers = [\"pandadoc\"]\nkey_from = [\"query:code\"]\n[route.duplicates]\nby = \"json:/event/id\"";
    let path = "callers = [\"pandadoc\"]\nkey_from = [\"path\"]";
    let routes = [
        ("forms", "/forms", forms),
        ("query", "/query", query),
        ("path", "/path/{key}", path),
    ];
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let routes = routes.map(|(name, at, more)| {
        let more = format!("public_url = \"https://localhost:{port}\"\n{more}");
        world.route(name, at, &trigger.url(), &more)
    });
    let listening = format!("[[listener]]\naddress = \"127.0.0.1:{port}\"");
    let base = world
        .base()
        .replace("[[listener]]\naddress = \"127.0.0.1:0\"", &listening);
    let base = base.replace(&caller("shop", KEY), "");
    let _gateway = world.start(&format!("{base}{in_url}{signed}{other}{}", routes.concat()));
    pasted(&world, "forms", "other", &[OTHER_KEY]).await;
    for route in ["query", "path"] {
        pasted(&world, route, "pandadoc", &[KEY, "key-in-the-query"]).await;
    }
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
#[ignore = "needs curl: cargo test --test clients -- --ignored samples::shell"]
async fn shell_repeats_only_what_started_no_run() {
    keeps_its_promises(&["sh"], "order.sh").await;
}

#[tokio::test]
#[ignore = "needs Python: cargo test --test clients -- --ignored samples::python"]
async fn python_repeats_only_what_started_no_run() {
    keeps_its_promises(&["python3"], "order.py").await;
}

#[tokio::test]
#[ignore = "needs PowerShell 7: cargo test --test clients -- --ignored samples::powershell"]
async fn powershell_repeats_only_what_started_no_run() {
    keeps_its_promises(&["pwsh", "-NoProfile", "-File"], "order.ps1").await;
}

#[test]
fn the_action_of_a_flow_repeats_nothing_and_hides_its_key() {
    let text = std::fs::read_to_string(sample("http-action.json")).unwrap();
    let action: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(action["inputs"]["retryPolicy"]["type"], "none");
    assert_eq!(
        action["runtimeConfiguration"]["secureData"]["properties"],
        json!(["inputs"])
    );
    assert!(
        action["inputs"]["headers"]["X-API-Key"]
            .as_str()
            .unwrap()
            .starts_with("@body(")
    );
}

#[test]
fn the_custom_api_has_the_parameters_that_its_plugin_and_its_page_use() {
    let text = std::fs::read_to_string(sample("custom-api.json")).unwrap();
    let api: Value = serde_json::from_str(&text).unwrap();
    let plugin = std::fs::read_to_string(sample("Flowgate.cs")).unwrap();
    let page = std::fs::read_to_string(sample("custom-api.js")).unwrap();
    let name = |list: &str| api[list][0]["uniquename"].as_str().unwrap().to_owned();
    let (input, output) = (
        name("CustomAPIRequestParameters"),
        name("CustomAPIResponseProperties"),
    );
    assert!(plugin.contains(&format!("InputParameters[\"{input}\"]")));
    assert!(plugin.contains(&format!("OutputParameters[\"{output}\"]")));
    assert!(page.contains(api["uniquename"].as_str().unwrap()));
    assert!(page.contains(&format!("{input}:")) && page.contains(&format!("result.{output}")));
}

#[cfg(unix)]
#[test]
fn scripts_that_need_a_tenant_are_parsed() {
    for name in ["order.sh", "dataverse-webhook.sh"] {
        let parsed = Command::new("sh").arg("-n").arg(sample(name)).status().unwrap();
        assert!(parsed.success(), "{name}");
    }
}
