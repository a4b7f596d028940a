//! The fuzz targets without a fuzzer: their functions over the committed corpus, over every frame cut
//! at every length, and over some thousand mutations that are the same in every run.

#![cfg(feature = "af-xdp")]

mod frames;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use swiftlet_net::fuzz;

/// Mutations of each frame of the corpus.
const MUTATIONS: u32 = 300;

fn corpus_dir(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

#[test]
fn the_committed_corpus_is_what_the_frames_say() {
    let named = frames::named();
    let names: BTreeSet<_> = named.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), named.len(), "every frame has its own name");
    for (name, frame, _) in named {
        let path = corpus_dir("frame").join(name);
        let committed = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(committed, frame, "{path:?}; see regenerate_the_corpus");
    }
}

#[test]
#[ignore = "writes net/fuzz/corpus: run it after a change of tests/frames"]
fn regenerate_the_corpus() {
    fs::create_dir_all(corpus_dir("frame")).unwrap();
    for (name, frame, _) in frames::named() {
        fs::write(corpus_dir("frame").join(name), frame).unwrap();
    }
}

/// Also takes in whatever a fuzzer has found and somebody has left there.
#[test]
fn every_file_of_the_corpus_passes() {
    for file in fs::read_dir(corpus_dir("frame")).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        fuzz::frame(&fs::read(path).unwrap());
    }
}

#[test]
fn every_frame_passes_when_cut_at_any_length() {
    for (name, frame, _) in frames::named() {
        println!("{name}");
        for len in 0..frame.len().min(200) {
            fuzz::frame(&frame[..len]);
        }
    }
}

#[test]
fn mutations_of_the_corpus_pass() {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let mut runner = TestRunner::deterministic();
    for (name, frame, _) in frames::named() {
        for round in 0..MUTATIONS {
            let edits = edits.new_tree(&mut runner).unwrap().current();
            let mut mutated = frame.clone();
            for (at, byte) in edits {
                let at = at.index(mutated.len() + 1);
                match mutated.get_mut(at) {
                    Some(place) => *place = byte,
                    None => mutated.push(byte),
                }
            }
            println!("{name} round {round}: {mutated:02x?}");
            fuzz::frame(&mutated);
        }
    }
}
