//! Who is calling, as far as the network knows: the origin of a request, and the networks that are let in or
//! kept out. Which networks belong to which route or caller is for the settings to say.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::model::{Holder, Network};
use crate::problem::{Kind, Problem};
use crate::settings::NetworkSettings;

/// The real address of a caller, in one spelling: an IPv4 address mapped into IPv6 (RFC 4291 section 2.5.5.2)
/// is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    /// The origin of a connection that comes straight from its caller.
    pub fn of_peer(peer: SocketAddr) -> Self {
        Self(peer.ip().to_canonical())
    }

    pub fn address(self) -> IpAddr {
        self.0
    }

    /// What counts as one address for the limit of failed authentications: an IPv4 address, or the /64 that a
    /// single IPv6 subscriber has to itself (RFC 6177).
    pub fn bucket(self) -> Bucket {
        match self.0 {
            IpAddr::V4(address) => Bucket(IPV4_BUCKETS | u64::from(u32::from(address))),
            IpAddr::V6(address) => Bucket((u128::from(address) >> 64) as u64),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// Buckets of IPv4 addresses are where IPv6 has multicast groups (ff00::/8), which never are the source of a
// connection.
const IPV4_BUCKETS: u64 = 0xffff_ffff_0000_0000;

/// One address or one /64 network, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket(u64);

impl From<Bucket> for Holder {
    fn from(bucket: Bucket) -> Self {
        Self::Address(bucket.0)
    }
}

/// Networks that are let in and kept out. Denial wins; an empty list of the let-in lets in every address not
/// denied.
///
/// The cost of a decision grows with the logarithm of the number of networks; each takes 8 (IPv4) or 32
/// (IPv6) bytes.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    allow: NetworkSet,
    deny: NetworkSet,
}

impl Networks {
    pub fn build(settings: &NetworkSettings) -> Self {
        Self {
            allow: NetworkSet::build(&settings.allow),
            deny: NetworkSet::build(&settings.deny),
        }
    }

    /// Lets an origin in or says which list refuses it.
    pub fn admit(&self, origin: Origin) -> Result<(), OutsideNetworks> {
        if let Some(network) = self.deny.covering(origin.0) {
            return Err(OutsideNetworks {
                origin,
                list: List::Denied(network),
            });
        }
        if !self.allow.is_empty() && self.allow.covering(origin.0).is_none() {
            return Err(OutsideNetworks {
                origin,
                list: List::NotAllowed,
            });
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutsideNetworks {
    pub origin: Origin,
    pub list: List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// The list of the kept-out has this network; the widest, if several of them contain the origin.
    Denied(IpNet),
    /// The list of the let-in has no network that contains the origin.
    NotAllowed,
}

impl fmt::Display for OutsideNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list {
            List::Denied(network) => write!(f, "{} is on the deny list ({network})", self.origin),
            List::NotAllowed => write!(f, "{} is not on the allow list", self.origin),
        }
    }
}

impl From<OutsideNetworks> for Problem {
    fn from(refused: OutsideNetworks) -> Self {
        Problem::from(Kind::AddressRefused).because(refused.to_string())
    }
}

/// Disjoint networks as first and last address, in order.
#[derive(Debug, Clone, Default)]
struct NetworkSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl NetworkSet {
    fn build(networks: &[Network]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for network in networks {
            match **network {
                IpNet::V4(network) => v4.push((network.network().into(), network.broadcast().into())),
                IpNet::V6(network) => v6.push((network.network().into(), network.broadcast().into())),
            }
        }
        Self {
            v4: disjoint(v4),
            v6: disjoint(v6),
        }
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn covering(&self, address: IpAddr) -> Option<IpNet> {
        match address {
            IpAddr::V4(address) => {
                let (first, last) = covering(&self.v4, address.into())?;
                Some(network(
                    Ipv4Addr::from(first).into(),
                    (first ^ last).leading_zeros(),
                ))
            }
            IpAddr::V6(address) => {
                let (first, last) = covering(&self.v6, address.into())?;
                Some(network(
                    Ipv6Addr::from(first).into(),
                    (first ^ last).leading_zeros(),
                ))
            }
        }
    }
}

// Two networks are either disjoint or one contains the other, so leaving out the contained ones is all it
// takes.
fn disjoint<A: Copy + Ord>(mut networks: Vec<(A, A)>) -> Box<[(A, A)]> {
    networks.sort_unstable_by_key(|&(first, last)| (first, Reverse(last)));
    let mut end = None;
    networks.retain(|&(first, last)| {
        let outside = end.is_none_or(|end| first > end);
        if outside {
            end = Some(last);
        }
        outside
    });
    networks.into_boxed_slice()
}

fn covering<A: Copy + Ord>(networks: &[(A, A)], address: A) -> Option<(A, A)> {
    let after = networks.partition_point(|&(first, _)| first <= address);
    let &(first, last) = networks.get(after.checked_sub(1)?)?;
    (address <= last).then_some((first, last))
}

fn network(first: IpAddr, length: u32) -> IpNet {
    // At most 128 leading zeros, so neither the conversion nor the length can be wrong.
    IpNet::new(first, u8::try_from(length).unwrap_or(u8::MAX)).unwrap_or(IpNet::from(first))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use ipnet::IpNet;
    use proptest::prelude::{Strategy, any};
    use proptest::{prop_oneof, proptest};

    use super::{List, NetworkSet, Networks, Origin};
    use crate::model::Network;
    use crate::problem::{Kind, Problem};
    use crate::settings::NetworkSettings;

    fn origin(text: &str) -> Origin {
        Origin::of_peer(SocketAddr::new(text.parse().unwrap(), 40_000))
    }

    fn nets(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn networks(allow: &[&str], deny: &[&str]) -> Networks {
        Networks::build(&NetworkSettings {
            allow: nets(allow),
            deny: nets(deny),
        })
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert_eq!(origin("::ffff:10.1.2.3"), origin("10.1.2.3"));
        assert_eq!(origin("::ffff:10.1.2.3").to_string(), "10.1.2.3");
    }

    #[test]
    fn a_bucket_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        assert_eq!(
            origin("2001:db8::1").bucket(),
            origin("2001:db8::ffff:2").bucket()
        );
        assert_eq!(
            origin("2001:db8::1").bucket(),
            origin("2001:db8::8000:0:0:1").bucket()
        );
        assert_ne!(origin("2001:db8::1").bucket(), origin("a001:db8::1").bucket());
        assert_ne!(origin("2001:db8::1").bucket(), origin("2001:db8:0:1::1").bucket());
        assert_ne!(origin("10.0.0.1").bucket(), origin("10.0.0.2").bucket());
        assert_ne!(origin("::1").bucket(), origin("0.0.0.1").bucket());
    }

    #[test]
    fn without_lists_everybody_is_let_in() {
        let all = Networks::default();
        assert!(all.admit(origin("10.0.0.1")).is_ok());
        assert!(all.admit(origin("2001:db8::1")).is_ok());
    }

    #[test]
    fn an_allow_list_lets_nobody_else_in() {
        let office = networks(&["10.0.0.0/8", "192.0.2.7/32"], &[]);
        assert!(office.admit(origin("10.255.255.255")).is_ok());
        assert!(office.admit(origin("192.0.2.7")).is_ok());
        assert_eq!(
            office.admit(origin("192.0.2.8")).unwrap_err().list,
            List::NotAllowed
        );
        assert_eq!(
            office.admit(origin("2001:db8::1")).unwrap_err().list,
            List::NotAllowed
        );
    }

    #[test]
    fn denial_wins_and_names_its_network() {
        let office = networks(&["10.0.0.0/8"], &["10.9.0.0/16", "10.9.1.0/24"]);
        let refused = office.admit(origin("10.9.1.1")).unwrap_err();
        assert_eq!(refused.list, List::Denied("10.9.0.0/16".parse().unwrap()));
        assert!(office.admit(origin("10.10.1.1")).is_ok());
        let last = networks(&[], &["10.9.0.0/16", "10.9.255.255/32"]);
        assert_eq!(
            last.admit(origin("10.9.255.255")).unwrap_err().list,
            List::Denied("10.9.0.0/16".parse().unwrap())
        );
        let problem = Problem::from(refused);
        assert_eq!(problem.kind(), Kind::AddressRefused);
        assert_eq!(
            problem.cause(),
            Some("10.9.1.1 is on the deny list (10.9.0.0/16)")
        );
    }

    #[test]
    fn a_prefix_of_no_bits_is_a_whole_family() {
        let v4 = networks(&["0.0.0.0/0", "10.0.0.0/8"], &[]);
        assert!(v4.admit(origin("0.0.0.0")).is_ok());
        assert!(v4.admit(origin("255.255.255.255")).is_ok());
        assert!(v4.admit(origin("::1")).is_err());
        let v6 = networks(&["::/0"], &[]);
        assert!(
            v6.admit(origin("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
                .is_ok()
        );
        assert!(v6.admit(origin("10.0.0.1")).is_err());
        let none = networks(&[], &["0.0.0.0/0", "::/0"]);
        assert_eq!(
            none.admit(origin("::1")).unwrap_err().list,
            List::Denied("::/0".parse().unwrap())
        );
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        let office = networks(&["::ffff:10.0.0.0/104"], &[]);
        assert!(office.admit(origin("10.1.2.3")).is_ok());
        assert!(office.admit(origin("10.255.2.3")).is_ok());
        assert!(office.admit(origin("11.1.2.3")).is_err());
        let all = networks(&["::ffff:0:0/96"], &[]);
        assert!(all.admit(origin("0.0.0.1")).is_ok());
        assert!(all.admit(origin("255.0.0.1")).is_ok());
    }

    #[test]
    fn ten_thousand_networks_fit_into_a_megabyte() {
        let spread = |index: u32| u128::from(index) << 96 | 0x2001 << 112;
        let many: Vec<Network> = (0..10_000)
            .map(|index| format!("{}/48", Ipv6Addr::from(spread(index))).parse().unwrap())
            .collect();
        let set = NetworkSet::build(&many);
        assert_eq!(set.v6.len(), 10_000);
        assert!(size_of_val(&*set.v6) < 1_000_000);
    }

    // Few leading bits and short prefixes, so that networks overlap and addresses hit.
    fn network() -> impl Strategy<Value = Network> {
        let any = prop_oneof![
            (0u32..16, 0u8..=32, any::<u8>()).prop_map(|(top, length, low)| {
                IpNet::new(Ipv4Addr::from(top << 28 | u32::from(low)).into(), length).unwrap()
            }),
            (0u128..16, 0u8..=128, any::<u8>()).prop_map(|(top, length, low)| {
                IpNet::new(Ipv6Addr::from(top << 124 | u128::from(low)).into(), length).unwrap()
            }),
            (any::<u32>(), 0u8..=32).prop_map(|(address, length)| {
                IpNet::new(Ipv4Addr::from(address).to_ipv6_mapped().into(), 96 + length).unwrap()
            }),
        ];
        any.prop_map(|network| network.trunc().to_string().parse().unwrap())
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..16, any::<u8>()).prop_map(|(top, low)| Ipv4Addr::from(top << 28 | u32::from(low)).into()),
            (0u128..16, any::<u8>())
                .prop_map(|(top, low)| Ipv6Addr::from(top << 124 | u128::from(low)).into()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        ]
    }

    proptest! {
        #[test]
        fn the_sets_decide_like_a_scan_of_the_lists(
            allow in proptest::collection::vec(network(), 0..12),
            deny in proptest::collection::vec(network(), 0..6),
            addresses in proptest::collection::vec(address(), 1..24),
        ) {
            let sets = Networks::build(&NetworkSettings { allow: allow.clone(), deny: deny.clone() });
            let contains = |list: &[Network], address: &IpAddr| list.iter().any(|network| network.contains(address));
            for address in addresses {
                let expected =
                    !contains(&deny, &address) && (allow.is_empty() || contains(&allow, &address));
                let decided = sets.admit(Origin(address));
                assert_eq!(decided.is_ok(), expected, "{address} {decided:?}");
                if let Err(refused) = decided && let List::Denied(network) = refused.list {
                    assert!(deny.iter().any(|denied| **denied == network));
                    assert!(network.contains(&address));
                }
            }
        }
    }
}
