//! Who is at the other end of the control socket, and what it may do: everything for the user of the gateway and for root, a part
//! of it for the groups of `[control]`.

use crate::settings::{ControlSettings, GroupName};

/// What a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Look at what is in force.
    Read,
    /// Put other settings in force.
    Operate,
    /// Revoke keys.
    Keys,
    /// Have the gateway read any file.
    Own,
}

impl Right {
    /// Its key in `[control]`, where groups may have it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Keys => "keys",
            Self::Own => "its own user",
        }
    }
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    All,
    /// What groups were granted; nothing if that is empty.
    Some(Vec<Right>),
}

impl Rights {
    pub fn allow(&self, right: Right) -> bool {
        match self {
            Self::All => true,
            // Each grant includes a look at what it is about.
            Self::Some(granted) if right == Right::Read => !granted.is_empty(),
            Self::Some(granted) => granted.contains(&right),
        }
    }
}

/// What the groups with these names were granted.
fn granted(settings: &ControlSettings, is_member: impl Fn(&GroupName) -> bool) -> Rights {
    let grants = [
        (Right::Read, &settings.read),
        (Right::Operate, &settings.operate),
        (Right::Keys, &settings.keys),
    ];
    let mine = grants
        .into_iter()
        .filter(|(_, groups)| groups.iter().any(&is_member));
    Rights::Some(mine.map(|(right, _)| right).collect())
}

/// The name of a user, and what it may do. Asks the system, which may ask a directory on the network: not for a worker.
#[cfg(unix)]
pub(super) fn of_user(uid: u32, owner: u32, settings: &ControlSettings) -> (Option<String>, Rights) {
    use std::ffi::CString;

    use nix::unistd::{Group, Uid, User, getgrouplist};

    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.as_ref().map(|user| user.name.clone());
    if uid == owner || uid == 0 {
        return (name, Rights::All);
    }
    let groups = user.and_then(|user| {
        let name = CString::new(user.name).ok()?;
        getgrouplist(&name, user.gid).ok()
    });
    let groups = groups.unwrap_or_default();
    let is_member = |group: &GroupName| {
        let group = Group::from_name(group.as_str()).ok().flatten();
        group.is_some_and(|group| groups.contains(&group.gid))
    };
    (name, granted(settings, is_member))
}

/// The groups of the settings that this machine does not have.
#[cfg(unix)]
pub fn unknown_groups(settings: &ControlSettings) -> Vec<GroupName> {
    let all = [&settings.read, &settings.operate, &settings.keys];
    let is_unknown = |group: &&GroupName| {
        nix::unistd::Group::from_name(group.as_str())
            .ok()
            .flatten()
            .is_none()
    };
    all.into_iter().flatten().filter(is_unknown).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::{Right, Rights, granted};
    use crate::settings::ControlSettings;

    #[test]
    fn a_group_has_what_it_was_granted_and_a_look_at_it() {
        let none = granted(&ControlSettings::default(), |_| true);
        assert_eq!(none, Rights::Some(Vec::new()));
        let operate = Rights::Some(vec![Right::Operate]);
        for (rights, allowed) in [
            (&none, [false; 4]),
            (&Rights::Some(vec![Right::Read]), [true, false, false, false]),
            (&operate, [true, true, false, false]),
            (&Rights::Some(vec![Right::Keys]), [true, false, true, false]),
            (&Rights::All, [true; 4]),
        ] {
            let rights =
                [Right::Read, Right::Operate, Right::Keys, Right::Own].map(|right| rights.allow(right));
            assert_eq!(rights, allowed);
        }
    }
}
