//! `flowgate-emulator`: Entra and two flows on this machine, for the settings of `flowgate init --emulator`. It is no part
//! of the product, and anyone on this machine can get its tokens: they open nothing else.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of a few lines prints what it receives"
)]

#[path = "mod.rs"]
mod emulator;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use emulator::standalone::Standalone;

/// Emulates Entra and two flows on this machine, so that Flowgate can be tried without a tenant. For development only.
#[derive(Debug, Parser)]
#[command(name = "flowgate-emulator", version)]
struct Arguments {
    /// The folder that `flowgate init --emulator` has written.
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Port of Entra on 127.0.0.1; the flows are on the next one.
    #[arg(long, default_value_t = 9443, value_parser = clap::value_parser!(u16).range(1..i64::from(u16::MAX)))]
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Arguments { folder, port } = Arguments::parse();
    let standalone = match Standalone::start(&folder, port).await {
        Ok(standalone) => standalone,
        Err(why) => {
            eprintln!("flowgate-emulator: {why}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", standalone.introduction());
    tokio::select! {
        () = standalone.follow(|line| println!("{line}")) => {}
        // An error means that the signal is not available; then the default action ends the program.
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
    ExitCode::SUCCESS
}
