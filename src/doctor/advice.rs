//! Where a fault is mended: the page of the portal, and the command where there is one. What happened and who mends it is
//! told by the tables of `entra/refusal.rs` and `flow/fault.rs`; this adds the place, for every row of them.

use std::path::Path;

use crate::doctor::resource::Resource;
use crate::entra::refusal::{ERRORS, NUMBERS, Refusal, RefusalKind};
use crate::entra::{Failure, TokenError};
use crate::flow::fault::{CODES, DESPITE_TOKEN, Row, STATUSES};
use crate::model::{FixedBy, Remedy};
use crate::secrets::VaultError;
use crate::settings::{GrantSettings, IdentitySettings, ManagedSource};

/// A place in the portal and a command, for several rows of a table. `{client}` stands for the client id, `{identity}` for
/// the name of the identity, `{resource}` and `{create}` for the resource of its scope and the command that makes it.
struct Place<K: 'static> {
    rows: &'static [K],
    portal: &'static str,
    command: &'static str,
}

const SECRETS: &str = "Microsoft Entra admin center, App registrations, {client}, Certificates & secrets";

const LOGIN: &str = "flowgate login --config FILE --identity {identity}";

/// What stands in commands for the settings file.
const SETTINGS: &str = "--config FILE";

/// A text with commands, in which the settings file has its name, as a shell reads it.
pub fn with_settings(text: &str, path: &Path) -> String {
    let shown = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "-._/\\:+@,=".contains(letter);
    let quoted = match !shown.is_empty() && shown.chars().all(is_plain) {
        true => shown,
        false => format!("'{}'", shown.replace('\'', "'\\''")),
    };
    text.replace(SETTINGS, &format!("--config {quoted}"))
}

/// By AADSTS number.
const OF_NUMBERS: &[Place<u32>] = &[
    Place {
        rows: &[7_000_215, 7_000_222, 70002, 7_000_218],
        portal: SECRETS,
        command: "az ad app credential reset --id {client} --append --query password --output tsv",
    },
    Place {
        rows: &[700_027, 50012, 700_030],
        portal: SECRETS,
        command: "az ad app credential list --id {client} --cert",
    },
    Place {
        rows: &[700_016],
        portal: "Microsoft Entra admin center, App registrations, All applications",
        command: "az ad app show --id {client} --query appId",
    },
    Place {
        rows: &[90002, 900_023, 90038, 900_382, 900_432, 9_001_023],
        portal: "Microsoft Entra admin center, Overview: Tenant ID",
        command: "az account show --query \"{tenant:tenantId, cloud:environmentName}\"",
    },
    Place {
        rows: &[7_000_229],
        portal: "Microsoft Entra admin center, Enterprise applications",
        command: "az ad sp create --id {client}",
    },
    Place {
        rows: &[7_000_112],
        portal: "Microsoft Entra admin center, Enterprise applications, {client}, Properties",
        command: "az ad sp update --id {client} --set accountEnabled=true",
    },
    Place {
        rows: &[500_133, 700_024],
        portal: "",
        command: "timedatectl status",
    },
    Place {
        rows: &[70021, 700_211, 700_213, 7_002_131],
        portal: "Microsoft Entra admin center, App registrations, {client}, Certificates & secrets, Federated credentials",
        command: "az ad app federated-credential list --id {client}",
    },
    Place {
        rows: &[90061],
        portal: "",
        command: "curl --fail ISSUER/.well-known/openid-configuration",
    },
    Place {
        rows: &[500_011, 50001, 650_052],
        portal: "Microsoft Entra admin center, Enterprise applications: {resource}",
        command: "{create}",
    },
    Place {
        rows: &[70011, 28002, 1_002_012, 700_022, 700_023, 901_002, 650_053],
        portal: "",
        command: "flowgate check --config FILE",
    },
    Place {
        rows: &[65001, 650_056, 650_057],
        portal: "Microsoft Entra admin center, App registrations, {client}, API permissions",
        command: "az ad app permission admin-consent --id {client}",
    },
    Place {
        rows: &[50105],
        portal: "Microsoft Entra admin center, Enterprise applications, the resource, Users and groups",
        command: "",
    },
    Place {
        rows: &[53003, 530_032, 530_035],
        portal: "Microsoft Entra admin center, Protection, Conditional Access; Identity, Monitoring, Sign-in logs",
        command: "",
    },
    Place {
        rows: &[50074, 50076, 50079, 50034, 50053, 50055, 50057, 50126],
        portal: "Microsoft Entra admin center, Users, the account, Sign-in logs",
        command: "az ad user show --id USER --query accountEnabled",
    },
    Place {
        rows: &[50173, 700_082, 70008, 70043],
        portal: "",
        command: LOGIN,
    },
    Place {
        rows: &[700_025],
        portal: "Microsoft Entra admin center, App registrations, {client}, Authentication",
        command: "az ad app update --id {client} --is-fallback-public-client false",
    },
    Place {
        rows: &[50196],
        portal: "",
        command: "curl http://127.0.0.1:9464/metrics",
    },
    Place {
        rows: &[100_007],
        portal: "",
        command: "flowgate check --config FILE",
    },
    Place {
        rows: &[50033, 50087, 90006, 90012, 90024, 90033, 90055, 90090],
        portal: "https://azure.status.microsoft",
        command: "",
    },
];

const TRIGGER_PAGE: &str =
    "https://make.powerautomate.com, My flows, the flow, Edit, trigger \"When an HTTP request is received\"";
const RUNS_PAGE: &str = "https://make.powerautomate.com, My flows, the flow, 28-day run history";
const FLOW_PAGE: &str = "https://make.powerautomate.com, My flows, the flow, Turn on";
const OBJECT_ID: &str = "az ad sp show --id {client} --query id --output tsv";

/// By code or status of a fault.
const OF_FAULTS: &[Place<&str>] = &[
    Place {
        rows: &["AuthorizationFailed"],
        portal: "Azure portal, the Logic App, Settings, Workflow settings, Access control configuration",
        command: "az logic workflow show --resource-group GROUP --name WORKFLOW --query accessControl",
    },
    Place {
        rows: &["MisMatchingOAuthClaims", "http-401", "http-403"],
        portal: TRIGGER_PAGE,
        command: OBJECT_ID,
    },
    Place {
        rows: &["http-401-challenge", "http-403-challenge"],
        portal: "Azure portal, the Logic App (Standard), Settings, Authentication",
        command: "az webapp auth show --resource-group GROUP --name APP",
    },
    Place {
        rows: &[
            "ClientScopeAuthorizationFailed",
            "DirectApiAuthorizationRequired",
            "DirectApiInvalidAuthorizationScheme",
            "DirectApiInvalidAuthorizationSignature",
            "DirectApiRequestHasMoreThanOneAuthorization",
            "InvalidUseOfOAuthToken",
            "MissingApiVersionParameter",
            "OAuthAccessPolicyNotFound",
            "TriggerInputSchemaMismatch",
            "InvalidRequestContent",
            "TriggerRequestMethodNotValid",
            "WorkflowNotFound",
            "WorkflowTriggerNotFound",
            "http-404",
        ],
        portal: TRIGGER_PAGE,
        command: "",
    },
    Place {
        rows: &["InvalidFlowExtensionRequestRoute"],
        portal: "Azure portal, the Logic App (Standard), Workflows, the workflow, Overview: Workflow URL",
        command: "",
    },
    Place {
        rows: &["WorkflowDisabled", "WorkflowTriggerIsNotEnabled"],
        portal: FLOW_PAGE,
        command: "",
    },
    Place {
        rows: &[
            "GatewayTimeout",
            "NoResponse",
            "ResponseTimeout",
            "http-408",
            "http-502",
            "http-504",
            "http-5xx",
        ],
        portal: RUNS_PAGE,
        command: "",
    },
    Place {
        rows: &["WorkflowRunActionThrottled", "http-429"],
        portal: "https://make.powerautomate.com, My flows, the flow, Analytics",
        command: "",
    },
    Place {
        rows: &["InternalServerError", "http-500", "http-503"],
        portal: "https://admin.powerplatform.microsoft.com, Service health",
        command: "",
    },
    Place {
        rows: &["http-413"],
        portal: "",
        command: "",
    },
];

/// A text about the resource that tokens are for.
fn fill_resource(text: &str, resource: Resource<'_>) -> String {
    text.replace("{resource}", &resource.name())
        .replace("{create}", &resource.create())
}

/// A text about the application of this client id, and the identity of this name.
fn fill(text: &str, client: &str, identity: &str) -> String {
    text.replace("{client}", client).replace("{identity}", identity)
}

pub(super) fn client_of(identity: Option<&IdentitySettings>) -> &str {
    let application = identity.and_then(|identity| identity.grant.application());
    application.map_or("CLIENT_ID", |(endpoint, _)| &endpoint.client_id)
}

fn step(fixed_by: FixedBy) -> &'static str {
    match fixed_by {
        FixedBy::Operator => "Mend the settings of the identity, or its secret.",
        FixedBy::TenantAdmin => "Ask an administrator of the tenant.",
        FixedBy::HostAdmin => "Set the clock of the host by NTP.",
        FixedBy::User => "Use an application's identity, or ask the account's administrator.",
        FixedBy::ClusterAdmin => "Make the issuer's discovery document and keys public.",
        // Nothing about tokens.
        FixedBy::Caller | FixedBy::FlowOwner => "",
        FixedBy::Nobody => "Wait; the gateway asks again by itself.",
    }
}

/// What was seen of a failure to get a token, and what to do about it.
pub(super) fn of_token_error(error: &TokenError, identity: &IdentitySettings) -> (String, Remedy) {
    let remedy = match error {
        TokenError::Refused(refused) => {
            return (
                said(&refused.refusal, identity),
                of_refusal(&refused.refusal, identity),
            );
        }
        TokenError::Platform(failure) => return (failure.seen.clone(), of_platform(failure, identity)),
        TokenError::Vault(error) => return of_vault(error, identity),
        TokenError::NotSignedIn(_) => sign_in(identity),
        TokenError::Credential(_) => certificate(client_of(Some(identity))),
        TokenError::Unsigned => Remedy::new(
            FixedBy::HostAdmin,
            "Look at the random source of this host's kernel; without random numbers nothing can be signed.",
        ),
        TokenError::File(_) | TokenError::FileExpired => Remedy::new(
            FixedBy::Operator,
            "Look at the program that writes the token file, and at the rights of the file.",
        ),
        TokenError::Redirected(_) | TokenError::Html => Remedy::new(
            FixedBy::Operator,
            "Compare the authority; a proxy or a portal of the network may answer in its place.",
        ),
        TokenError::Unreachable(_) | TokenError::Timeout(_) | TokenError::Cut => Remedy::new(
            FixedBy::HostAdmin,
            "Look at the network between this host and the authority.",
        ),
        TokenError::TooLarge
        | TokenError::Empty
        | TokenError::NotJson
        | TokenError::NoToken
        | TokenError::BornExpired
        | TokenError::NotBearer => Remedy::new(
            FixedBy::Operator,
            "Compare the authority: what answers there is no token endpoint of Entra, or it is in trouble.",
        ),
    };
    (error.to_string(), remedy)
}

/// What to do when a person has to sign in.
pub(super) fn sign_in(identity: &IdentitySettings) -> Remedy {
    let what = "Sign in with the account that the identity is to use; a gateway that runs takes it up within a minute.";
    Remedy::new(FixedBy::Operator, what).command(fill(LOGIN, "", identity.name.as_str()))
}

/// What to do about a certificate that cannot be used.
pub(super) fn certificate(client: &str) -> Remedy {
    let what = "Put a certificate that is valid, with its private key, where the settings point, and upload its public \
                part.";
    Remedy::new(FixedBy::Operator, what)
        .portal(fill(SECRETS, client, ""))
        .command(format!(
            "az ad app credential reset --id {client} --append --cert @certificate.pem"
        ))
}

/// What to do about a failure of what the platform gives.
pub(super) fn of_platform(failure: &Failure, identity: &IdentitySettings) -> Remedy {
    let what = match failure.cause.as_str() {
        "" => step(failure.fixed_by).to_owned(),
        cause => cause.to_owned(),
    };
    let remedy = Remedy::new(failure.fixed_by, what);
    let source = match &identity.grant {
        GrantSettings::Managed(managed) => Some(&managed.source),
        GrantSettings::Default(chain) if chain.federated.is_err() => {
            chain.managed.as_ref().ok().map(|managed| &managed.source)
        }
        GrantSettings::Default(_)
        | GrantSettings::Client { .. }
        | GrantSettings::TokenFile { .. }
        | GrantSettings::Password { .. }
        | GrantSettings::SignIn { .. } => None,
    };
    match source {
        Some(source) => at_source(remedy, source),
        // A file with a federated token: the platform mounts it into the pod.
        None => remedy.command("kubectl get pod POD --output yaml"),
    }
}

/// Where the managed identities of a platform are looked at.
pub(super) fn at_source(remedy: Remedy, source: &ManagedSource) -> Remedy {
    match source {
        ManagedSource::Imds { .. } => remedy
            .portal("Azure portal, the virtual machine, Security, Identity")
            .command("az vm identity show --resource-group GROUP --name VM"),
        ManagedSource::AppService { .. } => remedy
            .portal("Azure portal, the app, Settings, Identity")
            .command("az webapp identity show --resource-group GROUP --name APP"),
        ManagedSource::Arc { .. } => remedy
            .portal("Azure portal, Azure Arc, Machines, the machine")
            .command("azcmagent show"),
    }
}

/// What was seen of a failure of a key vault, and what to do about it; `reader` is the identity that reads vaults, or the
/// one whose secret lies there.
pub(super) fn of_vault(error: &VaultError, reader: &IdentitySettings) -> (String, Remedy) {
    let no_bearer = error.no_bearer.as_ref();
    if let Some(why) = no_bearer.and_then(|why| why.error.downcast_ref()) {
        return of_token_error(why, reader);
    }
    let told = &error.remedy;
    let mut remedy = Remedy::new(told.fixed_by, sentence(&format!("{}{}", told.what, told.or)));
    if !told.portal.is_empty() {
        remedy = remedy
            .portal(format!("Azure portal, {}", told.portal.replace(" > ", ", ")))
            .command(told.command.clone());
    }
    (error.seen.clone(), remedy)
}

/// A clause as a sentence.
fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

/// What Entra said; why, and who mends it, stands in the remedy.
fn said(refusal: &Refusal, identity: &IdentitySettings) -> String {
    let mut says = refusal.to_string();
    if let Some((endpoint, _)) = identity.grant.application() {
        says.push_str(&format!(
            " to client id {} in tenant {}",
            endpoint.client_id, identity.tenant
        ));
    }
    if let Some(id) = &refusal.correlation_id {
        says.push_str(&format!(", correlation id {id}"));
    }
    says
}

/// What to do about a refusal of Entra.
pub(super) fn of_refusal(refusal: &Refusal, identity: &IdentitySettings) -> Remedy {
    let client = client_of(Some(identity));
    let remedy = Remedy::new(
        refusal.fixed_by,
        format!("{} {}", refusal.cause, step(refusal.fixed_by)),
    );
    let known = refusal.kind != RefusalKind::Throttled;
    let place = refusal.number.filter(|_| known).and_then(place_of_number);
    let name = identity.name.as_str();
    // Without a number, a refused grant of an account that signed in is one that has ended.
    let is_over = matches!(
        refusal.kind,
        RefusalKind::InvalidGrant | RefusalKind::InteractionRequired
    );
    match (place, &identity.grant) {
        (Some(place), _) => {
            let resource = Resource::of(&identity.audience);
            remedy
                .portal(fill_resource(&fill(place.portal, client, name), resource))
                .command(fill_resource(&fill(place.command, client, name), resource))
        }
        (None, GrantSettings::SignIn { .. }) if is_over => remedy.command(fill(LOGIN, client, name)),
        (None, _) => remedy,
    }
}

fn place_of_number(number: u32) -> Option<&'static Place<u32>> {
    OF_NUMBERS.iter().find(|place| place.rows.contains(&number))
}

fn place_of_fault(code: &str) -> Option<&'static Place<&'static str>> {
    OF_FAULTS.iter().find(|place| place.rows.contains(&code))
}

/// What to do about a fault of the platform.
pub(super) fn of_fault(row: &'static Row, identity: Option<&IdentitySettings>) -> Remedy {
    let client = client_of(identity);
    let name = identity.map_or("NAME", |identity| identity.name.as_str());
    let remedy = Remedy::new(row.fixed_by, row.advice);
    match place_of_fault(row.code) {
        // The trigger is in order: the way to it is not.
        _ if DESPITE_TOKEN.contains(row) => remedy,
        // A flow that a data policy suspends is not turned on where its owner looks.
        _ if row.fixed_by == FixedBy::TenantAdmin => {
            remedy.portal("https://admin.powerplatform.microsoft.com, Policies, Data policies")
        }
        Some(place) => {
            remedy
                .portal(fill(place.portal, client, name))
                .command(fill(place.command, client, name))
        }
        None => remedy,
    }
}

/// The tables of everything that Entra and the platform can report, for README.
pub fn tables() -> String {
    let mut text = String::from(
        "| Entra says | who mends it | why, and what to do | where |\n| --- | --- | --- | --- |\n",
    );
    for row in NUMBERS {
        let place = place_of_number(row.number);
        text.push_str(&line(
            &format!("`AADSTS{}`", row.number),
            row.fixed_by.as_str(),
            &format!("{} {}", row.cause, step(row.fixed_by)),
            place.map(|place| (place.portal, place.command)),
        ));
    }
    for row in ERRORS {
        text.push_str(&line(
            &format!("`{}` without a known number", row.error),
            row.fixed_by.as_str(),
            &format!("{} {}", row.cause, step(row.fixed_by)),
            None,
        ));
    }
    text.push_str(
        "\n| the trigger says | who mends it | why, and what to do | where |\n| --- | --- | --- | --- |\n",
    );
    for row in CODES.iter().chain(DESPITE_TOKEN).chain(STATUSES) {
        let told = match row.wording {
            "" => format!("`{}`", row.code),
            wording => format!("`{}` with *{wording}*", row.code),
        };
        let remedy = of_fault(row, None);
        text.push_str(&line(
            &told,
            remedy.fixed_by.as_str(),
            &remedy.what,
            Some((&remedy.portal, &remedy.command)),
        ));
    }
    text
}

fn line(told: &str, who: &str, what: &str, place: Option<(&str, &str)>) -> String {
    let place = match place {
        None | Some(("", "")) => String::new(),
        Some((portal, "")) => format!("{portal} "),
        Some(("", command)) => format!("`{command}` "),
        Some((portal, command)) => format!("{portal}; `{command}` "),
    };
    let place = fill_resource(&fill(&place, "CLIENT_ID", "NAME"), Resource::Flow);
    format!("| {told} | {who} | {what} | {place}|\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{LOGIN, OF_FAULTS, OF_NUMBERS, fill, with_settings};
    use crate::entra::refusal::NUMBERS;
    use crate::flow::fault::{CODES, STATUSES};

    #[test]
    fn every_row_of_the_tables_has_its_place_once() {
        for row in NUMBERS {
            let places = OF_NUMBERS.iter().filter(|place| place.rows.contains(&row.number));
            assert_eq!(places.count(), 1, "AADSTS{}", row.number);
        }
        for row in CODES.iter().chain(STATUSES) {
            let places = OF_FAULTS.iter().filter(|place| place.rows.contains(&row.code));
            assert_eq!(places.count(), 1, "{}", row.code);
        }
    }

    #[test]
    fn the_settings_file_is_named_as_a_shell_reads_it() {
        for (path, shown) in [
            ("/etc/flowgate.toml", "/etc/flowgate.toml"),
            ("my settings.toml", "'my settings.toml'"),
            ("it's;.toml", r"'it'\''s;.toml'"),
        ] {
            let command = with_settings(&fill(LOGIN, "", "one"), Path::new(path));
            assert_eq!(command, format!("flowgate login --config {shown} --identity one"));
        }
    }

    #[test]
    fn no_place_is_for_a_row_that_is_not_there() {
        for number in OF_NUMBERS.iter().flat_map(|place| place.rows) {
            assert!(NUMBERS.iter().any(|row| row.number == *number), "{number}");
        }
        for code in OF_FAULTS.iter().flat_map(|place| place.rows) {
            assert!(
                CODES.iter().chain(STATUSES).any(|row| row.code == *code),
                "{code}"
            );
        }
    }
}
