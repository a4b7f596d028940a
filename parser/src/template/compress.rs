//! Name compression while an answer is written (RFC 1035 §4.1.4).
//!
//! Every suffix that was written in full is a *target*: the message offset of its first label, and
//! the target of the suffix behind that label. A name is matched from the root to the left, so each
//! label costs one hash step, about one probe and one comparison with one label; earlier names are
//! never walked.
//!
//! Bounds: [`MAX_TARGETS`] suffixes are remembered, [`MAX_PROBES`] slots looked at for each label and
//! [`MAX_STEPS`] labels in all, whatever the names are; a suffix that isn't found is written in full,
//! which is always right. The table is 2 KiB on the stack and nothing is allocated.
//!
//! Names are compared without case, so a pointer may change the case of a name in the answer; names
//! that share a suffix with the question take the case that the client chose.

use crate::name::Name;
use crate::name::fold::eq_ignore_case;
use crate::rr::HEADER_LEN;

/// Suffixes that may be pointed to in one answer; the longest name has 127.
pub(super) const MAX_TARGETS: usize = 160;

/// Slots that are looked at for one label.
const MAX_PROBES: usize = 8;

/// Slots of the table: a power of two, and never more than five of eight in use.
const SLOTS: usize = 256;

/// Labels that are matched in one answer, about 200 µs of work. Names behind that are written in full,
/// so that an answer of thousands of long names soon gets too long instead of taking milliseconds.
/// Owners that are the question's name don't count.
const MAX_STEPS: usize = 16384;

/// The two bits that make a label a pointer; the other 14 are where it leads.
const POINTER: u16 = 0xc000;

/// The last offset that a pointer can lead to.
const MAX_POINTER: usize = 0x3fff;

/// Most labels a name has, the root aside: 127 of two bytes each.
const MAX_LABELS: usize = 127;

const _: () = assert!(MAX_TARGETS * 8 <= SLOTS * 5 && SLOTS.is_power_of_two());

/// A suffix that stands in the message in full.
#[derive(Clone, Copy)]
struct Target {
    hash: u32,
    /// Message offset of its first label; 0 marks an empty slot, since that is in the header.
    at: u16,
    /// Message offset of the target behind its first label; 0 is the root.
    parent: u16,
}

/// The longest suffix of a name that already stands in the message.
struct Match {
    /// Its message offset; 0 is the root, which isn't worth a pointer.
    at: u16,
    /// How many labels of the name are left of it.
    labels_before: usize,
    hash: u32,
}

/// The targets of one answer.
pub(super) struct Compressor {
    slots: [Target; SLOTS],
    used: usize,
    steps_left: usize,
}

/// What was written of the message so far: the question's name, and the bytes behind the question.
/// The header and the question's type and class lie between and hold no label.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) qname: &'a [u8],
    pub(super) tail: &'a [u8],
}

/// Offsets of the labels in a name, from its start.
struct Labels {
    at: [u8; MAX_LABELS],
    count: usize,
}

impl Compressor {
    /// A compressor that knows the name of the question, which stands at offset 12.
    pub(super) fn new(qname: &Name) -> Self {
        let empty = Target { hash: 0, at: 0, parent: 0 };
        let mut compressor = Self { slots: [empty; SLOTS], used: 0, steps_left: MAX_STEPS };
        let wire = qname.as_wire();
        let labels = Labels::of(wire);
        let unmatched = Match { at: 0, labels_before: labels.count, hash: 0 };
        compressor.remember(wire, &labels, &unmatched, HEADER_LEN);
        compressor
    }

    /// Finds what may be pointed to for this name and remembers the rest of it, which the caller
    /// writes next: the first so many bytes of the name, then the pointer if there is one. Without
    /// a pointer the bytes are the whole name with its root.
    pub(super) fn place(&mut self, name: &Name, written: Written<'_>) -> (usize, Option<u16>) {
        let wire = name.as_wire();
        if !name.is_root() && eq_ignore_case(wire, written.qname) {
            return (0, Some(POINTER | HEADER_LEN as u16));
        }
        let labels = Labels::of(wire);
        let Some(steps_left) = self.steps_left.checked_sub(labels.count) else {
            return (wire.len(), None);
        };
        self.steps_left = steps_left;
        let found = self.find(wire, &labels, written);
        self.remember(wire, &labels, &found, written.end());
        if found.at == 0 {
            return (wire.len(), None);
        }
        let literal_len = labels.offset(found.labels_before).unwrap_or(wire.len());
        (literal_len, Some(POINTER | found.at))
    }

    /// Matches label by label, from the one before the root to the left.
    fn find(&self, wire: &[u8], labels: &Labels, written: Written<'_>) -> Match {
        let mut found = Match { at: 0, labels_before: labels.count, hash: 0 };
        while let Some(index) = found.labels_before.checked_sub(1) {
            let Some(label) = labels.get(wire, index) else {
                break;
            };
            let hash = hash_label(found.hash, label);
            let same = |target: &&Target| {
                target.hash == hash
                    && target.parent == found.at
                    && written
                        .label(target.at)
                        .is_some_and(|known| known.eq_ignore_ascii_case(label))
            };
            let Some(target) = self.probe(hash).take_while(|target| target.at != 0).find(same)
            else {
                break;
            };
            found = Match { at: target.at, labels_before: index, hash };
        }
        found
    }

    /// Remembers the suffixes of a name that is written at `at`, from those that were found to the
    /// left. It stops at the first one there is no room for: what is left of it could not be found.
    fn remember(&mut self, wire: &[u8], labels: &Labels, found: &Match, at: usize) {
        let (mut parent, mut hash) = (found.at, found.hash);
        for index in (0..found.labels_before).rev() {
            let (Some(label), Some(offset)) = (labels.get(wire, index), labels.offset(index))
            else {
                return;
            };
            let label_at = at + offset;
            if self.used >= MAX_TARGETS || label_at > MAX_POINTER {
                return;
            }
            hash = hash_label(hash, label);
            let target = Target { hash, at: label_at as u16, parent };
            let Some(slot) = self.probe_mut(hash) else {
                return;
            };
            *slot = target;
            self.used += 1;
            parent = target.at;
        }
    }

    /// The slots in which a suffix of this hash may be.
    fn probe(&self, hash: u32) -> impl Iterator<Item = &Target> {
        (0..MAX_PROBES).filter_map(move |step| self.slots.get(slot_index(hash, step)))
    }

    /// The first empty one of those slots.
    fn probe_mut(&mut self, hash: u32) -> Option<&mut Target> {
        let index = (0..MAX_PROBES)
            .map(|step| slot_index(hash, step))
            .find(|index| self.slots.get(*index).is_some_and(|slot| slot.at == 0))?;
        self.slots.get_mut(index)
    }
}

impl<'a> Written<'a> {
    /// The message offset of what is written next.
    fn end(&self) -> usize {
        tail_at(self.qname.len()) + self.tail.len()
    }

    /// The label, with its length byte, at an offset of the message.
    fn label(&self, at: u16) -> Option<&'a [u8]> {
        let from_qname = usize::from(at).checked_sub(HEADER_LEN)?;
        let from_label = match self.qname.get(from_qname..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => {
                let in_tail = usize::from(at).checked_sub(tail_at(self.qname.len()))?;
                self.tail.get(in_tail..)?
            }
        };
        from_label.get(..1 + usize::from(*from_label.first()?))
    }
}

/// Message offset of what follows a question whose name has so many bytes.
pub(super) fn tail_at(qname_len: usize) -> usize {
    HEADER_LEN + qname_len + 4
}

impl Labels {
    fn of(wire: &[u8]) -> Self {
        let mut labels = Self { at: [0; MAX_LABELS], count: 0 };
        let mut at = 0;
        while let Some(&len @ 1..) = wire.get(at)
            && let Some(slot) = labels.at.get_mut(labels.count)
        {
            *slot = at as u8;
            labels.count += 1;
            at += 1 + usize::from(len);
        }
        labels
    }

    /// Where the label is in the name.
    fn offset(&self, index: usize) -> Option<usize> {
        self.at.get(index).copied().map(usize::from)
    }

    /// The label with its length byte.
    fn get<'n>(&self, wire: &'n [u8], index: usize) -> Option<&'n [u8]> {
        let from_label = wire.get(self.offset(index)?..)?;
        from_label.get(..1 + usize::from(*from_label.first()?))
    }
}

fn slot_index(hash: u32, step: usize) -> usize {
    // The upper bits of a product are the mixed ones.
    ((hash >> 16) as usize + step) % SLOTS
}

/// FNV-1a over the lower-cased label with its length byte, continued from the suffix behind it.
/// Collisions that somebody made on purpose only cost compression (see [`MAX_PROBES`]).
fn hash_label(behind: u32, label: &[u8]) -> u32 {
    label.iter().fold(behind ^ 0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    /// Writes names as they are placed; returns how many bytes each took and its pointer.
    fn place_all(qname: &str, names: &[String]) -> Vec<(usize, Option<u16>)> {
        let qname = name(qname);
        let mut compressor = Compressor::new(&qname);
        let mut tail = Vec::new();
        let placed = names.iter().map(|text| {
            let written = Written { qname: qname.as_wire(), tail: &tail };
            let (len, pointer) = compressor.place(&name(text), written);
            tail.extend_from_slice(&name(text).as_wire()[..len]);
            tail.extend(pointer.unwrap_or(0).to_be_bytes());
            (len, pointer)
        });
        placed.collect()
    }

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_name_points_to_the_longest_suffix_before_it() {
        let names =
            texts(&["www.example.com", "WWW.example.COM", "a.Example.com", "b.a.example.com"]);
        let more = texts(&["net", "x.net", "com", ".", "ww.example.com"]);
        let placed = place_all("www.example.com", &[names, more].concat());
        let tail = 12 + 17 + 4;
        assert_eq!(placed[..2], [(0, Some(0xc00c)), (0, Some(0xc00c))]);
        assert_eq!(placed[2..4], [(2, Some(0xc010)), (2, Some(0xc000 | (tail + 4)))]);
        assert_eq!(placed[4..6], [(5, None), (2, Some(0xc000 | (tail + 12)))]);
        assert_eq!(placed[6..], [(0, Some(0xc018)), (1, None), (3, Some(0xc010))]);
    }

    /// The hash only says where to look: whoever finds two suffixes with the same one gains nothing.
    #[test]
    fn suffixes_of_the_same_hash_are_not_confused() {
        let mut seen = HashMap::new();
        let (one, other) = (0..1_000_000u32)
            .find_map(|number| {
                let label = format!("n{number:07}");
                let hash = hash_label(0, name(&label).as_wire().split_last().unwrap().1);
                seen.insert(hash, label.clone()).map(|earlier| (earlier, label))
            })
            .expect("a million labels collide in 32 bits");
        let below = |parent: &str| format!("below.{parent}");
        let placed = place_all("example", &[below(&one), below(&other), below(&other)]);
        assert_eq!(placed[0], (16, None), "{one} and {other}");
        assert_eq!(placed[1], (16, None), "{one} and {other}");
        let second_at = 12 + 9 + 4 + 16 + 2;
        assert_eq!(placed[2], (0, Some(0xc000 | second_at)));
    }

    #[test]
    fn no_more_is_remembered_and_matched_than_the_bounds_say() {
        let names: Vec<String> = (0..400).map(|number| format!("n{number}")).collect();
        let placed = place_all("example", &[names.clone(), names.clone()].concat());
        let found = placed[400..].iter().filter(|(_, pointer)| pointer.is_some()).count();
        assert!((100..MAX_TARGETS).contains(&found), "{found}");

        let deep = "x.".repeat(127);
        let placed = place_all("example", &vec![deep; 200]);
        let found = placed.iter().filter(|(_, pointer)| pointer.is_some()).count();
        assert_eq!(found, MAX_STEPS / 127 - 1);
    }
}
