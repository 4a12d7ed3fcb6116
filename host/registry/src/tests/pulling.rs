//! Whole pulls: what is fetched and what is not, how many at once, and that nothing is left behind.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use cofferdam_core::error::ErrorKind;
use cofferdam_core::progress::Event;

use super::*;

#[tokio::test]
async fn an_image_is_pulled_whole_and_then_known() {
    let (one, two) = (large(1), large(2));
    let image = Image::new(&[&one, b"small", &two]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let progress = Progress::new(move |event| seen.lock().unwrap().push(event));
    let source = source(&server);
    let pulled = pull(&source, &store.storage, Arc::new(Copying), &options(), &progress).await.unwrap();
    assert_eq!((pulled.downloaded_layers, pulled.cached_layers), (3, 0));
    assert_eq!(pulled.downloaded_bytes, 2 * one.len() as u64 + 5);
    assert_eq!(pulled.published.manifest, image.digest());
    for layer in &image.layers {
        let name = Digest::of(layer).file_stem();
        let tree = store.temp.path().join("images/extracted").join(&name);
        assert_eq!(std::fs::read(tree.join("content")).unwrap(), *layer);
        assert!(store.storage.verify_layer(&Digest::of(layer).to_string()).await.unwrap());
    }
    assert_eq!(
        std::fs::read_to_string(store.storage.manifest_path(&image.digest().to_string())).unwrap(),
        image.manifest
    );
    assert_eq!(store.storage.images().unwrap().len(), 1);
    assert_eq!(store.staged(), [""; 0]);
    let events = events.lock().unwrap().clone();
    for layer in &image.layers {
        let digest = Digest::of(layer);
        let whole = Event::Downloaded { layer: digest.clone(), bytes: layer.len() as u64 };
        let position = |event: &Event| events.iter().position(|seen| seen == event).unwrap();
        let started = Event::LayerStarted { layer: digest.clone(), bytes: Some(layer.len() as u64) };
        assert!(position(&started) < position(&whole));
        assert!(position(&whole) < position(&Event::LayerDone { layer: digest }));
    }

    // Again: the name is looked up, and nothing else.
    let before = server.requests().len();
    let again = store.pull(&source).await.unwrap();
    assert_eq!((again.downloaded_layers, again.cached_layers), (0, 3));
    assert_eq!(server.requests().len(), before + 1);
    // By digest: not even that.
    let pinned = registries(&server, Auth::Anonymous).source(reference(&server, &format!("a@{}", image.digest())));
    store.pull(&pinned).await.unwrap();
    assert_eq!(server.requests().len(), before + 1);
}

#[tokio::test]
async fn the_right_image_of_an_index_is_pulled() {
    let (wanted, other) = (Image::new(&[b"wanted"]), Image::new(&[b"other"]));
    let entry = |image: &Image, platform: serde_json::Value| {
        serde_json::json!({
            "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(), "platform": platform,
        })
    };
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [
            entry(&other, serde_json::json!({"os": "unknown", "architecture": "unknown"})),
            entry(&other, serde_json::json!({"os": "linux", "architecture": "s390x"})),
            entry(&wanted, serde_json::json!({"os": "linux", "architecture": "amd64"})),
        ],
    })
    .to_string();
    let (served, top) = (wanted.clone(), index.clone());
    let server = Server::new(move |request| {
        if request.path.ends_with("/latest") {
            Reply::ok(&top).with("Content-Type", "application/vnd.oci.image.index.v1+json")
        } else {
            served.serve(request)
        }
    });
    let store = Store::new();
    let choice = |platform: &str| PullOptions {
        platform: cofferdam_documents::PlatformChoice::Exactly(platform.parse().unwrap()),
        ..options()
    };
    let pulled = store.pull_with(&source(&server), &choice("linux/amd64/v3")).await.unwrap();
    assert_eq!(pulled.published.manifest, wanted.digest());
    assert_eq!(pulled.published.index, Some(Digest::of(index.as_bytes())));
    assert!(store.storage.manifest_bytes(&Digest::of(index.as_bytes())).unwrap().is_some());
    let error = store.pull_with(&source(&server), &choice("linux/riscv64")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(error.hint().unwrap(), "there are images for linux/amd64, linux/s390x");
}

/// A pull that is given up takes back the trees that it had finished.
#[tokio::test]
async fn a_pull_that_is_cancelled_takes_back_its_trees() {
    let layer = large(14);
    let image = Image::new(&[b"small", &layer]);
    let served = image.clone();
    let server =
        layers_served(
            &image,
            move |request, blob, _| {
                if blob.len() < 10 { served.serve(request) } else { Reply::ok(blob).silent_at(1000) }
            },
        );
    let store = Store::new();
    let options = options();
    let cancel = options.cancel.clone();
    let progress = Progress::new(move |event| {
        if matches!(event, Event::LayerDone { .. }) {
            cancel.cancel();
        }
    });
    let source = source(&server);
    let error = pull(&source, &store.storage, Arc::new(Copying), &options, &progress).await.unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!((store.names("extracted"), store.names("refs"), store.staged()), (vec![], vec![], vec![]));
    // Its blob is verified, and saves the next pull a download.
    assert_eq!(store.names("layers").len(), 1);
}

#[tokio::test]
async fn a_pull_that_cannot_be_published_takes_back_its_trees() {
    let image = Image::new(&[b"layer"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let refs = store.temp.path().join("images/refs");
    let progress = Progress::new(move |event| {
        if matches!(event, Event::Resolved { .. }) {
            std::fs::remove_dir(&refs).unwrap();
        }
    });
    let source = source(&server);
    let error = pull(&source, &store.storage, Arc::new(Copying), &options(), &progress).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert_eq!(server.count(&Digest::of(b"layer").to_string()), 1);
    assert_eq!(store.names("extracted"), [""; 0]);
}

/// What cannot be published is refused before a layer is fetched.
#[tokio::test]
async fn a_name_that_cannot_be_published_is_refused_at_once() {
    let image = Image::new(&[b"layer"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let options = PullOptions { publish_as: Some("a b".into()), ..options() };
    let error = Store::new().pull_with(&source(&server), &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert_eq!(server.count(&Digest::of(b"layer").to_string()), 0);
}

#[tokio::test]
async fn a_manifests_addresses_are_never_followed() {
    // The fixture's layers carry `urls`; a registry without the blob is the end of it.
    let elsewhere = Server::new(|_| Reply::ok("layer"));
    let mut image = Image::new(&[b"layer"]);
    image.manifest = image.manifest.replace("127.0.0.1:9", elsewhere.host().as_str());
    let server = layers_served(&image, |_, _, _| Reply::status(404));
    let error = Store::new().pull(&source(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_layer_that_comes_twice_is_fetched_once() {
    let image = Image::new(&[b"same", b"other", b"same"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let pulled = Store::new().pull(&source(&server)).await.unwrap();
    assert_eq!(pulled.downloaded_layers, 2);
    assert_eq!(pulled.image.layers.len(), 3);
    assert_eq!(server.count(&Digest::of(b"same").to_string()), 1);
}

#[tokio::test]
async fn a_layer_declared_in_two_ways_is_refused_before_it_is_fetched() {
    let image = Image::with_diff_ids(&[b"same", b"same"], &[Digest::of(b"same"), Digest::of(b"else")]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let error = Store::new().pull(&source(&server)).await.unwrap_err();
    assert!(matches!(error.root(), Error::Refused { .. }), "{error}");
    assert_eq!(server.count(&Digest::of(b"same").to_string()), 0);
}

#[tokio::test]
async fn a_blob_that_is_there_is_unpacked_without_being_fetched() {
    let image = Image::new(&[b"layer"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let store = Store::new();
    let digest = Digest::of(b"layer");
    std::fs::write(store.storage.layer_tarball_path(&digest.to_string()), b"layer").unwrap();
    let pulled = store.pull(&source(&server)).await.unwrap();
    assert_eq!((pulled.downloaded_layers, pulled.unpacked_layers, pulled.cached_layers), (0, 1, 0));
    assert_eq!(server.count(&digest.to_string()), 0);
    assert_eq!(store.names("extracted"), [digest.file_stem()]);
}

#[tokio::test]
async fn a_blob_that_is_there_and_damaged_is_fetched_again() {
    for damaged in [&b"LAYER"[..], b"hosti", b"hostile"] {
        let image = Image::new(&[b"layer"]);
        let served = image.clone();
        let server = Server::new(move |request| served.serve(request));
        let store = Store::new();
        let digest = Digest::of(b"layer").to_string();
        std::fs::write(store.storage.layer_tarball_path(&digest), damaged).unwrap();
        store.pull(&source(&server)).await.unwrap();
        assert_eq!(server.count(&digest), 1);
        assert!(store.storage.verify_layer(&digest).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_come_several_at_once_but_no_more_than_allowed() {
    let layers: Vec<Vec<u8>> = (0..6).map(|seed| vec![seed; 1000]).collect();
    let image = Image::new(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let served = image.clone();
    // How many are asked for at this moment, the most of it, and how many were served.
    let now = Arc::new((Mutex::new((0_usize, 0_usize, 0_usize)), Condvar::new()));
    let state = Arc::clone(&now);
    let server = layers_served(&image, move |request, _, _| {
        let (lock, changed) = &*state;
        let mut guard = lock.lock().unwrap();
        guard.0 += 1;
        guard.1 = guard.1.max(guard.0);
        changed.notify_all();
        // The first two wait for each other: without parallelism they would wait for ever.
        let (mut guard, _) =
            changed.wait_timeout_while(guard, Duration::from_secs(10), |(_, most, _)| *most < 2).unwrap();
        guard.0 -= 1;
        guard.2 += 1;
        drop(guard);
        served.serve(request)
    });
    let registries = patient(&server);
    let options = PullOptions { concurrency: NonZeroUsize::new(2).unwrap(), ..options() };
    Store::new().pull_with(&registries.source(reference(&server, "a")), &options).await.unwrap();
    let (_, most, count) = *now.0.lock().unwrap();
    assert_eq!((most, count), (2, 6));
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let layer = large(9);
    let begun = Arc::new(tokio::sync::Notify::new());
    let server = layers_served(&Image::new(&[&layer]), |_, blob, _| Reply::ok(blob).silent_at(700_000));
    let store = Store::new();
    // Nothing but the drop can end this.
    let registries = patient(&server);
    let seen = Arc::clone(&begun);
    let progress = Progress::new(move |event| {
        if matches!(event, Event::Downloaded { .. }) {
            seen.notify_one();
        }
    });
    let source = registries.source(reference(&server, "a"));
    let options = options();
    let pulling = pull(&source, &store.storage, Arc::new(Copying), &options, &progress);
    tokio::select! {
        result = pulling => panic!("it ended by itself: {result:?}"),
        () = begun.notified() => {}
    }
    // The threads notice it on their own.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !store.staged().is_empty() {
        assert!(std::time::Instant::now() < deadline, "left behind: {:?}", store.staged());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.names("extracted"), [""; 0]);
    assert!(store.storage.images().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_at_once_fetch_each_layer_once() {
    let layer = large(10);
    let image = Image::new(&[&layer, b"small"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let (served, counted) = (image.clone(), Arc::clone(&asked));
    let server = layers_served(&image, move |request, _, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        served.serve(request)
    });
    let store = Store::new();
    let (one, two) = (source(&server), source(&server));
    let (first, second) = tokio::join!(store.pull(&one), store.pull(&two));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(first.downloaded_layers + second.downloaded_layers, 2);
    assert_eq!(first.cached_layers + second.cached_layers, 2);
}

#[tokio::test]
async fn each_document_is_asked_for_once() {
    let image = Image::new(&[b"one", b"two"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    Store::new().pull(&source(&server)).await.unwrap();
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths.len(), 4);
    assert_eq!(paths.iter().collect::<HashSet<_>>().len(), 4);
}
