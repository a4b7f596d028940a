//! The fuzz targets without a fuzzer: their functions over the committed corpus, over all of it cut at
//! every length, and over some thousand mutations that are the same in every run.

#![cfg(feature = "af-xdp")]

mod frames;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use swiftlet_net::backend::xdp::fuzz;

/// Mutations of each file of the corpus.
const MUTATIONS: u32 = 300;

fn corpus_dir(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

fn entry_point(target: &str) -> fn(&[u8]) {
    match target {
        "frame" => fuzz::frame,
        "batch" => fuzz::batch,
        _ => panic!("no target {target}"),
    }
}

/// Inputs, each with its name.
type Named = Vec<(&'static str, Vec<u8>)>;

/// What the corpus of each target holds.
fn corpora() -> [(&'static str, Named); 2] {
    let frames = frames::named().into_iter().map(|(name, bytes, _)| (name, bytes));
    [("frame", frames.collect()), ("batch", frames::batches::named())]
}

#[test]
fn the_committed_corpus_is_what_the_frames_say() {
    for (target, named) in corpora() {
        let names: BTreeSet<_> = named.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), named.len(), "{target}: everything has its own name");
        for (name, bytes) in named {
            let path = corpus_dir(target).join(name);
            let committed = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert_eq!(committed, bytes, "{path:?}; see regenerate_the_corpus");
        }
    }
}

#[test]
#[ignore = "writes net/fuzz/corpus: run it after a change of tests/frames"]
fn regenerate_the_corpus() {
    for (target, named) in corpora() {
        fs::create_dir_all(corpus_dir(target)).unwrap();
        for (name, bytes) in named {
            fs::write(corpus_dir(target).join(name), bytes).unwrap();
        }
    }
}

/// Also takes in whatever a fuzzer has found and somebody has left there.
#[test]
fn every_file_of_the_corpus_passes() {
    for (target, _) in corpora() {
        for file in fs::read_dir(corpus_dir(target)).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            entry_point(target)(&fs::read(path).unwrap());
        }
    }
}

#[test]
fn everything_passes_when_cut_at_any_length() {
    for (target, named) in corpora() {
        for (name, bytes) in named {
            println!("{target}/{name}");
            for len in 0..bytes.len().min(400) {
                entry_point(target)(&bytes[..len]);
            }
        }
    }
}

#[test]
fn mutations_of_the_corpus_pass() {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let mut runner = TestRunner::deterministic();
    for (target, named) in corpora() {
        for (name, bytes) in named {
            for round in 0..MUTATIONS {
                let mut mutated = bytes.clone();
                for (at, byte) in edits.new_tree(&mut runner).unwrap().current() {
                    let at = at.index(mutated.len() + 1);
                    match mutated.get_mut(at) {
                        Some(place) => *place = byte,
                        None => mutated.push(byte),
                    }
                }
                println!("{target}/{name} round {round}: {mutated:02x?}");
                entry_point(target)(&mutated);
            }
        }
    }
}
