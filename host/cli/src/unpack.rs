//! `unpack`: makes an image's root filesystem, whole or not at all.

use std::sync::Arc;

use cofferdam::ambient;
use cofferdam::policy::PreparedImage;
use cofferdam::registry::PullOptions;
use cofferdam::rootfs::{LayerProvider, LocalImage, Strategy, UnpackOptions, unpack};
use cofferdam::store::{Durability, ImageObject};
use cofferdam::transport::{ImageSource as _, OciLayout};
use serde_json::json;

use crate::args::{AskArgs, UnpackArgs, UnpackStrategy};
use crate::failure::Failure;
use crate::image_name::{self, ImageName};
use crate::interrupt;
use crate::output;
use crate::policy;
use crate::pull::{self, FromRegistry};
use crate::session::{Session, shown};

pub(crate) fn run(session: &Session, args: &UnpackArgs) -> Result<(), Failure> {
    session.allow_loss(&args.lossy);
    let name = ImageName::there(&args.image)?;
    if !matches!(name, ImageName::Registry(_)) {
        args.access.refuse(&args.image)?;
    }
    let (policy, asked) = (session.policy()?, AskArgs::default());
    let wall = match &name {
        ImageName::Reference(_) => session.wall_of_existing_plugins(&policy)?,
        _ => session.wall_of_plugins(&policy, &asked)?,
    };
    // The tree is made beside its destination and renamed: that takes the right to write there.
    let wall = wall.write(ambient::open_parent(&args.dest)?.0)?;
    match &name {
        ImageName::Reference(_) => wall.enforce()?,
        ImageName::Registry(_) => wall.network()?.enforce()?,
        ImageName::Layout(path, _) => wall.read(path)?.enforce()?,
    }
    let platform = pull::choice(args.platform.as_ref());
    match name {
        ImageName::Reference(name) => {
            // What is looked up now must be there until the tree is made.
            let storage = session.storage()?;
            let name = image_name::in_store(&name, &storage)?;
            let (image, _lease) = storage.lease_image(&name, &interrupt::cancel()?)?;
            platform.check_config(&image.reference, image.stated_platform().as_ref())?;
            let ready = policy::for_stored(session, &policy, &image, &name)?;
            make(session, args, &image, &ready, &ready.storage)
        }
        ImageName::Registry(name) => {
            let options = PullOptions { platform, ..PullOptions::default() };
            let from = FromRegistry { access: &args.access, asked: &asked, policy: &policy };
            let pulled = from.pull(session, &name, &options, Durability::default())?;
            let ready = policy::for_stored(session, &policy, &pulled.image, &pulled.image.reference)?;
            make(session, args, &pulled.image, &ready, &ready.storage)
        }
        ImageName::Layout(path, name) => {
            let layout = OciLayout::open(name, session.limits())?;
            let ready = policy::for_pull(session, &policy, &asked, &layout.store_name()?)?;
            if !ready.is_free() {
                // Whoever is asked is asked about an image of the store, where what they say is kept.
                let options = PullOptions { platform, ..PullOptions::default() };
                let pulled = pull::into_store(session, &layout, ready, &options, Durability::default())?;
                let ready = policy::for_stored(session, &policy, &pulled.image, &pulled.image.reference)?;
                return make(session, args, &pulled.image, &ready, &ready.storage);
            }
            let unpacker = Arc::new(ready.unpacker.clone());
            let local = LocalImage::open(layout, &path, &ready.storage, unpacker, &platform);
            let local = interrupt::block_on(local)?;
            make(session, args, &local.image, &ready, &local)
        }
    }
}

fn make(
    session: &Session,
    args: &UnpackArgs,
    image: &ImageObject,
    ready: &PreparedImage,
    layers: &dyn LayerProvider,
) -> Result<(), Failure> {
    let options = UnpackOptions {
        strategy: match args.strategy {
            UnpackStrategy::Copy => Strategy::Copy,
            UnpackStrategy::Apply => Strategy::Apply,
        },
        sync: args.sync,
        progress: session.progress(),
        cancel: interrupt::cancel()?,
        ..UnpackOptions::default()
    };
    let made = unpack(image, layers, &ready.unpacker, &args.dest, &options)?;
    output::left_out(&made.left_out);
    let strategy = match made.strategy {
        Strategy::Copy => "copy",
        Strategy::Apply => "apply",
    };
    if session.json() {
        return output::json(&json!({
            "schema": "cofferdam/unpack/v1",
            "rootfs": shown(&args.dest),
            "strategy": strategy,
            "left_out": made.left_out,
            "image": image,
        }));
    }
    output::line(&format!("{}: {} ({} layers, by {strategy})", shown(&args.dest), image.reference, image.layers.len()))
}
