//! The steps of one request without I/O: the load of the snapshot, networks, route, key, signature, limits, and the
//! forwarded head. Run with few and with many entries, because the number must not affect the cost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench ends when its own machinery fails"
)]

use std::future::Future;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use flowgate::deliveries::{Claim, Delivery, DeliveryStore, Earlier, KeptAnswer, Memory, Sent, identify};
use flowgate::flow::outbound::{Audience, Introduction, Parcel};
use flowgate::flow::{Load, Permits, outbound};
use flowgate::model::signature::{Preset, SigningSecret};
use flowgate::model::{AnsweredBy, CallerName, Holder, KeyLabel, RequestId, RouteName, Secret};
use flowgate::policy::signature::{Addition, Head, Scheme, Unsigned};
use flowgate::policy::{
    Access, CallerNumbers, Callers, Guesses, LimitStates, Matching, Networks, Origin, Quotas, Routes, Shown,
};
use flowgate::settings::{
    CallerSettings, CallersSettings, DeliveryId, DuplicateSettings, InFlight, KeyDigest, KeyPlace,
    KeySettings, NetworkSettings, QuotaSettings, Rate, UnknownOutcome, WithoutId,
};
use futures_util::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

/// Entries of each table: few and many.
const SIZES: [usize; 2] = [1, 100_000];
/// Routes are fewer than keys: at most thousands.
const ROUTES: [usize; 2] = [1, 10_000];

fn generous() -> Rate {
    Rate {
        requests: 1_000_000,
        per: Duration::from_secs(1),
        burst: 1_000_000,
    }
}

fn callers(keys: usize) -> Vec<CallerSettings> {
    let keys = (0..keys).map(|number| {
        let label = KeyLabel::parse(&format!("k{number}")).unwrap();
        KeySettings::new(label, KeyDigest::of(format!("key-{number}").as_bytes(), None))
    });
    vec![CallerSettings {
        keys: Arc::new(keys.collect()),
        rate: Some(generous()),
        ..CallerSettings::new(CallerName::parse("shop").unwrap())
    }]
}

fn origin() -> Origin {
    Origin::of_peer(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)), 4242))
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "hooks.example"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("user-agent", "Vendor-Hook/1.0"),
        ("x-api-key", "key-0"),
        ("x-event", "order.created"),
        ("authorization", "Bearer from-the-vendor"),
        ("accept", "*/*"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

/// Loads and drops what stands for the snapshot as the gateway does for each request, on one worker alone and beside another
/// that does the same: both count in one place.
fn snapshot(criterion: &mut Criterion) {
    let current = ArcSwap::from_pointee(headers());
    criterion.bench_function("snapshot", |bench| {
        bench.iter(|| black_box(&current).load_full());
    });
    criterion.bench_function("snapshot/two workers", |bench| {
        bench.iter_custom(|count| {
            let turns = || (0..count).for_each(|_| drop(black_box(black_box(&current).load_full())));
            let began = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(turns);
                scope.spawn(turns);
            });
            began.elapsed()
        });
    });
}

fn networks(criterion: &mut Criterion) {
    for size in SIZES {
        let allow = (0..u32::try_from(size).unwrap())
            .map(|number| {
                format!("{}/32", Ipv4Addr::from(0x0a00_0000 + number * 7))
                    .parse()
                    .unwrap()
            })
            .collect();
        let networks = Networks::build(&NetworkSettings {
            allow,
            deny: Vec::new(),
        });
        let origin = Origin::of_peer(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 1));
        assert!(networks.admit(origin).is_ok());
        criterion.bench_function(&format!("networks/{size}"), |bench| {
            bench.iter(|| networks.admit(black_box(origin)).is_ok());
        });
    }
}

fn routes(criterion: &mut Criterion) {
    for size in ROUTES {
        let paths: Vec<String> = (0..size)
            .map(|number| format!("/hooks/r{number}/{{id}}"))
            .collect();
        let methods = [Method::POST];
        let table = paths.iter().enumerate().map(|(number, path)| {
            (
                Matching {
                    host: Some("hooks.example"),
                    path,
                    methods: &methods,
                    unlisted: &[],
                },
                number,
            )
        });
        let routes = Routes::build(table).unwrap();
        criterion.bench_function(&format!("route/{size}"), |bench| {
            bench.iter(|| {
                routes
                    .find(
                        black_box("hooks.example"),
                        black_box("/hooks/r0/17"),
                        &Method::POST,
                    )
                    .is_ok()
            });
        });
    }
}

fn keys(criterion: &mut Criterion) {
    for size in SIZES {
        let settings = callers(size);
        let callers = Arc::new(Callers::build(&settings, None, &CallerNumbers::default()).unwrap());
        let listed = CallersSettings::Named(vec![CallerName::parse("shop").unwrap()]);
        let places = [
            KeyPlace::Header(HeaderName::from_static("x-api-key")),
            KeyPlace::Authorization,
        ];
        let access = Access::build(&listed, &places[..1], &settings, &callers);
        let headers = headers();
        criterion.bench_function(&format!("key/{size}"), |bench| {
            bench.iter(|| {
                access
                    .identify(&Shown {
                        headers: black_box(&headers),
                        method: &Method::POST,
                        target: "/orders",
                        public_url: None,
                        path_key: None,
                        origin: origin(),
                        guesses: Guesses::Allowed,
                        now: &|| SystemTime::UNIX_EPOCH,
                    })
                    .is_ok()
            });
        });
    }
}

/// A signature over 64 KiB in full, and its bare hash: what is read of the head, and compared, must cost next to nothing.
fn signature(criterion: &mut Criterion) {
    const SECRET: &str = "canary-signing-secret";
    let secret = SigningSecret {
        label: KeyLabel::parse("current").unwrap(),
        secret: Secret::new(SECRET),
        not_before: None,
        expires: None,
    };
    let scheme = Scheme::build(&Preset::named("stripe").unwrap().recipe, &[secret]).unwrap();
    let lines = r#""line":{"amount":1200,"currency":"eur","description":"a thing"},"#.repeat(1040);
    let body = format!(r#"{{"id":"evt_1",{lines}"object":"event"}}"#).into_bytes();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let (url, method) = ("https://hooks.example/stripe", Method::POST);
    let mut headers = headers();
    let unsigned = Unsigned {
        method: &method,
        url,
        headers: &headers,
        body: &body,
        id: "",
        now,
    };
    for addition in scheme.sign(unsigned).unwrap() {
        if let Addition::Header(name, value) = addition {
            headers.insert(name, value);
        }
    }
    let head = Head {
        method: &method,
        url,
        headers: &headers,
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    criterion.bench_function("signature/64 KiB, bare hash", |bench| {
        bench.iter(|| hmac::sign(&key, black_box(&body)));
    });
    criterion.bench_function("signature/64 KiB", |bench| {
        bench.iter(|| scheme.verify(head, black_box(&body), now).is_ok());
    });
    assert!(scheme.verify(head, &body, now).is_ok());
}

/// Which delivery a request with this head and a body of 1 KiB is.
fn identified(headers: &HeaderMap) -> Delivery {
    static NAMES: LazyLock<(RouteName, CallerName)> = LazyLock::new(|| {
        let (route, caller) = (RouteName::parse("orders"), CallerName::parse("shop"));
        (route.unwrap(), caller.unwrap())
    });
    let settings = DuplicateSettings {
        by: DeliveryId::Header(HeaderName::from_static("x-event")),
        window: WINDOW,
        in_flight: InFlight::Wait,
        unknown: UnknownOutcome::Problem,
        without_id: WithoutId::Refuse,
    };
    let sent = Sent {
        method: &Method::POST,
        path: None,
        query: "",
        headers,
        body: &[b'x'; 1024],
        delivery: None,
    };
    let found = identify(&settings, (&NAMES.0, &NAMES.1), RequestId::new(), &sent);
    found.unwrap().unwrap()
}

fn delivery(number: usize) -> Delivery {
    let mut headers = headers();
    headers.insert("x-event", HeaderValue::from(number));
    identified(&headers)
}

const WINDOW: Duration = Duration::from_secs(86_400);

/// Looks up a delivery that was answered, among as many as are remembered by default, on one worker alone and beside another
/// that does the same; then claims and answers new ones, for each of which an old one is forgotten.
fn duplicates(criterion: &mut Criterion) {
    let deliveries = QuotaSettings::default().deliveries_max;
    let store: Arc<dyn DeliveryStore> = Arc::new(Memory::new(deliveries, 16 << 20));
    let claim = |delivery: &Delivery| Claim::take(&store, delivery, WINDOW).now_or_never().unwrap();
    let deliver = |delivery: &Delivery| {
        let answer = KeptAnswer::bare(RequestId::new(), AnsweredBy::Flow, StatusCode::ACCEPTED);
        claim(delivery).ok().unwrap().complete(answer);
    };
    (0..=deliveries).for_each(|number| deliver(&delivery(number)));
    let known = delivery(deliveries);
    let turns = |count: u64| {
        for _ in 0..count {
            assert!(matches!(claim(black_box(&known)), Err(Earlier::Answered(_))));
        }
    };
    criterion.bench_function("duplicate", |bench| {
        bench.iter_custom(|count| {
            let began = Instant::now();
            turns(count);
            began.elapsed()
        });
    });
    criterion.bench_function("duplicate/two workers", |bench| {
        bench.iter_custom(|count| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(|| turns(count));
                scope.spawn(|| turns(count));
            });
            began.elapsed()
        });
    });
    let mut numbers = deliveries + 1..;
    criterion.bench_function("duplicate/first", |bench| {
        bench.iter_batched(
            || delivery(numbers.next().unwrap()),
            |delivery| deliver(&delivery),
            BatchSize::SmallInput,
        );
    });
    let headers = headers();
    criterion.bench_function("duplicate/identify 1 KiB", |bench| {
        bench.iter(|| identified(black_box(&headers)));
    });
}

fn limits(criterion: &mut Criterion) {
    let settings = QuotaSettings {
        gateway: Some(generous()),
        ..QuotaSettings::default()
    };
    let quotas = Quotas::build(&settings, &callers(1), &[], &LimitStates::new(65_536));
    criterion.bench_function("limits", |bench| {
        bench.iter(|| {
            quotas
                .admit_address(black_box(origin()))
                .and_then(|()| quotas.take(Some(0), 0))
                .is_ok()
        });
    });
}

fn head(criterion: &mut Criterion) {
    let headers = headers();
    let credentials = [HeaderName::from_static("x-api-key")];
    let host = HeaderValue::from_static("prod-01.westeurope.logic.azure.com");
    let bearer = HeaderValue::try_from(format!("Bearer {}", "t".repeat(1500))).unwrap();
    let target = PathAndQuery::from_static("/workflows/0123456789abcdef/triggers/manual/paths/invoke");
    let request = RequestId::new();
    let who = Introduction {
        request,
        caller: CallerName::parse("shop").unwrap(),
        key: Some(KeyLabel::parse("k0").unwrap()),
        origin: "10.0.0.7".into(),
    };
    criterion.bench_function("head", |bench| {
        bench.iter(|| {
            outbound::head(
                &Parcel {
                    method: &Method::POST,
                    target: black_box(&target),
                    from: black_box(&headers),
                    credentials: &credentials,
                    host: &host,
                    bearer: Some(&bearer),
                    content_type: None,
                    who: &who,
                },
                Audience::Flow,
                Vec::new(),
            )
        });
    });
}

/// Takes and returns a permit, on one worker alone and beside another that does the same.
fn permits(criterion: &mut Criterion) {
    let permits = Arc::new(Permits::new(100, 200, Duration::from_secs(5)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let turns = |permits: &Arc<Permits>, holder: u64, turns: u64| {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..turns {
            let asked = pin!(permits.acquire(Holder::Address(black_box(holder)), Load::Whole));
            assert!(asked.poll(&mut context).is_ready());
        }
    };
    criterion.bench_function("permit", |bench| {
        bench.iter_custom(|count| {
            let _entered = runtime.enter();
            let began = Instant::now();
            turns(&permits, 1, count);
            began.elapsed()
        });
    });
    criterion.bench_function("permit/two workers", |bench| {
        bench.iter_custom(|count| {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for holder in [1, 2] {
                    let permits = &permits;
                    scope.spawn(move || turns(permits, holder, count));
                }
            });
            began.elapsed()
        });
    });
}

criterion_group!(
    decisions, snapshot, networks, routes, keys, signature, duplicates, limits, permits, head
);
criterion_main!(decisions);
