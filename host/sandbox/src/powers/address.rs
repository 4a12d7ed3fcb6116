//! Which addresses are not the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is reached only by whom it was granted by name: this machine, its networks, what serves metadata to
/// virtual machines, what is nobody's, and every IPv6 form that carries such an address inside of it.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

/// The special-purpose registry of IANA (RFC 6890), as far as nothing public lies there.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // This network; private; loopback; the same again; multicast, reserved, broadcast.
        (0 | 10 | 127 | 224.., _, _)
        // Shared with the provider's translator.
        | (100, 64..=127, _)
        // Link-local: among it 169.254.169.254, the metadata of clouds.
        | (169, 254, _)
        | (172, 16..=31, _)
        // Protocol assignments, documentation, relays of 6to4.
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (192, 168, _)
        // Benchmarks.
        | (198, 18 | 19, _)
        | (198, 51, 100)
        | (203, 0, 113) => true,
        _ => false,
    }
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // IPv4-mapped, and as translators write it.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low]
        // NAT64.
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => v4(high, low),
        // The first /96: unspecified, loopback, IPv4-compatible. Nothing public is left in it.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // Teredo: the server's address, and the client's with all bits turned over.
        [0x2001, 0, server_high, server_low, _, _, client_high, client_low] => {
            v4(server_high, server_low) || v4(!client_high, !client_low)
        }
        // ISATAP carries it in the interface's part, under any prefix.
        [.., 0 | 0x200, 0x5efe, high, low] if v4(high, low) => true,
        // Only global unicast is left, without NAT64 of one's own, discard, benchmarks, ORCHID, documentation.
        [first, ..] if !(0x2000..0x4000).contains(&first) => true,
        [0x2001, 0x2, 0, ..] | [0x2001, 0xdb8 | 0x10..=0x2f, ..] | [0x3fff, 0..=0xfff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_in_any_form_is_private() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:1::1",
            // Teredo: the client 127.0.0.1, and the server 10.0.0.1.
            "2001:0:808:808::80ff:fffe",
            "2001:0:a00:1::f7f7:f7f7",
            "2a00:1450::5efe:10.0.0.1",
            "2a00:1450::200:5efe:192.168.1.1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_public_is_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.0.3.1",
            "192.167.255.255",
            "192.169.0.1",
            "198.17.255.255",
            "198.20.0.1",
            "198.51.101.1",
            "203.0.112.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2001:0:808:808::f7f7:f7f7",
            "2a00:1450::5efe:8.8.8.8",
            "3fff:1000::1",
        ] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }
}
