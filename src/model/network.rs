//! Networks as settings and lists name them: one grammar, and one form for each network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::model::Flaw;

/// A network prefix without bits beyond its length. One of IPv4 addresses in their IPv6 form is the IPv4 network, as the
/// addresses of callers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// The networks that together hold every address.
    pub(crate) const EVERYTHING: [Self; 2] = [
        Self(IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
        Self(IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)),
    ];
}

shown_as!(Network.0: IpNet);

impl FromStr for Network {
    type Err = Flaw;

    /// Reads a prefix or a single address.
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let Ok(network) = text.parse().or_else(|_| address()) else {
            return Err(Flaw::new("this is not a network")
                .hint("write a prefix such as 10.0.0.0/8 or 2001:db8::/32, or a single address"));
        };
        let network = unmapped(network);
        let trunk = network.trunc();
        if trunk != network {
            return Err(
                Flaw::new("the network has bits set beyond its prefix length").hint(format!(
                    "write {trunk}, or {} for the one address",
                    network.addr()
                )),
            );
        }
        Ok(Self(network))
    }
}

fn unmapped(network: IpNet) -> IpNet {
    // RFC 4291 section 2.5.5.2: the first 96 bits mark an IPv4 address.
    const MARK_BITS: u8 = 96;
    let IpNet::V6(long) = network else {
        return network;
    };
    let short = long
        .addr()
        .to_ipv4_mapped()
        .zip(long.prefix_len().checked_sub(MARK_BITS));
    let short = short.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
    short.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::Network;

    #[test]
    fn a_network_is_a_prefix_or_an_address() {
        for (text, read) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), read);
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "example.com",
            "10.0.0.0-10.0.0.9",
            "1.2.3.4/8/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn set_host_bits_are_refused_with_the_correction() {
        for (text, trunk) in [
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
        ] {
            let hint = text.parse::<Network>().unwrap_err().hint.unwrap();
            assert!(hint.contains(trunk), "{hint}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_network_reads_as_itself(bits in any::<u128>(), length in 0u8..=128) {
            let net = IpNet::new(Ipv6Addr::from(bits).into(), length).unwrap().trunc();
            prop_assume!(Ipv6Addr::from(bits).to_ipv4_mapped().is_none());
            prop_assert_eq!(*net.to_string().parse::<Network>().unwrap(), net);
        }
    }
}
