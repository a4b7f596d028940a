//! The fuzz targets without a fuzzer: their functions over the committed corpus, over every packet cut
//! at every length, and over some thousand mutations that are the same in every run.

mod packets;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use swiftlet_parser::fuzz;

/// Mutations of each packet of the corpus.
const MUTATIONS: usize = 300;

fn corpus_dir(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

fn entry_point(target: &str) -> fn(&[u8]) {
    match target {
        "query" => fuzz::query,
        "response" => fuzz::response,
        "template_round_trip" => fuzz::template_round_trip,
        _ => panic!("no target {target}"),
    }
}

/// xorshift64*: reproducible, and good enough to choose bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() % bound.max(1)
    }

    /// Values that DNS gives a meaning to come more often than others.
    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 12] = [0, 1, 2, 12, 41, 63, 64, 0x80, 0xc0, 0xc1, 0xfe, 0xff];
        match self.below(2) {
            0 => TELLING[self.below(TELLING.len())],
            _ => self.next() as u8,
        }
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 if !bytes.is_empty() => {
                    let end = at + self.below(bytes.len() - at);
                    bytes.extend_from_within(at..end);
                }
                _ => {
                    let byte = self.byte();
                    if let Some(place) = bytes.get_mut(at) {
                        *place = byte;
                    }
                }
            }
        }
    }
}

#[test]
fn the_committed_corpus_is_what_the_packets_say() {
    for (target, named) in packets::corpora() {
        let names: BTreeSet<_> = named.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), named.len(), "{target}: every packet has its own name");
        for (name, packet) in named {
            let path = corpus_dir(target).join(name);
            let committed = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert_eq!(committed, packet, "{path:?}; see regenerate_the_corpus");
        }
    }
}

#[test]
#[ignore = "writes parser/fuzz/corpus: run it after a change of tests/packets"]
fn regenerate_the_corpus() {
    for (target, named) in packets::corpora() {
        fs::create_dir_all(corpus_dir(target)).unwrap();
        for (name, packet) in named {
            fs::write(corpus_dir(target).join(name), packet).unwrap();
        }
    }
}

/// Also takes in whatever a fuzzer has found and somebody has left there.
#[test]
fn every_file_of_the_corpus_passes() {
    for (target, _) in packets::corpora() {
        for file in fs::read_dir(corpus_dir(target)).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            entry_point(target)(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn every_packet_passes_when_cut_at_any_length() {
    for (target, named) in packets::corpora() {
        for (name, packet) in named {
            println!("{target}/{name}");
            for len in 0..packet.len().min(600) {
                entry_point(target)(&packet[..len]);
            }
        }
    }
}

#[test]
fn mutations_of_the_corpus_pass() {
    let mut random = Random(0x5357_4946_544c_4554);
    for (target, named) in packets::corpora() {
        for (name, packet) in named {
            for round in 0..MUTATIONS {
                let mut mutated = packet.clone();
                random.mutate(&mut mutated);
                println!("{target}/{name} round {round}: {mutated:02x?}");
                entry_point(target)(&mutated);
            }
        }
    }
}
