//! Cuts: where power may go, what the disk has of it then, and an image of that.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::disk::copy;
use super::fuse;
use super::log::{Log, Record};

/// What a file system writes at once, and what many disks do.
const BLOCK: u64 = 4096;
/// What every disk writes whole.
const SECTOR: u64 = 512;

/// A moment, and what is on disk then of that which was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How many records the disk was told.
    pub end: usize,
    /// What it kept of those after the last flush.
    pub kept: Kept,
}

/// What a disk keeps of what it was not told to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// All.
    All,
    /// Some blocks and not others, by chance: order between two flushes means nothing.
    Blocks(u64),
    /// The same, and some of them in part: sectors of their start or of their end.
    Sectors(u64),
}

/// How many cuts there are in each stretch between two flushes, beside those at the flushes.
#[derive(Clone, Copy, Debug)]
pub struct Density {
    /// With all that was written until then.
    pub whole: usize,
    /// With blocks by chance.
    pub blocks: usize,
    /// With sectors by chance.
    pub sectors: usize,
}

/// All cuts within a range of records, in order: at each flush, and between.
pub fn cuts(log: &Log, range: Range<usize>, density: Density) -> Vec<Cut> {
    let mut cuts = Vec::new();
    let mut seed = 0;
    let mut seed = move || {
        seed += 1;
        seed
    };
    let mut start = range.start;
    for at in range.clone() {
        if log.records().get(at) != Some(&Record::Flush) {
            continue;
        }
        between(start..at, density, &mut seed, &mut cuts);
        cuts.push(Cut { end: at + 1, kept: Kept::All });
        start = at + 1;
    }
    between(start..range.end, density, &mut seed, &mut cuts);
    cuts.sort_by_key(|cut| cut.end);
    cuts
}

/// The cuts at one moment.
pub fn at(end: usize) -> [Cut; 3] {
    [Kept::Nothing, Kept::Blocks(end as u64), Kept::All].map(|kept| Cut { end, kept })
}

/// Cuts in a stretch without a flush.
fn between(range: Range<usize>, density: Density, seed: &mut impl FnMut() -> u64, cuts: &mut Vec<Cut>) {
    let writes = range.len();
    let place = |index: usize, of: usize| range.start + (writes * (index + 1)).div_ceil(of + 1).min(writes);
    if writes > 1 {
        let whole = density.whole.min(writes - 1);
        cuts.extend((0..whole).map(|index| Cut { end: place(index, whole), kept: Kept::All }));
    }
    if writes > 0 {
        // Most say something about the whole stretch, and all of it is there only at its end.
        let end = |index: usize, of: usize| if index.is_multiple_of(2) { range.end } else { place(index, of) };
        let blocks = (0..density.blocks).map(|index| (end(index, density.blocks), Kept::Blocks(seed())));
        cuts.extend(blocks.map(|(end, kept)| Cut { end, kept }));
        let sectors = (0..density.sectors).map(|index| (end(index, density.sectors), Kept::Sectors(seed())));
        cuts.extend(sectors.map(|(end, kept)| Cut { end, kept }));
    }
}

/// Takes so many of them, evenly.
pub fn sample(cuts: Vec<Cut>, count: usize) -> Vec<Cut> {
    let all = cuts.len();
    if all <= count {
        return cuts;
    }
    (0..count).filter_map(|index| cuts.get(index * all / count).copied()).collect()
}

/// An image that follows a log, cut by cut.
#[derive(Debug)]
pub struct Replay<'a> {
    log: &'a Log,
    path: PathBuf,
    /// What is on disk for certain.
    image: File,
    /// How many records that is.
    done: usize,
}

impl<'a> Replay<'a> {
    /// Begins with what the disk held before it was told anything.
    pub fn new(log: &'a Log, base: &Path, path: PathBuf) -> Result<Self> {
        let image = copy(base, &path)?;
        Ok(Self { log, path, image, done: 0 })
    }

    /// Makes the image that a cut leaves. Cuts are to be asked for in order.
    pub fn cut(&mut self, cut: Cut, into: &Path) -> Result<()> {
        let told = self.log.records().get(..cut.end).context("a cut behind the end of the log")?;
        let flushed = told.iter().rposition(|record| *record == Record::Flush).map_or(0, |at| at + 1);
        anyhow::ensure!(self.done <= flushed, "cuts have to be in order");
        for record in &told[self.done..flushed] {
            apply(self.log, record, &self.image, &mut Chance::certain())?;
        }
        self.done = flushed;
        let image = copy(&self.path, into)?;
        let mut chance = Chance::of(cut.kept);
        told[flushed..].iter().try_for_each(|record| apply(self.log, record, &image, &mut chance))
    }
}

fn apply(log: &Log, record: &Record, image: &File, chance: &mut Chance) -> Result<()> {
    match record {
        Record::Flush => {}
        Record::Zero { offset, length } => {
            if chance.keeps_block() {
                fuse::zero(image, *offset, *length)?;
            }
        }
        Record::Write { offset, bytes } => {
            let bytes = log.bytes(bytes);
            let end = offset + bytes.len() as u64;
            let mut at = *offset;
            while at < end {
                let next = (at / BLOCK + 1) * BLOCK;
                let kept = chance.part(at..next.min(end));
                let within = |at: u64| usize::try_from(at - offset);
                image.write_all_at(&bytes[within(kept.start)?..within(kept.end)?], kept.start)?;
                at = next;
            }
        }
    }
    Ok(())
}

/// Decides what is kept.
struct Chance {
    /// In percent.
    blocks: u64,
    torn: u64,
    state: u64,
}

impl Chance {
    fn certain() -> Self {
        Self { blocks: 100, torn: 0, state: 1 }
    }

    fn of(kept: Kept) -> Self {
        let likely = |seed: u64| [50, 90, 10][usize::try_from(seed % 3).unwrap_or(0)];
        let state = |seed: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        match kept {
            Kept::Nothing => Self { blocks: 0, torn: 0, state: 1 },
            Kept::All => Self::certain(),
            Kept::Blocks(seed) => Self { blocks: likely(seed), torn: 0, state: state(seed) },
            Kept::Sectors(seed) => Self { blocks: likely(seed), torn: 50, state: state(seed) },
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % end
    }

    fn keeps_block(&mut self) -> bool {
        self.below(100) < self.blocks
    }

    /// What is kept of a write within one block.
    fn part(&mut self, range: Range<u64>) -> Range<u64> {
        if !self.keeps_block() {
            return range.start..range.start;
        }
        let sectors = (range.end - range.start) / SECTOR;
        if sectors < 2 || self.below(100) >= self.torn {
            return range;
        }
        let split = range.start + (1 + self.below(sectors - 1)) * SECTOR;
        if self.below(2) == 0 { range.start..split } else { split..range.end }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Writer;
    use super::*;
    use crate::Scratch;

    const DENSITY: Density = Density { whole: 2, blocks: 2, sectors: 1 };

    /// Two blocks, flushed, overwritten, and flushed; then a third.
    fn log(path: &Path) -> Result<Log> {
        let mut writer = Writer::create(path)?;
        let block = |byte: u8| vec![byte; 4096];
        writer.write(0, &[block(1), block(1)].concat())?;
        writer.flush()?;
        writer.write(0, &block(2))?;
        writer.write(4096, &block(2))?;
        writer.flush()?;
        writer.write(8192, &block(3))?;
        Log::read(path)
    }

    fn images(cuts: &[Cut]) -> Result<Vec<Vec<u8>>> {
        let scratch = Scratch::new()?;
        let log = log(&scratch.join("log"))?;
        std::fs::write(scratch.join("base"), vec![0; 3 * 4096])?;
        let mut replay = Replay::new(&log, &scratch.join("base"), scratch.join("replay"))?;
        let into = scratch.join("image");
        cuts.iter()
            .map(|cut| {
                replay.cut(*cut, &into)?;
                Ok(std::fs::read(&into)?)
            })
            .collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_what_was_not_may_be() -> Result<()> {
        let cut = |end, kept| Cut { end, kept };
        let images = images(&[
            cut(1, Kept::Nothing),
            cut(1, Kept::All),
            cut(2, Kept::Nothing),
            cut(3, Kept::Nothing),
            cut(3, Kept::All),
            cut(5, Kept::Nothing),
            cut(6, Kept::Nothing),
            cut(6, Kept::All),
        ])?;
        let starts: Vec<_> = images.iter().map(|image| [image[0], image[4096], image[8192]]).collect();
        assert_eq!(starts, [[0, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 0], [2, 1, 0], [2, 2, 0], [2, 2, 0], [2, 2, 3]]);
        Ok(())
    }

    /// In any order, and a sector is whole.
    #[test]
    fn what_was_not_flushed_is_lost_by_blocks_and_by_sectors() -> Result<()> {
        let blocks: Vec<_> = (0..40).map(|seed| Cut { end: 4, kept: Kept::Blocks(seed) }).collect();
        let seen = images(&blocks)?;
        for pair in [[1, 1], [1, 2], [2, 1], [2, 2]] {
            assert!(seen.iter().any(|image| [image[0], image[4096]] == pair), "{pair:?}");
        }
        assert!(seen.iter().all(|image| image.chunks(4096).all(|block| block.iter().all(|&byte| byte == block[0]))));
        let sectors: Vec<_> = (0..40).map(|seed| Cut { end: 4, kept: Kept::Sectors(seed) }).collect();
        let seen = images(&sectors)?;
        assert!(seen.iter().any(|image| image[..4096].contains(&1) && image[..4096].contains(&2)));
        assert!(seen.iter().all(|image| image.chunks(512).all(|sector| sector.iter().all(|&byte| byte == sector[0]))));
        Ok(())
    }

    #[test]
    fn there_are_cuts_at_each_flush_and_between() -> Result<()> {
        let scratch = Scratch::new()?;
        let log = log(&scratch.join("log"))?;
        let found = cuts(&log, 0..6, DENSITY);
        assert!(found.is_sorted_by_key(|cut| cut.end));
        for wanted in [(2, Kept::All), (5, Kept::All), (3, Kept::All)] {
            assert!(found.contains(&Cut { end: wanted.0, kept: wanted.1 }), "{wanted:?} of {found:?}");
        }
        assert!(found.iter().any(|cut| cut.end == 4 && matches!(cut.kept, Kept::Blocks(_))));
        assert!(found.iter().any(|cut| matches!(cut.kept, Kept::Sectors(_))));
        assert_eq!(sample(found.clone(), 4).len(), 4);
        assert_eq!(sample(found.clone(), 1000), found);
        Ok(())
    }
}
