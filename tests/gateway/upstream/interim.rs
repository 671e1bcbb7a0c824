//! Interim answers: one or two are harmless, an endless number is a fault, and so is 101, which was never
//! requested.

use super::Verdict::Harmless;
use super::{INVALID, bytes, endless, faults};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Words for them in the log.
const INTERIM: [&str; 4] = ["interim", "1xx", "informational", "100"];

faults! {
    early_hints_once: bytes(HINTS).send(GOOD) => Harmless(200, "ok");
    continue_once: bytes(CONTINUE).send(GOOD) => Harmless(200, "ok");
    continue_and_hints: bytes(CONTINUE).send(HINTS).send(GOOD) => Harmless(200, "ok");
    switching_protocols: bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        => INVALID, ["101", "switch", "protocol"];
    switching_protocols_and_going_on: bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n").send(GOOD)
        => INVALID, ["101", "switch", "protocol"];
    thousands_of_continues: bytes(CONTINUE.repeat(10_000)).send(GOOD) => INVALID, INTERIM;
    continues_without_end: endless("", CONTINUE) => INVALID, INTERIM;
    hints_without_end: endless("", HINTS) => INVALID, INTERIM;
}
