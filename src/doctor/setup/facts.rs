//! What a setup consists of, and the values that its texts are filled with.

use crate::doctor::resource::Resource;
use crate::entra::FederatedToken;
use crate::settings::{EXCHANGE_AUDIENCE, IdentitySettings, ManagedSettings, ManagedSource, VaultReference};

/// The tool that the commands are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Azure CLI.
    Az,
    /// Microsoft Graph PowerShell.
    PowerShell,
    /// Bicep with the Microsoft Graph extension.
    Bicep,
}

/// One step of a setup.
pub(super) enum Step<'a> {
    /// An app registration.
    Registration(Client),
    /// Its service principal.
    Principal,
    Secret,
    Certificate,
    /// Trust in tokens of another issuer.
    Federated(Presented),
    /// A managed identity on its machine or platform.
    Assign(&'a ManagedSettings),
    /// What the tokens may be used for.
    Permission(Permission<'a>),
    /// The account, if its name is known.
    Account(&'a str),
    /// The platform's setting that makes it issue tokens.
    Projection,
    /// The enterprise application that the tokens are for.
    Resource,
    ObjectId(PrincipalOf<'a>),
    /// The right to read these secrets.
    VaultRole(PrincipalOf<'a>, Vec<&'a VaultReference>),
    /// What must be written into the settings.
    Settings(PrincipalOf<'a>),
}

/// What the tokens of an identity may be used for.
pub(super) enum Permission<'a> {
    /// To act in the name of an account.
    Delegated,
    /// To call an API in the application's own name.
    AppRole(PrincipalOf<'a>),
    /// The same for the Power Platform API, which has no app roles.
    Platform,
}

/// Whether an application can keep a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Confidential,
    Public,
    /// It has a secret, and a person signs in with it.
    SignsIn,
}

/// Whose object id is on the trigger's list.
#[derive(Clone, Copy)]
pub(super) enum PrincipalOf<'a> {
    /// The application of an earlier step.
    Application,
    /// One that only another program knows.
    Unknown,
    Account(&'a str),
    Machine(&'a ManagedSettings),
}

/// Issuer, subject and audience of a federated credential.
pub(super) struct Presented {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) audience: String,
}

impl Presented {
    /// The claims of a token, as far as they may appear in a command.
    pub(super) fn of(token: Option<&FederatedToken>, issuer: &str, subject: &str) -> Self {
        let plain = |text: Option<&String>, instead: &str| {
            let text = text.map(|text| text.trim_matches('"'));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@#=+,".contains(&byte);
            match text {
                Some(text) if !text.is_empty() && text.bytes().all(is_plain) => text.to_owned(),
                _ => instead.to_owned(),
            }
        };
        Self {
            issuer: plain(token.map(|token| &token.issuer), issuer),
            subject: plain(token.map(|token| &token.subject), subject),
            audience: plain(token.map(|token| &token.audience), EXCHANGE_AUDIENCE),
        }
    }
}

/// The values that the texts are filled with.
pub(super) struct Facts<'a> {
    pub(super) identity: &'a IdentitySettings,
    pub(super) tenant: &'a str,
    pub(super) client: &'a str,
    pub(super) resource: Resource<'a>,
    pub(super) consumer: Consumer,
}

/// What takes the tokens of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consumer {
    /// Triggers of flows, which require no permission.
    Flow,
    /// An API, which requires permissions.
    Api,
}

/// The expression for an object id; a placeholder if the template cannot know it.
pub(super) fn bicep_object_id(principal: PrincipalOf<'_>) -> &'static str {
    match principal {
        PrincipalOf::Application => "principal.id",
        PrincipalOf::Unknown | PrincipalOf::Account(_) => "'OBJECT_ID'",
        PrincipalOf::Machine(managed) => match (&managed.source, &managed.selector) {
            (ManagedSource::Imds { .. } | ManagedSource::AppService { .. }, Some(_)) => {
                "identity.properties.principalId"
            }
            _ => "machine.identity.principalId",
        },
    }
}
