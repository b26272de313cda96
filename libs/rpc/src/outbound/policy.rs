//! Which addresses may be connected to. Pure, so that it is tested by the table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What is allowed; see [`super::Config::allow`].
#[derive(Debug, Default)]
pub struct Policy {
    /// Where the operator sets it.
    setting: &'static str,
    /// `*`.
    everything_public: bool,
    hosts: Vec<String>,
    /// Without the `*`, with the dot.
    domains: Vec<String>,
    networks: Vec<IpNet>,
}

/// Why an address is not connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connections to '{host}'{} are not allowed: {why}", if *address == *host { String::new() } else { format!(" ({address})") })]
pub struct Refused {
    host: String,
    address: String,
    why: String,
}

/// Why an address is not admitted.
#[derive(Debug, Clone, Copy)]
enum Why {
    Never,
    Loopback,
    Private,
    Unlisted,
}

impl Why {
    /// In a sentence that says what to set.
    fn sentence(self, setting: &str) -> String {
        match self {
            Self::Never => {
                "link-local, metadata, multicast and unspecified addresses are refused whatever is configured"
                    .to_owned()
            }
            Self::Loopback => {
                format!("it is this machine; add its address, such as '127.0.0.0/8', to '{setting}'")
            }
            Self::Private => {
                format!("it is a private address; name the host, its domain or its addresses in '{setting}'")
            }
            Self::Unlisted => {
                format!("nothing in '{setting}' admits it; add the host, its domain or its addresses")
            }
        }
    }
}

impl Policy {
    /// Reads the entries of `setting`.
    ///
    /// # Errors
    /// The first that is none, and what one is.
    pub fn new(entries: &[String], setting: &'static str) -> Result<Self, String> {
        let mut policy = Self {
            setting,
            ..Self::default()
        };
        for entry in entries {
            let entry = entry.trim().to_lowercase();
            if entry == "*" {
                policy.everything_public = true;
            } else if let Ok(network) = entry.parse::<IpNet>() {
                policy.networks.push(network);
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                policy.networks.push(IpNet::from(address));
            } else if let Some(domain) = entry.strip_prefix("*.").filter(|domain| is_host(domain)) {
                policy.domains.push(format!(".{domain}"));
            } else if is_host(&entry) {
                policy.hosts.push(entry);
            } else {
                return Err(format!(
                    "'{entry}' is none of: a host, '*.DOMAIN', '*', an address, or a network such as 10.0.0.0/8"
                ));
            }
        }
        Ok(policy)
    }

    /// Whether `host`, which has turned out to be at `address`, may be connected to.
    ///
    /// # Errors
    /// Why not, and what to set.
    pub fn admits(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        let host = host.trim_end_matches('.').to_lowercase();
        let address = meant(address);
        let refused = |why: Why| {
            Err(Refused {
                host: host.clone(),
                address: address.to_string(),
                why: why.sentence(self.setting),
            })
        };
        if is_forbidden(address) {
            return refused(Why::Never);
        }
        if self.networks.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        let named = self.hosts.contains(&host) || self.domains.iter().any(|domain| host.ends_with(domain));
        if address.is_loopback() {
            return if named && host == "localhost" {
                Ok(())
            } else {
                refused(Why::Loopback)
            };
        }
        match (named, is_private(address), self.everything_public) {
            (true, ..) | (false, false, true) => Ok(()),
            (false, true, true) => refused(Why::Private),
            (false, _, false) => refused(Why::Unlisted),
        }
    }
}

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed) && !text.starts_with('.')
}

/// The IPv4 address inside an IPv6 address that leads to it: mapped, compatible, or through NAT64 or 6to4.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else {
        return address;
    };
    let segments = six.segments();
    let four = |high: u16, low: u16| {
        let [first, second] = high.to_be_bytes();
        let [third, fourth] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(first, second, third, fourth))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

fn is_forbidden(address: IpAddr) -> bool {
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    // Azure's platform address and Alibaba's metadata are neither link-local nor private.
    const PLATFORM: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
    match address {
        IpAddr::V4(four) => {
            four.is_link_local()
                || four.is_multicast()
                || four.is_broadcast()
                || four.octets()[0] == 0
                || PLATFORM.contains(&four)
        }
        IpAddr::V6(six) => {
            six.is_unspecified()
                || six.is_multicast()
                || six.segments()[0] & 0xffc0 == 0xfe80
                || METADATA.contains(&six)
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let [first, second, ..] = four.octets();
            // Shared address space, benchmarks and the reserved rest besides RFC 1918.
            four.is_private()
                || first == 100 && (64..128).contains(&second)
                || first == 198 && matches!(second, 18 | 19)
                || first >= 240
        }
        IpAddr::V6(six) => six.segments()[0] & 0xfe00 == 0xfc00,
    }
}
