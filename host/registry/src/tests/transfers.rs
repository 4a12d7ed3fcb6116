//! Transfers that break, stall or come in pieces that nobody asked for.

use cofferdam_core::error::ErrorKind;

use super::*;

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on_where_it_stopped() {
    let layer = large(3);
    let image = Image::new(&[&layer]);
    for ranges in [true, false] {
        let served = image.clone();
        let server = layers_served(&image, move |request, blob, count| match (request.range(), count) {
            (Some(_), 2) if ranges => served.serve(request).cut_at(300_000),
            (_, 1) => Reply::ok(blob).cut_at(400_000),
            _ if ranges => served.serve(request),
            _ => Reply::ok(blob),
        });
        let store = Store::new();
        let pulled = store.pull(&source(&server)).await.unwrap();
        assert_eq!(pulled.downloaded_bytes, layer.len() as u64);
        assert_eq!(server.count(&Digest::of(&layer).to_string()), if ranges { 3 } else { 2 });
        // From what had arrived, and not from the beginning.
        let asked: Vec<_> = server.requests().iter().filter_map(Request::range).collect();
        assert!(asked.iter().is_sorted() && asked.iter().all(|&from| from > 0 && from <= 700_000), "{asked:?}");
        assert!(asked.first().is_some_and(|&from| from <= 400_000), "{asked:?}");
        if ranges {
            assert!(server.sent() < layer.len() + 10_000, "only what was missing was sent again");
        }
    }
}

#[tokio::test]
async fn silence_in_the_middle_ends_and_is_the_networks_fault() {
    let layer = large(7);
    let server = layers_served(&Image::new(&[&layer]), |_, blob, _| Reply::ok(blob).silent_at(1000));
    let store = Store::new();
    let mut options = options();
    options.retry.attempts = 2;
    let source = short_of_time(&server).source(reference(&server, "a"));
    let error = store.pull_with(&source, &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert_eq!(store.staged(), [""; 0]);
}

/// What a registry makes of a request for a part of a blob, from a byte on.
type PartOf = fn(&[u8], usize) -> Reply;

/// A registry that makes a mess of ranges is asked for all of it, once, and nothing of the mess is used.
#[tokio::test]
async fn where_a_part_cannot_be_had_the_whole_is_asked_for() {
    let layer = large(8);
    let messes: [(&str, PartOf); 5] = [
        ("another part", |blob, from| {
            let range = format!("bytes {}-{}/{}", from - 1, blob.len() - 2, blob.len());
            Reply::new(206, &blob[from - 1..blob.len() - 1]).with("Content-Range", &range)
        }),
        ("a part that is not named", |blob, from| Reply::new(206, &blob[from..])),
        ("refused as unsatisfiable", |_, _| Reply::status(416)),
        ("refused as bad", |_, _| Reply::status(400)),
        ("not known", |_, _| Reply::status(501)),
    ];
    for (what, mess) in messes {
        let server = layers_served(&Image::new(&[&layer]), move |request, blob, count| match request.range() {
            None if count == 1 => Reply::ok(blob).cut_at(1000),
            None => Reply::ok(blob),
            Some(from) => mess(blob, from),
        });
        let store = Store::new();
        let pulled = store.pull(&source(&server)).await;
        assert_eq!(pulled.map(|pulled| pulled.downloaded_bytes).ok(), Some(layer.len() as u64), "{what}");
        assert_eq!(server.count(&Digest::of(&layer).to_string()), 3, "{what}");
        assert!(store.storage.verify_layer(&Digest::of(&layer).to_string()).await.unwrap(), "{what}");
    }
}

/// A byte now and then is never silence, and never the end.
#[tokio::test]
async fn a_layer_that_hardly_moves_ends_and_is_the_networks_fault() {
    let layer = large(13);
    let server =
        layers_served(&Image::new(&[&layer]), |_, blob, _| Reply::ok(blob).dripping(Duration::from_millis(10)));
    let store = Store::new();
    let mut options = options();
    options.retry =
        RetryPolicy { attempts: 2, window: Duration::from_millis(200), window_bytes: 10_000, ..options.retry };
    let error = store.pull_with(&source(&server), &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert!(error.root().to_string().contains("10000 bytes"), "{}", error.root());
    assert_eq!(server.count(&Digest::of(&layer).to_string()), 2);
    assert_eq!(store.staged(), [""; 0]);
}

#[tokio::test]
async fn a_configuration_that_hardly_moves_ends_in_time() {
    let image = Image::new(&[b"layer"]);
    let config = Digest::of(image.config.as_bytes()).to_string();
    let server = Server::new(move |request| {
        let reply = image.serve(request);
        if request.path.ends_with(&config) { reply.dripping(Duration::from_millis(50)) } else { reply }
    });
    let mut options = options();
    options.retry = RetryPolicy { attempts: 1, document_timeout: Duration::from_millis(300), ..options.retry };
    let error = Store::new().pull_with(&source(&server), &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert!(error.root().to_string().contains("0.3 s"), "{}", error.root());
}

/// What a connection that ends too soon leaves of an answer.
type Cut = fn(Reply, usize) -> Reply;

/// Whatever was on its way and however its end was to be known: a lost connection is the network's fault, also when each
/// attempt ends like that, and the next pull goes through.
#[tokio::test]
async fn a_connection_that_is_cut_is_the_networks_fault() {
    let cuts: [(&str, Cut); 3] = [
        ("of a known length", Reply::cut_at),
        ("in chunks", |reply, at| reply.with("Transfer-Encoding", "chunked").cut_at(at)),
        ("up to the end of the connection", Reply::closed_at),
    ];
    let layer = [b'x'; 100];
    let image = Image::new(&[&layer]);
    let config = Digest::of(image.config.as_bytes()).to_string();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": "amd64"},
        }],
    })
    .to_string();
    let manifest = image.digest().to_string();
    let blob = Digest::of(&layer).to_string();
    for (how, cut) in cuts {
        for part in ["/latest", &manifest, &config, &blob, "/token"] {
            for at in [0, 40] {
                let (served, index, key) = (image.clone(), index.clone(), part.to_owned());
                let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
                let heal = Arc::clone(&healed);
                let server = Server::new(move |request| {
                    let reply = match (&*request.path, request.header("authorization")) {
                        (path, _) if path.starts_with("/token") => {
                            Reply::ok("{\"token\":\"t\",   \"issued_at\":\"2026-01-01T00:00:00Z\"}")
                        }
                        (_, None) => {
                            let realm = format!("Bearer realm=http://{}/token", request.header("host").unwrap());
                            return Reply::status(401).with("WWW-Authenticate", &realm);
                        }
                        (path, _) if path.ends_with("/latest") => {
                            Reply::ok(&index).with("Content-Type", "application/vnd.oci.image.index.v1+json")
                        }
                        _ => served.serve(request),
                    };
                    let whole = !request.path.contains(&key) || healed.load(std::sync::atomic::Ordering::SeqCst);
                    if whole { reply } else { cut(reply, at) }
                });
                let store = Store::new();
                let mut options = options();
                options.retry.attempts = 2;
                let error = store.pull_with(&source(&server), &options).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Network, "{how}, {part} at {at}: {error}: {}", error.root());
                assert_eq!(store.staged(), [""; 0], "{how}, {part} at {at}");
                if at == 0 {
                    continue;
                }
                heal.store(true, std::sync::atomic::Ordering::SeqCst);
                store.pull(&source(&server)).await.unwrap_or_else(|error| panic!("{how}, {part} at {at}: {error}"));
            }
        }
    }
}
