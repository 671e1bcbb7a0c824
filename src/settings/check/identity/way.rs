//! The ways in which an identity can get its tokens, and which of them its settings ask for.

use std::ops::Range;

use crate::settings::file::Identity;
use crate::settings::leaf::{At, Table};

/// A way to get tokens.
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

    /// Its key in the settings.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Secret => "client_secret",
            Self::Certificate => "certificate",
            Self::TokenFile => "token_file",
            Self::Managed => "managed",
            Self::Federated => "federated",
            Self::Default => "default",
            Self::Password => "password",
            Self::SignIn => "sign_in",
        }
    }

    /// Its name in a sentence.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Secret => "a client secret",
            Self::Certificate => "a certificate",
            Self::TokenFile => "a token file",
            Self::Managed => "a managed identity",
            Self::Federated => "a federated token",
            Self::Default => "the default chain",
            Self::Password => "a user name and password",
            Self::SignIn => "a person's sign-in",
        }
    }

    /// Where the settings of an identity ask for it.
    fn place(self, identity: &Identity) -> Option<Range<usize>> {
        match self {
            Self::Secret => {
                let short = identity.client_secret.as_ref().map(At::span);
                short.or_else(|| identity.secret.first().map(Table::span))
            }
            Self::Certificate => identity.certificate.first().map(Table::span),
            Self::TokenFile => identity.token_file.as_ref().map(At::span),
            // Beside the default chain these tables say more about its links.
            Self::Managed | Self::Federated if is_default(identity) => None,
            Self::Managed => identity.managed.as_ref().map(Table::span),
            Self::Federated => identity.federated.as_ref().map(Table::span),
            Self::Default => identity
                .default
                .as_ref()
                .filter(|default| ***default)
                .map(At::span),
            Self::Password => identity.password.as_ref().map(Table::span),
            Self::SignIn => identity.sign_in.as_ref().map(Table::span),
        }
    }
}

/// Whether the identity takes whatever source is there.
pub(super) fn is_default(identity: &Identity) -> bool {
    identity.default.as_deref() == Some(&true)
}

/// The ways that the settings of an identity ask for.
pub(super) fn ways(identity: &Identity) -> Vec<(Way, Range<usize>)> {
    let places = Way::ALL.into_iter();
    places
        .filter_map(|way| Some((way, way.place(identity)?)))
        .collect()
}
