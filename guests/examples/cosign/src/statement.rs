//! What is signed: a statement in the format that is called simple signing.

use serde::Deserialize;

/// What cosign calls its statements.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Statement {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

/// Checks what a statement says of an image. Returns the name that it gives it.
pub(crate) fn check(statement: &[u8], digest: &str, identity: Option<&str>) -> Result<String, String> {
    let Statement { critical } =
        serde_json::from_slice(statement).map_err(|e| format!("its statement cannot be read: {e}"))?;
    if critical.r#type != TYPE {
        return Err(format!("its statement is of type `{}`", critical.r#type.escape_debug()));
    }
    if critical.image.docker_manifest_digest != digest {
        return Err(format!("it is of another image, {}", critical.image.docker_manifest_digest.escape_debug()));
    }
    let signed = critical.identity.docker_reference;
    if let Some(wanted) = identity
        && hub(name(&signed)) != hub(wanted)
    {
        return Err(format!("it names the image `{}`, not `{wanted}`", signed.escape_debug()));
    }
    Ok(if signed.is_empty() { "nothing".to_owned() } else { signed.escape_debug().to_string() })
}

/// A reference without its tag and digest.
pub(crate) fn name(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    // The colon of a port has a slash behind it.
    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name)
}

/// The one registry that has two names: cosign says `index.docker.io`.
fn hub(name: &str) -> &str {
    name.strip_prefix("index.").filter(|rest| rest.starts_with("docker.io/")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_lose_tag_and_digest_but_not_the_port() {
        for (reference, name) in [
            ("docker.io/library/debian:12", "docker.io/library/debian"),
            ("localhost:5000/a/b", "localhost:5000/a/b"),
            ("localhost:5000/a/b:c@sha256:00", "localhost:5000/a/b"),
            ("index.docker.io/x@sha256:00", "index.docker.io/x"),
        ] {
            assert_eq!(super::name(reference), name);
        }
    }
}
