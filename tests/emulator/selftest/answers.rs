//! What a trigger answers, and what it records of a request.

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{
    SCOPE, SECRET, TENANT, ask, call, call_with_token, connect, dial, method, post, secret_form, send,
    started, token,
};
use crate::emulator::faults::RunStarted;
use crate::emulator::{
    After, Answer, Decided, ErrorBody, Framing, Gate, PLATFORM_FAULTS, Reply, Steps, Trigger, ids,
    platform_fault,
};

#[tokio::test]
async fn each_platform_fault_can_be_scripted_once() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    emulator.strict();
    let mut sender = connect(&emulator, &emulator.flow.origin()).await;
    let mut runs = 0;
    for fault in PLATFORM_FAULTS {
        trigger.next(Answer::Fault(*fault));
        let got = send(&mut sender, post(&trigger.target(), &[], "{}"))
            .await
            .unwrap();
        assert_eq!((got.status, got.code().as_str()), (fault.status, fault.code));
        assert_eq!(
            got.header("content-type"),
            Some("application/json; charset=utf-8")
        );
        assert_eq!(got.header("x-ms-workflow-run-id"), None);
        assert!(!got.message().contains('{'), "{got:?}");
        runs += u64::from(fault.run == RunStarted::Yes);
        assert_eq!(trigger.runs(), runs, "{}", fault.code);
        assert!(
            platform_fault(fault.code)
                .iter()
                .any(|(status, _)| *status == fault.status)
        );
    }
    assert_eq!(platform_fault("MisMatchingOAuthClaims").len(), 2);
    emulator.assert_script_done();
}

#[tokio::test]
async fn answers_of_unknown_form_are_recognized_by_their_status() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let target = trigger.target();
    for (body, text) in [
        (ErrorBody::Envelope, "{"),
        (ErrorBody::Html, "<html>"),
        (ErrorBody::Empty, ""),
    ] {
        trigger.next(Answer::throttled(Some("7"), body));
        let got = call(&emulator, post(&target, &[], "{}")).await;
        assert_eq!((got.status, got.header("retry-after")), (429, Some("7")));
        assert!(got.body.starts_with(text.as_bytes()) && got.body.is_empty() == text.is_empty());
        trigger.next(Answer::timeout(body));
        assert_eq!(call(&emulator, post(&target, &[], "{}")).await.status, 504);
    }
    assert_eq!(trigger.runs(), 3);
    trigger.next(Answer::too_large());
    assert_eq!(call(&emulator, post(&target, &[], "{}")).await.status, 413);
    trigger.next(Answer::server_error(500, ErrorBody::Empty));
    assert_eq!(call(&emulator, post(&target, &[], "{}")).await.status, 500);
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn the_owners_answer_carries_the_run() {
    let emulator = started().await;
    let reply = Reply::json(401, &json!({"error": {"code": "Unauthorized"}})).header("X-Own", "yes");
    let trigger = emulator.flow.add(Trigger::anyone().does(Answer::Respond(reply)));
    let got = call(&emulator, post(&trigger.target(), &[], "{}")).await;
    assert_eq!((got.status, got.header("x-own")), (401, Some("yes")));
    assert!(got.header("x-ms-workflow-run-id").is_some());
    trigger.change(|settings| *settings = settings.clone().without_platform_headers());
    let got = call(&emulator, post(&trigger.target(), &[], "{}")).await;
    assert_eq!(got.header("x-ms-workflow-run-id"), None);
}

#[tokio::test]
async fn a_request_is_recorded_as_it_was_sent() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone().does(Answer::EchoHead));
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    let head = format!(
        "POST {}&x=%2f%2F HTTP/1.1\r\nHost: localhost\r\nX-Odd:  a b \r\nx-odd: c\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        trigger.target()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    emulator.flow.heads().reached(1).await;
    stream.write_all(b"3\r\nabc\r\n").await.unwrap();
    emulator.flow.body_bytes().reached(3).await;
    stream
        .write_all(b"2;ext=1\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
        .await
        .unwrap();
    emulator.flow.request_count().reached(1).await;

    let request = trigger.last_request();
    assert!(request.head.target.ends_with("&x=%2f%2F"));
    assert_eq!(request.headers_named("X-ODD"), ["a b", "c"]);
    assert_eq!(request.head.headers[1].0, "X-Odd");
    assert_eq!(request.framing, Framing::Chunked);
    assert_eq!((request.text().as_str(), request.body_bytes), ("abcde", 5));
    assert_eq!(request.body_sha256, ids::sha256(b"abcde"));
    assert!(request.body_complete);
    assert_eq!(request.decided, Decided::Behaviour);
    assert_eq!(request.sni.as_deref(), Some("localhost"));

    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn echo_returns_what_arrived() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone().does(Answer::EchoHead));
    let got = call(
        &emulator,
        post(&trigger.target(), &[("X-Caller", "shop")], "hello"),
    )
    .await
    .json();
    assert_eq!((&got["method"], &got["body_bytes"]), (&json!("POST"), &json!(5)));
    assert_eq!(got["body_sha256"], ids::sha256(b"hello"));
    assert!(
        got["headers"]
            .as_array()
            .unwrap()
            .contains(&json!(["x-caller", "shop"])),
        "{got}"
    );
}

#[tokio::test]
async fn a_body_is_kept_up_to_a_mebibyte_and_hashed_to_its_end() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let body = "x".repeat(3 << 20);
    call(&emulator, post(&trigger.target(), &[], &body)).await;
    let request = trigger.last_request();
    assert_eq!((request.body.len(), request.body_bytes), (1 << 20, 3 << 20));
    assert_eq!(request.body_sha256, ids::sha256(body.as_bytes()));
}

#[tokio::test]
async fn a_body_that_stops_in_the_middle_starts_no_run() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc",
        trigger.target()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    emulator.flow.body_bytes().reached(3).await;
    drop(stream);
    emulator.flow.broken_bodies().reached(1).await;
    assert!(!trigger.last_request().body_complete);
    assert_eq!(trigger.runs(), 0);
    emulator.assert_clean();
}

#[tokio::test]
async fn an_asynchronous_answer_can_be_polled_with_its_own_signature() {
    let emulator = started().await;
    let then = Reply::json(200, &json!({"done": true}));
    let trigger = emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Answer::Asynchronous { polls: 1, then }));
    let got = call_with_token(&emulator, &trigger, &token(&emulator, &json!({}))).await;
    assert_eq!(got.status, 202);
    let location = got.header("location").unwrap();
    let target = location.strip_prefix(&emulator.flow.origin()).unwrap();
    let poll = |headers| method("GET", target, headers, "");
    let got = call(&emulator, poll(&[("Authorization", "Bearer x")])).await;
    assert_eq!(got.code(), "DirectApiRequestHasMoreThanOneAuthorization");
    let got = call(
        &emulator,
        method("GET", &target.replace("sig=", "sig=x"), &[], ""),
    )
    .await;
    assert_eq!(got.code(), "DirectApiInvalidAuthorizationSignature");
    let got = call(&emulator, poll(&[])).await;
    assert_eq!((got.status, got.header("location")), (202, Some(location)));
    let got = call(&emulator, poll(&[])).await;
    assert_eq!((got.status, &got.json()["done"]), (200, &json!(true)));
    assert!(got.header("x-ms-workflow-run-id").is_some());
    assert_eq!((trigger.runs(), emulator.flow.polls().get()), (1, 4));
}

#[tokio::test]
async fn a_stream_goes_on_chunk_by_chunk_as_the_gate_says() {
    let emulator = started().await;
    let gate = Gate::closed();
    let stream = Answer::Stream {
        chunks: 3,
        chunk_bytes: 4,
        gate: Some(gate.clone()),
    };
    let trigger = emulator.flow.add(Trigger::anyone().does(stream));
    let mut sender = connect(&emulator, &emulator.flow.origin()).await;
    let mut response = sender
        .send_request(post(&trigger.target(), &[], ""))
        .await
        .unwrap();
    let first = response.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "xxxx");
    gate.arrived(1).await;
    gate.release(1);
    assert_eq!(
        response.frame().await.unwrap().unwrap().into_data().unwrap(),
        "xxxx"
    );
    gate.arrived(2).await;
    gate.open();
    assert_eq!(response.collect().await.unwrap().to_bytes(), "xxxx");
}

#[tokio::test]
async fn raw_bytes_arrive_as_they_are() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabc";
    trigger.next(Answer::raw(raw));
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    let request = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n\r\n", trigger.target());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, raw);

    trigger.next(Answer::Raw {
        bytes: Bytes::from_static(b"HTTP/1.1 200"),
        then: After::Cut,
    });
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let cut = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"HTTP/1.1 200");
    assert!(cut.is_err(), "a cut has no TLS goodbye");
}

#[tokio::test]
async fn the_platform_may_answer_or_leave_before_the_body() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone().body_bytes_max(10));
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n",
        trigger.target()
    );
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"),
        "{answer}"
    );
    assert!(answer.contains("Connection: close"));

    trigger.next(Answer::CutAtHead);
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(stream.read_to_string(&mut String::new()).await.is_err());
    assert_eq!((trigger.runs(), trigger.requests().len()), (0, 2));
}

#[tokio::test]
async fn what_nobody_scripted_is_a_violation() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    emulator.strict();
    trigger.next(Answer::Accepted);
    assert_eq!(
        call(&emulator, post(&trigger.target(), &[], "{}")).await.status,
        202
    );
    emulator.assert_clean();
    assert_eq!(
        call(&emulator, post(&trigger.target(), &[], "{}")).await.status,
        500
    );
    assert_eq!(ask(&emulator, &secret_form(SECRET, SCOPE)).await.status, 500);
    assert_eq!(emulator.violations().len(), 2);
    let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| emulator.assert_clean()));
    assert!(failure.is_err());
}

#[tokio::test]
async fn ambiguous_requests_are_violations() {
    let emulator = started().await;
    let heads = [
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "nonsense\r\n\r\n",
    ];
    for head in heads {
        let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
    }
    assert_eq!(emulator.violations().len(), heads.len());
}

#[tokio::test]
async fn an_answer_goes_step_by_step() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let gate = Gate::closed();
    let steps = Steps::new().send("HTTP/1.1 200 OK\r\n").pass(&gate);
    let steps = steps.repeat("ab", 3).at_head().then(After::Reset);
    trigger.next(steps.into());
    let mut stream = dial(&emulator, &emulator.flow.origin()).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        trigger.target()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 17];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(emulator.flow.written().get(), 0);
    gate.open();
    emulator.flow.written().reached(1).await;
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(b"ababab".starts_with(&rest));
    emulator.assert_clean();
}
