//! An account that signs in with its user name and password. Microsoft discourages it and so do we: it is off until the
//! settings accept its risk in one exact sentence, which the report of a mistake prints.

use crate::model::{Cloud, Flaw, Secret};
use crate::settings::check::Check;
use crate::settings::identity::{IdentityTable, PasswordTable};
use crate::settings::kinds::At;
use crate::settings::table::Table;
use crate::settings::{ClientProof, GrantSettings, SecretSource};

/// The words in which the risk is accepted.
const RISK: &str = "the gateway holds this password, and the account has no second factor";

impl Check<'_> {
    pub(super) fn password(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
    ) -> Option<GrantSettings> {
        let table = identity.password.as_ref()?;
        self.without_token_life(identity);
        self.risk(table);
        let user = self.user(table);
        let password = self.account_password(table);
        let proof = self.proof_beside(identity);
        let endpoint = self.endpoint(identity, cloud);
        Some(GrantSettings::Password {
            endpoint: endpoint?,
            proof: proof?,
            user: user?,
            password: password?,
        })
    }

    /// The proof of the application beside an account's: a client secret, or none for a public client.
    pub(super) fn proof_beside(&mut self, identity: &Table<IdentityTable>) -> Option<ClientProof> {
        if identity.client_secret.is_none() && identity.secret.is_empty() {
            return Some(ClientProof::Public);
        }
        self.secrets(identity)
    }

    fn risk(&mut self, table: &Table<PasswordTable>) {
        let hint = format!(
            "this grant cannot do multi-factor authentication, the gateway holds the password itself, and Microsoft \
             discourages it; if no other identity will do, write accept_risk = \"{RISK}\""
        );
        match &table.accept_risk {
            None => table.missing("accept_risk", &hint, &mut self.findings),
            Some(text) if text.as_str() == RISK => {}
            Some(text) => {
                let flaw = Flaw::new("these words do not accept the risk of signing in with a password");
                self.findings.mistake(text, flaw.hint(hint));
            }
        }
    }

    fn user(&mut self, table: &Table<PasswordTable>) -> Option<String> {
        let hint = "write for example user = \"flows@contoso.onmicrosoft.com\"";
        let user = table.require(("user", &table.user), hint, &mut self.findings)?;
        self.findings.keep(user, check_user(user))
    }

    fn account_password(&mut self, table: &Table<PasswordTable>) -> Option<SecretSource> {
        let hint = "write for example password = \"file:secrets/flows-password\"";
        let value = table.require(("password", &table.password), hint, &mut self.findings)?;
        let source = self.secret_source("password", value)?;
        self.blanks(value, &source);
        Some(source)
    }

    fn blanks(&mut self, value: &At<String>, source: &SecretSource) {
        let Some(known) = source.known().map(Secret::expose) else {
            return;
        };
        if known.trim().len() != known.len() {
            let flaw = Flaw::new(
                "the password begins or ends with a blank, which Entra does not take in this grant",
            );
            self.findings.mistake(
                value,
                flaw.hint("look for a blank that was copied along, or change the password"),
            );
        }
    }
}

fn check_user(text: &str) -> Result<String, Flaw> {
    let (name, domain) = text.split_once('@').unwrap_or_default();
    let plain = !text.contains(|c: char| c.is_control() || c.is_whitespace());
    if name.is_empty() || !domain.contains('.') || domain.contains('@') || !plain || text.len() > 1024 {
        return Err(
            Flaw::new("a user name of Entra has the form of an e-mail address").hint(
                "write the account's user principal name, for example \"flows@contoso.onmicrosoft.com\"",
            ),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{RISK, check_user};
    use crate::settings::sample::Sample;
    use crate::settings::{ClientProof, GrantSettings};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn sample(more: &str, lines: &str) -> Sample {
        Sample::default().file("blank", " canary\n").with(
            "identity",
            &format!(
                "name = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n{more}\n[identity.password]\n{lines}"
            ),
        )
    }

    fn accepted(lines: &str) -> String {
        format!("accept_risk = \"{RISK}\"\n{lines}")
    }

    const ACCOUNT: &str = "user = \"flows@contoso.example\"\npassword = \"env:SECRET\"";

    #[test]
    fn a_password_is_off_until_its_risk_is_accepted_in_words() {
        assert_eq!(sample("", ACCOUNT).mistakes(), ["`accept_risk` is missing"]);
        for text in ["yes", "", &RISK.to_uppercase()] {
            let lines = format!("{ACCOUNT}\naccept_risk = \"{text}\"");
            assert_eq!(
                sample("", &lines).mistakes(),
                ["these words do not accept the risk of signing in with a password"],
                "{text}"
            );
        }
        let report = sample("", ACCOUNT).report();
        for part in [RISK, "multi-factor", "Microsoft discourages"] {
            assert!(report.contains(part), "{part}: {report}");
        }
        sample("", &accepted(ACCOUNT)).config();
    }

    #[test]
    fn an_account_signs_in_through_a_public_or_a_confidential_client() {
        let proof = |more: &str| match sample(more, &accepted(ACCOUNT))
            .config()
            .identities
            .remove(0)
            .grant
        {
            GrantSettings::Password { proof, user, .. } => {
                assert_eq!(user, "flows@contoso.example");
                proof
            }
            other => panic!("{other:?}"),
        };
        assert!(matches!(proof(""), ClientProof::Public));
        assert!(matches!(
            proof("client_secret = \"env:SECRET\""),
            ClientProof::Secrets(_)
        ));
    }

    #[test]
    fn an_account_needs_its_name_and_its_password() {
        assert_eq!(
            sample("", &accepted("")).mistakes(),
            ["`user` is missing", "`password` is missing"]
        );
        let blank = accepted("user = \"a@b.example\"\npassword = \"file:blank\"");
        assert_eq!(
            sample("", &blank).mistakes(),
            ["the password begins or ends with a blank, which Entra does not take in this grant"]
        );
        let written = accepted("user = \"a@b.example\"\npassword = \"canary\"");
        let report = sample("", &written).report();
        assert!(
            report.contains("must not be written into the settings file"),
            "{report}"
        );
        assert!(!report.contains("canary"), "{report}");
    }

    #[test]
    fn a_user_name_has_the_form_of_an_address() {
        assert!(check_user("flows@contoso.onmicrosoft.com").is_ok());
        for bad in [
            "",
            "flows",
            "@b.example",
            "a@b",
            "a b@c.example",
            "a@b@c.example",
            "a@b.example\u{7}",
        ] {
            assert!(check_user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_stands_beside_no_other_way() {
        let more = "token_file = \"token\"";
        assert_eq!(
            sample(more, &accepted(ACCOUNT)).mistakes(),
            ["an identity has either a token file or a user name and password, not both"]
        );
    }
}
