//! The extended attribute `security.capability` in the words of `getcap`.

/// By number, as in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Such as `cap_net_admin,cap_net_raw=ep`. What cannot be read is said to be malformed, never left out.
pub(crate) fn describe(value: &[u8]) -> String {
    decode(value).unwrap_or_else(|| "malformed capabilities".to_owned())
}

fn decode(value: &[u8]) -> Option<String> {
    let (words, rest) = value.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let (magic, sets) = words.split_first()?;
    // Revisions 1 to 3 of `struct vfs_cap_data`: pairs of permitted and inheritable; the third adds whose root it is.
    let (pairs, root) = match (magic >> 24, sets) {
        (1, [a, b]) => ([*a, *b, 0, 0], 0),
        (2, [a, b, c, d]) => ([*a, *b, *c, *d], 0),
        (3, [a, b, c, d, root]) => ([*a, *b, *c, *d], *root),
        _ => return None,
    };
    if !rest.is_empty() || magic & 0x00ff_fffe != 0 {
        return None;
    }
    let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let (permitted, inheritable) = (wide(pairs[0], pairs[2]), wide(pairs[1], pairs[3]));
    let effective = if magic & 1 == 1 { "e" } else { "" };
    let mut parts = Vec::new();
    for (set, flags) in
        [(permitted & inheritable, "ip"), (permitted & !inheritable, "p"), (inheritable & !permitted, "i")]
    {
        if set != 0 {
            parts.push(format!("{}={effective}{flags}", names(set)));
        }
    }
    if parts.is_empty() {
        parts.push("no capabilities".to_owned());
    }
    if root != 0 {
        parts.push(format!("[rootid={root}]"));
    }
    Some(parts.join(" "))
}

fn names(set: u64) -> String {
    let name = |bit: usize| NAMES.get(bit).map_or_else(|| bit.to_string(), |name| format!("cap_{name}"));
    (0..64).filter(|bit| set & 1 << bit != 0).map(name).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::describe;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn capabilities_read_as_getcap_says_them() {
        for (value, text) in [
            (words(&[0x0200_0001, 1 << 13, 0, 0, 0]), "cap_net_raw=ep"),
            (words(&[0x0200_0000, 1 << 12 | 1 << 13, 0, 0, 0]), "cap_net_admin,cap_net_raw=p"),
            (words(&[0x0200_0001, 1, 3, 0, 0]), "cap_chown=eip cap_dac_override=ei"),
            (words(&[0x0300_0001, 0, 0, 1 << 7, 0, 1000]), "cap_bpf=ep [rootid=1000]"),
            (words(&[0x0100_0001, 1, 0]), "cap_chown=ep"),
            (words(&[0x0200_0001, 0, 0, 1 << 31, 0]), "63=ep"),
            (words(&[0x0200_0001, 0, 0, 0, 0]), "no capabilities"),
        ] {
            assert_eq!(describe(&value), text);
        }
    }

    #[test]
    fn what_is_malformed_is_said_to_be() {
        let whole = words(&[0x0200_0001, 1 << 13, 0, 0, 0]);
        for cut in 0..whole.len() {
            assert_eq!(describe(&whole[..cut]), "malformed capabilities", "{cut} bytes");
        }
        assert_eq!(describe(&words(&[0x0400_0001, 1, 0, 0, 0])), "malformed capabilities");
        assert_eq!(describe(&words(&[0x0200_0003, 1, 0, 0, 0])), "malformed capabilities");
    }
}
