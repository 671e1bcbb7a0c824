//! `[[identity]]`: its tables as they are written, the grants, and the ways in which an identity can get its tokens. Each
//! way is a row; the file of a way reads its settings.

mod ambient;
mod application;
pub(super) mod certificate;
mod federated;
pub(super) mod grant;
mod links;
mod managed;
mod password;
pub(super) mod settings;
pub(super) mod sign_in;
mod words;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub(super) use links::give_roles;

use crate::material::{AssertionAlgorithm, ChainShown};
use crate::model::{ClientId, Cloud, Tenant};
use crate::settings::check::Check;
use crate::settings::findings::Mark;
use crate::settings::kinds::{ANY, At, choice, switch};
use crate::settings::scalars::{DAY, MILLISECOND, secs};
use crate::settings::table::{Table, table};
use crate::settings::{ClientProof, DefaultSettings, EndpointSettings, ManagedSettings, SecretSource};

table! {
    /// An Entra application, a managed identity or a token file, whose tokens the flows accept.
    pub(crate) struct IdentityTable {
        /// Name by which routes refer to it.
        name: Option<At<String>> = None, ANY, Reload;
        /// The cloud of the flows: "public" (default), "gcc", "gcc-high", "dod" or "china".
        cloud: Option<At<Cloud>> = None, ANY, Reload;
        /// Tenant: its id or one of its domains.
        tenant: Option<At<Tenant>> = None, ANY, Reload;
        /// Application (client) id.
        client_id: Option<At<ClientId>> = None, ANY, Reload;
        /// Value of the client secret; a reference, "env:NAME", "file:PATH" or "keyvault:ADDRESS". Several, or one whose
        /// expiry is known, are written as tables `secret`.
        client_secret: Option<At<String>> = None, ANY, Reload;
        /// Its client secrets; the one that expires last is tried first.
        secret: Vec<Table<SecretTable>> = Vec::new(), ANY, Reload;
        /// Its certificates, in place of client secrets; the one that expires last is tried first.
        certificate: Vec<Table<ClientCertificateTable>> = Vec::new(), ANY, Reload;
        /// Where tokens are requested; default: the authority of the cloud.
        authority: Option<At<String>> = None, ANY, Reload;
        /// Scope to ask for; default: the scope of the cloud, with its two slashes.
        scope: Option<At<String>> = None, ANY, Reload;
        /// PEM file with the certificate authorities trusted for the authority, in place of the system's.
        ca_file: Option<At<String>> = None, ANY, Reload;
        // Entra answers within a second; the rest is for lost packets.
        /// Time for one token request.
        timeout: Duration = secs(10), MILLISECOND..=secs(60), Reload;
        /// File with an access token that another program keeps fresh, in place of a client secret.
        token_file: Option<At<String>> = None, ANY, Reload;
        // Entra's tokens live 60 to 90 minutes; this stays below. A shorter life would run out between two writes of the
        // file, a longer one outlives every token of Entra.
        /// Life of a token from the file whose expiry cannot be read.
        token_life: Duration = secs(50 * 60), secs(60)..=DAY, Reload;
        /// A managed identity of the machine or platform, in place of an application's own credential.
        managed: Option<Table<ManagedTable>> = None, ANY, Reload;
        /// A token of another issuer, in place of a client secret.
        federated: Option<Table<FederatedTable>> = None, ANY, Reload;
        /// Takes workload identity, else managed identity, the first that exists.
        default: bool = false, ANY, Reload;
        /// An account that signs in with its user name and password: for tenants whose flows refuse applications.
        password: Option<Table<PasswordTable>> = None, ANY, Reload;
        /// An account that a person signs in once, with `flowgate login`.
        sign_in: Option<Table<SignInTable>> = None, ANY, Reload;
    }
}

table! {
    /// A client secret of an identity.
    pub(crate) struct SecretTable {
        /// Its value; a reference, "env:NAME", "file:PATH" or "keyvault:ADDRESS".
        value: Option<At<String>> = None, ANY, Reload;
        /// When it expires, as Entra shows it.
        expires: Option<At<SystemTime>> = None, ANY, Reload;
    }
}

table! {
    /// A certificate with which an identity signs in.
    pub(crate) struct ClientCertificateTable {
        /// PEM with certificate and private key, or a PFX file, binary or in base64; a reference, "env:NAME" or
        /// "file:PATH".
        file: Option<At<String>> = None, ANY, Reload;
        /// The private key in PEM form, where it is apart from the certificate; a reference, "env:NAME" or "file:PATH".
        key: Option<At<String>> = None, ANY, Reload;
        /// Password of the PFX file; a reference, "env:NAME" or "file:PATH".
        password: Option<At<String>> = None, ANY, Reload;
        /// How assertions are signed: "PS256" or "RS256".
        algorithm: AssertionAlgorithm = AssertionAlgorithm::Ps256, ANY, Reload;
        /// Whether assertions carry the certificate and its chain, for applications that trust subject name and issuer.
        send_chain: ChainShown = ChainShown::No, ANY, Reload;
    }
}

choice!(AssertionAlgorithm: Self::Ps256 => "PS256", Self::Rs256 => "RS256");
switch!(ChainShown: Yes = true, No = false);

table! {
    /// A managed identity of the machine or platform.
    pub(crate) struct ManagedTable {
        /// Who issues its tokens: "auto", "imds", "app-service" or "arc".
        source: SourceWord = SourceWord::Auto, ANY, Reload;
        /// Client id of a user-assigned identity; default: the system-assigned one.
        client_id: Option<At<ClientId>> = None, ANY, Reload;
        /// Object (principal) id of a user-assigned identity, in place of the client id.
        object_id: Option<At<String>> = None, ANY, Reload;
        /// Resource id of a user-assigned identity, in place of the client id.
        resource_id: Option<At<String>> = None, ANY, Reload;
        /// Scheme, host and port of IMDS or of the Arc agent; default: those of the platform.
        endpoint: Option<At<String>> = None, ANY, Reload;
        /// Folder in which the Arc agent puts its keys; default: that of the platform.
        arc_token_folder: Option<At<String>> = None, ANY, Reload;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceWord {
    /// What the environment variables of the platform say, else IMDS.
    Auto,
    Imds,
    AppService,
    Arc,
}

choice!(
    SourceWord: Self::Auto => "auto", Self::Imds => "imds", Self::AppService => "app-service", Self::Arc => "arc"
);

table! {
    /// A token of another issuer with which the application proves who it is.
    pub(crate) struct FederatedTable {
        /// File with the token; default: the environment variable AZURE_FEDERATED_TOKEN_FILE.
        token_file: Option<At<String>> = None, ANY, Reload;
        /// Name of a managed identity of these settings whose token is taken, in place of a file.
        identity: Option<At<String>> = None, ANY, Reload;
    }
}

table! {
    /// An account with its password.
    pub(crate) struct PasswordTable {
        /// User name, for example "flows@contoso.onmicrosoft.com".
        user: Option<At<String>> = None, ANY, Reload;
        /// Its password; a reference, "env:NAME" or "file:PATH".
        password: Option<At<String>> = None, ANY, Reload;
        /// The risk, accepted in words; `flowgate check` says in which.
        accept_risk: Option<At<String>> = None, ANY, Reload;
    }
}

table! {
    /// An account that a person signs in.
    pub(crate) struct SignInTable {
        /// File in which `flowgate login` and the gateway keep the refresh token.
        store: Option<At<String>> = None, ANY, Reload;
        /// Secret under which that file is encrypted, at least 16 bytes; a reference, "env:NAME" or "file:PATH".
        seal: Option<At<String>> = None, ANY, Reload;
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum GrantSettings {
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4).
    Client {
        endpoint: EndpointSettings,
        proof: ClientProof,
    },
    /// A file that another program keeps fresh.
    TokenFile {
        path: PathBuf,
        /// Life of a token whose own expiry cannot be read, counted from when the file was seen to change.
        life: Duration,
    },
    Managed(ManagedSettings),
    /// The first source that is there.
    Default(Box<DefaultSettings>),
    /// The resource owner password credentials grant (RFC 6749 section 4.3).
    Password {
        endpoint: EndpointSettings,
        proof: ClientProof,
        user: String,
        password: SecretSource,
    },
    /// The refresh token of an account that a person signed in (RFC 6749 section 6).
    SignIn {
        endpoint: EndpointSettings,
        proof: ClientProof,
        /// The file that keeps the refresh token.
        store: PathBuf,
        /// The secret under which that file is encrypted, if it is; where it was not read the file can neither be read
        /// nor written.
        seal: Option<SecretSource>,
    },
}

impl GrantSettings {
    /// The application that asks, and how it proves who it is, where one does.
    pub fn application(&self) -> Option<(&EndpointSettings, &ClientProof)> {
        match self {
            Self::Client { endpoint, proof }
            | Self::Password { endpoint, proof, .. }
            | Self::SignIn { endpoint, proof, .. } => Some((endpoint, proof)),
            Self::TokenFile { .. } | Self::Managed(_) | Self::Default(_) => None,
        }
    }

    /// The secrets that a token request needs.
    pub fn secret_sources(&self) -> Vec<&SecretSource> {
        let proof = self.application().map(|(_, proof)| proof.secret_sources());
        let own = match self {
            Self::Password { password, .. } => Some(password),
            Self::Client { .. }
            | Self::TokenFile { .. }
            | Self::Managed(_)
            | Self::Default(_)
            | Self::SignIn { .. } => None,
        };
        proof.into_iter().flatten().chain(own).collect()
    }
}

/// A way in which an identity can get its tokens.
pub(super) struct Way {
    key: &'static str,
    /// Its name in a sentence.
    words: &'static str,
    asks_as: AsksAs,
    /// Where the settings of an identity ask for it.
    place: fn(&Table<IdentityTable>) -> Option<Mark>,
    read: fn(&mut Check<'_>, &Table<IdentityTable>, Option<Cloud>) -> Option<GrantSettings>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AsksAs {
    Itself,
    /// In the name of an account: a client secret may be given beside it, and single permissions may be asked for.
    Account,
}

/// Every way, in the order in which a mistake names two of them.
const WAYS: &[Way] = &[
    Way {
        key: CLIENT_SECRET,
        words: "a client secret",
        asks_as: AsksAs::Itself,
        place: |identity| {
            let short = identity.client_secret.as_ref().map(Mark::from);
            short.or_else(|| identity.secret.first().map(Mark::from))
        },
        read: |check, identity, cloud| check.client(identity, cloud, Check::secrets),
    },
    Way {
        key: "certificate",
        words: "a certificate",
        asks_as: AsksAs::Itself,
        place: |identity| identity.certificate.first().map(Mark::from),
        read: |check, identity, cloud| check.client(identity, cloud, Check::certificates),
    },
    Way {
        key: "token_file",
        words: "a token file",
        asks_as: AsksAs::Itself,
        place: |identity| identity.place("token_file"),
        read: |check, identity, _| check.token_file(identity),
    },
    Way {
        key: "managed",
        words: "a managed identity",
        asks_as: AsksAs::Itself,
        // Beside the default chain this table says more about its links, as does the next.
        place: |identity| identity.place("managed").filter(|_| !identity.default),
        read: |check, identity, _| check.managed_identity(identity),
    },
    Way {
        key: "federated",
        words: "a federated token",
        asks_as: AsksAs::Itself,
        place: |identity| identity.place("federated").filter(|_| !identity.default),
        read: |check, identity, cloud| check.federated_identity(identity, cloud),
    },
    Way {
        key: "default",
        words: "the default chain",
        asks_as: AsksAs::Itself,
        place: |identity| identity.place("default").filter(|_| identity.default),
        read: |check, identity, cloud| check.default_chain(identity, cloud),
    },
    Way {
        key: "password",
        words: "a user name and password",
        asks_as: AsksAs::Account,
        place: |identity| identity.place("password"),
        read: |check, identity, cloud| check.password(identity, cloud),
    },
    Way {
        key: "sign_in",
        words: "a person's sign-in",
        asks_as: AsksAs::Account,
        place: |identity| identity.place("sign_in"),
        read: |check, identity, cloud| check.sign_in(identity, cloud),
    },
];

const CLIENT_SECRET: &str = "client_secret";
