//! Serves one request at the trigger endpoint.

use std::sync::Arc;

use bytes::Bytes;

use super::super::admission::{Refused, Verifier};
use super::super::answer::{After, Answer};
use super::super::faults::{Names, PlatformFault, RunStarted};
use super::super::gate::Gate;
use super::super::listener::Connection;
use super::super::platform::Trace;
use super::super::record::{Decided, Recorded};
use super::super::reply::Reply;
use super::super::script::Cue;
use super::super::session::{Exchange, Next};
use super::super::steps::{Step, Steps};
use super::super::trigger::{Checks, PlatformHeaders, Trigger, TriggerPath};
use super::super::wire::{Body, Broken, Framing, Head, Wire};
use super::super::{admission, answer, faults, ids, platform, session};
use super::{Flow, Registered};

/// The decision about a request, and the parts of its answer.
struct Plan {
    registered: Option<Arc<Registered>>,
    /// The trigger whose headers the answer carries; for a poll, the one that started the run.
    trigger: Option<Arc<Trigger>>,
    answer: Answer,
    decided: Decided,
    names: Names,
    /// The run that the answer names.
    run: Option<String>,
}

impl Exchange for Flow {
    async fn exchange(&self, wire: &mut Wire, connection: &Connection, head: Head) -> Result<Next, Broken> {
        let framing = head.framing()?;
        self.state.heads.add(1);
        let mut plan = self.plan(&head, framing);
        let mut request = Recorded {
            connection: connection.number,
            sni: connection.sni.clone(),
            alpn: connection.alpn.clone(),
            head,
            framing,
            body: Bytes::new(),
            body_bytes: 0,
            body_sha256: String::new(),
            body_complete: false,
            workflow: plan
                .registered
                .as_ref()
                .map(|registered| registered.settings().workflow.clone()),
            run: None,
            decided: plan.decided.clone(),
        };
        if plan.answer.is_at_head() {
            let request = self.record(request, &plan);
            return self.answer_at_head(wire, &request, plan).await;
        }
        if request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let mut body = Body::empty();
        let read = wire
            .body(framing, &mut body, |bytes| self.state.body_bytes.add(bytes))
            .await;
        request.body = body.stored();
        request.body_bytes = body.bytes();
        request.body_sha256 = body.sha256();
        if let Err(broken) = read {
            self.record(request, &plan);
            return Err(broken);
        }
        request.body_complete = true;
        plan.finish(&request);
        request.decided = plan.decided.clone();
        request.run.clone_from(&plan.run);
        let request = self.record(request, &plan);
        if !self.wait_inside(&plan, wire).await {
            return self.hung_up();
        }
        self.perform(wire, &request, plan).await
    }
}

impl Plan {
    fn refused(fault: PlatformFault, names: Names) -> Self {
        Self {
            registered: None,
            trigger: None,
            answer: Answer::Fault(fault),
            decided: Decided::Check(fault.code),
            names,
            run: None,
        }
    }

    fn refuse(&mut self, refused: Refused) {
        self.answer = Answer::Fault(refused.fault);
        self.decided = Decided::Check(refused.fault.code);
        self.names.scheme = refused.scheme;
        self.names.details = refused.details;
    }

    /// Makes the decisions that need the whole body, and starts the run.
    fn finish(&mut self, request: &Recorded) {
        if let (Some(trigger), Decided::Behaviour) = (&self.trigger, &self.decided) {
            if request.body_bytes > trigger.body_bytes_max {
                self.answer = Answer::too_large();
            } else if let Err(refused) = admission::check_schema(trigger, &request.body) {
                self.refuse(refused);
            }
        }
        if self.answer.starts_run() == RunStarted::Yes {
            let run = ids::run_id();
            self.names.tracking.clone_from(&run);
            self.run = Some(run);
        }
    }

    /// Adds the headers of the platform to an answer.
    fn dress(&self, reply: Reply, tells_run: bool, request: &Recorded) -> Reply {
        let trigger = self.trigger.as_ref();
        let Some(trigger) = trigger.filter(|trigger| trigger.platform_headers == PlatformHeaders::Full)
        else {
            return reply;
        };
        let run = self.run.as_deref().filter(|_| tells_run);
        let tracking = request.header("x-ms-client-tracking-id");
        reply.with_defaults(platform::headers(&Trace {
            trigger,
            run,
            tracking,
        }))
    }
}

impl Flow {
    /// Makes the decisions that the head allows.
    fn plan(&self, head: &Head, framing: Framing) -> Plan {
        if let Some(plan) = self.plan_poll(head) {
            return plan;
        }
        let mut names = Names {
            workflow: head.path().to_owned(),
            actual: head.method.clone(),
            ..Names::default()
        };
        let Some(place) = TriggerPath::parse(head.path()) else {
            return Plan::refused(faults::WORKFLOW_NOT_FOUND, names);
        };
        names.workflow = place.workflow;
        names.trigger = place.trigger;
        let known = self.state.triggers.lock().unwrap().get(&names.workflow).cloned();
        let known = known.map(|registered| (registered.settings(), registered));
        let Some((trigger, registered)) = known.filter(|(trigger, _)| trigger.family == place.family) else {
            return Plan::refused(faults::WORKFLOW_NOT_FOUND, names);
        };
        names.expected = trigger.methods.join("', '");
        let wrong_name = trigger.name != names.trigger;
        let mut plan = Plan::refused(faults::TRIGGER_NOT_FOUND, names);
        plan.registered = Some(registered);
        plan.trigger = Some(Arc::clone(&trigger));
        if wrong_name {
            return plan;
        }
        match self.check(&trigger, head) {
            Ok(()) => self.choose(&mut plan, &trigger, framing),
            Err(refused) => plan.refuse(refused),
        }
        plan
    }

    fn plan_poll(&self, head: &Head) -> Option<Plan> {
        let poll = self.state.operations.lock().unwrap().poll(head, &self.origin())?;
        self.state.polls.add(1);
        let mut plan = Plan {
            registered: None,
            trigger: Some(Arc::new(poll.trigger)),
            answer: Answer::Accepted,
            decided: Decided::Poll,
            names: Names::default(),
            run: Some(poll.run),
        };
        match poll.outcome {
            Ok(reply) => plan.answer = Answer::Platform(reply),
            Err(refused) => plan.refuse(refused),
        }
        Some(plan)
    }

    fn check(&self, trigger: &Trigger, head: &Head) -> Result<(), Refused> {
        if trigger.checks == Checks::Skipped {
            return Ok(());
        }
        let revoked = |token: &str| self.state.revoked.lock().unwrap().contains(token);
        admission::check_head(
            trigger,
            head,
            &Verifier {
                mint: &self.state.mint,
                revoked: &revoked,
            },
        )
    }

    /// Takes the answer for an admitted request from the script or from the trigger.
    fn choose(&self, plan: &mut Plan, trigger: &Trigger, framing: Framing) {
        let cue = self.state.script.lock().unwrap().take(&trigger.workflow);
        (plan.answer, plan.decided) = match cue {
            Cue::Scripted(answer) => (answer, Decided::Script),
            Cue::Free => (trigger.behaviour.clone(), Decided::Behaviour),
            Cue::Missing => {
                let workflow = &trigger.workflow;
                self.state
                    .violations
                    .note(format!("flow {workflow} was asked for more than was scripted"));
                (
                    Answer::Platform(Reply::text(500, "not scripted")),
                    Decided::Script,
                )
            }
        };
        let announced_too_large = matches!(framing, Framing::Length(bytes) if bytes > trigger.body_bytes_max);
        if announced_too_large && plan.decided == Decided::Behaviour {
            plan.answer = Answer::AtHead(Reply::html(413, "Request Entity Too Large"));
        }
    }

    /// Records and counts the request. The counts come last, so that a test that waited for one finds the
    /// request.
    fn record(&self, request: Recorded, plan: &Plan) -> Arc<Recorded> {
        let request = Arc::new(request);
        self.state
            .journal
            .lock()
            .unwrap()
            .record(request.body.len(), Arc::clone(&request));
        if let Some(registered) = &plan.registered {
            if request.run.is_some() {
                registered.runs.add(1);
            }
            registered.requests.add(1);
        }
        if request.body_complete {
            self.state.requests.add(1);
        } else {
            self.state.broken_bodies.add(1);
        }
        request
    }

    /// Waits at the gates; false if the caller left while waiting.
    async fn wait_inside(&self, plan: &Plan, wire: &mut Wire) -> bool {
        let everybody = self.state.gate.lock().unwrap().clone();
        let own = plan
            .registered
            .as_ref()
            .and_then(|registered| registered.gate.lock().unwrap().clone());
        for gate in [everybody, own].into_iter().flatten() {
            tokio::select! {
                () = gate.pass() => {}
                () = wire.gone() => return false,
            }
        }
        true
    }

    async fn answer_at_head(&self, wire: &mut Wire, request: &Recorded, plan: Plan) -> Result<Next, Broken> {
        let reply = match &plan.answer {
            Answer::AtHead(reply) => reply,
            Answer::Steps(steps) => return self.follow(wire, steps).await,
            _ => return Ok(Next::Cut),
        };
        let reply = plan
            .dress(reply.clone(), false, request)
            .header("Connection", "close");
        wire.send(&reply.bytes(&request.head.method)).await?;
        Ok(Next::Close)
    }

    async fn perform(&self, wire: &mut Wire, request: &Recorded, plan: Plan) -> Result<Next, Broken> {
        let tells_run = plan.answer.tells_run() || plan.decided == Decided::Poll;
        let reply = match &plan.answer {
            Answer::Accepted => Reply::new(202),
            Answer::Respond(reply)
            | Answer::Platform(reply)
            | Answer::Late(reply)
            | Answer::AtHead(reply) => reply.clone(),
            Answer::Asynchronous { polls, then } => self.start_operation(&plan, *polls, then.clone()),
            Answer::Fault(fault) => fault.reply(&plan.names),
            Answer::EchoHead => answer::echo(request),
            Answer::Never => return self.stall(wire).await,
            Answer::Cut | Answer::CutAtHead => return Ok(Next::Cut),
            Answer::Raw { bytes, then } => {
                wire.send(bytes).await?;
                return self.afterwards(wire, *then).await;
            }
            Answer::Steps(steps) => return self.follow(wire, steps).await,
            Answer::Stream {
                chunks,
                chunk_bytes,
                gate,
            } => {
                let head = plan.dress(Reply::new(200), tells_run, request).open_head();
                return self
                    .stream(wire, &head, *chunks, *chunk_bytes, gate.as_ref())
                    .await;
            }
        };
        let reply = plan.dress(reply, tells_run, request);
        session::send(wire, &self.state.listener, &request.head, reply).await
    }

    fn start_operation(&self, plan: &Plan, polls: u32, then: Reply) -> Reply {
        let (Some(trigger), Some(run)) = (&plan.trigger, &plan.run) else {
            return Reply::new(202);
        };
        let target = self
            .state
            .operations
            .lock()
            .unwrap()
            .start(trigger, run, polls, then);
        Reply::new(202)
            .header("Location", format!("{}{target}", self.origin()))
            .header("Retry-After", "1")
    }

    async fn stream(
        &self,
        wire: &mut Wire,
        head: &str,
        chunks: usize,
        chunk_bytes: usize,
        gate: Option<&Gate>,
    ) -> Result<Next, Broken> {
        let head = format!("{head}Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(head.as_bytes()).await?;
        let chunk = answer::chunk(chunk_bytes);
        for number in 0..chunks {
            if let Some(gate) = gate.filter(|_| number > 0) {
                tokio::select! {
                    () = gate.pass() => {}
                    () = wire.gone() => return self.hung_up(),
                }
            }
            wire.send(&chunk).await?;
        }
        wire.send(b"0\r\n\r\n").await?;
        Ok(Next::KeepAlive)
    }

    async fn follow(&self, wire: &mut Wire, steps: &Steps) -> Result<Next, Broken> {
        for step in &steps.list {
            match step {
                Step::Send(bytes) => wire.send(bytes).await?,
                Step::Repeat { bytes, times } => {
                    for _ in 0..*times {
                        wire.send(bytes).await?;
                    }
                }
                Step::Pass(gate) => {
                    tokio::select! {
                        () = gate.pass() => {}
                        () = wire.gone() => return self.hung_up(),
                    }
                }
            }
        }
        self.state.written.add(1);
        self.afterwards(wire, steps.then).await
    }

    async fn afterwards(&self, wire: &mut Wire, then: After) -> Result<Next, Broken> {
        match then {
            After::KeepAlive => Ok(Next::KeepAlive),
            After::Close => Ok(Next::Close),
            After::Cut => Ok(Next::Cut),
            After::Reset => {
                wire.reset_when_dropped()?;
                Ok(Next::Cut)
            }
            After::Linger => {
                wire.close_our_side().await?;
                wire.drained().await;
                Ok(Next::Cut)
            }
            After::Stall => self.stall(wire).await,
        }
    }

    async fn stall(&self, wire: &mut Wire) -> Result<Next, Broken> {
        wire.drained().await;
        self.hung_up()
    }

    fn hung_up(&self) -> Result<Next, Broken> {
        self.state.hang_ups.add(1);
        Ok(Next::Cut)
    }
}
