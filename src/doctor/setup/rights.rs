//! The rights of an identity and the resource that grants them, written for each tool. A trigger requires
//! none, an API does.

use crate::doctor::resource::Resource;
use crate::doctor::setup::facts::{Consumer, Facts, Permission, Style, bicep_object_id};
use crate::model::Cloud;
use crate::settings::GrantSettings;

/// Role id of Power Platform reader (Microsoft Learn, "Tutorial: Assign roles to service principals").
const PLATFORM_READER: &str = "c886ad2e-27f7-4874-8381-5849b8d8a090";
/// The version of the API that this tutorial uses.
const PLATFORM_VERSION: &str = "2024-10-01";

pub(super) fn title(right: &Permission<'_>, facts: &Facts<'_>) -> String {
    let name = facts.resource.name();
    match (right, facts.consumer) {
        (Permission::Delegated, Consumer::Flow) => {
            "Delegated permission User of the flow service, and consent to it.".to_owned()
        }
        (Permission::Delegated, Consumer::Api) => format!(
            "Delegated permission of {name}, and consent to it: PERMISSION is what the `paths` of the routes need."
        ),
        (Permission::AppRole(_), _) => format!(
            "App role (application permission) of {name}: APP_ROLE is what the `paths` of the routes need."
        ),
        (Permission::Platform, _) => {
            "RBAC role for the service principal, given by a Power Platform administrator: reader here, or \
                                 contributor (ff954d61-a89a-4fbe-ace9-01c367b89f87)."
                .to_owned()
        }
    }
}

/// The title of the step that creates the resource.
pub(super) fn title_of_resource(facts: &Facts<'_>) -> String {
    match facts.resource {
        Resource::Flow => {
            "Only if Entra answers AADSTS500011: the flow service itself is missing in the tenant.".to_owned()
        }
        Resource::PowerPlatform(_) => {
            "Service principal of the Power Platform API, which many tenants lack. Skip it if it exists."
                .to_owned()
        }
        Resource::Graph | Resource::Other(_) => format!(
            "Only if Entra answers AADSTS500011: {} itself is missing in the tenant.",
            facts.resource.name()
        ),
    }
}

/// The delegated permission that is requested.
fn permission(facts: &Facts<'_>) -> &'static str {
    match facts.consumer {
        Consumer::Flow => "User",
        Consumer::Api => "PERMISSION",
    }
}

/// Returns the line only if there is something to choose from.
fn choice(facts: &Facts<'_>, line: impl Into<String>) -> String {
    match facts.consumer {
        Consumer::Flow => String::new(),
        Consumer::Api => format!("{}      # what there is to choose from\n", line.into()),
    }
}

/// Address of Microsoft Graph (Microsoft Learn, "Microsoft Graph national cloud deployments").
const fn graph(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Public | Cloud::Gcc => "https://graph.microsoft.com",
        Cloud::GccHigh => "https://graph.microsoft.us",
        Cloud::Dod => "https://dod-graph.microsoft.us",
        Cloud::China => "https://microsoftgraph.chinacloudapi.cn",
    }
}

/// Address of the Power Platform API.
fn platform<'a>(facts: &Facts<'a>) -> &'a str {
    match facts.resource {
        Resource::PowerPlatform(address) => address,
        Resource::Flow | Resource::Graph | Resource::Other(_) => "https://api.powerplatform.com",
    }
}

/// Members of a JSON object, for use inside of double quotes in a shell.
fn quoted(members: &[(&str, &str)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("\\\"{name}\\\": \\\"{value}\\\""))
        .collect();
    format!("\"{{{}}}\"", members.join(", "))
}

pub(super) fn az(right: &Permission<'_>, facts: &Facts<'_>) -> String {
    let id = facts.resource.id();
    match right {
        Permission::Delegated => format!(
            "{}SCOPE=$(az ad sp show --id {id} --query \"oauth2PermissionScopes[?value=='{}'].id\" --output tsv)\naz ad app \
             permission add --id \"$APP\" --api {id} --api-permissions \"$SCOPE=Scope\"\naz ad app permission \
             admin-consent --id \"$APP\"\n",
            choice(
                facts,
                format!("az ad sp show --id {id} --query \"oauth2PermissionScopes[].value\" --output tsv")
            ),
            permission(facts)
        ),
        Permission::AppRole(_) => format!(
            "{}API=$(az ad sp show --id {id} --query id --output tsv)\nROLE=$(az ad sp show --id {id} --query \
             \"appRoles[?value=='APP_ROLE'].id\" --output tsv)\naz rest --method post --url \
             \"{}/v1.0/servicePrincipals/$OBJECT_ID/appRoleAssignments\" --headers Content-Type=application/json --body \
             {}\n",
            choice(
                facts,
                format!("az ad sp show --id {id} --query \"appRoles[].value\" --output tsv")
            ),
            graph(facts.identity.cloud),
            quoted(&[
                ("principalId", "$OBJECT_ID"),
                ("resourceId", "$API"),
                ("appRoleId", "$ROLE")
            ])
        ),
        Permission::Platform => az_platform(facts, "$OBJECT_ID"),
    }
}

fn az_platform(facts: &Facts<'_>, object_id: &str) -> String {
    let api = platform(facts);
    let body = quoted(&[
        ("roleDefinitionId", PLATFORM_READER),
        ("principalObjectId", object_id),
        ("principalType", "ApplicationUser"),
        ("scope", &format!("/tenants/{}", facts.tenant)),
    ]);
    format!(
        "az rest --method post --resource {api}/ --url \
         \"{api}/authorization/roleAssignments?api-version={PLATFORM_VERSION}\" --headers Content-Type=application/json \
         --body {body}\n"
    )
}

pub(super) fn powershell(right: &Permission<'_>, facts: &Facts<'_>) -> String {
    let id = facts.resource.id();
    match right {
        Permission::Delegated => format!(
            "$api = Get-MgServicePrincipal -Filter \"appId eq '{id}'\"\n{}New-MgOauth2PermissionGrant -ClientId $sp.Id \
             -ConsentType AllPrincipals -ResourceId $api.Id -Scope {}\n",
            choice(facts, "$api.Oauth2PermissionScopes.Value"),
            permission(facts)
        ),
        Permission::AppRole(_) => format!(
            "$api = Get-MgServicePrincipal -Filter \"appId eq '{id}'\"\n{}$role = $api.AppRoles | Where-Object Value -eq \
             'APP_ROLE'\nNew-MgServicePrincipalAppRoleAssignment -ServicePrincipalId $objectId -PrincipalId $objectId \
             -ResourceId $api.Id -AppRoleId $role.Id\n",
            choice(facts, "$api.AppRoles.Value")
        ),
        Permission::Platform => {
            let (api, tenant) = (platform(facts), facts.tenant);
            format!(
                "$secure = (Get-AzAccessToken -ResourceUrl {api}/ -AsSecureString).Token\n$body = @{{ roleDefinitionId = \
                 '{PLATFORM_READER}'; principalObjectId = $objectId; principalType = 'ApplicationUser'; scope = \
                 '/tenants/{tenant}' }} | ConvertTo-Json\nInvoke-RestMethod -Method Post -Uri \
                 \"{api}/authorization/roleAssignments?api-version={PLATFORM_VERSION}\" -Authentication Bearer -Token \
                 $secure -ContentType application/json -Body $body\n"
            )
        }
    }
}

pub(super) fn bicep(right: &Permission<'_>, facts: &Facts<'_>) -> String {
    let id = facts.resource.id();
    let api =
        format!("resource api 'Microsoft.Graph/servicePrincipals@v1.0' existing = {{\n  appId: '{id}'\n}}\n");
    match right {
        Permission::Delegated => format!(
            "{api}resource grant 'Microsoft.Graph/oauth2PermissionGrants@v1.0' = {{\n  clientId: principal.id\n  \
             consentType: 'AllPrincipals'\n  resourceId: api.id\n  scope: '{}'\n}}\n",
            permission(facts)
        ),
        Permission::AppRole(principal) => format!(
            "// APP_ROLE_ID: az ad sp show --id {id} --query \"appRoles[?value=='APP_ROLE'].id\" --output tsv\n{api}resource \
             appRole 'Microsoft.Graph/appRoleAssignedTo@v1.0' = {{\n  principalId: {}\n  resourceId: api.id\n  appRoleId: \
             'APP_ROLE_ID'\n}}\n",
            bicep_object_id(*principal)
        ),
        Permission::Platform => format!(
            "// A template cannot give it; OBJECT_ID is the object id above.\n// {}",
            az_platform(facts, "OBJECT_ID")
        ),
    }
}

/// The scope that Microsoft Graph PowerShell needs to grant a right.
pub(super) fn powershell_scope(right: &Permission<'_>) -> &'static str {
    match right {
        Permission::Delegated => ",DelegatedPermissionGrant.ReadWrite.All",
        Permission::AppRole(_) => ",AppRoleAssignment.ReadWrite.All",
        Permission::Platform => "",
    }
}

/// What the identity needs, and no more.
pub(super) fn summary(facts: &Facts<'_>) -> [&'static str; 2] {
    let is_account = matches!(
        facts.identity.grant,
        GrantSettings::Password { .. } | GrantSettings::SignIn { .. }
    );
    match (facts.consumer, facts.resource, &facts.identity.grant) {
        (Consumer::Flow, ..) if is_account => [
            "One delegated permission and no role: the gateway can do in the account's name what the application may ask",
            "for and the account may do. Grant no other, and give the account nothing else.",
        ],
        (Consumer::Flow, _, GrantSettings::Managed(_)) => [
            "No role, no API permission and no consent: a trigger compares audience, issuer, tenant and, under \"Specific",
            "users\", the object id. Every program on the machine can use the identity: take one for the gateway alone.",
        ],
        (Consumer::Flow, ..) => [
            "No API permission and no consent: Entra gives an application a token for the flow service without either,",
            "and a trigger compares audience, issuer, tenant and, under \"Specific users\", the object id. Grant none.",
        ],
        (Consumer::Api, ..) if is_account => [
            "Only the delegated permissions that the `paths` of the routes need: the gateway can do in the account's name",
            "what the application may ask for and the account may do. Give the account nothing else.",
        ],
        (Consumer::Api, Resource::PowerPlatform(_), _) => [
            "The Power Platform API has delegated permissions only, so an application is granted no API permission: its RBAC",
            "role decides what it may do. Give it the least role at the smallest scope, such as one environment.",
        ],
        (Consumer::Api, ..) => [
            "Only the app roles that the `paths` of the routes need: anyone who may call a route acts with all that the",
            "token opens there. An app role is given to the object id, which is an administrator's consent to it as well.",
        ],
    }
}

/// The command or line that creates the resource in a tenant that lacks it.
pub(super) fn resource(style: Style, facts: &Facts<'_>) -> String {
    match style {
        Style::Az => format!("{}\n", facts.resource.create()),
        Style::PowerShell => format!("New-MgServicePrincipal -AppId {}\n", facts.resource.id()),
        Style::Bicep => format!("// {}\n", facts.resource.create()),
    }
}
