//! What differs between two settings in the tables that belong to no route, caller or identity, in words.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use crate::settings::table::{Class, Rows};
use crate::settings::{
    AdminSettings, BodySettings, Config, ConnectionSettings, GatewaySettings, LogSettings, QuotaSettings,
};

/// The tables of settings that are in force. They have no secrets.
#[derive(Debug, Clone)]
pub struct Scalars {
    gateway: GatewaySettings,
    connections: ConnectionSettings,
    bodies: BodySettings,
    quotas: QuotaSettings,
    log: LogSettings,
    admin: Option<AdminSettings>,
    state_folder: Option<PathBuf>,
    socket: Option<PathBuf>,
}

/// A setting with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its table and key: `connections.max`.
    pub setting: String,
    from: String,
    to: String,
    class: Class,
}

impl Change {
    /// Whether it takes effect only when the gateway is started again.
    pub fn needs_restart(&self) -> bool {
        self.class == Class::Restart
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.setting, self.from, self.to)
    }
}

impl Scalars {
    /// Those of these settings.
    pub fn of(config: &Config) -> Self {
        Self {
            gateway: config.gateway.clone(),
            connections: config.connections.clone(),
            bodies: config.bodies.clone(),
            quotas: config.quotas.clone(),
            log: config.log.clone(),
            admin: config.admin.clone(),
            state_folder: config.state_folder.clone(),
            socket: config.control.socket.clone(),
        }
    }

    /// What other settings have other values for.
    pub fn changes(&self, later: &Self) -> Vec<Change> {
        let mut all = Vec::new();
        compare("gateway", &self.gateway, &later.gateway, &mut all);
        compare("connections", &self.connections, &later.connections, &mut all);
        compare("bodies", &self.bodies, &later.bodies, &mut all);
        compare("limits", &self.quotas, &later.quotas, &mut all);
        compare("log", &self.log, &later.log, &mut all);
        let address = |of: &Self| {
            of.admin
                .as_ref()
                .map_or("off".to_owned(), |admin| admin.address.to_string())
        };
        let hosts = |of: &Self| {
            let hosts = of.admin.iter().flat_map(|admin| admin.hosts.iter());
            hosts.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let path = |path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map_or("not set".to_owned(), |path| path.display().to_string())
        };
        for (setting, from, to) in [
            ("admin.address", address(self), address(later)),
            ("admin.hosts", hosts(self), hosts(later)),
            (
                "state.folder",
                path(&self.state_folder),
                path(&later.state_folder),
            ),
            ("control.socket", path(&self.socket), path(&later.socket)),
        ] {
            if from != to {
                all.push(Change {
                    setting: setting.to_owned(),
                    from,
                    to,
                    class: Class::Restart,
                });
            }
        }
        all
    }
}

fn compare<T: Rows>(table: &str, earlier: &T, later: &T, all: &mut Vec<Change>) {
    for row in T::ROWS {
        let (from, to) = ((row.show)(earlier), (row.show)(later));
        if from != to {
            all.push(Change {
                setting: format!("{table}.{}", row.key),
                from: word(&from),
                to: word(&to),
                class: row.class,
            });
        }
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Scalars;
    use crate::settings::sample::Sample;

    #[test]
    fn changed_values_are_named_with_what_they_need() {
        let earlier = Scalars::of(&Sample::default().config());
        let connections = "max = 77\nidle_timeout = \"7s\"\nper_address_exempt = [\"10.0.0.0/8\"]";
        let sample = Sample::default()
            .with("connections", connections)
            .with("log", "level = \"debug\"");
        let later = Scalars::of(&sample.config());
        let changes: Vec<_> = earlier
            .changes(&later)
            .iter()
            .map(|change| (change.to_string(), change.needs_restart()))
            .collect();
        let expected = [
            ("connections.max: 10000 -> 77", true),
            (
                "connections.per_address_exempt: not set -> [\"10.0.0.0/8\"]",
                true,
            ),
            ("connections.idle_timeout: 75s -> 7s", false),
            ("log.level: info -> debug", true),
        ];
        assert_eq!(
            changes,
            expected.map(|(text, restart)| (text.to_owned(), restart))
        );
        assert!(later.changes(&later.clone()).is_empty());
    }
}
