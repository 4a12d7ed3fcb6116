//! Bytes that are not what they should be, and layers that are refused: nothing of them is left.

use cofferdam_core::error::ErrorKind;
use cofferdam_tree::UnpackedLayer;

use super::*;

/// What a registry makes of a blob.
type Damage = fn(&[u8]) -> Reply;

/// Each of these is an integrity error, leaves no tree and nothing staged, and does not stand in the way of a later pull.
#[tokio::test]
async fn bytes_that_are_not_right_leave_nothing() {
    let layer = large(4);
    let image = Image::new(&[&layer, b"good"]);
    let wrong: [(&str, Damage); 6] = [
        ("declared too short", |blob| Reply::ok(&blob[..1000])),
        ("declared too long", |blob| Reply::ok([blob, b"x"].concat())),
        ("chunked, too short", |blob| Reply::ok(&blob[..1000]).with("Transfer-Encoding", "chunked")),
        ("chunked, too long", |blob| Reply::ok([blob, b"x"].concat()).with("Transfer-Encoding", "chunked")),
        ("endless", |blob| Reply::ok(blob).with("Transfer-Encoding", "chunked").endless()),
        ("one bit flipped", |blob| {
            let mut blob = blob.to_vec();
            blob[700_000] ^= 1;
            Reply::ok(blob)
        }),
    ];
    for (what, reply) in wrong {
        let served = image.clone();
        let server = layers_served(
            &image,
            move |request, blob, _| {
                if blob.len() < 10 { served.serve(request) } else { reply(blob) }
            },
        );
        let store = Store::new();
        let error = store.pull(&source(&server)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {error}");
        assert!(!store.names("extracted").contains(&Digest::of(&layer).file_stem()), "{what}");
        assert!(!store.names("layers").iter().any(|name| name.contains(Digest::of(&layer).hex())), "{what}");
        assert_eq!(store.names("refs"), [""; 0], "{what}");
        assert_eq!(store.staged(), [""; 0], "{what}");

        let served = image.clone();
        let honest = Server::new(move |request| served.serve(request));
        store.pull(&source(&honest)).await.unwrap();
    }
}

#[tokio::test]
async fn a_layer_that_decodes_to_something_else_leaves_no_tree() {
    let image = Image::with_diff_ids(&[b"layer"], &[Digest::of(b"else")]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let error = store.pull(&source(&server)).await.unwrap_err();
    assert!(matches!(error.root(), Error::DigestMismatch { .. }), "{error}");
    assert_eq!(store.names("extracted"), [""; 0]);
    assert_eq!((store.names("refs"), store.staged()), (vec![], vec![]));
}

#[tokio::test]
async fn a_layer_that_is_refused_ends_the_pull_and_leaves_nothing() {
    let (one, two) = (large(5), large(6));
    let image = Image::new(&[&one, b"hostile", &two]);
    let served = image.clone();
    // The others never get done by themselves.
    let server = layers_served(&image, move |request, blob, _| {
        if blob.len() < 10 { served.serve(request) } else { Reply::ok(blob).dripping(Duration::from_millis(20)) }
    });
    let store = Store::new();
    let error = store.pull(&source(&server)).await.unwrap_err();
    assert!(matches!(error.root(), Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&Digest::of(b"hostile").to_string()), "{error}");
    assert_eq!((store.names("extracted"), store.staged()), (vec![], vec![]));
}

/// What is refused at its beginning is not fetched to its end, and not kept.
#[tokio::test]
async fn a_large_layer_that_is_refused_is_not_fetched_whole() {
    let layer = [b"hostile".to_vec(), large(11), large(12)].concat();
    let image = Image::new(&[&layer]);
    // It would never get done.
    let server = layers_served(&image, |_, blob, _| Reply::ok(blob).silent_at(1_200_000));
    let store = Store::new();
    let source = patient(&server).source(reference(&server, "a"));
    let refusing = Arc::new(Refusing);
    let error = pull(&source, &store.storage, refusing, &options(), &Progress::none()).await.unwrap_err();
    assert!(matches!(error.root(), Error::Refused { .. }), "{error}");
    assert_eq!((store.names("extracted"), store.names("layers"), store.staged()), (vec![], vec![], vec![]));
}

/// A layer whose bytes are right and whose content is refused is not kept either.
#[tokio::test]
async fn a_refused_layer_is_not_committed() {
    let image = Image::new(&[b"hostile"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let error = store.pull(&source(&server)).await.unwrap_err();
    assert!(matches!(error.root(), Error::Refused { .. }), "{error}");
    assert_eq!(store.names("layers"), [""; 0]);
}

/// Refuses by the first bytes, without waiting for more.
struct Refusing;

impl LayerUnpacker for Refusing {
    fn with_limits(self: Arc<Self>, _: &Limits) -> Arc<dyn LayerUnpacker> {
        self
    }

    fn unpack(
        &self,
        mut blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        _: OwnedFd,
        _: &Watch,
    ) -> Result<UnpackedLayer> {
        let mut first = [0; 7];
        blob.read_exact(&mut first).map_err(|error| Error::io("read", layer.digest.hex().as_bytes(), error))?;
        Err(Error::refused(b"layer", "nothing pleases this one"))
    }
}

/// A damaged download that also looks hostile: the damage is what is reported.
#[tokio::test]
async fn damage_is_called_damage() {
    let image = Image::new(&[b"innocent"]);
    let server = layers_served(&image, |_, _, _| Reply::ok(b"hostile!"));
    let error = Store::new().pull(&source(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
}

/// Decodes for ever what it has, unless it is told to stop; refuses what is hostile, once that one is at work.
struct Tireless(std::sync::Barrier);

impl LayerUnpacker for Tireless {
    fn with_limits(self: Arc<Self>, _: &Limits) -> Arc<dyn LayerUnpacker> {
        self
    }

    fn unpack(
        &self,
        mut blob: Box<dyn Read + Send>,
        layer: &LayerDescriptor,
        _: OwnedFd,
        watch: &Watch,
    ) -> Result<UnpackedLayer> {
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map_err(|error| Error::io("read", layer.digest.hex().as_bytes(), error))?;
        self.0.wait();
        if bytes.starts_with(b"hostile") {
            return Err(Error::refused(b"layer", "it says so itself"));
        }
        loop {
            watch.cancel.check()?;
            std::thread::yield_now();
        }
    }
}

/// What was read to its end hears of nothing by its stream any more.
#[tokio::test]
async fn a_layer_that_takes_for_ever_ends_with_the_others() {
    let image = Image::new(&[b"hostile", b"a few bytes"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let tireless = Arc::new(Tireless(std::sync::Barrier::new(2)));
    let error = pull(&source(&server), &store.storage, tireless, &options(), &Progress::none()).await.unwrap_err();
    assert!(matches!(error.root(), Error::Refused { .. }), "{error}");
    assert_eq!((store.names("extracted"), store.staged()), (vec![], vec![]));
}

/// Each layer keeps threads busy until it has arrived, and reading a layout may take more.
#[test]
fn a_pull_does_not_wait_for_threads_of_the_runtime() {
    let layers: Vec<_> = (0..4).map(large).collect();
    let image = Image::new(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(store.pull(&source(&server))).unwrap();
    assert_eq!(store.names("layers").len(), 4);
}

/// What is in the store already is held against what is said of it too.
#[tokio::test]
async fn a_wrong_size_is_seen_whatever_the_store_holds() {
    let image = Image::new(&[b"layer"]);
    let served = image.clone();
    let store = Store::new();
    store.pull(&source(&Server::new(move |request| served.serve(request)))).await.unwrap();
    for (right, wrong) in
        [("\"size\":5,".to_owned(), "\"size\":6,"), (format!("\"size\":{}}}", image.config.len()), "\"size\":9}")]
    {
        let other = Image { manifest: image.manifest.replace(&right, wrong), ..image.clone() };
        assert_ne!(other.manifest, image.manifest);
        let error = store.pull(&source(&Server::new(move |request| other.serve(request)))).await.unwrap_err();
        assert!(matches!(error.root(), Error::SizeMismatch { .. }), "{error}");
    }
}

/// A blob that was damaged and taken away is fetched again, although its tree is there and counts.
#[tokio::test]
async fn a_blob_that_is_gone_is_fetched_beside_its_tree() {
    let image = Image::new(&[b"layer"]);
    let store = Store::new();
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    store.pull(&source(&server)).await.unwrap();
    let digest = Digest::of(b"layer");
    std::fs::remove_file(store.storage.layer_tarball_path(&digest.to_string())).unwrap();
    let pulled = store.pull(&source(&server)).await.unwrap();
    assert_eq!((pulled.downloaded_layers, pulled.downloaded_bytes), (1, 5));
    assert!(store.storage.verify_layer(&digest.to_string()).await.unwrap());
    assert_eq!(store.pull(&source(&server)).await.unwrap().cached_layers, 1);
}

/// A layer that may be had elsewhere alone, as those of Windows' base images: the error says so, and nobody goes there.
#[tokio::test]
async fn a_foreign_layer_that_is_not_there_is_named_as_one() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar";
    for (media_type, urls, is_foreign) in [(None, true, true), (Some(foreign), false, true), (None, false, false)] {
        let mut image = Image::new(&[b"layer"]);
        if !urls {
            image.manifest = image.manifest.replace(",\"urls\":[\"http://127.0.0.1:9/never\"]", "");
        }
        if let Some(media_type) = media_type {
            image.manifest = image.manifest.replace("application/vnd.oci.image.layer.v1.tar", media_type);
        }
        assert_eq!(image.manifest.contains("urls"), urls);
        let server = layers_served(&image, |_, _, _| Reply::status(404));
        let error = Store::new().pull(&source(&server)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let root = error.root().to_string();
        assert_eq!(root.contains("a foreign layer"), is_foreign, "{root}");
        assert!(root.contains(&Digest::of(b"layer").to_string()), "{root}");
        assert!(!is_foreign || error.hint().unwrap().contains("never asked"), "{:?}", error.hint());
    }
}
