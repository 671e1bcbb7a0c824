//! `[[listener]]`: an address, and TLS with certificates or, asked for explicitly, plain HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::model::{FixedPath, Flaw, Network};
use crate::settings::check::Check;
use crate::settings::findings::Mark;
use crate::settings::kinds::{ANY, At, choice, switch};
use crate::settings::route::RouteTable;
use crate::settings::table::{Table, table};
use crate::settings::tls::CertificateTable;
use crate::settings::{CallerSettings, Certificate};

table! {
    /// An address on which callers are served.
    pub(crate) struct ListenerTable {
        /// Address to listen on, for example `0.0.0.0:8443` or `[::]:8443`.
        address: Option<At<SocketAddr>> = None, ANY, Reload;
        /// Whether HTTP/2 is offered beside HTTP/1.1. Only with TLS.
        http2: Http2 = Http2::Offered, ANY, Reload;
        /// Path answered with 200 while the gateway is ready and 503 otherwise, without any check of the caller.
        health_path: Option<At<FixedPath>> = None, ANY, Reload;
        /// Certificates, chosen by the name the caller asks for.
        certificate: Vec<Table<CertificateTable>> = Vec::new(), ANY, Reload;
        /// Plain HTTP in place of TLS: "behind-tls-balancer" or "private-networks".
        plain_http: Option<At<Peers>> = None, ANY, Reload;
        /// Networks whose peers are served in plain HTTP; everybody else is cut.
        plain_http_from: Option<At<Vec<At<Network>>>> = None, ANY, Reload;
    }
}

#[derive(Debug, Clone)]
pub struct ListenerSettings {
    pub address: SocketAddr,
    pub transport: Transport,
    pub health_path: Option<FixedPath>,
}

#[derive(Debug, Clone)]
pub enum Transport {
    /// TLS 1.2 and 1.3; HTTP by ALPN.
    Tls(TlsSettings),
    /// HTTP/1.1 without TLS, for peers of these networks only.
    Plain { from: Vec<Network>, peers: Peers },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Callers themselves: the address of the peer is the caller's.
    Callers,
    /// A load balancer that ends TLS: all callers have its address.
    Balancer,
}

#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Certificates; the first with `default` set, or else the first of all, serves unknown names.
    pub certificates: Vec<Certificate>,
    /// Index in `certificates` of the one that serves unknown names and callers without SNI.
    pub default_certificate: usize,
    pub http2: Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// Offered by ALPN, preferred over HTTP/1.1.
    Offered,
    Off,
}

choice!(Peers: Self::Balancer => "behind-tls-balancer", Self::Callers => "private-networks");
switch!(Http2: Offered = true, Off = false);

/// Networks that nobody can call from over the internet: RFC 1918, RFC 4193, loopback and link-local.
const PRIVATE: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "fc00::/7",
    "::1/128",
    "fe80::/10",
];

impl Check<'_> {
    pub(super) fn listeners(&mut self, list: &[Table<ListenerTable>]) -> Vec<ListenerSettings> {
        let mut addresses = HashMap::new();
        list.iter()
            .filter_map(|listener| self.listener(listener, &mut addresses))
            .collect()
    }

    fn listener(
        &mut self,
        listener: &Table<ListenerTable>,
        addresses: &mut HashMap<SocketAddr, Mark>,
    ) -> Option<ListenerSettings> {
        let hint = "write for example address = \"0.0.0.0:8443\"";
        let address = listener.require(("address", &listener.address), hint, &mut self.findings);
        let transport = self.transport(listener);
        let value = address?;
        let address = **value;
        // Port 0 means any free port, so two of them do not clash.
        if address.port() != 0
            && let Some(first) = addresses.insert(address, value.into())
        {
            let flaw = Flaw::new(format!("two listeners have the address {address}"));
            self.findings.clash(value, flaw, first, "first here");
        }
        Some(ListenerSettings {
            address,
            transport: transport?,
            health_path: listener.health_path.as_deref().cloned(),
        })
    }

    fn transport(&mut self, listener: &Table<ListenerTable>) -> Option<Transport> {
        match (listener.certificate.first(), &listener.plain_http) {
            (Some(certificate), Some(plain)) => {
                let flaw = Flaw::new("a listener has either certificates or `plain_http`, not both");
                self.findings
                    .clash(plain, flaw, certificate.span(), "a certificate here");
                None
            }
            (Some(_), None) => {
                if let Some(from) = &listener.plain_http_from {
                    let flaw = Flaw::new("`plain_http_from` has no meaning on a listener with certificates");
                    self.findings.mistake(from, flaw);
                }
                self.tls(listener).map(Transport::Tls)
            }
            (None, Some(plain)) => self.plain(listener, plain),
            (None, None) => {
                if !listener.is_reported("certificate") && !listener.is_reported("plain_http") {
                    let flaw = Flaw::new("the listener has no certificate");
                    let hint = "add [[listener.certificate]] with chain and key; where a load balancer \
                                before the gateway ends TLS, set plain_http = \"behind-tls-balancer\"";
                    self.findings.mistake(listener, flaw.hint(hint));
                }
                None
            }
        }
    }

    fn plain(&mut self, listener: &Table<ListenerTable>, plain: &At<Peers>) -> Option<Transport> {
        let http2 = listener
            .place("http2")
            .filter(|_| listener.http2 == Http2::Offered);
        if let Some(http2) = http2 {
            self.findings
                .mistake(http2, Flaw::new("HTTP/2 is offered with TLS only"));
        }
        let Some(list) = &listener.plain_http_from else {
            let hint = match **plain {
                Peers::Balancer => "list the networks of the load balancer",
                Peers::Callers => "list the private networks of the callers",
            };
            listener.missing("plain_http_from", hint, &mut self.findings);
            return None;
        };
        if list.is_empty() {
            self.findings
                .mistake(list, Flaw::new("no network is listed, so nobody could call"));
        }
        let private: Vec<Network> = PRIVATE.iter().filter_map(|text| text.parse().ok()).collect();
        let mut from = Vec::new();
        for value in list.iter() {
            let network = **value;
            let is_private = private.iter().any(|private| private.contains(&*network));
            if **plain == Peers::Callers && !is_private {
                let flaw = Flaw::new(format!("{network} is not a private network"));
                let hint = "keys would cross a public network in clear text; use certificates instead";
                self.findings.mistake(value, flaw.hint(hint));
            } else if network.prefix_len() == 0 {
                let flaw = Flaw::new("everybody may call in plain HTTP, not only the load balancer");
                self.findings
                    .warn(value, flaw.hint("list the networks of the load balancer"));
            }
            from.push(network);
        }
        Some(Transport::Plain { from, peers: **plain })
    }

    fn tls(&mut self, listener: &Table<ListenerTable>) -> Option<TlsSettings> {
        let mut certificates = Vec::new();
        let mut names: HashMap<String, Mark> = HashMap::new();
        let mut default: Option<(usize, Mark)> = None;
        for (index, table) in listener.certificate.iter().enumerate() {
            if let Some(mark) = table.place("default").filter(|_| table.default) {
                if let Some((_, first)) = default {
                    let flaw = Flaw::new("only one certificate of a listener can be the default");
                    self.findings.clash(mark, flaw, first, "already here");
                }
                default.get_or_insert((index, mark));
            }
            let Some(certificate) = self.certificate(table) else {
                continue;
            };
            for name in &certificate.names {
                let mark = mark_of_name(table, name);
                if let Some(first) = names.insert(name.clone(), mark) {
                    let flaw = Flaw::new(format!("two certificates of the listener serve {name}"));
                    self.findings.clash(
                        mark,
                        flaw.hint("say with `names` which one serves it"),
                        first,
                        "first here",
                    );
                }
            }
            certificates.push(certificate);
        }
        let default_certificate = default.map_or(0, |(index, _)| index);
        (certificates.len() == listener.certificate.len()).then_some(TlsSettings {
            certificates,
            default_certificate,
            http2: listener.http2,
        })
    }

    /// Behind a balancer the address of a caller is not known, so wrong keys cannot be limited by address.
    pub(super) fn balancers(&mut self, listeners: &[Table<ListenerTable>], callers: &[CallerSettings]) {
        if callers.iter().all(|caller| caller.keys.is_empty()) {
            return;
        }
        let plain = listeners
            .iter()
            .filter_map(|listener| listener.plain_http.as_ref());
        for value in plain.filter(|value| ***value == Peers::Balancer) {
            let flaw = Flaw::new(
                "wrong keys are not limited on this listener: all callers have the address of the balancer",
            );
            let hint = "keys made by `flowgate key new` cannot be guessed; replace those made by `flowgate \
                        key hash` from short secrets, or limit failed requests of each client at the balancer";
            self.findings.warn(value, flaw.hint(hint));
        }
    }

    /// A route at the very path a listener answers itself could never be reached there.
    pub(super) fn health_paths(&mut self, listeners: &[Table<ListenerTable>], routes: &[Table<RouteTable>]) {
        for health in listeners
            .iter()
            .filter_map(|listener| listener.health_path.as_ref())
        {
            let hidden = routes.iter().filter_map(|route| route.path.as_ref());
            for path in hidden.filter(|path| ****path == ***health) {
                let flaw = Flaw::new("the listener answers this path itself, so the route cannot be reached");
                self.findings.clash(path, flaw, health, "health path here");
            }
        }
    }
}

/// Where a name of a certificate was given: by itself, or with the chain that holds it.
fn mark_of_name(table: &Table<CertificateTable>, name: &str) -> Mark {
    let names = table.names.iter().flat_map(|names| names.iter());
    let given = names
        .filter(|value| value.eq_ignore_ascii_case(name))
        .map(Mark::from)
        .next();
    given
        .or(table.chain.as_ref().map(Mark::from))
        .unwrap_or(table.into())
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::Sample;
    use crate::settings::{Peers, Transport};

    fn sample(lines: &str) -> Sample {
        Sample::default().with("listener", &format!("address = \"127.0.0.1:8443\"\n{lines}"))
    }

    #[test]
    fn a_listener_speaks_tls_or_says_why_not() {
        assert_eq!(sample("").mistakes(), ["the listener has no certificate"]);
        let both = "plain_http = \"private-networks\"\nplain_http_from = [\"10.0.0.0/8\"]\n\
                    [[listener.certificate]]\nchain = \"a.pem\"\nkey = \"file:a.key\"";
        assert_eq!(
            sample(both).mistakes(),
            ["a listener has either certificates or `plain_http`, not both"]
        );
        assert_eq!(
            sample("plain_http = \"behind-tls-balancer\"").mistakes(),
            ["`plain_http_from` is missing"]
        );
        assert_eq!(sample("plain_http = \"yes\"").mistakes(), ["unknown value"]);
        let plain =
            sample("plain_http = \"behind-tls-balancer\"\nplain_http_from = [\"203.0.113.0/24\"]").config();
        assert!(
            matches!(&plain.listeners[0].transport, Transport::Plain { from, peers: Peers::Balancer }
                if from.len() == 1)
        );
    }

    #[test]
    fn plain_http_stays_in_private_networks() {
        let sample = |network: &str| {
            sample(&format!(
                "plain_http = \"private-networks\"\nplain_http_from = [\"{network}\"]"
            ))
        };
        for good in [
            "10.1.0.0/16",
            "172.16.0.0/12",
            "192.168.1.0/24",
            "127.0.0.1",
            "fd00::/8",
            "fe80::/10",
            "::1",
        ] {
            assert!(sample(good).mistakes().is_empty(), "{good}");
        }
        for bad in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "172.32.0.0/12",
            "203.0.113.0/24",
            "2001:db8::/32",
            "::/0",
        ] {
            assert_eq!(sample(bad).mistakes().len(), 1, "{bad}");
        }
    }

    #[test]
    fn wrong_keys_without_a_limit_are_worth_a_warning() {
        let warnings = |kind: &str, key: &str| {
            let caller = format!("name = \"shop\"\nnetworks = [\"10.0.0.0/8\"]\n{key}");
            sample(&format!(
                "plain_http = \"{kind}\"\nplain_http_from = [\"10.0.0.0/8\"]"
            ))
            .with("caller", &caller)
            .warnings()
        };
        let key = format!(
            "[[caller.key]]\nlabel = \"a\"\ndigest = \"sha256:{}\"",
            "0".repeat(64)
        );
        let expected =
            "wrong keys are not limited on this listener: all callers have the address of the balancer";
        assert_eq!(warnings("behind-tls-balancer", &key), [expected]);
        assert!(warnings("private-networks", &key).is_empty());
        assert!(
            warnings("behind-tls-balancer", "").is_empty(),
            "there is no key to guess"
        );
    }

    #[test]
    fn a_balancer_that_is_everybody_is_worth_a_warning() {
        let open = sample("plain_http = \"behind-tls-balancer\"\nplain_http_from = [\"0.0.0.0/0\"]");
        assert_eq!(
            open.warnings(),
            ["everybody may call in plain HTTP, not only the load balancer"]
        );
    }

    #[test]
    fn two_listeners_have_two_addresses() {
        let plain = "plain_http = \"private-networks\"\nplain_http_from = [\"127.0.0.0/8\"]";
        let second = sample(&format!(
            "{plain}\n[[listener]]\naddress = \"127.0.0.1:8443\"\n{plain}"
        ));
        assert_eq!(
            second.mistakes(),
            ["two listeners have the address 127.0.0.1:8443"]
        );
        assert!(second.replace("8443", "0").mistakes().is_empty());
    }

    #[test]
    fn a_health_path_hides_no_route() {
        let plain = "plain_http = \"private-networks\"\nplain_http_from = [\"127.0.0.0/8\"]";
        assert!(
            sample(&format!("{plain}\nhealth_path = \"/-/health\""))
                .mistakes()
                .is_empty()
        );
        assert_eq!(
            sample(&format!("{plain}\nhealth_path = \"/orders\"")).mistakes(),
            ["the listener answers this path itself, so the route cannot be reached"]
        );
        assert_eq!(
            sample(&format!("{plain}\nhealth_path = \"health\"")).mistakes(),
            ["a path starts with a slash"]
        );
    }
}
