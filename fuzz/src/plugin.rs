//! What a plugin says of itself: manifests, the sections of components, and rules for requests.

use cofferdam_core::Limits;
use cofferdam_documents::plugin::{Capabilities, HttpRule, PluginManifest, manifest_in, pack};

use crate::stats::Stats;

static STATS: Stats<4> = Stats::new(["components", "manifests", "rules", "refused"]);

/// Reads `data` as a component, as a manifest and as a rule.
pub fn run(data: &[u8]) {
    let mut outcome = 3;
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(rule) = text.parse::<HttpRule>() {
            assert_eq!(rule.to_string().parse::<HttpRule>().expect("a rule reads back"), rule);
            assert!(rule.is_within(&rule) && rule.and(&rule).as_ref() == Some(&rule));
            if let Some(authority) = rule.authority() {
                // Nothing that could end the host's name in an address, or belong to another part of it.
                assert!(!authority.host.contains(['/', '@', '?', '#', '*', '%', ' ']) && authority.port != 0);
            }
            outcome = 2;
        }
        if let Ok(manifest) = PluginManifest::parse(text) {
            let host = Limits::default();
            let limits = manifest.limits(&host);
            assert!(limits.guest_memory <= host.plugin_memory && limits.guest_time <= host.guest_time);
            assert!(limits.decoder_memory <= host.decoder_memory);
            assert!(manifest.capabilities.http_private.is_empty(), "it asks for what is only granted");
            assert!(manifest.capabilities.effective(&Capabilities::default()).is_empty(), "it has what nobody granted");
            let component = pack(EMPTY.to_vec(), text).expect("a manifest can be carried");
            assert_eq!(manifest_in(&component).expect("a component"), Some(manifest));
            outcome = 1;
        }
    }
    if manifest_in(data).is_ok() {
        assert!(data.starts_with(b"\0asm"));
        outcome = 0;
    }
    STATS.count(outcome);
}

/// A component with nothing in it.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";
