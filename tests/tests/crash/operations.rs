//! The operations that are killed at their steps; each is a test, so that they run beside each other.

use anyhow::Result;
use cofferdam_tests::operation;

use crate::steps::kill_at_every_step;

macro_rules! operations {
    ($($test:ident: $operation:ident,)*) => {$(
        #[test]
        fn $test() -> Result<()> {
            kill_at_every_step(&operation::$operation)
        }
    )*};
}

operations! {
    pull_into_a_new_store: PULL_INTO_A_NEW_STORE,
    pull_beside_another_image: PULL_BESIDE_ANOTHER_IMAGE,
    pull_from_a_layout: PULL_FROM_A_LAYOUT,
    pull_trees_synced: PULL_TREES_SYNCED,
    pull_again: PULL_AGAIN,
    unpack_by_copying: UNPACK_BY_COPYING,
    unpack_and_extract: UNPACK_AND_EXTRACT,
    unpack_by_applying: UNPACK_BY_APPLYING,
    unpack_a_layout: UNPACK_A_LAYOUT,
    layer_extract: LAYER_EXTRACT,
    remove: REMOVE,
    tag: TAG,
    collect: COLLECT,
    repair: REPAIR,
    mount_spec: MOUNT_SPEC,
}
