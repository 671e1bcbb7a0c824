//! What the gateway itself keeps of the settings and reads again: addresses of triggers, which change under calls that are
//! on their way, and the pepper, which does not.

use std::sync::Arc;

use crate::entra::claims::Needs;
use crate::flow::Mover;
use crate::gateway::estate::Estate;
use crate::gateway::run_address::RunSeals;
use crate::gateway::snapshot::{Route, Snapshot};
use crate::model::{CallerName, Secret};
use crate::policy::signature::Signer;
use crate::secrets::{Followed, Following, Rereader, SecretOwner, Taken, Verdict};
use crate::settings::{Config, RouteSettings, SecretSource, SignatureSettings, TriggerSource, check_seal};

/// Follows what may change of these settings.
pub(super) fn follow(estate: &Estate, snapshot: &Snapshot, config: &Config) -> Vec<Following> {
    let rereader = snapshot.tokens.rereader();
    let mut following = Vec::new();
    if let (Some(pepper), Some(source)) = (&config.key_pepper, &config.key_pepper_source) {
        following.push(follow_pepper(rereader, pepper, source));
    }
    if let Some(seals) = &snapshot.run_seals {
        following.push(follow_run_seals(rereader, &config.run_seals, seals.clone()));
    }
    for settings in &config.callers {
        let signature = settings.signature.as_ref();
        let signature = signature.filter(|signature| !signature.secrets.is_empty());
        if let (Some(signature), Some(signer)) = (signature, snapshot.callers.signer(&settings.name)) {
            following.push(follow_secrets(
                rereader,
                &settings.name,
                signature,
                signer.clone(),
            ));
        }
    }
    for (route, settings) in snapshot.routes.iter().zip(&config.routes) {
        if let Some(source) = &settings.trigger_source {
            let mover = estate.flows.mover(&route.trigger, settings);
            following.push(follow_trigger(rereader, route, settings, source, mover));
        }
    }
    following
}

fn follow_trigger(
    rereader: &Rereader,
    route: &Route,
    settings: &RouteSettings,
    source: &TriggerSource,
    mover: Mover,
) -> Following {
    let followed = Followed {
        holder: SecretOwner::Route(route.name.as_str().into()),
        what: "trigger",
        credential: format!("trigger-{}", route.name),
        until: None,
    };
    let places = [&source.source];
    let (source, mut settings) = (source.clone(), settings.clone());
    let preflight = route.preflight.clone().zip(route.identity.clone());
    rereader.follow(followed, &places, move |texts| {
        let Some(text) = texts.first() else {
            return Verdict::Same;
        };
        let url = match source.succeed(text, mover.trigger().address().url()) {
            Ok(url) => url,
            Err(why) => return Verdict::Refused(why),
        };
        if url.same_as(mover.trigger().address().url()) {
            return Verdict::Same;
        }
        let said = format!("trigger of route {} replaced, now {url}", settings.name);
        let remarks = source.remarks(&url);
        settings.trigger = url.clone();
        let address = match mover.reach(url) {
            Ok(address) => address,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        // First, because a token that cannot be accepted there is kept back where the settings want that.
        if let Some((preflight, identity)) = &preflight {
            preflight.need(Needs::of(&settings, identity.settings()));
            identity.look_again();
        }
        mover.go(address);
        for remark in remarks {
            tracing::warn!(route = %settings.name, "{remark}");
        }
        Verdict::Taken(Taken {
            said,
            until: None,
            credential: None,
        })
    })
}

/// Follows the secrets with which a caller signs.
fn follow_secrets(
    rereader: &Rereader,
    caller: &CallerName,
    settings: &SignatureSettings,
    signer: Arc<Signer>,
) -> Following {
    let followed = Followed {
        holder: SecretOwner::Caller(caller.as_str().into()),
        what: "signing secret",
        credential: format!("signing-secret-{caller}"),
        until: None,
    };
    let mut known: Vec<_> = settings
        .secrets
        .iter()
        .filter_map(|one| one.source.known().cloned())
        .collect();
    let places: Vec<_> = settings.secrets.iter().map(|one| &one.source).collect();
    let (settings, name) = (settings.clone(), caller.clone());
    rereader.follow(followed, &places, move |texts| {
        if texts.len() == known.len()
            && texts
                .iter()
                .zip(&known)
                .all(|(text, known)| text.same_as(known.expose()))
        {
            return Verdict::Same;
        }
        if let Err(why) = signer.replace(&settings, texts) {
            return Verdict::Refused(why.to_string());
        }
        known = texts.to_vec();
        Verdict::Taken(Taken {
            said: format!("signing secrets of caller {name} replaced"),
            until: None,
            credential: None,
        })
    })
}

/// Follows the secrets that seal addresses of runs.
fn follow_run_seals(rereader: &Rereader, sources: &[SecretSource], seals: Arc<RunSeals>) -> Following {
    let followed = Followed {
        holder: SecretOwner::Gateway,
        what: "secrets of run addresses",
        credential: "run-addresses".to_owned(),
        until: None,
    };
    let mut known: Vec<_> = sources.iter().filter_map(SecretSource::known).cloned().collect();
    let places: Vec<_> = sources.iter().collect();
    rereader.follow(followed, &places, move |texts| {
        if texts == known {
            return Verdict::Same;
        }
        if let Some(why) = texts.iter().find_map(|text| check_seal(text).err()) {
            return Verdict::Refused(why.to_owned());
        }
        seals.replace(texts);
        known = texts.to_vec();
        Verdict::Taken(Taken {
            said: "secrets of run addresses replaced".to_owned(),
            until: None,
            credential: None,
        })
    })
}

/// Follows the pepper. The digests in the settings were made with the one that was read with them; under another one no key
/// would be known any more.
fn follow_pepper(rereader: &Rereader, pepper: &Secret, source: &SecretSource) -> Following {
    let followed = Followed {
        holder: SecretOwner::Gateway,
        what: "pepper",
        credential: "pepper".to_owned(),
        until: None,
    };
    let pepper = pepper.clone();
    rereader.follow(followed, &[source], move |texts| match texts.first() {
        Some(text) if !text.same_as(pepper.expose()) => Verdict::Left(
            "the pepper was changed; keys that were made with the earlier one go on, those made with the new one are not \
             known: the operator must reload the settings to use it, with digests that were made with it"
                .to_owned(),
        ),
        _ => Verdict::Same,
    })
}
