//! Where packages of npm come from that are from no registry.

use crate::package::Origin;

/// Longer URLs are left out.
const LONGEST: usize = 512;

/// How npm shortens the addresses of repositories.
const HOSTS: [(&str, &str); 3] =
    [("github:", "github.com"), ("gitlab:", "gitlab.com"), ("bitbucket:", "bitbucket.org")];

/// What a lock file's URL leads to; nothing for a file beside it, and for what might tell a secret.
pub(crate) fn of(text: &str) -> Option<Origin> {
    // A query may be a key.
    if text.len() > LONGEST || text.contains(|c: char| c == '?' || c.is_control() || c.is_whitespace()) {
        return None;
    }
    let short = HOSTS.iter().find_map(|(prefix, host)| Some((host, text.strip_prefix(prefix)?)));
    if let Some((host, path)) = short {
        // Credentials go before an `@` here too.
        let path = path.rsplit_once('@').map_or(path, |(_, path)| path);
        return Some(Origin::Repository(at_commit(&format!("git+https://{host}/{path}"))));
    }
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_once('/')?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // Of ssh the user is a part of the address, and no secret.
    let user = authority.strip_suffix(host).filter(|user| scheme.ends_with("ssh") && !user.contains(':'));
    let url = format!("{scheme}://{}{host}/{path}", user.unwrap_or_default());
    match scheme {
        "http" | "https" => Some(Origin::Download(url)),
        "git" => Some(Origin::Repository(at_commit(&url))),
        _ if scheme.starts_with("git+") => Some(Origin::Repository(at_commit(&url))),
        _ => None,
    }
}

/// As SPDX writes a state of a repository, which package URLs follow.
fn at_commit(url: &str) -> String {
    match url.split_once('#') {
        Some((url, commit)) => format!("{url}@{commit}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_archives_are_told_apart() {
        let repository = |url: &str| Some(Origin::Repository(url.to_owned()));
        let download = |url: &str| Some(Origin::Download(url.to_owned()));
        for (text, origin) in [
            ("git+ssh://git@github.com/a/b.git#12ab", repository("git+ssh://git@github.com/a/b.git@12ab")),
            ("git+https://host/a/b.git", repository("git+https://host/a/b.git")),
            ("git://host/b.git#v1", repository("git://host/b.git@v1")),
            ("github:a/b#12ab", repository("git+https://github.com/a/b@12ab")),
            ("https://host/b-1.0.tgz", download("https://host/b-1.0.tgz")),
            ("file:../b", None),
            ("file:///b", None),
            ("a/b", None),
            ("", None),
        ] {
            assert_eq!(of(text), origin, "{text}");
        }
    }

    #[test]
    fn secrets_are_left_out() {
        for text in [
            "https://SECRET@host/b.tgz",
            "https://user:SECRET@host/b.tgz",
            "https://a@SECRET@host/b.tgz",
            "https://host/b.tgz?token=SECRET",
            "git+https://SECRET:x-oauth-basic@host/b.git#12ab",
            "git+ssh://git:SECRET@host/b.git",
            "github:user:SECRET@a/b#12ab",
        ] {
            let told = format!("{:?}", of(text));
            assert!(!told.contains("SECRET") && (told == "None") == text.contains('?'), "{told}");
        }
    }
}
