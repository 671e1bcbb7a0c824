//! Paths that another reader could take for the address of a guarded route: without its key nobody reaches
//! the flow behind it, and what is forwarded elsewhere is byte for byte what was checked.

use percent_encoding::percent_decode_str;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{KEY, Running, TENANT, World};
use crate::reading::frames::{Heard, Peer, with};

/// Ways up, or into another segment, as some server might decode them.
const STEPS: [&str; 46] = [
    "../",
    "./",
    "./../",
    "..//",
    "..;/",
    "..;x=1/",
    "..;a;b/",
    ";/../",
    ";x/../",
    ".;/../",
    "%2e%2e/",
    "%2E%2E/",
    "%2e./",
    ".%2e/",
    ".%2E/",
    "%2e/",
    "..%3b/",
    "%2e%2e;/",
    "..%2f",
    "..%2F",
    "%2e%2e%2f",
    "%2f..%2f",
    "..\\",
    "..%5c",
    "..%5C",
    "%2e%2e%5c",
    "%5c..%5c",
    "%252e%252e/",
    "%252e%252e%252f",
    "..%252f",
    "..%255c",
    "%25%32%65%25%32%65/",
    "..%25%32%66",
    "..%c0%af",
    "..%c1%9c",
    "%c0%ae%c0%ae/",
    "..%e0%80%af",
    "..%00/",
    "..%0d%0a/",
    "..%09/",
    "..%20/",
    "..%u002f",
    "..%u2215",
    "%uff0e%uff0e/",
    "..%ef%bc%8f",
    "%ef%bc%8e%ef%bc%8e/",
];

/// Spellings of the guarded address itself.
const SPELLINGS: [&str; 38] = [
    "//secret",
    "///secret",
    "/./secret",
    "/%2e/secret",
    "/;/secret",
    "/;x/secret",
    "/x/../secret",
    "/x/..;/secret",
    "/%2fsecret",
    "/%5csecret",
    "/%2e%2e/secret",
    "/../secret",
    "/..;/secret",
    "/secret/.",
    "/secret/..",
    "/secret//",
    "/secret/./a",
    "/secret/../secret",
    "/secret;",
    "/secret;x=1",
    "/secret;/a",
    "/secret%3b",
    "/secret/",
    "/secret%2f",
    "/secret%2fa",
    "/secret%20",
    "/secret%00",
    "/secret%09",
    "/secret%0a",
    "/secret%3f",
    "/secret%23",
    "/secret.",
    "/Secret",
    "/SECRET",
    "/%73ecret",
    "/secre%74",
    "/s%65cret/a",
    "/%25%37%33ecret",
];

struct House {
    world: World,
    gateway: Running,
    open: TriggerHandle,
    guarded: TriggerHandle,
}

/// Routes open to all, one of which forwards the rest of its path, beside guarded ones.
async fn house() -> House {
    let world = World::new().await;
    let trigger = || Trigger::any_user(TENANT).does(Flow::Accepted);
    let (open, guarded) = (
        world.emulator.flow.add(trigger()),
        world.emulator.flow.add(trigger()),
    );
    let anonymous = "anonymous = true";
    let routes = [
        world.route(
            "open",
            "/open/{*rest}",
            &open.url(),
            "anonymous = true\nrelative_path = true",
        ),
        world.route("item", "/item/{id}", &open.url(), anonymous),
        world.route("secret", "/secret", &guarded.url(), ""),
        world.route(
            "secrets",
            "/secret/{*rest}",
            &guarded.url(),
            "relative_path = true",
        ),
        world.route("beside", "/open/secret", &guarded.url(), ""),
    ]
    .concat();
    let limits = "[limits]\nfailed_authentications = { requests = 10000, per = \"1m\", burst = 10000 }\n";
    let gateway = world.start_with(&format!("{routes}{limits}"));
    House {
        world,
        gateway,
        open,
        guarded,
    }
}

/// Every path to try.
fn tricks() -> Vec<String> {
    let mut tricks: Vec<String> = SPELLINGS.iter().map(|path| (*path).to_owned()).collect();
    for step in STEPS {
        for (before, after) in [
            ("/open/", "secret"),
            ("/open/a/", "secret"),
            ("/open/a/", "../secret"),
            ("/item/", "secret"),
            ("/item/a/", "secret"),
            ("/", "secret"),
            ("/open/", "open/secret"),
            ("/open/a", ""),
        ] {
            tricks.push(format!("{before}{step}{after}"));
        }
    }
    tricks.extend(
        [
            "/open/a%2f",
            "/open/secret%20",
            "/open/secret;x",
            "/open/%73ecret",
            "/open/./secret",
        ]
        .map(str::to_owned),
    );
    tricks
}

/// What other servers make of a path: decoded never, once or twice, then without backslashes, empty segments
/// and dots.
fn readings(path: &str) -> Vec<String> {
    let once = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let twice = percent_decode_str(&once).decode_utf8_lossy().into_owned();
    let plain = |path: &String| {
        let path = path.replace('\\', "/");
        let mut kept = Vec::new();
        for segment in path.split('/') {
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => drop(kept.pop()),
                _ => kept.push(segment),
            }
        }
        format!("/{}", kept.join("/"))
    };
    [path.to_owned(), once, twice].iter().map(plain).collect()
}

fn is_guarded(path: &str) -> bool {
    ["/secret", "/open/secret"].contains(&path) || path.starts_with("/secret/")
}

impl House {
    /// Checks the result for a path: refused, or served by the open flow with exactly the bytes that were
    /// checked.
    fn assert_kept(&self, path: &str, status: u16, code: &str, before: u64) {
        match status {
            202 => {
                for reading in readings(path) {
                    assert!(!is_guarded(&reading), "{path} can be read as {reading}");
                }
                assert_eq!(self.open.runs(), before + 1, "{path}: not the open flow's");
                let seen = self.open.last_request();
                let (own, query) = self
                    .open
                    .target()
                    .split_once('?')
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .unwrap();
                let expected = match path.strip_prefix("/open/") {
                    Some(rest) => format!("{own}/{rest}?{query}"),
                    None => format!("{own}?{query}"),
                };
                assert_eq!(seen.head.target, expected, "{path}");
                assert_eq!(seen.header("x-flowgate-caller"), Some("anonymous"), "{path}");
            }
            400 | 401 | 404 => assert!(
                ["malformed-request", "key-missing", "route-unknown"].contains(&code),
                "{path}: {status} {code}"
            ),
            _ => panic!("{path}: {status} {code}"),
        }
        assert_eq!(self.guarded.request_count().get(), 0, "{path}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_reaches_a_guarded_flow_without_its_key() {
    let house = house().await;
    let mut served = 0;
    for path in tricks() {
        let before = house.open.runs();
        let mut talk = house.gateway.talk().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}");
        talk.say(head).await;
        let answer = talk.hear().await;
        let status = answer.status.as_u16();
        let code = if status == 202 {
            String::new()
        } else {
            answer.code()
        };
        house.assert_kept(&path, status, &code, before);
        served += u64::from(status == 202);
    }
    assert_eq!(house.world.emulator.flow.heads().get(), served);
    assert!(served > 0, "some of them are plain data to the open flow");
}

#[tokio::test]
async fn no_spelling_of_a_path_reaches_a_guarded_flow_on_http2() {
    let house = house().await;
    let mut peer = Peer::connect(&house.world, &house.gateway).await;
    for path in tricks() {
        let before = house.open.runs();
        let mut head = with(":path", &path);
        head.retain(|(name, _)| name != b"x-api-key");
        match peer.ask(&head, b"{}").await {
            Heard::Answer { status, code } => house.assert_kept(&path, status, &code, before),
            Heard::Reset(_) => assert_eq!(house.guarded.request_count().get(), 0, "{path}"),
            Heard::Over(error) => panic!("{path}: the connection ends with {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_step_upwards_is_refused_also_with_a_key() {
    let house = house().await;
    for step in STEPS {
        // A space after the dots and letters that only look like dots are data for every decoder.
        if ["..%20/", "..%ef%bc%8f", "%ef%bc%8e%ef%bc%8e/"].contains(&step) {
            continue;
        }
        let path = format!("/secret/a/{step}b");
        let mut talk = house.gateway.talk().await;
        talk.say(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
        .await;
        crate::listening::assert_malformed(&talk.hear().await, &path);
    }
    assert_eq!(house.world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn what_passes_is_forwarded_as_it_was_checked() {
    let house = house().await;
    let target = house.open.target();
    let (own, query) = target.split_once('?').unwrap();
    for rest in [
        "a",
        "a/b",
        "a%20b",
        "a%2Cb%2cb",
        "a;v=1/b;w",
        "a..b/.c/...",
        "%61%7E~",
        "caf%C3%A9",
        "50%25",
        "a:b@c!$&'()*+,=",
    ] {
        let answer = house
            .gateway
            .send(
                crate::harness::post(&format!("/open/{rest}?x=1"))
                    .body("{}".into())
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.status, 202, "{rest}: {}", answer.text());
        assert_eq!(
            house.open.last_request().head.target,
            format!("{own}/{rest}?{query}"),
            "{rest}"
        );
    }
}

#[tokio::test]
async fn fields_that_name_another_path_or_method_select_nothing() {
    let house = house().await;
    for (name, value) in [
        ("x-original-url", "/secret"),
        ("x-rewrite-url", "/secret"),
        ("x-http-method-override", "PUT"),
        ("x-original-host", "hooks.example"),
        ("x-host", "hooks.example"),
        ("x-forwarded-host", "hooks.example"),
        ("x-forwarded-prefix", "/secret"),
        ("forwarded", "host=hooks.example"),
    ] {
        let request = crate::harness::post("/item/a")
            .header(name, value)
            .body("{}".into())
            .unwrap();
        let answer = house.gateway.send(request).await;
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        let seen = house.open.last_request();
        assert_eq!(
            (seen.head.method.as_str(), seen.head.target.as_str()),
            ("POST", house.open.target().as_str())
        );
        let request = crate::harness::post("/secret").header(name, value.replace("/secret", "/item/a"));
        let answer = house.gateway.send(request.body("{}".into()).unwrap()).await;
        assert_eq!(answer.code(), "key-missing", "{name}");
    }
    assert_eq!(house.guarded.request_count().get(), 0);
}
