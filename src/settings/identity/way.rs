//! The ways in which an identity can get its tokens, and which of them its settings ask for.

use crate::settings::findings::Mark;
use crate::settings::identity::IdentityTable;
use crate::settings::table::Table;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Secret,
    Certificate,
    TokenFile,
    Managed,
    Federated,
    Default,
    Password,
    SignIn,
}

impl Way {
    pub(super) const ALL: [Self; 8] = [
        Self::Secret,
        Self::Certificate,
        Self::TokenFile,
        Self::Managed,
        Self::Federated,
        Self::Default,
        Self::Password,
        Self::SignIn,
    ];

    pub(super) fn key(self) -> &'static str {
        self.named().0
    }

    /// Its name in a sentence.
    pub(super) fn words(self) -> &'static str {
        self.named().1
    }

    fn named(self) -> (&'static str, &'static str) {
        match self {
            Self::Secret => ("client_secret", "a client secret"),
            Self::Certificate => ("certificate", "a certificate"),
            Self::TokenFile => ("token_file", "a token file"),
            Self::Managed => ("managed", "a managed identity"),
            Self::Federated => ("federated", "a federated token"),
            Self::Default => ("default", "the default chain"),
            Self::Password => ("password", "a user name and password"),
            Self::SignIn => ("sign_in", "a person's sign-in"),
        }
    }

    /// Where the settings of an identity ask for it.
    fn place(self, identity: &Table<IdentityTable>) -> Option<Mark> {
        match self {
            Self::Secret => {
                let short = identity.client_secret.as_ref().map(Mark::from);
                short.or_else(|| identity.secret.first().map(Mark::from))
            }
            Self::Certificate => identity.certificate.first().map(Mark::from),
            // Beside the default chain these tables say more about its links.
            Self::Managed | Self::Federated if identity.default => None,
            Self::Default if !identity.default => None,
            _ => identity.place(self.key()),
        }
    }
}

pub(super) fn ways(identity: &Table<IdentityTable>) -> Vec<(Way, Mark)> {
    let ways = Way::ALL.into_iter();
    ways.filter_map(|way| Some((way, way.place(identity)?))).collect()
}
