//! The redirect target of a sign-in: a listener on a loopback address, for one answer. It reads only the head of a
//! request, limited in size and time, and accepts only answers with the state of the pending sign-in. The browser is also
//! sent to Entra from here, so that a process list exposes a path that is valid once, and not the state.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::model::Secret;

/// Largest request head: codes have some 1,500 bytes, and browsers add as much.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Time for one head; browsers open connections ahead and leave them silent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at one time that have not sent a whole head. One more ends the oldest, so that silent ones keep nobody
/// out.
const SILENT_MAX: usize = 16;
const CONNECTIONS_MAX: usize = 4 * SILENT_MAX;
/// How often another port is tried when somebody else has the same one for IPv6.
const PORTS_MAX: usize = 10;

/// Time between tries while no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a browser on this machine begins: a path that leads on to the page of the sign-in, once.
pub(crate) struct Opening {
    path: Secret,
    page: Secret,
    used: AtomicBool,
}

impl Opening {
    pub(crate) fn new(random: &Secret, page: &str) -> Self {
        Self {
            path: Secret::new(format!("/open/{}", random.expose())),
            page: Secret::new(page),
            used: AtomicBool::new(false),
        }
    }

    /// The path that follows the address of the listener.
    pub(crate) fn path(&self) -> &Secret {
        &self.path
    }

    /// What a request for this path comes to; nothing if it is for another path. The one that opens it first learns the state,
    /// and could sign in with an account of their own, so a second opening ends the sign-in.
    fn judge(&self, path: &str) -> Option<Verdict> {
        if !self.path.same_as(path) {
            return None;
        }
        Some(match self.used.swap(true, Ordering::Relaxed) {
            false => Verdict::Page(self.page.clone()),
            true => Verdict::Brought(Brought::OpenedTwice),
        })
    }
}

#[derive(Debug)]
pub(crate) enum Brought {
    /// Nothing: somebody else may have been at the opening before it.
    OpenedTwice,
    Code(Secret),
    /// A refusal: `error` and `error_description`.
    Refusal(String, String),
}

/// The listener, on both loopback addresses, because browsers differ in what `localhost` means to them.
pub(crate) struct Loopback {
    v4: TcpListener,
    v6: Option<TcpListener>,
    port: u16,
}

impl Loopback {
    pub(crate) async fn open() -> io::Result<Self> {
        let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORTS_MAX {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = v4.local_addr()?.port();
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
                Ok(v6) => {
                    return Ok(Self {
                        v4,
                        v6: Some(v6),
                        port,
                    });
                }
                // The code would go to the process that uses the port.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
                // A machine without IPv6.
                Err(_) => return Ok(Self { v4, v6: None, port }),
            }
        }
        Err(taken)
    }

    /// The address for the browser. Entra ignores the port of a registered `http://localhost`, but not the path.
    pub(crate) fn address(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Waits for the answer that carries this state.
    pub(crate) async fn wait(self, state: &Secret, opening: &Arc<Opening>) -> Brought {
        let mut requests = JoinSet::new();
        let mut silent = VecDeque::new();
        loop {
            tokio::select! {
                stream = patiently(async || self.accept().await), if requests.len() < CONNECTIONS_MAX => {
                    // Dropping it ends the wait for a head; a head that is there is served.
                    let (kept, ended) = oneshot::channel();
                    silent.retain(|one: &oneshot::Sender<()>| !one.is_closed());
                    if silent.len() >= SILENT_MAX {
                        silent.pop_front();
                    }
                    silent.push_back(kept);
                    requests.spawn(serve(stream, ended, state.clone(), opening.clone()));
                }
                Some(served) = requests.join_next() => {
                    if let Ok(Some(brought)) = served {
                        return brought;
                    }
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = match &self.v6 {
            None => self.v4.accept().await?,
            Some(v6) => tokio::select! {
                accepted = self.v4.accept() => accepted?,
                accepted = v6.accept() => accepted?,
            },
        };
        Ok(stream)
    }
}

/// A connection that broke, or a machine that has no room for one at the moment, does not end a sign-in.
async fn patiently<T>(mut accept: impl AsyncFnMut() -> io::Result<T>) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

enum Verdict {
    Brought(Brought),
    /// On to this page.
    Page(Secret),
    Refused(u16, &'static str),
}

async fn serve(
    mut stream: TcpStream,
    mut ended: oneshot::Receiver<()>,
    state: Secret,
    opening: Arc<Opening>,
) -> Option<Brought> {
    let head = tokio::select! {
        biased;
        head = tokio::time::timeout(HEAD_TIMEOUT, head(&mut stream)) => head.ok()??,
        _ = &mut ended => return None,
    };
    ended.close();
    let verdict = match opening.judge(path_of(head.expose())) {
        Some(verdict) => verdict,
        None => judge(head.expose(), &state),
    };
    let (status, text) = match &verdict {
        Verdict::Page(_) => (302, "The sign-in goes on."),
        Verdict::Brought(Brought::OpenedTwice) => (
            410,
            "This address was opened before, perhaps by somebody else. Run the command again.",
        ),
        Verdict::Brought(Brought::Code(_)) => (200, "Signed in. You can close this window."),
        Verdict::Brought(Brought::Refusal(..)) => (
            200,
            "The sign-in was refused. The command that waits for it says why.",
        ),
        Verdict::Refused(status, text) => (*status, *text),
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Flowgate</title><p>{text}</p></html>"
    );
    let reason = match status {
        200 => "OK",
        302 => "Found",
        _ => "Refused",
    };
    let location = match &verdict {
        Verdict::Page(page) => format!("location: {}\r\n", page.expose()),
        Verdict::Brought(_) | Verdict::Refused(..) => String::new(),
    };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{location}content-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nreferrer-policy: no-referrer\r\ncontent-security-policy: default-src 'none'\r\n\
         connection: close\r\n\r\n{page}",
        page.len()
    );
    let written = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // A browser that is gone by now has brought its answer all the same.
    let _ = tokio::time::timeout(HEAD_TIMEOUT, written).await;
    match verdict {
        Verdict::Brought(brought) => Some(brought),
        Verdict::Refused(..) | Verdict::Page(_) => None,
    }
}

fn path_of(head: &str) -> &str {
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    match (line.next(), line.next()) {
        (Some("GET"), Some(target)) => target,
        _ => "",
    }
}

/// The head of a request, if it is whole and small enough.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Secret> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let mut piece = zeroize::Zeroizing::new([0; 2048]);
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut *piece).await.ok()?;
        if read == 0 || bytes.len() + read > HEAD_BYTES_MAX {
            return None;
        }
        bytes.extend_from_slice(piece.get(..read)?);
    }
    std::str::from_utf8(&bytes).ok().map(Secret::new)
}

fn judge(head: &str, state: &Secret) -> Verdict {
    let mut line = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    if method != "GET" {
        return Verdict::Refused(
            405,
            "Only a browser that comes from the sign-in is expected here.",
        );
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path != "/" {
        return Verdict::Refused(404, "There is nothing here.");
    }
    let fields = Fields::read(query);
    if !fields.one("state").is_some_and(|given| state.same_as(&given)) {
        return Verdict::Refused(
            400,
            "This answer does not belong to the sign-in that is waited for, and nothing was taken from it.",
        );
    }
    if let Some(error) = fields.one("error") {
        let description = fields.one("error_description").unwrap_or_default();
        return Verdict::Brought(Brought::Refusal(error, description));
    }
    match fields.one("code").filter(|code| !code.is_empty()) {
        Some(code) => Verdict::Brought(Brought::Code(Secret::new(code))),
        None => Verdict::Refused(400, "The answer of the sign-in carries no code."),
    }
}

struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn read(query: &'a str) -> Self {
        Self(query.split('&').filter_map(|pair| pair.split_once('=')).collect())
    }

    /// The decoded value of a field that occurs exactly once: two would be ambiguous.
    fn one(&self, name: &str) -> Option<String> {
        let mut values = self.0.iter().filter(|(known, _)| *known == name);
        let (_, value) = values.next()?;
        if values.next().is_some() {
            return None;
        }
        let value = value.replace('+', " ");
        percent_decode_str(&value).decode_utf8().ok().map(String::from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::proptest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::{Brought, HEAD_BYTES_MAX, HEAD_TIMEOUT, Loopback, Opening, SILENT_MAX, Verdict, head, judge};
    use crate::model::Secret;

    fn said(line: &str) -> String {
        match judge(&format!("{line}\r\nhost: localhost\r\n\r\n"), &Secret::new("s1")) {
            Verdict::Brought(Brought::Code(code)) => format!("code {}", code.expose()),
            Verdict::Brought(Brought::Refusal(error, description)) => format!("{error}: {description}"),
            Verdict::Refused(status, _) => status.to_string(),
            Verdict::Brought(Brought::OpenedTwice) | Verdict::Page(_) => "an opening".to_owned(),
        }
    }

    fn opened(opening: &Opening, path: &str) -> String {
        match opening.judge(path) {
            None => "not here".to_owned(),
            Some(Verdict::Page(page)) => page.expose().to_owned(),
            Some(Verdict::Refused(status, _)) => status.to_string(),
            Some(Verdict::Brought(brought)) => format!("{brought:?}"),
        }
    }

    #[test]
    fn an_opening_leads_on_once_and_a_second_one_ends_the_sign_in() {
        let page = "https://page.example/?state=s1";
        let opening = Opening::new(&Secret::new("r1"), page);
        assert_eq!(opened(&opening, "/open/r2"), "not here");
        assert_eq!(opened(&opening, "/open/r1"), page);
        assert_eq!(opened(&opening, "/open/r2"), "not here");
        assert_eq!(opened(&opening, "/open/r1"), "OpenedTwice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_be_accepted_is_not_the_last() {
        let mut failures = 3;
        let accepted = super::patiently(async || {
            if failures == 0 {
                return Ok("a connection");
            }
            failures -= 1;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        });
        let accepted = tokio::time::timeout(std::time::Duration::from_secs(1), accepted).await;
        assert_eq!(accepted.unwrap(), "a connection");
    }

    #[tokio::test]
    async fn silent_connections_keep_no_answer_out() {
        let loopback = Loopback::open().await.unwrap();
        let port = loopback.port;
        let opening = Arc::new(Opening::new(&Secret::new("r1"), "https://page.example/?state=s1"));
        let state = Secret::new("s1");
        let browser = async {
            let mut silent = Vec::new();
            for _ in 0..8 * SILENT_MAX {
                silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
            }
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let request = b"GET /?code=a&state=s1 HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let both = async { tokio::join!(loopback.wait(&state, &opening), browser) };
        let (brought, answer) = tokio::time::timeout(HEAD_TIMEOUT, both).await.unwrap();
        assert!(matches!(brought, Brought::Code(code) if code.expose() == "a"));
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }

    #[test]
    fn only_an_answer_with_the_right_state_is_taken() {
        for (line, expected) in [
            ("GET /?code=a%2Bb&state=s1 HTTP/1.1", "code a+b"),
            ("GET /?state=s1&code=a&session_state=x HTTP/1.1", "code a"),
            ("GET /?code=a&state=s2 HTTP/1.1", "400"),
            ("GET /?code=a HTTP/1.1", "400"),
            ("GET /?code=a&state=s1&state=s1 HTTP/1.1", "400"),
            ("GET /?code=a&code=b&state=s1 HTTP/1.1", "400"),
            ("GET /?code=&state=s1 HTTP/1.1", "400"),
            ("GET /?state=s1 HTTP/1.1", "400"),
            ("POST /?code=a&state=s1 HTTP/1.1", "405"),
            ("GET /favicon.ico HTTP/1.1", "404"),
            ("GET /x?code=a&state=s1 HTTP/1.1", "404"),
            ("", "405"),
            (
                "GET /?error=access_denied&error_description=AADSTS65004%3a+no&state=s1 HTTP/1.1",
                "access_denied: AADSTS65004: no",
            ),
            ("GET /?error=access_denied&state=s2 HTTP/1.1", "400"),
        ] {
            assert_eq!(said(line), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_head_is_whole_and_small() {
        let whole = b"GET / HTTP/1.1\r\n\r\n";
        assert!(head(&mut &whole[..]).await.is_some());
        assert!(head(&mut &whole[..10]).await.is_none());
        let large = "x".repeat(HEAD_BYTES_MAX + 1);
        assert!(head(&mut large.as_bytes()).await.is_none());
        assert!(head(&mut &[0xff, b'\r', b'\n', b'\r', b'\n'][..]).await.is_none());
    }

    proptest! {
        #[test]
        fn no_line_ends_the_reader(line in ".{0,200}") {
            let _ = said(&line);
        }
    }
}
