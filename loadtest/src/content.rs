//! What a sample of the answers holds, beyond the question that has matched already.

use swiftlet_parser::response::{Response, Section};
use swiftlet_parser::rr::Rcode;

/// What came of the answers that were looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Answers looked into.
    pub checked: u64,
    /// No well-formed response: QR clear, a record cut short, no single question.
    pub malformed: u64,
    /// NOERROR without a record in the answer section and without TC: the type doesn't exist, or
    /// the server has forgotten the answer.
    pub empty: u64,
}

/// What one answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Sound,
    Malformed,
    Empty,
}

impl Content {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.checked += 1;
        match finding {
            Finding::Sound => {}
            Finding::Malformed => self.malformed += 1,
            Finding::Empty => self.empty += 1,
        }
    }

    pub(crate) fn add_all(&mut self, other: Self) {
        self.checked += other.checked;
        self.malformed += other.malformed;
        self.empty += other.empty;
    }
}

pub(crate) fn check(reply: &[u8]) -> Finding {
    let Some(response) = Response::parse(reply).ok().filter(|response| response.flags().qr())
    else {
        return Finding::Malformed;
    };
    let has_answer = response.section(Section::Answer).next().is_some();
    if response.rcode() == Rcode::NOERROR && !has_answer && !response.flags().tc() {
        return Finding::Empty;
    }
    Finding::Sound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_apart() {
        let reply = |flags: [u8; 2], answers: u8, tail: &[u8]| {
            let header = [0, 7, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0];
            check(&[&header, &b"\x01a\0\0\x01\0\x01"[..], tail].concat())
        };
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x7f\0\0\x01";
        assert_eq!(reply([0x81, 0x80], 1, record), Finding::Sound);
        assert_eq!(reply([0x81, 0x80], 1, &record[..12]), Finding::Malformed);
        assert_eq!(reply([0x01, 0x00], 0, b""), Finding::Malformed, "a query");
        assert_eq!(reply([0x81, 0x80], 0, b""), Finding::Empty);
        assert_eq!(reply([0x83, 0x80], 0, b""), Finding::Sound, "TC");
        assert_eq!(reply([0x81, 0x83], 0, b""), Finding::Sound, "NXDOMAIN");
    }
}
