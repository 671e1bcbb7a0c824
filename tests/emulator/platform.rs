//! The headers that the platform adds to its answers: with the id of a run on those of a flow, without it on
//! refusals. Values have the form of published dumps.

use super::ids;
use super::trigger::Trigger;

/// The values in an answer's headers.
pub struct Trace<'a> {
    pub trigger: &'a Trigger,
    /// The run, when one was started.
    pub run: Option<&'a str>,
    /// The tracking id that the caller asked for.
    pub tracking: Option<&'a str>,
}

/// The headers in the order in which they are written.
pub fn headers(trace: &Trace<'_>) -> Vec<(String, String)> {
    let workflow = &trace.trigger.workflow;
    let guid = ids::guid();
    let mut headers = Vec::with_capacity(24);
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    add("Cache-Control", "no-cache");
    add("Pragma", "no-cache");
    add("Expires", "-1");
    add("Strict-Transport-Security", "max-age=31536000; includeSubDomains");
    add("Server", "Microsoft-HTTPAPI/2.0");
    add(
        "Set-Cookie",
        "ARRAffinity=0123456789abcdef; Path=/; HttpOnly; Secure; Domain=localhost",
    );
    add(
        "x-ms-workflow-system-id",
        &format!("/locations/westus/scaleunits/prod-72/workflows/{workflow}"),
    );
    add("x-ms-workflow-id", workflow);
    add("x-ms-workflow-version", "08584290147179903206");
    add("x-ms-workflow-name", workflow);
    add("x-ms-tracking-id", &guid);
    add("x-ms-request-id", &format!("westus:{guid}"));
    let Some(run) = trace.run else { return headers };
    add("x-ms-workflow-run-id", run);
    add("x-ms-client-tracking-id", trace.tracking.unwrap_or(run));
    add("x-ms-trigger-history-name", run);
    add("x-ms-correlation-id", &guid);
    add("x-ms-execution-location", "westus");
    add("x-ms-ratelimit-burst-remaining-workflow-writes", "89999");
    add(
        "x-ms-ratelimit-remaining-workflow-download-contentsize",
        "3221225438",
    );
    add(
        "x-ms-ratelimit-remaining-workflow-upload-contentsize",
        "3221225445",
    );
    add("x-ms-ratelimit-time-remaining-directapirequests", "299999494");
    headers
}
