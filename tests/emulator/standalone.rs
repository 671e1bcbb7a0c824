//! The emulator as a program of its own: Entra with one application, and two flows for it. Their ids are those of the
//! settings that are written for it, and its authority outlives a restart.

use std::io;
use std::path::Path;

use serde_json::json;

use super::entra::TokenRequest;
use super::record::{Decided, Recorded};
use super::{Answer, Authority, Emulator, Trigger};

/// The folder with its files, in the folder of the settings.
const FOLDER: &str = "flowgate-emulator";
const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const CLIENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OID: &str = "99999999-8888-4777-8666-555555555555";
const SECRET: &str = "emulator";
/// The flow that answers 202.
const ACCEPTING: &str = "0123456789abcdef0123456789abcdef";
/// The flow that answers 200 with JSON.
const ANSWERING: &str = "fedcba9876543210fedcba9876543210";

/// The running servers.
#[derive(Debug)]
pub struct Standalone {
    emulator: Emulator,
    introduction: String,
}

impl Standalone {
    /// Starts Entra on `port` and the flows on the next one, for the settings in `folder`.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub async fn start(folder: &Path, port: u16) -> Result<Self, String> {
        let files = folder.join(FOLDER);
        if !files.is_dir() {
            return Err(format!(
                "there is no folder {}; make it with: flowgate init --emulator {}",
                files.display(),
                folder.display()
            ));
        }
        let ca = Authority::kept_in(&files).map_err(|error| error.to_string())?;
        let started = Emulator::start_with(ca, [port, port.saturating_add(1)]).await;
        let emulator = started.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "{error}; name two other ports, here with --port PORT and for the settings with flowgate init \
                 --emulator=PORT"
            ),
            _ => error.to_string(),
        })?;
        emulator.register_app(TENANT, CLIENT, SECRET, OID);
        let flow = &emulator.flow;
        let accepting = flow.add(Trigger::any_user(TENANT).workflow(ACCEPTING));
        let answer = Answer::json(200, &json!({"accepted": true}));
        let answering = flow.add(Trigger::any_user(TENANT).workflow(ANSWERING).does(answer));
        let introduction = format!(
            "Entra on {}, with its CA in {}\nA flow that answers 202: {}\nA flow that answers 200: {}\n\
             Ready; Ctrl-C ends it.\n",
            emulator.entra.authority(),
            files.join("ca.pem").display(),
            accepting.url(),
            answering.url()
        );
        Ok(Self {
            emulator,
            introduction,
        })
    }

    /// What a reader needs to know.
    pub fn introduction(&self) -> &str {
        &self.introduction
    }

    /// Passes a line on for each request from now on.
    pub async fn follow(&self, print: impl Fn(&str)) {
        let Emulator { entra, flow, .. } = &self.emulator;
        let (mut tokens, mut calls) = (entra.token_requests().changes(), flow.request_count().changes());
        loop {
            entra
                .take_requests()
                .iter()
                .for_each(|request| print(&asked(request)));
            flow.take_requests()
                .iter()
                .for_each(|request| print(&called(request)));
            // The senders live as long as the emulator.
            let _ = tokio::select! {
                changed = tokens.changed() => changed,
                changed = calls.changed() => changed,
            };
        }
    }
}

fn asked(request: &TokenRequest) -> String {
    let field = |name| request.field(name).unwrap_or("nothing");
    format!(
        "entra  token for {}, asked for by client {}",
        field("scope"),
        field("client_id")
    )
}

fn called(request: &Recorded) -> String {
    let came_of_it = match (&request.decided, &request.run) {
        (Decided::Check(code), _) => format!("refused: {code}"),
        (_, Some(run)) => format!("run {run}"),
        (_, None) => "no run".to_owned(),
    };
    let caller = request.header("x-flowgate-caller").unwrap_or("nobody");
    let Recorded { head, body_bytes, .. } = request;
    format!(
        "flow   {} with {body_bytes} bytes, caller {caller}: {came_of_it}",
        head.method
    )
}
