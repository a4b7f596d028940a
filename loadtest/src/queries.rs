//! Query files, and the packets built from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use swiftlet_parser::name::Name;
use swiftlet_parser::rr::{Class, Flags, HEADER_LEN, Type};

/// The most queries in one set. They are held in memory, at about 40 bytes each.
pub const MAX_QUERIES: usize = 10_000_000;

/// DNS queries as packets, one after the other, with ID 0, RD set and no EDNS.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    packets: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
}

impl Queries {
    /// Reads a file with one query a line: a domain name and, after white space, a type or its
    /// number; `A` if there is none. Empty lines and those that begin with `#` or `;` are skipped.
    pub fn from_file(path: &Path) -> Result<Self, QueriesError> {
        let bytes = fs::read(path)
            .map_err(|source| QueriesError::Unreadable { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// Queries of type A for these names.
    pub fn for_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, QueriesError> {
        let lines: Vec<&str> = names.into_iter().collect();
        Self::from_bytes(lines.join("\n").as_bytes(), Path::new("names"))
    }

    fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, QueriesError> {
        let mut queries = Self::default();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") {
                continue;
            }
            queries.push_line(line).map_err(|reason| QueriesError::Line {
                path: path.to_owned(),
                line: index + 1,
                text: String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned(),
                reason,
            })?;
        }
        if queries.is_empty() {
            return Err(QueriesError::Empty { path: path.to_owned() });
        }
        Ok(queries)
    }

    fn push_line(&mut self, line: &[u8]) -> Result<(), String> {
        if self.len() == MAX_QUERIES {
            return Err(format!("more than {MAX_QUERIES} queries"));
        }
        let line = str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
        let mut words = line.split_ascii_whitespace();
        let (name, qtype) = (words.next().unwrap_or("."), words.next().unwrap_or("A"));
        if words.next().is_some() {
            return Err("more than a name and a type".to_owned());
        }
        let name = Name::from_text(name).map_err(|error| error.to_string())?;
        let number = || qtype.parse().ok().map(Type);
        let qtype = Type::from_text(qtype)
            .or_else(number)
            .ok_or_else(|| format!("unknown type {qtype}"))?;
        self.push(&name, qtype);
        Ok(())
    }

    fn push(&mut self, name: &Name, qtype: Type) {
        let [flags_high, flags_low] = Flags::RD.to_be_bytes();
        let header: [u8; HEADER_LEN] = [0, 0, flags_high, flags_low, 0, 1, 0, 0, 0, 0, 0, 0];
        self.packets.extend_from_slice(&header);
        self.packets.extend_from_slice(name.as_wire());
        self.packets.extend_from_slice(&qtype.0.to_be_bytes());
        self.packets.extend_from_slice(&Class::IN.0.to_be_bytes());
        self.ends.push(self.packets.len());
    }

    /// How many there are; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Never true of a set that was read or built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The packet at `index`, which is below [`Queries::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.packets[start..self.ends[index]]
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
    /// There is no query in it.
    #[error("{}: no query in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use swiftlet_parser::query;

    use super::*;

    fn read(text: &[u8]) -> Result<Queries, QueriesError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text).expect("written");
        Queries::from_file(file.path())
    }

    #[test]
    fn a_file_becomes_packets_that_the_parser_accepts() {
        let queries = read(
            b"# names\nexample.com\n\n; more\r\nWWW.example.com. AAAA\r\n. NS\nx TYPE65\ny 16",
        )
        .expect("valid");
        let expected: [(&[u8], Type); 5] = [
            (b"\x07example\x03com\0", Type::A),
            (b"\x03WWW\x07example\x03com\0", Type::AAAA),
            (b"\0", Type::NS),
            (b"\x01x\0", Type(65)),
            (b"\x01y\0", Type::TXT),
        ];
        assert_eq!(queries.len(), expected.len());
        for (index, (qname, qtype)) in expected.into_iter().enumerate() {
            let packet = queries.get(index);
            let facts = query::parse(packet).expect("a query");
            assert_eq!((facts.qname(packet), facts.qtype), (qname, qtype));
            assert_eq!(facts.question_end(), packet.len());
            assert!(facts.recursion_desired());
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in ["a..b", "name A B", "name NOTYPE", "name 65536", &"x".repeat(64), "\u{e9}\u{0}"]
        {
            let text = format!("good.example\n\n{bad}\n");
            match read(text.as_bytes()) {
                Err(QueriesError::Line { line: 3, .. }) => {}
                Ok(queries) if bad == "\u{e9}\u{0}" => assert_eq!(queries.len(), 2),
                other => panic!("{bad}: {other:?}"),
            }
        }
        assert!(matches!(read(b"ok\n\xff\xff"), Err(QueriesError::Line { line: 2, .. })));
    }

    #[test]
    fn no_query_and_no_file_are_errors() {
        assert!(matches!(read(b"# nothing\n\n"), Err(QueriesError::Empty { .. })));
        let missing = Queries::from_file(Path::new("/nonexistent/queries"));
        let message = missing.expect_err("no such file").to_string();
        assert!(message.contains("/nonexistent/queries"), "{message}");
    }
}
