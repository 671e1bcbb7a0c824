//! Other settings while the gateway serves: what changes at once, what survives, and what cannot be put in force.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flowgate::gateway::Wanted;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{KEY, PATIENCE, Running, TENANT, World, caller, post};
use crate::listening::order;
use crate::program::Program;

/// A key that `shop` gets with other settings.
pub const NEXT_KEY: &str = "canary-next-key-of-shop-0123456789";

async fn accepting() -> (World, TriggerHandle) {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    (world, trigger)
}

fn with_key(key: &str, path: &str) -> Request<Full<Bytes>> {
    post(path)
        .header("x-api-key", key)
        .body(Full::from("{}"))
        .unwrap()
}

impl Running {
    /// Puts other settings in force.
    async fn reload(&mut self, world: &World, settings: &str) -> Result<u64, String> {
        let config = Arc::new(world.load(settings));
        let reloaded = self.server.reload(&config, Wanted::ByOperator).await;
        reloaded
            .map(|reloaded| reloaded.revision)
            .map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn the_next_request_of_an_open_connection_finds_the_new_settings() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let mut gateway = world.start_with(&orders);
    let mut connection = gateway.connect().await;
    assert_eq!(connection.send(order()).await.status, 202);

    let other = world.route("returns", "/returns", &trigger.url(), "");
    let settings =
        format!("{}{other}", world.base()).replace(&caller("shop", KEY), &caller("shop", NEXT_KEY));
    assert_eq!(gateway.reload(&world, &settings).await, Ok(2));

    assert_eq!(connection.send(order()).await.status, 404, "the route is gone");
    assert_eq!(
        connection.send(with_key(KEY, "/returns")).await.code(),
        "key-unknown"
    );
    assert_eq!(connection.send(with_key(NEXT_KEY, "/returns")).await.status, 202);
    assert!(connection.is_open());
    // The token was not fetched again.
    assert_eq!(world.emulator.entra.token_requests().get(), 1);
}

#[tokio::test]
async fn a_request_that_is_running_ends_with_the_settings_it_began_with() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let mut gateway = world.start_with(&orders);
    gateway.ready().await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let running = tokio::spawn(async move { connection.send(order()).await.status });
    gate.arrived(1).await;

    let other = world.route("returns", "/returns", &trigger.url(), "");
    let settings = format!("{}{other}", world.base());
    gateway.reload(&world, &settings).await.unwrap();
    gate.open();
    assert_eq!(running.await.unwrap(), 202);
}

#[tokio::test]
async fn a_limit_that_is_spent_stays_spent_under_another_rate() {
    let (world, trigger) = accepting().await;
    let rate = |burst| format!("rate = {{ requests = 1, per = \"1h\", burst = {burst} }}");
    let with = |rate: &str| {
        format!(
            "{}{}",
            world.base(),
            world.route("orders", "/orders", &trigger.url(), rate)
        )
    };
    let mut gateway = world.start(&with(&rate(2)));
    for status in [202, 202, 429] {
        assert_eq!(gateway.send(order()).await.status, status);
    }
    // A route before it moves its place in the settings.
    let first = world.route("first", "/first", &trigger.url(), "");
    let settings = with(&rate(3)).replace("[[route]]", &format!("{first}[[route]]"));
    gateway.reload(&world, &settings).await.unwrap();
    for status in [202, 429] {
        assert_eq!(
            gateway.send(order()).await.status,
            status,
            "the larger burst adds one"
        );
    }
}

#[tokio::test]
async fn a_changed_identity_gets_its_own_token_and_the_others_keep_theirs() {
    let (world, trigger) = accepting().await;
    let other_client = "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    let entra = &world.emulator.entra;
    entra.register_app(
        TENANT,
        other_client,
        "canary-other~2",
        "88888888-8888-4777-8666-555555555555",
    );
    world.file("other-secret", "canary-other~2");
    let other = |more: &str| {
        let identity = world.identity("other", TENANT, other_client, "file:other-secret");
        format!("{identity}{more}")
    };
    let routes = format!(
        "{}{}",
        world.route("orders", "/orders", &trigger.url(), ""),
        world.route("returns", "/returns", &trigger.url(), "identity = \"other\"")
    );
    let mut gateway = world.start(&format!("{}{}{routes}", world.base(), other("")));
    for path in ["/orders", "/returns"] {
        assert_eq!(gateway.send(with_key(KEY, path)).await.status, 202);
    }
    let settings = format!("{}{}{routes}", world.base(), other("").replace("3s", "4s"));
    gateway.reload(&world, &settings).await.unwrap();
    for path in ["/orders", "/returns"] {
        assert_eq!(gateway.send(with_key(KEY, path)).await.status, 202);
    }
    assert_eq!(entra.token_requests_of(other_client), 2);
    assert_eq!(entra.token_requests().get(), 3);
}

#[tokio::test]
async fn permits_follow_the_settings_and_count_what_is_running() {
    let (world, trigger) = accepting().await;
    let with = |max: usize| {
        let more = format!("in_flight_max = {max}\nwaiting_max = 0");
        format!(
            "{}{}",
            world.base(),
            world.route("orders", "/orders", &trigger.url(), &more)
        )
    };
    let mut gateway = world.start(&with(1));
    gateway.ready().await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let running = tokio::spawn(async move { connection.send(order()).await.status });
    gate.arrived(1).await;
    assert_eq!(gateway.send(order()).await.code(), "flow-busy");
    gateway.reload(&world, &with(2)).await.unwrap();
    let mut second = gateway.connect().await;
    let also = tokio::spawn(async move { second.send(order()).await.status });
    gate.arrived(2).await;
    assert_eq!(gateway.send(order()).await.code(), "flow-busy");
    gate.open();
    for request in [running, also] {
        assert_eq!(request.await.unwrap(), 202);
    }
}

#[tokio::test]
async fn a_changed_list_moves_no_token_to_another_host() {
    let (world, trigger) = accepting().await;
    world.file("trigger", &trigger.url());
    let orders = world.route("orders", "/orders", "file:trigger", "");
    let settings = format!("{}{orders}", world.base());
    let mut gateway = world.start(&settings);
    assert_eq!(gateway.send(order()).await.status, 202);
    world.file(
        "trigger",
        &trigger
            .url()
            .replace("127.0.0.1", "127.0.0.2")
            .replace("localhost", "127.0.0.1"),
    );
    let config = Arc::new(world.load(&settings));
    let refused = gateway
        .server
        .reload(&config, Wanted::ByItself)
        .await
        .unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("route orders") && refused.contains("a token would be sent there"),
        "{refused}"
    );
    assert_eq!(gateway.reload(&world, &settings).await, Ok(2));
}

#[tokio::test]
async fn a_route_and_a_caller_are_switched_off_and_on() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let on = format!("{}{orders}", world.base());
    let mut gateway = world.start(&on);
    let off = |name: &str| on.replace(name, &format!("{name}enabled = false\n"));
    assert_eq!(gateway.send(order()).await.status, 202);

    gateway.reload(&world, &off("name = \"orders\"\n")).await.unwrap();
    let answer = gateway.send(order()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "route-disabled")
    );
    assert_eq!(answer.header("retry-after"), Some("60"));
    let unknown = gateway
        .send(with_key("canary-unknown-key-0123456789", "/orders"))
        .await;
    assert_eq!(unknown.code(), "key-unknown", "strangers learn nothing");

    gateway.reload(&world, &off("name = \"shop\"\n")).await.unwrap();
    let answer = gateway.send(order()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (401, "key-expired")
    );
    let line = gateway.lines.of(&answer).await;
    assert!(line["cause"].as_str().unwrap().contains("is disabled"), "{line}");

    gateway.reload(&world, &on).await.unwrap();
    assert_eq!(gateway.send(order()).await.status, 202);
}

#[tokio::test]
async fn the_network_of_a_caller_that_is_switched_off_lets_nobody_in() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "callers = [\"branch\"]");
    let branch = |more: &str| {
        format!(
            "{}[[caller]]\nname = \"branch\"\nnetworks = [\"127.0.0.0/8\"]\n{more}{orders}",
            world.base()
        )
    };
    let mut gateway = world.start(&branch(""));
    let plain = || post("/orders").body(Full::from("{}")).unwrap();
    assert_eq!(gateway.send(plain()).await.status, 202);
    gateway
        .reload(&world, &branch("enabled = false\n"))
        .await
        .unwrap();
    assert_eq!(gateway.send(plain()).await.status, 403);
}

/// An address of loopback that nobody has at the moment.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn listener(world: &World, address: SocketAddr) -> String {
    format!("[[listener]]\naddress = \"{address}\"\n{}", world.certificate())
}

#[tokio::test]
async fn listeners_come_and_go() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let settings = format!("{}{orders}", world.base());
    let mut gateway = world.start(&settings);
    let second = free();
    gateway
        .reload(&world, &format!("{settings}{}", listener(&world, second)))
        .await
        .unwrap();
    assert_eq!(gateway.server.addresses(), [gateway.address, second]);
    let first = std::mem::replace(&mut gateway.address, second);
    let mut kept = gateway.connect().await;
    assert_eq!(kept.send(order()).await.status, 202, "on the new listener");

    gateway.reload(&world, &settings).await.unwrap();
    assert_eq!(gateway.server.addresses(), [first]);
    let closed = async {
        while TcpStream::connect(second).await.is_ok() {
            tokio::task::yield_now().await;
        }
        while kept.is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("it stays open");
    gateway.address = first;
    assert_eq!(gateway.send(order()).await.status, 202, "on the first listener");
}

#[tokio::test]
async fn a_listener_that_cannot_be_bound_refuses_all_of_the_settings() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let settings = format!("{}{orders}", world.base());
    let mut gateway = world.start(&settings);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = settings.replace("\"/orders\"", "\"/other\"");
    let refused = gateway
        .reload(&world, &format!("{other}{}", listener(&world, address)))
        .await
        .unwrap_err();
    assert!(
        refused.contains(&address.to_string()) && refused.contains("another port"),
        "{refused}"
    );
    assert_eq!(gateway.send(order()).await.status, 202);
    let (_, status) = gateway.admin("/status").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["revision"], 1);
}

#[tokio::test]
async fn peers_of_a_narrowed_plain_listener_are_let_go() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let plain = |from: &str| {
        format!(
            "{}{orders}[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\nplain_http_from = \
             [{from}]\n",
            world.base()
        )
    };
    let mut gateway = world.start(&plain("\"127.0.0.0/8\""));
    let address = gateway.server.addresses()[1];
    let connect = async || {
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let answer = sender.send_request(order()).await.unwrap();
        assert_eq!(answer.status(), 202);
        sender
    };
    let connection = connect().await;
    gateway
        .reload(&world, &plain("\"127.0.0.0/8\", \"10.0.0.0/8\""))
        .await
        .unwrap();
    let other = connect().await;
    assert!(!connection.is_closed(), "nothing was taken away");
    gateway.reload(&world, &plain("\"10.0.0.0/8\"")).await.unwrap();
    let closed = async {
        while !(connection.is_closed() && other.is_closed()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("it stays open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_settings_are_reloaded_again_and_again() {
    let (world, trigger) = accepting().await;
    world.emulator.flow.stop_recording();
    let wide = "rate = { requests = 1000000, per = \"1s\", burst = 1000000 }\n";
    let orders = world.route("orders", "/orders", &trigger.url(), wide);
    let keys: String = (0..1_000)
        .map(|number| caller(&format!("c{number}"), &format!("key-number-{number:012}")))
        .collect();
    let shop = "[[caller]]\nname = \"shop\"\n";
    let base = world.base().replace(shop, &format!("{shop}{wide}"));
    let base = format!("{base}[limits]\ngateway = {}", wide.trim_start_matches("rate = "));
    let settings = [format!("{base}{orders}{keys}"), format!("{base}{orders}")];
    let mut gateway = world.start(&settings[0]);
    gateway.ready().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut connection = gateway.connect().await;
        let done = done.clone();
        callers.push(tokio::spawn(async move {
            let mut served = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(connection.send(order()).await.status, 202);
                served += 1;
            }
            served
        }));
    }
    for round in 0..100 {
        gateway.reload(&world, &settings[round % 2]).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    assert_eq!(world.emulator.entra.token_requests().get(), 1);
}

impl Program {
    pub async fn readiness(&self, admin: SocketAddr) -> Value {
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(admin).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get("/readyz?verbose")
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }
}

/// The program with one route, and a connection to it.
async fn program(
    settings: impl Fn(&World, &TriggerHandle) -> String,
) -> (World, Program, SocketAddr, String) {
    let (world, trigger) = accepting().await;
    let text = settings(&world, &trigger);
    let mut program = Program::start(&world, &text);
    program.address().await;
    let line = program
        .line(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("admin listening"))
        })
        .await;
    let admin = line["address"].as_str().unwrap().parse().unwrap();
    (world, program, admin, text)
}

pub async fn status(world: &World, program: &Program, key: &str) -> u16 {
    send(world, program, with_key(key, "/orders")).await
}

/// Sends a request to a program; returns the status of the answer.
pub async fn send(world: &World, program: &Program, request: Request<Full<Bytes>>) -> u16 {
    let tls = Arc::new(world.emulator.ca.client_config(&["http/1.1"]));
    let tcp = TcpStream::connect(program.address.unwrap()).await.unwrap();
    let name = crate::emulator::certs::server_name("localhost");
    let stream = tokio_rustls::TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let answer = sender.send_request(request).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn sighup_puts_a_changed_file_in_force_and_a_bad_one_changes_nothing() {
    let (world, mut program, admin, text) = program(|world, trigger| {
        format!(
            "{}{}",
            world.base(),
            world.route("orders", "/orders", &trigger.url(), "")
        )
    })
    .await;
    assert_eq!(status(&world, &program, KEY).await, 202);

    let other = text.replace(&caller("shop", KEY), &caller("shop", NEXT_KEY));
    world.file("program.toml", &format!("{other}canary = \"secret\"\n"));
    program.signal("HUP");
    let mistake = program.line(|line| line["level"] == "ERROR").await;
    assert!(mistake["line"].as_u64().is_some(), "{mistake}");
    let line = program.line(|line| line["because"] == "SIGHUP").await;
    assert!(
        line["message"].as_str().unwrap().contains("those in force stay"),
        "{line}"
    );
    assert!(!line.to_string().contains("canary"), "{line}");
    let readiness = program.readiness(admin).await;
    assert_eq!(readiness["revision"], 1);
    assert!(
        readiness["last_reload"]["refused"].as_str().is_some(),
        "{readiness}"
    );
    assert_eq!(status(&world, &program, KEY).await, 202);

    world.file("program.toml", &other.replace("workers = 2", "workers = 1"));
    program.signal("HUP");
    let restart = program.line(|line| line["setting"] == "gateway.workers").await;
    assert!(
        restart["message"]
            .as_str()
            .unwrap()
            .contains("2 -> 1 takes effect when the gateway is restarted")
    );
    program.line(|line| line["revision"] == 2).await;
    assert_eq!(status(&world, &program, KEY).await, 401);
    assert_eq!(status(&world, &program, NEXT_KEY).await, 202);
    let readiness = program.readiness(admin).await;
    assert_eq!(readiness["revision"], 2);
    assert!(readiness["last_reload"]["refused"].is_null(), "{readiness}");
    program.signal("TERM");
    assert_eq!(program.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_list_of_keys_is_followed_without_a_signal_and_the_settings_file_is_not() {
    let keys = |key: &str| format!("first {}\n", crate::harness::digest(key));
    let (world, mut program, admin, text) = program(|world, trigger| {
        world.file("keys", &keys(KEY));
        let inline = format!(
            "[[caller.key]]\nlabel = \"shop-1\"\ndigest = \"{}\"\n",
            crate::harness::digest(KEY)
        );
        format!(
            "{}{}",
            world.base(),
            world.route("orders", "/orders", &trigger.url(), "")
        )
        .replace(&inline, "keys_file = \"keys\"\n")
    })
    .await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    // It does not load, and nobody asked for it.
    world.file("program.toml", &format!("{text}[[[\n"));
    world.file("keys", &keys(NEXT_KEY));
    let began = Instant::now();
    program.line(|line| line["revision"] == 2).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(status(&world, &program, KEY).await, 401);
    assert_eq!(status(&world, &program, NEXT_KEY).await, 202);
    assert_eq!(program.readiness(admin).await["revision"], 2);

    world.file("keys", "no digest\n");
    program
        .line(|line| line["because"] == "a list file" && line["level"] == "ERROR")
        .await;
    assert_eq!(
        status(&world, &program, NEXT_KEY).await,
        202,
        "the last good list stays"
    );
}

#[tokio::test]
async fn the_settings_file_is_followed_where_the_settings_say_so() {
    let (world, mut program, _admin, text) = program(|world, trigger| {
        format!(
            "{}{}",
            world.base(),
            world.route("orders", "/orders", &trigger.url(), "")
        )
        .replace("[gateway]\n", "[gateway]\nwatch = \"all\"\n")
    })
    .await;
    let other = text.replace(&caller("shop", KEY), &caller("shop", NEXT_KEY));
    // Written in two steps, it is read once it is whole.
    world.file("program.toml", &other[..other.len() / 2]);
    tokio::task::yield_now().await;
    world.file("program.toml", &other);
    program
        .line(|line| {
            assert_ne!(line["level"], "ERROR", "{line}");
            line["revision"] == 2
        })
        .await;
    assert_eq!(status(&world, &program, NEXT_KEY).await, 202);
}

#[tokio::test]
async fn an_emptied_list_of_keys_does_not_let_a_whole_network_in() {
    let (world, mut program, admin, _) = program(|world, trigger| {
        world.file("keys", &format!("first {}\n", crate::harness::digest(KEY)));
        let inline = format!(
            "[[caller.key]]\nlabel = \"shop-1\"\ndigest = \"{}\"\n",
            crate::harness::digest(KEY)
        );
        format!(
            "{}{}",
            world.base(),
            world.route("orders", "/orders", &trigger.url(), "")
        )
        .replace(&inline, "keys_file = \"keys\"\nnetworks = [\"127.0.0.0/8\"]\n")
    })
    .await;
    world.file("keys", "");
    let line = program.line(|line| line["level"] == "ERROR").await;
    assert!(
        line["message"].as_str().unwrap().contains("the file has no keys"),
        "{line}"
    );
    assert_eq!(status(&world, &program, "canary-wrong-key-0123456789").await, 401);
    assert_eq!(status(&world, &program, KEY).await, 202);
    // Put back, it is as in force, and nothing is wrong any more.
    world.file("keys", &format!("first {}\n", crate::harness::digest(KEY)));
    program
        .line(|line| line["message"] == "the files are as in force again")
        .await;
    assert!(program.readiness(admin).await["last_reload"]["refused"].is_null());
}

#[tokio::test]
async fn a_list_that_became_a_pipe_is_refused_and_not_waited_for() {
    let (world, mut program, admin, _) = program(|world, trigger| {
        world.file("keys", &format!("first {}\n", crate::harness::digest(KEY)));
        let inline = format!(
            "[[caller.key]]\nlabel = \"shop-1\"\ndigest = \"{}\"\n",
            crate::harness::digest(KEY)
        );
        let route = world.route("orders", "/orders", &trigger.url(), "");
        format!("{}{route}", world.base()).replace(&inline, "keys_file = \"keys\"\n")
    })
    .await;
    std::fs::remove_file(world.dir().join("keys")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(world.dir().join("keys"))
        .status();
    assert!(made.unwrap().success());
    let line = program.line(|line| line["because"] == "a list file").await;
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("is not a file that can be read again"),
        "{line}"
    );
    assert!(
        program.readiness(admin).await["last_reload"]["refused"]
            .as_str()
            .is_some()
    );
    assert_eq!(status(&world, &program, KEY).await, 202);
    program.signal("TERM");
    assert_eq!(program.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_settings_file_that_is_no_file_or_too_large_changes_nothing() {
    let (world, mut program, admin, text) = program(|world, trigger| {
        let route = world.route("orders", "/orders", &trigger.url(), "");
        format!("{}{route}", world.base())
    })
    .await;
    let path = world.dir().join("program.toml");
    let large = std::fs::File::create(world.dir().join("large")).unwrap();
    large.set_len(100 * 1024 * 1024).unwrap();
    type Make<'a> = &'a dyn Fn();
    let cases: [(Make<'_>, &str); 4] = [
        (&|| drop(std::fs::remove_file(&path)), "does not exist"),
        (&|| std::fs::create_dir(&path).unwrap(), "is a folder, not a file"),
        (
            &|| {
                std::fs::remove_dir(&path).unwrap();
                std::fs::rename(world.dir().join("large"), &path).unwrap();
            },
            "is larger than 64 MiB",
        ),
        (
            &|| {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, b"[gateway]\n# \xff\n").unwrap();
            },
            "is not UTF-8 text",
        ),
    ];
    for (make, why) in cases {
        make();
        program.signal("HUP");
        let line = program.line(|line| line["because"] == "SIGHUP").await;
        assert!(line["message"].as_str().unwrap().contains(why), "{why}: {line}");
        assert_eq!(status(&world, &program, KEY).await, 202, "{why}");
    }
    std::fs::write(&path, &text).unwrap();
    program.signal("HUP");
    program.line(|line| line["revision"] == 2).await;
    assert!(program.readiness(admin).await["last_reload"]["refused"].is_null());
}

#[tokio::test]
async fn one_bad_line_among_a_hundred_thousand_keys_is_named_and_refuses_all() {
    let list = |first: &str, bad: &str| {
        let line = |number: usize| match number {
            1 => format!("k1 {first}\n"),
            77_777 => bad.to_owned(),
            number => format!("k{number} {}\n", crate::harness::digest(&number.to_string())),
        };
        (1..=100_000).map(line).collect::<String>()
    };
    let (world, mut program, admin, _) = program(|world, trigger| {
        world.file("keys", &list(&crate::harness::digest(KEY), ""));
        let inline = format!(
            "[[caller.key]]\nlabel = \"shop-1\"\ndigest = \"{}\"\n",
            crate::harness::digest(KEY)
        );
        let route = world.route("orders", "/orders", &trigger.url(), "");
        format!("{}{route}", world.base()).replace(&inline, "keys_file = \"keys\"\n")
    })
    .await;
    let other = crate::harness::digest(NEXT_KEY);
    world.file("keys", &list(&other, "k77777 sha256:canary\n"));
    let mistake = program.line(|line| line["line"] == 77_777).await;
    assert!(!mistake.to_string().contains("canary"), "{mistake}");
    let line = program.line(|line| line["because"] == "a list file").await;
    assert!(line["message"].as_str().unwrap().contains("keys:77777"), "{line}");
    assert_eq!(
        status(&world, &program, KEY).await,
        202,
        "none of the list is in force"
    );
    assert_eq!(program.readiness(admin).await["revision"], 1);
    world.file("keys", &list(&other, ""));
    program.line(|line| line["revision"] == 2).await;
    assert_eq!(status(&world, &program, NEXT_KEY).await, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_rests_is_built_seldom_and_nothing_is_lost() {
    let keys = |key: &str| format!("first {}\n", crate::harness::digest(key));
    let (world, mut program, admin, _) = program(|world, trigger| {
        world.file("keys", &keys(KEY));
        let inline = format!(
            "[[caller.key]]\nlabel = \"shop-1\"\ndigest = \"{}\"\n",
            crate::harness::digest(KEY)
        );
        let route = world.route("orders", "/orders", &trigger.url(), "");
        format!("{}{route}", world.base()).replace(&inline, "keys_file = \"keys\"\n")
    })
    .await;
    // A thousand changes a minute, for six seconds: what is moved into place is always whole.
    let mut period = tokio::time::interval(Duration::from_millis(60));
    for number in 0..100 {
        period.tick().await;
        world.file("keys.new", &format!("{}# {number}\n", keys(KEY)));
        std::fs::rename(world.dir().join("keys.new"), world.dir().join("keys")).unwrap();
        if number % 10 == 0 {
            assert_eq!(status(&world, &program, KEY).await, 202);
        }
    }
    let revision = program.readiness(admin).await["revision"].as_u64().unwrap();
    assert!(revision <= 2, "{revision} builds while the file changed");
    world.file("keys", &keys(NEXT_KEY));
    program
        .line(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("settings reloaded"))
        })
        .await;
    assert_eq!(
        status(&world, &program, NEXT_KEY).await,
        202,
        "the last change counts"
    );
}

#[tokio::test]
async fn certificate_authorities_are_followed_like_lists() {
    let (world, mut program, _, _) = program(|world, trigger| {
        let authorities = std::fs::read_to_string(world.emulator.ca_file()).unwrap();
        world.file("authorities.pem", &authorities);
        let own = format!("{:?}", world.emulator.ca_file());
        let route = world.route("orders", "/orders", &trigger.url(), "");
        let route = route.replace(&own, "\"authorities.pem\"");
        format!("{}{route}", world.base())
    })
    .await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    let authorities = std::fs::read_to_string(world.dir().join("authorities.pem")).unwrap();
    world.file("authorities.pem", "no certificate\n");
    let line = program.line(|line| line["because"] == "a list file").await;
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("no certificate in PEM form"),
        "{line}"
    );
    assert_eq!(status(&world, &program, KEY).await, 202);
    world.file("authorities.pem", &format!("{authorities}# Another.\n"));
    program.line(|line| line["revision"] == 2).await;
    assert_eq!(status(&world, &program, KEY).await, 202);
}

#[tokio::test]
async fn the_metrics_of_a_route_that_is_gone_go_with_it() {
    let (world, trigger) = accepting().await;
    let orders = world.route("orders", "/orders", &trigger.url(), "");
    let returns = world.route("returns", "/returns", &trigger.url(), "");
    let mut gateway = world.start_with(&format!("{orders}{returns}"));
    let mut connection = gateway.connect().await;
    assert_eq!(connection.send(with_key(KEY, "/returns")).await.status, 202);
    assert_eq!(
        connection
            .send(with_key("canary-wrong-0123456789", "/returns"))
            .await
            .status,
        401
    );
    assert_eq!(connection.send(order()).await.status, 202);
    assert!(gateway.admin("/metrics").await.1.contains("route=\"returns\""));

    gateway
        .reload(&world, &format!("{}{orders}", world.base()))
        .await
        .unwrap();
    let gone = async { while gateway.admin("/metrics").await.1.contains("route=\"returns\"") {} };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let metrics = gateway.admin("/metrics").await.1;
    assert!(
        metrics.contains("flowgate_requests_total{route=\"orders\",outcome=\"answered\"} 1"),
        "{metrics}"
    );
}
