//! `[control]`: who may send commands to the gateway that runs, besides its own user and root.

use std::path::{Path, PathBuf};

use crate::model::Flaw;
use crate::settings::check::Check;
use crate::settings::kinds::{ANY, At, word};
use crate::settings::state;
use crate::settings::table::{Table, table};

/// Longest name of a group that systems accept is far below.
const GROUP_BYTES_MAX: usize = 256;

table! {
    /// Who may send commands to the gateway that runs, besides its own user and root.
    pub(crate) struct ControlTable {
        /// Path of the control socket; default: control.sock in the folder of [state], which only the user of the gateway
        /// can enter.
        socket: Option<At<String>> = None, ANY, Restart;
        /// Groups of this machine that may look: status, plan, rollback without a number, key list.
        read: Vec<GroupName> = Vec::new(), ANY, Reload;
        /// Groups that may look, reload and roll back.
        operate: Vec<GroupName> = Vec::new(), ANY, Reload;
        /// Groups that may look and revoke keys.
        keys: Vec<GroupName> = Vec::new(), ANY, Reload;
    }
}

/// The name of a group of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName(String);

impl GroupName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for GroupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

word! {
    GroupName: read_group, ["flowgate-operators"];
}

fn read_group(text: &str) -> Result<GroupName, Flaw> {
    let is_odd = |char: char| char.is_control() || char == ':' || char == '\0';
    if text.trim() != text || text.is_empty() || text.len() > GROUP_BYTES_MAX || text.contains(is_odd) {
        return Err(
            Flaw::new("this is not the name of a group").hint("`getent group` lists those of this machine")
        );
    }
    Ok(GroupName(text.to_owned()))
}

/// Where commands arrive, and who may send them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlSettings {
    /// The socket, if it is not in the state folder.
    pub socket: Option<PathBuf>,
    pub read: Vec<GroupName>,
    pub operate: Vec<GroupName>,
    pub keys: Vec<GroupName>,
}

impl ControlSettings {
    /// What is granted to whom, in words.
    pub fn grants(&self) -> Vec<String> {
        let grants = [
            ("read", &self.read),
            ("operate", &self.operate),
            ("keys", &self.keys),
        ];
        let all = grants
            .into_iter()
            .flat_map(|(right, groups)| groups.iter().map(move |group| (right, group)));
        all.map(|(right, group)| format!("group {group} may {right}"))
            .collect()
    }
}

impl Check<'_> {
    pub(super) fn control(&mut self, table: &Table<ControlTable>, has_state: bool) -> ControlSettings {
        let groups = [
            ("read", &table.read),
            ("operate", &table.operate),
            ("keys", &table.keys),
        ];
        let first = groups.iter().find_map(|(key, groups)| {
            let mark = table.place(key)?;
            (!groups.is_empty()).then_some(mark)
        });
        let socket = table.socket.as_ref();
        if let Some(mark) = first.or(table.place("socket"))
            && !has_state
        {
            let flaw = Flaw::new("there is no control socket without a state folder");
            self.findings.mistake(mark, flaw.hint("set `folder` of [state]"));
        } else if let Some(mark) = first.filter(|_| socket.is_none() && !table.is_reported("socket")) {
            let flaw = Flaw::new("these groups cannot reach the control socket: it is in the state folder");
            let hint = "set `socket` of [control] to a path in a folder that they can enter, such as \
                        \"/run/flowgate/control.sock\"";
            self.findings.mistake(mark, flaw.hint(hint));
        }
        ControlSettings {
            socket: socket.and_then(|socket| self.path(socket)),
            read: table.read.clone(),
            operate: table.operate.clone(),
            keys: table.keys.clone(),
        }
    }
}

/// The socket that these settings name, also where they have mistakes elsewhere.
pub fn control_socket(text: &str, path: &Path) -> Option<PathBuf> {
    state::path_in(text, path, "control", "socket")
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::Sample;

    #[test]
    fn groups_need_a_socket_that_they_can_reach() {
        let sample = |state: &'static str, control: &str| {
            let sample = Sample::default().with("control", control);
            if state.is_empty() {
                sample
            } else {
                sample.with("state", state)
            }
        };
        let state = "folder = \"state\"";
        let control = sample(state, "socket = \"run/control.sock\"\noperate = [\"ops\"]")
            .config()
            .control;
        assert!(control.socket.unwrap().ends_with("run/control.sock"));
        assert_eq!(control.operate[0].as_str(), "ops");
        for (state, control, what) in [
            (
                state,
                "read = [\"ops\"]",
                "these groups cannot reach the control socket: it is in the state folder",
            ),
            (
                "",
                "keys = [\"ops\"]",
                "there is no control socket without a state folder",
            ),
            (
                "",
                "socket = \"x\"",
                "there is no control socket without a state folder",
            ),
            (
                state,
                "socket = \"x\"\nread = [\"a:b\"]",
                "this is not the name of a group",
            ),
            (
                state,
                "socket = \"x\"\nread = [\"\"]",
                "this is not the name of a group",
            ),
        ] {
            assert_eq!(sample(state, control).mistakes(), [what], "{control}");
        }
    }
}
