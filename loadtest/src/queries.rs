//! Query files, and the packets built from them.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use swiftlet_parser::name::Name;
use swiftlet_parser::query;
use swiftlet_parser::rr::{Class, Flags, HEADER_LEN, Type};

use crate::order::{Alias, Cursor, Order, Part};
use crate::pcap;
use crate::random::{Random, mix};

/// The most queries in one set. They are held in memory, at about 50 bytes each.
pub const MAX_QUERIES: usize = 10_000_000;

/// The longest query that is sent: what a recorded one may have in options beside its name.
pub(crate) const MAX_QUERY_LEN: usize = 1024;

/// Letters of a label that is never asked twice; 13 hold 64 bits in base 32.
const FRESH_LABEL_LEN: usize = 13;

/// DNS queries as packets, one after the other, with ID 0, and the order they are asked in.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    packets: Vec<u8>,
    places: Vec<Place>,
    parts: Vec<Part>,
    seed: u64,
    passed_over: usize,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
struct Place {
    end: usize,
    question_len: u16,
    /// The first label is written anew each time the query is sent.
    is_fresh: bool,
}

/// How queries are built, beside their names and types.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// The UDP payload size told in an OPT record; none is sent if left out.
    pub edns: Option<u16>,
    /// Sets DO. An OPT record is sent then, with 1232 as the size unless another is given.
    pub dnssec_ok: bool,
    /// Share of the queries with letters of random case (0x20), from 0 to 1.
    pub case_share: f64,
    /// What all that is random follows from.
    pub seed: u64,
}

impl Queries {
    /// Reads a file with one query a line: a domain name and, after white space, a type or its
    /// number; `A` if there is none. Empty lines and those that begin with `#` or `;` are skipped.
    pub fn from_file(path: &Path) -> Result<Self, QueriesError> {
        let mut builder = Builder::new(Shape::default());
        builder.add_file(path, 1.0)?;
        Ok(builder.build())
    }

    /// Queries of type A for these names.
    pub fn for_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, QueriesError> {
        let lines: Vec<&str> = names.into_iter().collect();
        let mut builder = Builder::new(Shape::default());
        builder.add_lines(lines.join("\n").as_bytes(), Path::new("names"), 1.0)?;
        Ok(builder.build())
    }

    /// How many there are; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Never true of a set that was read or built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Packets of pcap files that are no queries over UDP to port 53, or cannot be sent.
    #[must_use]
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// The packet at `index`, which is below [`Queries::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.places[index - 1].end };
        &self.packets[start..self.places[index].end]
    }

    /// Length of the longest packet.
    pub(crate) fn longest(&self) -> usize {
        (0..self.len()).map(|index| self.get(index).len()).max().unwrap_or_default()
    }

    /// Where the `index`th of `threads` threads begins to take queries, in a run of this number.
    pub(crate) fn cursor(&self, index: usize, threads: usize, run: u64) -> Cursor<'_> {
        Cursor::new(&self.parts, self.seed ^ mix(run), index, threads)
    }

    /// Writes a query with this ID to the beginning of `buf` and returns its length. `serial` makes
    /// the label of a name that is never asked twice.
    pub(crate) fn write(&self, index: usize, serial: u64, id: u16, buf: &mut [u8]) -> usize {
        let packet = self.get(index);
        buf[..packet.len()].copy_from_slice(packet);
        buf[..2].copy_from_slice(&id.to_be_bytes());
        if self.places[index].is_fresh {
            let label = self.fresh_label(serial);
            buf[HEADER_LEN + 1..][..FRESH_LABEL_LEN].copy_from_slice(&label);
        }
        packet.len()
    }

    /// Whether `reply` repeats the question of the query that was written so.
    pub(crate) fn is_question_of(&self, index: usize, serial: u64, reply: &[u8]) -> bool {
        let place = self.places[index];
        let question = &self.get(index)[HEADER_LEN..HEADER_LEN + usize::from(place.question_len)];
        let Some(reply) = reply.get(HEADER_LEN..) else {
            return false;
        };
        if !place.is_fresh {
            return reply.starts_with(question);
        }
        let label_end = 1 + FRESH_LABEL_LEN;
        reply.get(1..label_end) == Some(self.fresh_label(serial).as_slice())
            && reply[label_end..].starts_with(&question[label_end..])
    }

    fn fresh_label(&self, serial: u64) -> [u8; FRESH_LABEL_LEN] {
        // A bijection of the serial, so that no label comes twice.
        let number = mix(serial ^ mix(self.seed));
        let mut shift = 0;
        [(); FRESH_LABEL_LEN].map(|()| {
            let digit = (number >> shift & 31) as usize;
            shift += 5;
            b"abcdefghijklmnopqrstuvwxyz234567"[digit]
        })
    }
}

/// Builds a set from one or several sources, each with its share of what is asked.
#[derive(Debug)]
pub struct Builder {
    queries: Queries,
    shape: Shape,
    random: Random,
}

impl Builder {
    /// Starts an empty set.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let queries = Queries { seed: shape.seed, ..Queries::default() };
        // No thread has this stream.
        Self { queries, shape, random: Random::new(shape.seed, u64::MAX - 1) }
    }

    /// Adds a query file, as [`Queries::from_file`] reads it.
    pub fn add_file(&mut self, path: &Path, share: f64) -> Result<(), QueriesError> {
        let bytes = fs::read(path)
            .map_err(|source| QueriesError::Unreadable { path: path.to_owned(), source })?;
        self.add_lines(&bytes, path, share)
    }

    /// Adds the queries to port 53 that a pcap file recorded, as they were sent but for their ID.
    pub fn add_pcap(&mut self, path: &Path, share: f64) -> Result<(), QueriesError> {
        let bytes = fs::read(path)
            .map_err(|source| QueriesError::Unreadable { path: path.to_owned(), source })?;
        let start = self.queries.len();
        let recording = |reason| QueriesError::Recording { path: path.to_owned(), reason };
        for packet in pcap::queries(&bytes).map_err(recording)? {
            let packet = packet.map_err(recording)?.filter(|packet| packet.len() <= MAX_QUERY_LEN);
            let query = packet.and_then(|packet| Some((packet, query::parse(packet).ok()?)));
            let Some((packet, facts)) = query.filter(|_| self.queries.len() < MAX_QUERIES) else {
                self.queries.passed_over += 1;
                continue;
            };
            self.queries.packets.extend_from_slice(&[0, 0]);
            self.queries.packets.extend_from_slice(&packet[2..]);
            self.end_packet(facts.question_end() - HEADER_LEN, false);
        }
        self.end_part(start, Order::InTurn, share, path)
    }

    /// Adds the `count` names `n0`, `n1` and so on under a suffix, of type A, drawn from a Zipf
    /// distribution with this exponent; 0 draws all of them alike.
    pub fn add_names(
        &mut self,
        count: usize,
        exponent: f64,
        suffix: &str,
        share: f64,
    ) -> Result<(), QueriesError> {
        let start = self.queries.len();
        for number in 0..count.min(MAX_QUERIES - start) {
            let name = Self::name(&format!("n{number}.{suffix}"))?;
            self.push(&name, Type::A, false);
        }
        let order = if exponent == 0.0 {
            Order::Uniform
        } else {
            Order::Weighted(Arc::new(Alias::zipf(self.queries.len() - start, exponent)))
        };
        self.end_part(start, order, share, Path::new("built-in names"))
    }

    /// Adds names under a suffix that are never asked twice, of type A.
    pub fn add_fresh_names(&mut self, suffix: &str, share: f64) -> Result<(), QueriesError> {
        let start = self.queries.len();
        let name = Self::name(&format!("{}.{suffix}", "x".repeat(FRESH_LABEL_LEN)))?;
        self.push(&name, Type::A, true);
        self.end_part(start, Order::InTurn, share, Path::new("random names"))
    }

    /// The set.
    #[must_use]
    pub fn build(self) -> Queries {
        self.queries
    }

    fn name(text: &str) -> Result<Name, QueriesError> {
        let text = if text.ends_with("..") { &text[..text.len() - 1] } else { text };
        Name::from_text(text).map_err(|error| QueriesError::Name {
            name: text.to_owned(),
            reason: error.to_string(),
        })
    }

    fn add_lines(&mut self, bytes: &[u8], path: &Path, share: f64) -> Result<(), QueriesError> {
        let start = self.queries.len();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
                continue;
            }
            self.push_line(line).map_err(|reason| QueriesError::Line {
                path: path.to_owned(),
                line: index + 1,
                text: String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned(),
                reason,
            })?;
        }
        self.end_part(start, Order::InTurn, share, path)
    }

    fn push_line(&mut self, line: &[u8]) -> Result<(), String> {
        if self.queries.len() == MAX_QUERIES {
            return Err(format!("more than {MAX_QUERIES} queries"));
        }
        let line = str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
        let is_space = |character: char| character.is_ascii_whitespace();
        let (name, rest) = line.split_once(is_space).unwrap_or((line, ""));
        let mut words = rest.split_ascii_whitespace();
        let qtype = words.next().unwrap_or("A");
        if words.next().is_some() {
            return Err("more than a name and a type".to_owned());
        }
        let name = Name::from_text(name).map_err(|error| error.to_string())?;
        let number = || qtype.parse().ok().map(Type);
        let qtype = Type::from_text(qtype)
            .or_else(number)
            .ok_or_else(|| format!("unknown type {qtype}"))?;
        self.push(&name, qtype, false);
        Ok(())
    }

    fn push(&mut self, name: &Name, qtype: Type, is_fresh: bool) {
        let has_opt = self.shape.edns.is_some() || self.shape.dnssec_ok;
        let [flags_high, flags_low] = Flags::RD.to_be_bytes();
        let header: [u8; HEADER_LEN] =
            [0, 0, flags_high, flags_low, 0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)];
        let packets = &mut self.queries.packets;
        packets.extend_from_slice(&header);
        let mixed = self.shape.case_share > 0.0 && self.random.unit() < self.shape.case_share;
        for &byte in name.as_wire() {
            // No length of a label is a letter: 63 is below `A`.
            let flips = mixed && byte.is_ascii_alphabetic() && self.random.next() >> 63 == 1;
            packets.push(if flips { byte ^ 0x20 } else { byte });
        }
        packets.extend_from_slice(&qtype.0.to_be_bytes());
        packets.extend_from_slice(&Class::IN.0.to_be_bytes());
        if has_opt {
            let [size_high, size_low] = self.shape.edns.unwrap_or(1232).to_be_bytes();
            let dnssec_ok = u8::from(self.shape.dnssec_ok) << 7;
            packets.extend_from_slice(&[0, 0, 41, size_high, size_low, 0, 0, dnssec_ok, 0, 0, 0]);
        }
        self.end_packet(name.as_wire().len() + 4, is_fresh);
    }

    fn end_packet(&mut self, question_len: usize, is_fresh: bool) {
        let end = self.queries.packets.len();
        let question_len = question_len as u16;
        self.queries.places.push(Place { end, question_len, is_fresh });
    }

    fn end_part(
        &mut self,
        start: usize,
        order: Order,
        share: f64,
        source: &Path,
    ) -> Result<(), QueriesError> {
        let range: Range<usize> = start..self.queries.len();
        if range.is_empty() {
            return Err(QueriesError::Empty { path: source.to_owned() });
        }
        self.queries.parts.push(Part { range, order, share });
        Ok(())
    }
}

/// Why a query file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueriesError {
    /// The file cannot be read.
    #[error("cannot read the query file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not a query.
    #[error(
        "{}:{line}: {reason}: \"{text}\" (a line is a name and an optional type)",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The line, or its beginning.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name cannot be built from a suffix.
    #[error("{name} is no domain name: {reason}")]
    Name {
        /// What it would be.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is no pcap file.
    #[error("{}: {reason}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no query in it.
    #[error("{}: no query in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests;
