//! Checks key vaults: the connection to each vault that the settings name, and whether its secrets can be
//! read. A vault has a group of its own, so that checks that depend on it can refer to it; no value is shown.

use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::doctor::network::Destination;
use crate::doctor::report::{Check, Group, Verdict};
use crate::doctor::walk::Walk;
use crate::doctor::{advice, credential};
use crate::entra::{VaultReader, VaultsError};
use crate::model::{FixedBy, Remedy};
use crate::settings::{Config, KeyVaultSettings, VaultReference, VaultValue};

/// Checks the vaults of these secrets that were not checked yet. The identities that read them must have been
/// checked before.
pub(super) async fn examine(config: &Config, places: &[VaultReference], walk: &mut Walk) {
    let Some(settings) = &config.keyvault else {
        return;
    };
    let counters = Counters::new();
    let control = Handle::current();
    let mut reader = VaultReader::new(settings, &config.identities, &control, &counters);
    for place in places {
        if walk.vaults.0.contains_key(place) {
            continue;
        }
        let mut group = take(settings, place, walk).await;
        let found = match group.skips(&["secret"]) {
            true => None,
            false => look(settings, place, &mut reader, walk, &mut group).await,
        };
        walk.vaults.0.insert(place.clone(), found);
        walk.groups.push(group);
    }
}

/// The group of a vault, which begins with the connection to it. An existing group is taken out to be
/// extended.
async fn take(settings: &KeyVaultSettings, place: &VaultReference, walk: &mut Walk) -> Group {
    let name = place.authority();
    let at = walk
        .groups
        .iter()
        .position(|group| group.kind == "vault" && group.name == name);
    if let Some(at) = at {
        return walk.groups.remove(at);
    }
    let mut group = Group::new("vault", name);
    let way = Destination::of(
        name,
        &settings.trust,
        settings.timeout,
        "address of the key vault",
    );
    walk.seen.walk(&way, &mut group).await;
    group
}

async fn look(
    settings: &KeyVaultSettings,
    place: &VaultReference,
    reader: &mut VaultReader<'_>,
    walk: &Walk,
    group: &mut Group,
) -> Option<VaultValue> {
    let who = &settings.identity.name;
    if !walk.held.contains_key(who) {
        group.add(Check::skipped(
            "secret",
            format!("identity {who} has no token, see identity {who}"),
        ));
        return None;
    }
    let failure = match reader.read(place).await {
        Ok(Some(found)) => {
            group.aside(readable(place, &found));
            return Some(found);
        }
        Ok(None) => return None,
        Err(VaultsError::Trust(error)) => Check::fail("secret", error.to_string(), advice::authorities()),
        Err(VaultsError::Vault(error)) => {
            let (seen, remedy) = advice::of_vault(&error, &settings.identity);
            Check::fail(
                "secret",
                format!("{place} cannot be read with identity {who}: {seen}"),
                remedy,
            )
        }
    };
    // A cause that affects all secrets of a vault, such as a firewall, is reported once.
    let cause = |check: &Check| check.remedy.as_ref().map(|remedy| remedy.what.clone());
    let is_known = group
        .checks
        .iter()
        .any(|check| check.verdict == Verdict::Fail && cause(check) == cause(&failure));
    group.aside(match is_known {
        true => Check::skipped("secret", format!("{place}: secret failed as above")),
        false => failure,
    });
    None
}

fn readable(place: &VaultReference, found: &VaultValue) -> Check {
    let Some(expires) = found.expires else {
        return Check::ok(
            "secret",
            format!("{place}: it can be read; the vault knows no expiry of it"),
        );
    };
    let (vault, name) = (place.vault(), place.name());
    credential::expiry("secret", &format!("{place}: it can be read"), expires, || {
        Remedy::new(
            FixedBy::Operator,
            "Register the successor in Entra, then put it into the vault as a new version with a later \
             expiry.",
        )
        .portal(format!("Azure portal, Key vaults, {vault}, Secrets, {name}"))
        .command(format!(
            "az keyvault secret set --vault-name {vault} --name {name} --file FILE --expires DATE"
        ))
    })
}
