//! `flowgate login`: a person signs in once for an identity. It prints while it waits, so it writes to
//! standard output itself; it never prints a token.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::load::{Given, load_for, runtime};
use crate::cli::outcome::{FAILED, Outcome, WRONG};
use crate::entra::login::{Login, LoginError, Protection, SignedIn};
use crate::settings::{Config, IdentitySettings};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignInMethod {
    /// A browser on this machine, which we open.
    OpenBrowser,
    /// A browser on this machine, which the person opens.
    ShowAddress,
    /// A browser on any machine, with a code.
    DeviceCode,
}

pub(super) fn login(path: &Path, name: &str, way: SignInMethod) -> Result<Outcome, Outcome> {
    let runtime = runtime()?;
    let config = runtime
        .block_on(load_for(path, Given::default(), "sign in"))?
        .config;
    let identities = &config.identities;
    let Some(identity) = identities.iter().find(|identity| identity.name.as_str() == name) else {
        let known: Vec<_> = identities.iter().map(|identity| identity.name.as_str()).collect();
        let why = format!(
            "flowgate: there is no identity {name:?} in {}; there are: {}\n",
            path.display(),
            known.join(", ")
        );
        return Err(Outcome::failed(why, WRONG));
    };
    match runtime.block_on(sign_in(identity, &config, way)) {
        Ok(signed_in) => Ok(Outcome::out(report(name, &signed_in))),
        Err(LoginError::Wrong(why)) => Err(Outcome::failed(format!("flowgate: {why}\n"), WRONG)),
        Err(LoginError::Failed(why)) => Err(Outcome::failed(format!("flowgate: {why}\n"), FAILED)),
    }
}

async fn sign_in(
    identity: &IdentitySettings,
    config: &Config,
    way: SignInMethod,
) -> Result<SignedIn, LoginError> {
    let login = Login::new(identity, &config.identities, config.keyvault.as_ref())?;
    if way == SignInMethod::DeviceCode {
        let device = login.device().await?;
        say(&format!(
            "Open this address on any device and enter the code {}:\n\n    {}\n\nSign in there with the account that \
             identity {} is to use. Waiting ...",
            device.user_code, device.address, identity.name
        ));
        return login.poll(&device).await;
    }
    let browser = login.browser().await?;
    let begin = match way {
        SignInMethod::OpenBrowser if open(&browser.opening) => {
            "A browser opens. If none does, open this address on this machine:"
        }
        SignInMethod::OpenBrowser => {
            "No browser could be opened. Open this address on this machine, or use --device-code:"
        }
        SignInMethod::ShowAddress | SignInMethod::DeviceCode => {
            "Open this address in a browser on this machine:"
        }
    };
    say(&format!(
        "{begin}\n\n    {}\n\nSign in there with the account that identity {} is to use. Waiting ...",
        browser.address, identity.name
    ));
    login.finish(browser).await
}

fn report(name: &str, signed_in: &SignedIn) -> String {
    let protection = match signed_in.protection {
        Protection::Sealed => "encrypted under the seal of the settings",
        Protection::OwnerOnly => "readable by its owner only",
    };
    format!(
        "Signed in for identity {name}: {}.\nThe refresh token is stored in {}, {protection}.\nA running \
         gateway uses it within a minute.\n",
        signed_in.account,
        signed_in.store.display()
    )
}

/// Prints a line now. A closed standard output does not end the sign-in.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}\n");
    let _ = out.flush();
}

/// Opens the address with the platform's own command. All users of the machine can see the arguments of a
/// process.
fn open(address: &str) -> bool {
    // On Windows `start` would interpret `&` in an address; this command does not.
    let (program, first) = match std::env::consts::OS {
        "windows" => ("rundll32", Some("url.dll,FileProtocolHandler")),
        "macos" => ("open", None),
        _ => ("xdg-open", None),
    };
    Command::new(program)
        .args(first)
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .is_ok()
}
