//! What the person who added the plugin told it: the `[settings]` of its `plugin.toml`, which declares all that there are, and
//! what the policy of the configuration file sets on top.

use crate::failure::Failure;
use crate::host;

/// The text of a setting, if it is set to more than nothing.
pub fn get(key: &str) -> Option<String> {
    host::setting(key).filter(|text| !text.trim().is_empty())
}

/// The words of a setting, divided by commas or white space; none if it is not set.
pub fn list(key: &str) -> Vec<String> {
    let text = get(key).unwrap_or_default();
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A setting read as something else, or what it is if it is not set. What cannot be read refuses the layer or image: a
/// policy with a slip in it must not be taken for none.
pub fn parsed<T: std::str::FromStr>(key: &str, otherwise: T) -> Result<T, Failure> {
    match get(key) {
        None => Ok(otherwise),
        Some(text) => {
            text.trim().parse().map_err(|_| Failure::refused(format!("the setting `{key}` cannot be `{text}`")))
        }
    }
}
