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
use crate::session::Session;

pub(crate) fn run(session: &Session, args: &MountSpecArgs) -> Result<(), Failure> {
    session.allow_loss(&args.lossy);
    let name = ImageName::parse(&args.image)?;
    if !matches!(name, ImageName::Registry(_)) {
        args.access.refuse(&args.image)?;
    }
    let (policy, asked) = (session.policy()?, AskArgs::default());
    match &name {
        ImageName::Registry(_) => session.wall_of_plugins(&policy, &asked)?.network()?.enforce()?,
        ImageName::Reference(_) | ImageName::Layout(..) => session.wall_of_existing_plugins(&policy)?.enforce()?,
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
    let lower = lower.iter().map(|path| text(path)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<_> = spec.names().collect();
    output::json(&json!({
        "schema": "cofferdam/mount-spec/v1",
        "image": image,
        "type": "overlay",
        "left_out": left_out,
        "lower": lower,
        "chdir": text(&cofferdam::ambient::absolute(&spec.chdir())?)?,
        "names": names,
        "options": options_of(&lower, &names),
    }))
}

/// The options of a mount from the directory `chdir`: with whole paths, for whoever mounts from elsewhere, as long as each way of
/// mounting takes them; else with the short names.
fn options_of(lower: &[&str], names: &[String]) -> String {
    /// A value of `fsconfig(2)`, which `mount(8)` uses too.
    const VALUE: usize = 255;
    let paths = lower.join(":");
    let is_plain = !lower.iter().any(|path| path.contains([':', ',', '\\', '"', '\n']));
    let value = if is_plain && paths.len() <= VALUE { paths } else { names.join(":") };
    format!("lowerdir={value}")
}

/// A path as JSON can show it.
fn text(path: &Path) -> Result<&str, Failure> {
    std::str::from_utf8(path.as_os_str().as_bytes())
        .map_err(|_| usage("the path of the store is not UTF-8: it cannot be shown as JSON", None))
}

#[cfg(test)]
mod tests {
    use super::options_of;

    #[test]
    fn whole_paths_are_given_only_where_every_mount_takes_them() {
        let names = ["0".to_owned(), "1".to_owned()];
        let (short, long) = ("/store/a", "/".repeat(250));
        assert_eq!(options_of(&[short, "/store/b"], &names), "lowerdir=/store/a:/store/b");
        for other in [&*long, "/a:b", "/a,b", r"/a\b"] {
            assert_eq!(options_of(&[short, other], &names), "lowerdir=0:1", "{other}");
        }
    }
}
