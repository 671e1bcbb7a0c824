//! Each step of a setup in Azure CLI, PowerShell and Bicep.

use crate::doctor::setup::facts::{
    Client, Consumer, Facts, Permission, PrincipalOf, Step, Style, bicep_object_id,
};
use crate::doctor::setup::rights;
use crate::model::Cloud;
use crate::settings::{GrantSettings, ManagedSettings, ManagedSource, Selector};

/// Role id of Key Vault Secrets User (Microsoft Learn, "Azure built-in roles for Security").
const SECRETS_USER: &str = "4633458b-17de-408a-b874-0445c86b69e6";

pub(super) fn head(style: Style, facts: &Facts<'_>, steps: &[Step<'_>]) -> String {
    let (name, tenant, client) = (&facts.identity.name, facts.tenant, facts.client);
    let cloud = facts.identity.cloud;
    match style {
        Style::Az => {
            let cloud = match cloud {
                Cloud::Public | Cloud::Gcc => "",
                Cloud::GccHigh | Cloud::Dod => "az cloud set --name AzureUSGovernment\n",
                Cloud::China => "az cloud set --name AzureChinaCloud\n",
            };
            format!(
                "# Identity {name}, tenant {tenant}, with Azure CLI.\n{cloud}az login --tenant {tenant} \
                 --allow-no-subscriptions\n\n"
            )
        }
        Style::PowerShell => {
            let (environment, azure) = match cloud {
                Cloud::Public | Cloud::Gcc => ("Global", "AzureCloud"),
                Cloud::GccHigh => ("USGov", "AzureUSGovernment"),
                Cloud::Dod => ("USGovDoD", "AzureUSGovernment"),
                Cloud::China => ("China", "AzureChinaCloud"),
            };
            let mut scopes = "Application.ReadWrite.All".to_owned();
            let mut resources = String::new();
            for step in steps {
                let is_azure = matches!(
                    step,
                    Step::Assign(_) | Step::VaultRole(..) | Step::Permission(Permission::Platform)
                );
                if is_azure {
                    resources = format!("Connect-AzAccount -Tenant {tenant} -Environment {azure}\n");
                }
                match step {
                    Step::Permission(right) => scopes.push_str(rights::powershell_scope(right)),
                    Step::Account(_) => scopes.push_str(",User.ReadWrite.All"),
                    _ => {}
                }
            }
            format!(
                "# Identity {name}, tenant {tenant}, with Microsoft Graph PowerShell.\nConnect-MgGraph -TenantId \
                 {tenant} -Environment {environment} -Scopes {scopes}\n{resources}\n"
            )
        }
        Style::Bicep => format!(
            "// Identity {name}, tenant {tenant}, client id {client}; bicepconfig.json needs the Microsoft Graph \
             extension.\nextension microsoftGraphV1\n\n"
        ),
    }
}

pub(super) fn title(style: Style, step: &Step<'_>, facts: &Facts<'_>) -> String {
    let client = facts.client;
    match step {
        Step::Registration(_) => match style {
            Style::Az => format!(
                "App registration. Where it exists already (az ad app show --id {client}), set APP alone, as in the last \
                 line."
            ),
            Style::PowerShell => {
                "App registration. Where it exists already, set $app alone, as in the last line.".to_owned()
            }
            Style::Bicep => "App registration. One that exists already needs this uniqueName first, or another is made \
                             beside it."
                .to_owned(),
        },
        Step::Principal => match style {
            Style::Az => "Service principal (the enterprise application). Skip it if it exists: az ad sp show --id \"$APP\""
                .to_owned(),
            Style::PowerShell => "Service principal (the enterprise application). Where it exists already, set $sp alone, as \
                                  in the last line."
                .to_owned(),
            Style::Bicep => "Service principal (the enterprise application).".to_owned(),
        },
        Step::Secret => {
            "Credential: its value is shown once and goes where the settings' reference points.".to_owned()
        }
        Step::Certificate => {
            "Credential: the certificate without its key, which stays on the gateway's host.".to_owned()
        }
        Step::Federated(_) => {
            "Credential: trust in tokens of this issuer for this subject, letter by letter.".to_owned()
        }
        Step::Assign(_) => "Managed identity on the machine or platform that runs the gateway.".to_owned(),
        Step::Permission(right) => rights::title(right, facts),
        Step::Account(_) => {
            "An account for this alone, without any role; then sign it in where a person has to.".to_owned()
        }
        Step::Projection => "Another program writes this token; nothing of it is made here.".to_owned(),
        Step::Resource => rights::title_of_resource(facts),
        Step::ObjectId(_) => match facts.consumer {
            Consumer::Flow => {
                "The object id for the trigger's list under \"Specific users in my tenant\". Not the client id."
            }
            Consumer::Api => "The object id, by which rights are given. Not the client id.",
        }
        .to_owned(),
        Step::VaultRole(..) => "Key Vault: the right to read these secrets, and no others.".to_owned(),
        Step::Settings(PrincipalOf::Application | PrincipalOf::Account(_)) => {
            "For the settings: client_id and tenant.".to_owned()
        }
        Step::Settings(PrincipalOf::Unknown) => "For the settings: tenant.".to_owned(),
        Step::Settings(PrincipalOf::Machine(managed)) => format!("For the settings: {}.", selector(managed).key),
    }
}

/// Names of a user-assigned identity in the settings and in the tools.
struct SelectorNames {
    key: &'static str,
    az: &'static str,
    powershell: &'static str,
    bicep: &'static str,
}

fn selector(managed: &ManagedSettings) -> SelectorNames {
    match managed.selector {
        Some(Selector::ObjectId(_)) => SelectorNames {
            key: "object_id",
            az: "principalId",
            powershell: "PrincipalId",
            bicep: "properties.principalId",
        },
        Some(Selector::ResourceId(_)) => SelectorNames {
            key: "resource_id",
            az: "id",
            powershell: "Id",
            bicep: "id",
        },
        Some(Selector::ClientId(_)) | None => SelectorNames {
            key: "client_id",
            az: "clientId",
            powershell: "ClientId",
            bicep: "properties.clientId",
        },
    }
}

/// The command with which a person signs in, if one has to.
fn login(facts: &Facts<'_>) -> String {
    match facts.identity.grant {
        GrantSettings::SignIn { .. } => {
            format!(
                "flowgate login --config FILE --identity {}\n",
                facts.identity.name
            )
        }
        _ => String::new(),
    }
}

pub(super) fn az(step: &Step<'_>, facts: &Facts<'_>) -> String {
    let (name, client) = (&facts.identity.name, facts.client);
    match step {
        Step::Registration(kind) => {
            let public = match kind {
                Client::Confidential => "",
                Client::Public => {
                    " --is-fallback-public-client true --public-client-redirect-uris http://localhost"
                }
                Client::SignsIn => " --public-client-redirect-uris http://localhost",
            };
            format!(
                "APP=$(az ad app create --display-name flowgate-{name} --sign-in-audience AzureADMyOrg{public} --query \
                 appId --output tsv)\n# APP={client}      # where it exists already\n"
            )
        }
        Step::Principal => "az ad sp create --id \"$APP\"\n".to_owned(),
        Step::Secret => "az ad app credential reset --id \"$APP\" --append --display-name flowgate --years 1 --query \
                         password --output tsv\n"
            .to_owned(),
        Step::Certificate => {
            "az ad app credential reset --id \"$APP\" --append --cert @flowgate.crt\n".to_owned()
        }
        Step::Federated(presented) => format!(
            "az ad app federated-credential create --id \"$APP\" --parameters '{{\"name\": \"flowgate\", \"issuer\": \
             \"{}\", \"subject\": \"{}\", \"audiences\": [\"{}\"]}}'\n",
            presented.issuer, presented.subject, presented.audience
        ),
        Step::Assign(managed) => az_assign(managed),
        Step::Permission(right) => rights::az(right, facts),
        Step::Account(user) => format!(
            "az ad user create --display-name flowgate-{name} --user-principal-name {user} --password PASSWORD\n{}",
            login(facts)
        ),
        Step::Projection => String::new(),
        Step::Resource => rights::resource(Style::Az, facts),
        Step::ObjectId(principal) => format!("OBJECT_ID=$({})\necho \"$OBJECT_ID\"\n", az_object_id(*principal)),
        Step::VaultRole(_, places) => places
            .iter()
            .map(|place| {
                let (vault, secret) = (place.vault(), place.name());
                format!(
                    "az role assignment create --role \"Key Vault Secrets User\" --assignee \"$OBJECT_ID\" --scope \"$(az \
                     keyvault show --name {vault} --query id --output tsv)/secrets/{secret}\"\n"
                )
            })
            .collect(),
        Step::Settings(PrincipalOf::Application | PrincipalOf::Account(_)) => {
            "echo \"$APP\"\naz account show --query tenantId --output tsv\n".to_owned()
        }
        Step::Settings(PrincipalOf::Unknown) => "az account show --query tenantId --output tsv\n".to_owned(),
        Step::Settings(PrincipalOf::Machine(managed)) => {
            let called = selector(managed).az;
            format!("az identity show --ids \"$ID\" --query {called} --output tsv\n")
        }
    }
}

fn az_assign(managed: &ManagedSettings) -> String {
    let own = managed.selector.is_none();
    let which = if own { "" } else { " --identities \"$ID\"" };
    let existing = match &managed.selector {
        Some(Selector::ResourceId(id)) => id.as_str(),
        _ => "$(az identity show --resource-group GROUP --name NAME --query id --output tsv)",
    };
    let create = if own {
        String::new()
    } else {
        format!(
            "ID=$(az identity create --resource-group GROUP --name flowgate --query id --output tsv)\n# ID={existing}      \
             # where it exists already\n"
        )
    };
    let container = if own {
        "--system-assigned"
    } else {
        "--user-assigned in place of --identities"
    };
    match managed.source {
        ManagedSource::Imds { .. } => {
            format!("{create}az vm identity assign --resource-group GROUP --name VM{which}\n")
        }
        ManagedSource::AppService { .. } => format!(
            "{create}az webapp identity assign --resource-group GROUP --name APP{which}      # or az functionapp, or az \
             containerapp with {container}\n"
        ),
        ManagedSource::Arc { .. } => "# The machine has its identity from Azure Arc; only the agent's group can read its \
                                      keys.\nsudo usermod -a -G himds flowgate && sudo systemctl restart flowgate\n"
            .to_owned(),
    }
}

/// The command that prints an object id.
fn az_object_id(principal: PrincipalOf<'_>) -> String {
    let managed = match principal {
        PrincipalOf::Application => return "az ad sp show --id \"$APP\" --query id --output tsv".to_owned(),
        PrincipalOf::Unknown => return "az ad sp show --id CLIENT_ID --query id --output tsv".to_owned(),
        PrincipalOf::Account(user) => return format!("az ad user show --id {user} --query id --output tsv"),
        PrincipalOf::Machine(managed) => managed,
    };
    let command = match (&managed.source, &managed.selector) {
        (ManagedSource::Arc { .. }, _) => {
            "az connectedmachine show --resource-group GROUP --name MACHINE --query identity.principalId --output tsv"
        }
        (_, Some(_)) => "az identity show --ids \"$ID\" --query principalId --output tsv",
        (ManagedSource::Imds { .. }, None) => {
            "az vm identity show --resource-group GROUP --name VM --query principalId --output tsv"
        }
        (ManagedSource::AppService { .. }, None) => {
            "az webapp identity show --resource-group GROUP --name APP --query principalId --output tsv"
        }
    };
    command.to_owned()
}

pub(super) fn powershell(step: &Step<'_>, facts: &Facts<'_>) -> String {
    let (name, client) = (&facts.identity.name, facts.client);
    match step {
        Step::Registration(kind) => {
            let public = match kind {
                Client::Confidential => "",
                Client::Public => {
                    " -IsFallbackPublicClient -PublicClient @{ RedirectUris = @('http://localhost') }"
                }
                Client::SignsIn => " -PublicClient @{ RedirectUris = @('http://localhost') }",
            };
            format!(
                "$app = New-MgApplication -DisplayName flowgate-{name} -SignInAudience AzureADMyOrg{public}\n# $app = \
                 Get-MgApplication -Filter \"appId eq '{client}'\"      # where it exists already\n"
            )
        }
        Step::Principal => "$sp = New-MgServicePrincipal -AppId $app.AppId\n# $sp = Get-MgServicePrincipal -Filter \
                            \"appId eq '$($app.AppId)'\"      # where it exists already\n"
            .to_owned(),
        Step::Secret => "$password = @{ displayName = 'flowgate'; endDateTime = (Get-Date).AddYears(1) }\n\
                         (Add-MgApplicationPassword -ApplicationId $app.Id -PasswordCredential $password).SecretText\n"
            .to_owned(),
        Step::Certificate => "# -KeyCredentials replaces the certificates that are there: name them all.\n$certificate = \
                              [System.Security.Cryptography.X509Certificates.X509Certificate2]::new(\"$PWD/flowgate.crt\")\n\
                              Update-MgApplication -ApplicationId $app.Id -KeyCredentials @(@{ type = \
                              'AsymmetricX509Cert'; usage = 'Verify'; key = $certificate.RawData })\n"
            .to_owned(),
        Step::Federated(presented) => format!(
            "New-MgApplicationFederatedIdentityCredential -ApplicationId $app.Id -Name flowgate -Issuer '{}' -Subject \
             '{}' -Audiences @('{}')\n",
            presented.issuer, presented.subject, presented.audience
        ),
        Step::Assign(managed) => powershell_assign(managed),
        Step::Permission(right) => rights::powershell(right, facts),
        Step::Account(user) => format!(
            "New-MgUser -DisplayName flowgate-{name} -UserPrincipalName {user} -MailNickname flowgate -AccountEnabled \
             -PasswordProfile @{{ Password = 'PASSWORD' }}\n{}",
            login(facts)
        ),
        Step::Projection => String::new(),
        Step::Resource => rights::resource(Style::PowerShell, facts),
        Step::ObjectId(principal) => format!("($objectId = {})\n", powershell_object_id(*principal)),
        Step::VaultRole(_, places) => places
            .iter()
            .map(|place| {
                let (vault, secret) = (place.vault(), place.name());
                format!(
                    "New-AzRoleAssignment -RoleDefinitionName 'Key Vault Secrets User' -ObjectId $objectId -Scope \
                     \"$((Get-AzKeyVault -VaultName {vault}).ResourceId)/secrets/{secret}\"\n"
                )
            })
            .collect(),
        Step::Settings(PrincipalOf::Application | PrincipalOf::Account(_)) => {
            "$app.AppId\n(Get-MgContext).TenantId\n".to_owned()
        }
        Step::Settings(PrincipalOf::Unknown) => "(Get-MgContext).TenantId\n".to_owned(),
        Step::Settings(PrincipalOf::Machine(managed)) => format!("$identity.{}\n", selector(managed).powershell),
    }
}

fn powershell_assign(managed: &ManagedSettings) -> String {
    let own = managed.selector.is_none();
    let assign = match managed.source {
        ManagedSource::Imds { .. } if own => {
            "Update-AzVM -ResourceGroupName GROUP -VM (Get-AzVM -ResourceGroupName GROUP -Name VM) -IdentityType \
             SystemAssigned\n"
        }
        ManagedSource::Imds { .. } => {
            "Update-AzVM -ResourceGroupName GROUP -VM (Get-AzVM -ResourceGroupName GROUP -Name VM) -IdentityType \
             UserAssigned -IdentityId $identity.Id\n"
        }
        ManagedSource::AppService { .. } if own => {
            "Set-AzWebApp -ResourceGroupName GROUP -Name APP -AssignIdentity $true\n"
        }
        // Set-AzWebApp knows system-assigned identities only.
        ManagedSource::AppService { .. } => {
            "# 'SystemAssigned, UserAssigned' keeps an identity that the app has of its own.\n$body = @{ identity = @{ type \
             = 'UserAssigned'; userAssignedIdentities = @{ $identity.Id = @{} } } } | ConvertTo-Json -Depth 4\n\
             Invoke-AzRestMethod -Method PATCH -ResourceGroupName GROUP -ResourceProviderName Microsoft.Web -ResourceType \
             sites -Name APP -ApiVersion 2023-12-01 -Payload $body\n"
        }
        ManagedSource::Arc { .. } => {
            return "# The machine has its identity from Azure Arc; on Windows the gateway's user must be in the group \
                    Hybrid Agent Extension Applications.\n"
                .to_owned();
        }
    };
    let identity = if own {
        ""
    } else {
        "$identity = New-AzUserAssignedIdentity -ResourceGroupName GROUP -Name flowgate -Location LOCATION\n# $identity = \
         Get-AzUserAssignedIdentity -ResourceGroupName GROUP -Name NAME      # where it exists already\n"
    };
    format!("{identity}{assign}")
}

/// The expression for an object id.
fn powershell_object_id(principal: PrincipalOf<'_>) -> String {
    match principal {
        PrincipalOf::Application => "$sp.Id".to_owned(),
        PrincipalOf::Unknown => "(Get-MgServicePrincipal -Filter \"appId eq 'CLIENT_ID'\").Id".to_owned(),
        PrincipalOf::Account(user) => format!("(Get-MgUser -UserId {user}).Id"),
        PrincipalOf::Machine(managed) => match (&managed.source, &managed.selector) {
            (ManagedSource::Imds { .. } | ManagedSource::AppService { .. }, Some(_)) => {
                "$identity.PrincipalId".to_owned()
            }
            _ => "(Get-MgServicePrincipal -Filter \"displayName eq 'MACHINE'\").Id".to_owned(),
        },
    }
}

pub(super) fn bicep(step: &Step<'_>, facts: &Facts<'_>) -> String {
    let name = &facts.identity.name;
    match step {
        Step::Registration(kind) => {
            let public = match kind {
                Client::Confidential => "",
                Client::Public => {
                    "\n  isFallbackPublicClient: true\n  publicClient: {\n    redirectUris: ['http://localhost']\n  }"
                }
                Client::SignsIn => "\n  publicClient: {\n    redirectUris: ['http://localhost']\n  }",
            };
            format!(
                "resource app 'Microsoft.Graph/applications@v1.0' = {{\n  uniqueName: 'flowgate-{name}'\n  displayName: \
                 'flowgate-{name}'\n  signInAudience: 'AzureADMyOrg'{public}\n}}\n"
            )
        }
        Step::Principal => "resource principal 'Microsoft.Graph/servicePrincipals@v1.0' = {\n  appId: app.appId\n}\n".to_owned(),
        Step::Secret => "// A template would keep a secret in the history of deployments, so make it afterwards; CLIENT_ID is the output clientId.\n// az ad \
                         app credential reset --id CLIENT_ID --append --display-name flowgate --years 1\n"
            .to_owned(),
        Step::Certificate => {
            "// A template would replace the certificates that are there, so add it afterwards; CLIENT_ID is the output clientId.\n// az ad app credential \
             reset --id CLIENT_ID --append --cert @flowgate.crt\n"
                .to_owned()
        }
        Step::Federated(presented) => format!(
            "resource trust 'Microsoft.Graph/applications/federatedIdentityCredentials@v1.0' = {{\n  name: \
             '${{app.uniqueName}}/flowgate'\n  issuer: '{}'\n  subject: '{}'\n  audiences: ['{}']\n}}\n",
            presented.issuer, presented.subject, presented.audience
        ),
        Step::Assign(managed) => bicep_assign(managed),
        Step::Permission(right) => rights::bicep(right, facts),
        Step::Account(user) => format!(
            "// az ad user create --display-name flowgate-{name} --user-principal-name {user} --password PASSWORD\n// {}",
            match login(facts).as_str() {
                "" => "Its password goes where the settings' reference points.\n",
                login => login,
            }
        ),
        Step::Projection => String::new(),
        Step::Resource => rights::resource(Style::Bicep, facts),
        Step::ObjectId(whose @ (PrincipalOf::Unknown | PrincipalOf::Account(_))) => format!("// {}\n", az_object_id(*whose)),
        Step::ObjectId(principal) => format!("output objectId string = {}\n", bicep_object_id(*principal)),
        Step::VaultRole(principal, places) => places
            .iter()
            .enumerate()
            .map(|(at, place)| bicep_role(at, place.vault(), place.name(), *principal))
            .collect(),
        Step::Settings(PrincipalOf::Application | PrincipalOf::Account(_)) => {
            "output clientId string = app.appId\noutput tenantId string = tenant().tenantId\n".to_owned()
        }
        Step::Settings(PrincipalOf::Unknown) => "output tenantId string = tenant().tenantId\n".to_owned(),
        Step::Settings(PrincipalOf::Machine(managed)) => {
            format!("output selector string = identity.{}\n", selector(managed).bicep)
        }
    }
}

fn bicep_assign(managed: &ManagedSettings) -> String {
    match (&managed.selector, &managed.source) {
        (_, ManagedSource::Arc { .. }) => {
            "// The machine has its identity from Azure Arc.\nresource machine 'Microsoft.HybridCompute/machines@2024-07-10' \
             existing = {\n  name: 'MACHINE'\n}\n"
                .to_owned()
        }
        (Some(_), _) => {
            "resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {\n  name: 'flowgate'\n  \
             location: resourceGroup().location\n}\n// In the template of the machine or app:\n//   identity: { type: \
             'UserAssigned', userAssignedIdentities: { '${identity.id}': {} } }\n"
                .to_owned()
        }
        (None, _) => "// In the template of the machine or app, here called machine:\n//   identity: { type: \
                      'SystemAssigned' }\n"
            .to_owned(),
    }
}

fn bicep_role(at: usize, vault: &str, secret: &str, principal: PrincipalOf<'_>) -> String {
    let reader = bicep_object_id(principal);
    let kind = match principal {
        PrincipalOf::Account(_) => "User",
        PrincipalOf::Application | PrincipalOf::Unknown | PrincipalOf::Machine(_) => "ServicePrincipal",
    };
    format!(
        "resource secret{at} 'Microsoft.KeyVault/vaults/secrets@2023-07-01' existing = {{\n  name: \
         '{vault}/{secret}'\n}}\nresource role{at} 'Microsoft.Authorization/roleAssignments@2022-04-01' = {{\n  name: \
         guid(secret{at}.id, 'flowgate')\n  scope: secret{at}\n  properties: {{\n    principalId: {reader}\n    \
         principalType: '{kind}'\n    roleDefinitionId: \
         subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '{SECRETS_USER}')\n  }}\n}}\n"
    )
}
