//! Many threads at once: what is leased is there, whoever collects.

use cofferdam_core::cancel::Cancel;

use super::images::{add, documents, publish};
use super::*;

/// Images come, are used and go, in many threads, while others collect all the time: nobody ever misses what was leased.
#[test]
fn collection_takes_nothing_from_a_crowd() {
    let fixture = Fixture::new();
    let shared = fixture.add_layer(b"shared");
    publish(&fixture, "kept:1", &[&shared]).unwrap();
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for worker in 0..4_u32 {
            let (fixture, shared, done) = (&fixture, &shared, &done);
            scope.spawn(move || {
                // Also when it fails: the collector is not to go on for ever.
                let _done = Done(done);
                let storage = fixture.reopen();
                for round in 0..12_u32 {
                    let own = [worker.to_le_bytes(), (round % 3).to_le_bytes()].concat();
                    let (digest, name) = (Digest::of(&own), format!("w{worker}:{round}"));
                    let lease = storage.lease_blocking(parts(&name, shared, &own), &Cancel::new()).unwrap();
                    let layer = fixture.add_layer(&own);
                    assert_eq!(layer.digest, digest);
                    let image = add(fixture, &name, &[shared, &layer]);
                    storage.publish(image, &lease).unwrap();
                    drop(lease);
                    let (object, lease) = storage.lease_image(&name, &Cancel::new()).unwrap();
                    for layer in &object.layers {
                        storage.ensure_tree(layer).unwrap().check_whole().unwrap();
                    }
                    storage.remove(&name).unwrap();
                    for layer in &object.layers {
                        storage.ensure_tree(layer).unwrap().check_whole().unwrap();
                        storage.open_layer(&layer.digest).unwrap();
                    }
                    drop(lease);
                }
            });
        }
        let (fixture, done) = (&fixture, &done);
        scope.spawn(move || {
            let storage = fixture.reopen();
            while done.load(Ordering::SeqCst) < 4 {
                storage.gc(&GcOptions::default()).unwrap();
                storage.usage().unwrap();
            }
        });
    });
    fixture.storage.image("kept:1").unwrap();
    fixture.storage.gc(&GcOptions::default()).unwrap();
    assert_eq!(names(&fixture.path("layers")).len(), 1);
    assert_eq!(names(&fixture.path("manifests")).len(), 1);
    assert_nothing_staged(&fixture);
}

struct Done<'a>(&'a AtomicU32);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// All digests of an image that is yet to be made.
fn parts(name: &str, shared: &LayerDescriptor, own: &[u8]) -> Vec<Digest> {
    let own = LayerDescriptor {
        digest: Digest::of(own),
        size: Some(own.len() as u64),
        diff_id: Some(toy_diff_id(own)),
        ..shared.clone()
    };
    let (manifest, config) = documents(name, &[shared, &own]);
    vec![Digest::of(manifest.as_bytes()), Digest::of(config.as_bytes()), shared.digest.clone(), own.digest]
}
