//! Arguments in, words out, exit code. The only file that prints or ends the process.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = flowgate::cli::run(flowgate::cli::Cli::parse());
    // A closed pipe on the other side is the reader's business.
    let _ = std::io::stdout().write_all(outcome.out.as_bytes());
    let _ = std::io::stderr().write_all(outcome.err.as_bytes());
    ExitCode::from(outcome.code)
}
