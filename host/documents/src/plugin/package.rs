//! A plugin as one file: the component, with its manifest in a custom section.
//!
//! A section of the component, and not a second file, so that manifest and code cannot part: they have one digest, and
//! whatever carries a component carries both.

use cofferdam_core::error::{Error, Result};
use wasmparser::{Encoding, Parser, Payload};

use super::manifest::{MANIFEST_BYTES, PluginManifest};

/// The name of the section, at the component's top level. Its content is the text of `plugin.toml`.
pub const SECTION: &str = "cofferdam:plugin";

fn wrong(reason: impl Into<String>) -> Error {
    Error::Refused { subject: "the plugin's component".into(), reason: reason.into() }
}

/// The manifest that a component carries, if it carries one. The component is not checked beyond its sections, and not run.
///
/// # Errors
///
/// [`Error::Refused`] for what is no component, or carries more than one manifest, or a wrong one.
pub fn manifest_in(component: &[u8]) -> Result<Option<PluginManifest>> {
    let mut found = None;
    let (mut depth, mut is_component) = (0_usize, false);
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| wrong(error.message().to_owned()))? {
            Payload::Version { encoding, .. } if depth == 0 && !is_component => {
                if encoding != Encoding::Component {
                    return Err(wrong("it is a core module; make a component of it"));
                }
                is_component = true;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            // The end of the outermost one has no match, and nothing follows it.
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                let text = std::str::from_utf8(section.data()).map_err(|_| wrong("its manifest is no UTF-8"))?;
                if found.replace(PluginManifest::parse(text)?).is_some() {
                    return Err(wrong("it carries two manifests"));
                }
            }
            _ => {}
        }
    }
    if is_component { Ok(found) } else { Err(wrong("it is no WebAssembly component")) }
}

/// Puts a manifest into a component that carries none.
///
/// # Errors
///
/// As [`manifest_in`]; [`Error::Refused`] if the component carries a manifest.
pub fn pack(mut component: Vec<u8>, manifest: &str) -> Result<Vec<u8>> {
    PluginManifest::parse(manifest)?;
    if manifest_in(&component)?.is_some() {
        return Err(wrong("it carries a manifest already"));
    }
    debug_assert!(manifest.len() <= MANIFEST_BYTES);
    let mut content = Vec::with_capacity(manifest.len() + 32);
    number(&mut content, SECTION.len());
    content.extend_from_slice(SECTION.as_bytes());
    content.extend_from_slice(manifest.as_bytes());
    component.push(0);
    number(&mut component, content.len());
    component.extend_from_slice(&content);
    Ok(component)
}

/// LEB128, unsigned.
fn number(into: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return into.push(low);
        }
        into.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "name = 'a'\nversion = '1'\nworld = 'inspector'\n";

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_packed_component_carries_its_manifest() {
        let bare = component("(component (core module) (component))");
        assert_eq!(manifest_in(&bare).unwrap(), None);
        let long = format!("{MANIFEST}description = '{}'\n", "x".repeat(900));
        let packed = pack(bare.clone(), &long).unwrap();
        assert_eq!(manifest_in(&packed).unwrap(), Some(PluginManifest::parse(&long).unwrap()));
        assert!(pack(packed, MANIFEST).is_err(), "a second manifest");
        assert!(pack(bare, "name = 1").is_err());
    }

    #[test]
    fn a_manifest_inside_of_a_module_is_none() {
        let inner = format!("(component (core module (@custom \"{SECTION}\" \"name = 1\")))");
        assert_eq!(manifest_in(&component(&inner)).unwrap(), None);
    }

    #[test]
    fn what_is_no_component_is_refused() {
        assert!(manifest_in(b"").is_err());
        assert!(manifest_in(b"\0asm").is_err());
        assert!(manifest_in(&component("(module)")).is_err());
        let whole = pack(component("(component (core module))"), MANIFEST).unwrap();
        for cut in 0..whole.len() - 1 {
            assert!(!matches!(manifest_in(&whole[..cut]), Ok(Some(_))), "cut to {cut}");
        }
    }
}
