//! Judges, at the layer's end, the hard links whose target was no finding when they were met: those that came first, those
//! behind links, and those to other such links.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use cofferdam_sdk::Failure;

use crate::Policy;
use crate::finding::{Finding, Rights};
use crate::links::{Hard, Place};
use crate::paths::name;

/// Numbers of links by what they wait for. What came is taken out: nothing is judged twice.
type Waiting<K> = BTreeMap<K, Vec<usize>>;

/// What waits.
#[derive(Default)]
struct Queues<'a> {
    /// Links to a path that is known.
    paths: Waiting<&'a [u8]>,
    /// The same by the path's last component, since something behind a link may turn out to be there.
    names: Waiting<&'a [u8]>,
    /// Links to something behind a link, of which only the last component is known.
    vague: Waiting<&'a [u8]>,
    /// Links to what was a link when they were met.
    links: Waiting<usize>,
}

/// What links may wait for: a file with rights, or a link to one.
struct Cause {
    /// Of what was replaced, the last component is enough.
    path: Vec<u8>,
    place: Place,
    rights: Rc<Rights>,
    vague: bool,
    link: Option<usize>,
}

impl Policy {
    /// Adds the links that lead to findings.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        let links = std::mem::take(&mut self.links).into_hard();
        let mut queues = Queues::new(&links);
        let mut judged = vec![false; links.len()];
        let mut causes = self.causes();
        while let Some(cause) = causes.pop_front() {
            for number in queues.reached(&cause) {
                let Some((link, judged)) = links.get(number).zip(judged.get_mut(number)) else { continue };
                if std::mem::replace(judged, true) {
                    continue;
                }
                let (rights, vague) = (Rc::clone(&cause.rights), cause.vague || link.vague);
                let behind = link.place == Place::Behind;
                let path = link.path.clone();
                causes.push_back(Cause {
                    path,
                    place: link.place,
                    rights: Rc::clone(&rights),
                    vague,
                    link: Some(number),
                });
                if link.place != Place::Replaced {
                    let finding = Finding { rights, link: Some(link.target.clone()), behind, vague, allowed: false };
                    self.take(link.path.clone(), finding)?;
                }
            }
        }
        Ok(())
    }

    fn causes(&self) -> VecDeque<Cause> {
        let cause = |path: &Vec<u8>, place: Place, finding: &Finding| Cause {
            path: path.clone(),
            place,
            rights: Rc::clone(&finding.rights),
            vague: finding.vague,
            link: None,
        };
        let found = self.found.iter().map(|(path, finding)| cause(path, Place::Known, finding));
        let stray = self.stray.iter().map(|(path, finding)| cause(path, Place::Behind, finding));
        let names = self.names.iter().map(|(name, finding)| cause(name, Place::Replaced, finding));
        found.chain(stray).chain(names).collect()
    }
}

impl<'a> Queues<'a> {
    fn new(links: &'a [Hard]) -> Self {
        let mut queues = Self::default();
        for (number, link) in links.iter().enumerate() {
            if let Some(to) = link.to {
                queues.links.entry(to).or_default().push(number);
            }
            if link.vague {
                queues.vague.entry(name(&link.target)).or_default().push(number);
                continue;
            }
            queues.names.entry(name(&link.target)).or_default().push(number);
            // What came to its target after it was replaced is nothing to it.
            if link.place != Place::Replaced {
                queues.paths.entry(&link.target).or_default().push(number);
            }
        }
        queues
    }

    /// The links that wait for this.
    fn reached(&mut self, cause: &Cause) -> Vec<usize> {
        let name = name(&cause.path);
        let mut reached = self.vague.remove(name).unwrap_or_default();
        match cause.place {
            Place::Known => reached.extend(self.paths.remove(cause.path.as_slice()).unwrap_or_default()),
            Place::Behind => reached.extend(self.names.remove(name).unwrap_or_default()),
            Place::Replaced => {}
        }
        if let Some(number) = cause.link {
            reached.extend(self.links.remove(&number).unwrap_or_default());
        }
        reached
    }
}
