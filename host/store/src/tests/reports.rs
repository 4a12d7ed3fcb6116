//! What inspectors say of layers, and that they are asked.

use super::*;

/// The store as one with these inspectors has it.
fn inspected(fixture: &Fixture, inspectors: &[&[u8]]) -> (ImageStorage, Arc<Toy>) {
    let inspectors = inspectors.iter().map(|inspector| Digest::of(inspector)).collect();
    let toy = Arc::new(Toy { inspectors, ..Toy::default() });
    (open(&fixture.temp.path().join("images"), &toy), toy)
}

fn identities(storage: &ImageStorage, layer: &LayerDescriptor) -> Vec<Digest> {
    storage.layer_reports(&layer.digest).unwrap().into_iter().map(|report| report.identity).collect()
}

/// Whoever asks for a tree asks for one that its inspectors have seen, also where it was made without them.
#[test]
fn a_tree_that_is_there_is_shown_to_new_inspectors_once() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    assert!(identities(&fixture.storage, &layer).is_empty());
    let (storage, toy) = inspected(&fixture, &[b"one"]);
    storage.ensure_tree(&layer).unwrap();
    storage.ensure_tree(&layer).unwrap();
    assert_eq!((toy.calls.load(Ordering::SeqCst), identities(&storage, &layer)), (1, vec![Digest::of(b"one")]));
    // By the other door.
    let (storage, toy) = inspected(&fixture, &[b"one", b"two"]);
    let path = storage.layer_tarball_path(&layer.digest.to_string());
    storage.extract_layer(&layer.digest.to_string(), &path).unwrap();
    assert_eq!(toy.calls.load(Ordering::SeqCst), 1);
    assert!(identities(&storage, &layer).contains(&Digest::of(b"two")));
    // Nobody who asks for nothing pays for it.
    assert_eq!(fixture.unpacker.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_tree_that_is_there_may_be_refused() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"bad layer");
    fixture.storage.ensure_tree(&layer).unwrap();
    let (storage, _) = inspected(&fixture, &[b"one"]);
    for _ in 0..2 {
        assert_eq!(storage.ensure_tree(&layer).unwrap_err().kind(), ErrorKind::Refused);
    }
    // The tree is what it was, for those who do not ask.
    fixture.storage.ensure_tree(&layer).unwrap().check_whole().unwrap();
    // It cannot be shown to anybody without the blob.
    std::fs::remove_file(storage.layer_tarball_path(&layer.digest.to_string())).unwrap();
    assert_eq!(storage.ensure_tree(&layer).unwrap_err().kind(), ErrorKind::NotFound);
    assert_nothing_staged(&fixture);
}

/// What an inspector said of a layer as one reader gives it says nothing of what another reader gives.
#[test]
fn reports_are_about_one_reading_of_a_blob() {
    let fixture = Fixture::new();
    let layer = fixture.add_layer(b"layer");
    let foreign = LayerDescriptor { media_type: Some(FOREIGN.into()), ..layer.clone() };
    let inspectors = vec![Digest::of(b"inspector")];
    let toy = Arc::new(Toy { inspectors: inspectors.clone(), plugin: Some(Digest::of(b"plugin")), ..Toy::default() });
    let storage = open(&fixture.temp.path().join("images"), &toy);
    storage.ensure_tree(&foreign).unwrap();
    let lacking =
        |reader: Option<&Digest>| storage.trees().uninspected(&layer.digest, reader, &inspectors).unwrap().len();
    assert_eq!((lacking(toy.plugin.as_ref()), lacking(None)), (0, 1));
    storage.trees().keep_reports(&layer.digest, None, vec![]).unwrap();
    storage.ensure_tree(&layer).unwrap();
    assert_eq!((lacking(toy.plugin.as_ref()), lacking(None)), (1, 0));
}
