//! An inspector that refuses devices, unless the setting `devices` is `allow`, and reports the largest files.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use cofferdam_sdk::{Entry, Failure, Inspector, Interest, Layer, Node, log, settings};

cofferdam_sdk::inspector!(Look);

struct Look {
    devices: bool,
    keep: usize,
    largest: BTreeSet<(Reverse<u64>, Vec<u8>)>,
}

impl Inspector for Look {
    fn begin(_: Layer) -> Result<Self, Failure> {
        let devices = settings::get("devices").is_some_and(|devices| devices == "allow");
        Ok(Self {
            devices,
            keep: settings::parsed("largest", 10_usize)?.min(1000),
            largest: BTreeSet::new(),
        })
    }

    fn see(&mut self, entry: Entry) -> Result<Interest, Failure> {
        if !self.devices && matches!(entry.node, Node::CharacterDevice(_) | Node::BlockDevice(_)) {
            return Err(Failure::refused_at(entry.path, "is a device"));
        }
        if entry.is_file() {
            // Bounded: a layer may have millions of files.
            self.largest.insert((Reverse(entry.size()), entry.path));
            if self.largest.len() > self.keep {
                self.largest.pop_last();
            }
        }
        // `Interest::Content` has the host call `content` with the file's bytes.
        Ok(Interest::None)
    }

    fn finish(self) -> Result<Vec<u8>, Failure> {
        log::info(format!("the {} largest files", self.largest.len()));
        let line = |(Reverse(size), path): &(Reverse<u64>, Vec<u8>)| {
            format!("{size} {}\n", path.escape_ascii())
        };
        Ok(self
            .largest
            .iter()
            .map(line)
            .collect::<String>()
            .into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_sdk::testing::{Host, Sample};
    use cofferdam_sdk::{Device, Entry, Node};

    use super::Look;

    #[test]
    fn the_largest_files_are_reported() {
        let layer = Sample::new()
            .file("a", "1")
            .file("b", "333")
            .directory("c")
            .file("d", "22");
        assert_eq!(
            Host::new()
                .setting("largest", "2")
                .inspect::<Look>(&layer)
                .report(),
            "3 b\n2 d\n"
        );
    }

    #[test]
    fn devices_are_refused() {
        let device = Entry::new(
            "dev/mem",
            Node::CharacterDevice(Device { major: 1, minor: 1 }),
        );
        let layer = Sample::new().entry(device, "");
        assert_eq!(
            Host::new().inspect::<Look>(&layer).reason(),
            "`dev/mem`: is a device"
        );
        assert!(
            Host::new()
                .setting("devices", "allow")
                .inspect::<Look>(&layer)
                .result
                .is_ok()
        );
    }
}
