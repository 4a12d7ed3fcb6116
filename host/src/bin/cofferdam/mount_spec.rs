//! `mount-spec`: what to give to overlayfs for an image, as JSON. It mounts nothing.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cofferdam::registry::PullOptions;
use cofferdam::rootfs::{UnpackOptions, mount_spec};
use cofferdam::store::Durability;
use serde_json::json;

use crate::args::{AskArgs, MountSpecArgs};
use crate::failure::{Failure, usage};
use crate::image_name::{self, ImageName};
use crate::interrupt;
use crate::output;
use crate::policy;
use crate::pull::{self, FromRegistry};
use crate::session::{Session, shown};

pub(crate) fn run(session: &Session, args: &MountSpecArgs) -> Result<(), Failure> {
    session.allow_loss(&args.lossy);
    let name = ImageName::parse(&args.image)?;
    let (policy, asked) = (session.policy()?, AskArgs::default());
    let wall = session.wall_of_plugins(&policy, &asked)?;
    match &name {
        ImageName::Registry(_) => wall.network()?.enforce()?,
        ImageName::Reference(_) | ImageName::Layout(..) => wall.enforce()?,
    }
    let platform = pull::choice(args.platform.as_ref());
    let (image, lease, asked_as) = match name {
        ImageName::Registry(name) => {
            let options = PullOptions { platform, ..PullOptions::default() };
            let from = FromRegistry { access: &args.access, asked: &asked, policy: &policy };
            let pulled = from.pull(session, &name, &options, Durability::default())?;
            let name = pulled.image.reference.clone();
            (pulled.image, pulled.lease, name)
        }
        // A layout's own trees are freed at any time; a mount must keep what it shows.
        ImageName::Reference(_) | ImageName::Layout(..) => {
            args.access.refuse(&args.image)?;
            let storage = session.storage()?;
            let name = image_name::in_store(&args.image, &storage)?;
            let (image, lease) = storage.lease_image(&name, &interrupt::cancel()?)?;
            platform.check_config(&image.reference, image.stated_platform().as_ref())?;
            (image, lease, name)
        }
    };
    let options =
        UnpackOptions { progress: session.progress(), cancel: interrupt::cancel()?, ..UnpackOptions::default() };
    let ready = policy::for_stored(session, &policy, &image, &asked_as)?;
    let spec = mount_spec(&image, &ready.storage, &ready.unpacker, &options)?;
    drop(lease);
    let left_out = spec.left_out();
    output::left_out(&left_out);
    let lower: Vec<_> = spec.lower_dirs().map(|path| cofferdam::ambient::absolute(&path)).collect::<Result<_, _>>()?;
    output::json(&json!({
        "schema": "cofferdam/mount-spec/v1",
        "image": image,
        "type": "overlay",
        "left_out": left_out,
        "lower": lower.iter().map(|path| shown(path)).collect::<Vec<_>>(),
        "options": format!("lowerdir={}", lower.iter().map(|path| escaped(path)).collect::<Result<Vec<_>, _>>()?.join(":")),
    }))
}

/// A path as overlayfs wants it in its options.
fn escaped(path: &Path) -> Result<String, Failure> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes())
        .map_err(|_| usage("the path of the store is not UTF-8: it cannot be shown as JSON", None))?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, ':' | ',' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_ends_a_path_is_escaped() {
        let path = std::path::Path::new(r"/a:b,c\d");
        assert_eq!(super::escaped(path).ok().as_deref(), Some(r"/a\:b\,c\\d"));
    }
}
