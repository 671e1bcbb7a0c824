//! `flowgate vendor test`: a delivery of each vendor, signed here, goes to the gateway that runs, and starts nothing.

use std::process::{Command, Output};

use flowgate::model::signature::{Algorithm, KeyForm, Preset};

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{KEY, Running, TENANT, World};

const RUN: &str = "yes, start a run";

/// A gateway, and its settings in a file whose listener has its port.
struct Stage {
    world: World,
    gateway: Running,
    trigger: TriggerHandle,
}

impl Stage {
    /// `settings` makes callers and routes for a trigger.
    async fn new(settings: impl FnOnce(&World, &str) -> String) -> Self {
        let world = World::new().await;
        let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
        let trigger = world.emulator.flow.add(trigger);
        let settings = format!("{}{}", world.base(), settings(&world, &trigger.url()));
        let gateway = world.start(&settings);
        let stage = Self {
            world,
            gateway,
            trigger,
        };
        stage.write(&settings, &stage.gateway.address.to_string());
        stage
    }

    fn write(&self, settings: &str, address: &str) {
        let listener = "[[listener]]\naddress = \"127.0.0.1:0\"";
        assert!(settings.contains(listener));
        let bound = format!("[[listener]]\naddress = \"{address}\"");
        self.world
            .file("program.toml", &settings.replace(listener, &bound));
    }

    async fn test(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
        command
            .args(["vendor", "test", "--config"])
            .arg(self.world.dir().join("program.toml"))
            .args(words)
            .envs(self.world.secrets.iter().cloned())
            .current_dir(self.world.dir());
        // The emulator goes on while the program runs.
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        output.await.unwrap()
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn assert_said(output: &Output, code: i32, parts: &[&str]) {
    let (out, err) = texts(output);
    for part in parts {
        assert!(format!("{out}{err}").contains(part), "{part}\n{out}\n{err}");
    }
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
}

/// A secret or public key in the form of a preset.
fn secret(preset: &Preset) -> &'static str {
    match (preset.recipe.algorithm, preset.recipe.key_form) {
        // RFC 8032 section 7.1, test 1, and the key in SendGrid's example.
        (Algorithm::Ed25519, _) => "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        (Algorithm::EcdsaP256, _) => {
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
        }
        // The topic.
        (Algorithm::RsaCertificate, _) => "arn:aws:sns:eu-west-1:123456789012:orders",
        (_, KeyForm::Hex) => "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        (_, KeyForm::Base64) => "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        (_, KeyForm::Text | KeyForm::Public) => "user:canary-signing-secret",
    }
}

#[tokio::test]
async fn a_sample_of_every_preset_that_can_be_signed_is_accepted() {
    let stage = Stage::new(|world, url| {
        let one = |preset: &Preset| {
            let name = preset.name;
            world.file(&format!("secret-{name}"), secret(preset));
            let route = world.route(
                name,
                &format!("/{name}"),
                url,
                &format!(
                    "callers = [\"{name}\"]\nchecks = true\npublic_url = \"https://hooks.example\"\n\
                     [route.duplicates]\nby = \"delivery\"\nwithout_id = \"pass\"\n"
                ),
            );
            let route = match preset.recipe.id {
                Some(_) => route,
                None => route.split("[route.duplicates]").next().unwrap().to_owned(),
            };
            format!(
                "[[caller]]\nname = \"{name}\"\n[caller.signature]\npreset = \"{name}\"\nsecret = \
                 \"file:secret-{name}\"\n{route}"
            )
        };
        Preset::all().iter().map(one).collect()
    })
    .await;
    let (mut signed, mut refused) = (0, 0);
    for preset in Preset::all() {
        let output = stage.test(&[preset.name]).await;
        let is_certificate = preset.recipe.certificate.is_some();
        if is_certificate || preset.recipe.key_form == KeyForm::Public {
            let why = match is_certificate {
                true => "whose private key only the vendor has",
                false => "only the vendor has the private key",
            };
            assert_said(&output, 2, &["cannot be signed here", why, preset.name]);
            refused += 1;
            continue;
        }
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(0), "{}: {out}\n{err}", preset.name);
        assert!(out.contains("credentials   passed"), "{}: {out}", preset.name);
        assert!(out.contains("nothing was started"), "{out}");
        assert!(!format!("{out}{err}").contains(secret(preset)), "{out}{err}");
        signed += 1;
    }
    assert!(signed > 35 && refused == 5, "{signed} {refused}");
    assert_eq!(stage.trigger.requests().len(), 0);
}

/// A caller whose signature has every part by itself, and that has a key as well; the first secret is over.
fn own_recipe(world: &World, url: &str, more: &str) -> String {
    world.file("old", "canary-old-secret");
    world.file("new", "canary-new-secret");
    let caller = crate::harness::caller("bakery", "canary-key-of-bakery-0123456789");
    format!(
        "{caller}[caller.signature]\nfrom = [\"header:x-signature\"]\ntimestamp = \"header:x-at\"\nid = \"body:/event/id\"\n\
         template = \"{{method}}{{url}}{{timestamp}}{{id}}{{body}}\"\n\
         [[caller.signature.secrets]]\nlabel = \"old\"\nsecret = \"file:old\"\nexpires = 2020-01-01\n\
         [[caller.signature.secrets]]\nlabel = \"new\"\nsecret = \"file:new\"\n{}",
        world.route(
            "bread",
            "/bread/{kind}",
            url,
            &format!("callers = [\"bakery\"]\n{more}")
        )
    )
}

#[tokio::test]
async fn an_own_recipe_with_a_key_is_signed_with_the_secret_in_force() {
    let lines = "checks = true\npublic_url = \"https://hooks.example\"";
    let stage = Stage::new(|world, url| own_recipe(world, url, lines)).await;
    stage.world.file("key", "canary-key-of-bakery-0123456789\n");
    let output = stage.test(&["bread"]).await;
    assert_said(&output, 2, &["--key-file FILE"]);
    let output = stage.test(&["bread", "--key-file", "key"]).await;
    assert_said(&output, 0, &["credentials   passed", "signed as bakery signs"]);
    let line = stage
        .gateway
        .lines
        .wait_for(|line| line["check"] == "passed")
        .await;
    assert_eq!(line["key"], "bakery-1");
    assert_eq!(stage.trigger.requests().len(), 0);
}

fn keyed(world: &World, url: &str, more: &str) -> String {
    world.route("orders", "/orders", url, more)
}

#[tokio::test]
async fn a_route_that_answers_no_checks_is_named_with_the_setting() {
    let stage = Stage::new(|world, url| keyed(world, url, "")).await;
    stage.world.file("key", KEY);
    let output = stage.test(&["orders", "--key-file", "key"]).await;
    assert_said(&output, 2, &["`checks = true`", "--run \"yes, start a run\""]);
    let output = stage.test(&["ordres", "--key-file", "key"]).await;
    assert_said(&output, 2, &["there is no route \"ordres\"; there are: orders"]);
    // The gateway that runs still has the settings from before.
    let text = std::fs::read_to_string(stage.world.dir().join("program.toml")).unwrap();
    stage
        .world
        .file("program.toml", &format!("{text}checks = true\n"));
    let output = stage.test(&["orders", "--key-file", "key"]).await;
    assert_said(&output, 1, &["checks-off (403)", "flowgate reload"]);
    assert_eq!(stage.trigger.requests().len(), 0);
}

#[tokio::test]
async fn what_fails_is_printed_with_the_problem_and_ends_with_1() {
    let lines = "checks = true\njson_depth_max = 2\n";
    let stage = Stage::new(|world, url| keyed(world, url, lines)).await;
    stage.world.file("key", KEY);
    stage.world.file("wrong", "canary-wrong-key");
    stage.world.file("deep", "[[[[1]]]]");
    let output = stage.test(&["orders", "--key-file", "wrong"]).await;
    assert_said(
        &output,
        1,
        &["answered 401", "key-unknown (401)", "in the access log"],
    );
    let output = stage
        .test(&["orders", "--key-file", "key", "--body", "deep"])
        .await;
    let parts = [
        "body-rules    failed   body-invalid (400)",
        "token         passed",
        "\nfailed\n",
    ];
    assert_said(&output, 1, &parts);
    let (out, err) = texts(&output);
    assert!(!format!("{out}{err}").contains(KEY), "{out}{err}");
    assert_eq!(stage.trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_run_is_started_with_the_words_of_doctor_alone() {
    let stage = Stage::new(|world, url| keyed(world, url, "")).await;
    stage.world.file("key", KEY);
    for words in ["yes", "", "Yes, start a run"] {
        let output = stage.test(&["orders", "--key-file", "key", "--run", words]).await;
        assert_said(
            &output,
            2,
            &["a run is started only with --run \"yes, start a run\""],
        );
    }
    assert_eq!(stage.trigger.requests().len(), 0);
    let output = stage.test(&["orders", "--key-file", "key", "--run", RUN]).await;
    assert_said(
        &output,
        0,
        &["THIS STARTS A RUN", "answered 202 Accepted by flow"],
    );
    assert_eq!(stage.trigger.runs(), 1);
    assert_eq!(stage.trigger.last_request().text(), "{\"test\": true}");
}

#[tokio::test]
async fn a_credential_goes_to_the_gateway_of_the_settings_only() {
    let stage = Stage::new(|world, url| keyed(world, url, "checks = true")).await;
    stage.world.file("key", KEY);
    let text = std::fs::read_to_string(stage.world.dir().join("program.toml")).unwrap();
    let (own, other) = (stage.gateway.address.to_string(), stage.trigger.url());
    let port = other
        .split("localhost:")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    // Another server, with a certificate that is not in the settings.
    stage
        .world
        .file("program.toml", &text.replace(&own, &format!("127.0.0.1:{port}")));
    let output = stage.test(&["orders", "--key-file", "key"]).await;
    assert_said(
        &output,
        1,
        &["another certificate than those of the settings, so nothing was sent"],
    );
    let elsewhere = format!("https://localhost:{port}");
    let output = stage
        .test(&["orders", "--key-file", "key", "--to", &elsewhere])
        .await;
    assert_said(&output, 1, &["no TLS handshake"]);
    for to in [
        "http://hooks.example",
        "https://a.example/x",
        "hooks",
        "https://u@localhost",
    ] {
        let output = stage.test(&["orders", "--key-file", "key", "--to", to]).await;
        assert_said(&output, 2, &["is no address of a gateway"]);
    }
    assert_eq!(stage.trigger.requests().len(), 0);
    // The gateway itself, wherever it is said to be.
    let output = stage
        .test(&["orders", "--key-file", "key", "--to", &format!("https://{own}")])
        .await;
    assert_said(&output, 0, &["credentials   passed"]);
}
