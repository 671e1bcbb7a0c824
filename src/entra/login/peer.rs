//! Whose process is at the other end of a connection over loopback, as far as the platform tells: Linux lists the owner of
//! each socket. It decides nothing.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

/// Largest list that is read; a line has 150 bytes.
const LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The user's who runs this process.
    Own,
    /// Another user's.
    Other,
    /// It cannot be told.
    Unknown,
}

/// Looks up who owns the socket that connects from `peer` to `here`.
pub(crate) fn of(peer: SocketAddr, here: SocketAddr) -> Peer {
    let name = match peer {
        SocketAddr::V4(_) => "/proc/net/tcp",
        SocketAddr::V6(_) => "/proc/net/tcp6",
    };
    let mut list = String::new();
    let read = std::fs::File::open(name).and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut list));
    match (read, own()) {
        (Ok(_), Some(own)) => judge(&list, peer, here, own),
        _ => Peer::Unknown,
    }
}

fn judge(list: &str, peer: SocketAddr, here: SocketAddr, own: u32) -> Peer {
    let (from, to) = (written(peer), written(here));
    let owner = list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_it = words.next() == Some(&from) && words.next() == Some(&to);
        // Behind the state: two queues, a timer and retransmissions.
        is_it.then(|| words.nth(4)?.parse::<u32>().ok()).flatten()
    });
    match owner {
        None => Peer::Unknown,
        Some(owner) if owner == own => Peer::Own,
        Some(_) => Peer::Other,
    }
}

/// An address as the list has it: each four bytes as a number of this machine.
fn written(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (words, _) = octets.as_chunks::<4>();
    let words = words
        .iter()
        .map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(unix)]
fn own() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata("/proc/self")
        .ok()
        .map(|metadata| metadata.uid())
}

#[cfg(not(unix))]
fn own() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::proptest;

    use super::{Peer, judge, of, written};

    #[cfg(target_endian = "little")]
    #[test]
    fn the_owner_stands_behind_both_addresses() {
        let list = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0\n\
             \x20  1: 0100007F:A1B2 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0 100 0 0 10 0\n";
        let (peer, here): (SocketAddr, SocketAddr) = (
            "127.0.0.1:41394".parse().unwrap(),
            "127.0.0.1:8080".parse().unwrap(),
        );
        assert_eq!(judge(list, peer, here, 1001), Peer::Own);
        assert_eq!(judge(list, peer, here, 1000), Peer::Other);
        assert_eq!(judge(list, here, peer, 1000), Peer::Unknown);
        assert_eq!(
            written("[::1]:8080".parse().unwrap()),
            "00000000000000000000000001000000:1F90"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_of_this_process_is_its_own() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else {
                continue;
            };
            let here = listener.local_addr().unwrap();
            let stream = std::net::TcpStream::connect(here).unwrap();
            assert_eq!(of(stream.local_addr().unwrap(), here), Peer::Own);
        }
    }

    proptest! {
        #[test]
        fn no_list_ends_the_reader(list in "[ 0-9A-F:\n]{0,300}") {
            let here = "127.0.0.1:1".parse().unwrap();
            let _ = judge(&list, here, here, 0);
        }
    }
}
