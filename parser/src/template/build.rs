//! The making of a template from the records of a response that were found worth keeping.
//!
//! Nothing is copied from the response as it stands: names are decompressed and written again, so that
//! no pointer reaches into what was left out. The owner is compressed against the question's name and
//! everything before it; a name in RDATA only in the types of RFC 1035 (RFC 3597 §4). RDATA of
//! types that hold no compressed name, known or unknown, is copied byte for byte.
//!
//! Bounds: the tail with header, question and an empty OPT record is at most 65535 bytes; the work is
//! linear in the labels of the source's names (see [`super::compress`]).

use super::compress::{Compressor, Written, tail_at};
use super::{HEAD_LEN, RCODE_MASK, SECURE};
use crate::edns::OPT_LEN;
use crate::name::Name;
use crate::rdata::{self, Field};
use crate::response::Record;
use crate::rr::Rcode;

/// The longest message of any transport: TCP has a length of 16 bits (RFC 1035 §4.2.2).
const MAX_MESSAGE_LEN: usize = 65535;

/// What goes into a template. The records are sent in the order given here: a CNAME chain belongs at
/// the start of the answer, in the order it is followed.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a, 'm> {
    /// The name of the question in wire format, lower-cased as in the key.
    pub qname: &'a [u8],
    /// The response code, up to twelve bits.
    pub rcode: Rcode,
    /// Whether the upstream had validated the answer (AD).
    pub secure: bool,
    /// The answer section.
    pub answer: &'a [Record<'m>],
    /// The authority section.
    pub authority: &'a [Record<'m>],
    /// The additional section, OPT left out.
    pub additional: &'a [Record<'m>],
}

/// Why a response cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The name of the question is not one name in wire format.
    Qname,
    /// An owner name cannot be decompressed.
    Owner,
    /// RDATA of a type with a known layout does not have it.
    Rdata,
    /// A type that is never data (RFC 6895 §3.1), such as OPT and TSIG.
    MetaType,
    /// The reply would be longer than 65535 bytes.
    TooLong,
}

/// Writes the template of an answer over whatever is in `out`. After an error `out` is empty.
///
/// The TTL that is stored is [`Record::ttl`] as it is in the source.
pub fn build(source: &Source<'_, '_>, out: &mut Vec<u8>) -> Result<(), BuildError> {
    out.clear();
    let built = write_template(source, out);
    if built.is_err() {
        out.clear();
    }
    built
}

fn write_template(source: &Source<'_, '_>, out: &mut Vec<u8>) -> Result<(), BuildError> {
    let qname = Name::from_wire(source.qname).ok_or(BuildError::Qname)?;
    let sections = [source.answer, source.authority, source.additional];
    let records: usize = sections.iter().map(|section| section.len()).sum();
    let record_count = u16::try_from(records).map_err(|_| BuildError::TooLong)?;
    let records_iter = || sections.into_iter().flatten();

    // Each count is at most the sum of all three, which was just seen to fit.
    let [answers, authorities, additionals] = sections.map(|section| section.len() as u16);
    for count in [1, answers, authorities, additionals] {
        out.extend_from_slice(&count.to_be_bytes());
    }
    let status = source.rcode.0 & RCODE_MASK | if source.secure { SECURE } else { 0 };
    let min_ttl = records_iter().map(|record| record.ttl).min();
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(&record_count.to_le_bytes());
    out.extend_from_slice(&min_ttl.unwrap_or(u32::MAX).to_le_bytes());
    out.resize(HEAD_LEN + 2 * records, 0);

    let mut writer = TailWriter {
        tail_from: out.len(),
        out,
        compressor: Compressor::new(&qname),
        qname: &qname,
    };
    for (index, record) in records_iter().enumerate() {
        let ttl_at = writer.record(record)?;
        writer.patch(HEAD_LEN + 2 * index, ttl_at.to_le_bytes());
    }
    Ok(())
}

/// Appends records to the tail.
struct TailWriter<'o, 'q> {
    out: &'o mut Vec<u8>,
    /// Where the tail begins in `out`.
    tail_from: usize,
    compressor: Compressor,
    qname: &'q Name,
}

impl TailWriter<'_, '_> {
    /// Writes a record; returns where in the tail its TTL is.
    fn record(&mut self, record: &Record<'_>) -> Result<u16, BuildError> {
        if record.rtype.is_meta() {
            return Err(BuildError::MetaType);
        }
        let owner = record.owner().ok_or(BuildError::Owner)?;
        self.compressed_name(&owner);
        self.out.extend_from_slice(&record.rtype.0.to_be_bytes());
        self.out.extend_from_slice(&record.class.0.to_be_bytes());
        let ttl_at = self.tail_len();
        self.out.extend_from_slice(&record.ttl.to_be_bytes());

        let rdlength_at = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        self.rdata(record)?;
        let rdlength = self.out.len() - rdlength_at - 2;

        let qname_len = self.qname.as_wire().len();
        if tail_at(qname_len) + self.tail_len() + OPT_LEN > MAX_MESSAGE_LEN {
            return Err(BuildError::TooLong);
        }
        // Both are parts of a tail that was just seen to be short enough.
        self.patch(rdlength_at, (rdlength as u16).to_be_bytes());
        Ok(ttl_at as u16)
    }

    /// Writes RDATA part by part; all of it must be used up.
    fn rdata(&mut self, record: &Record<'_>) -> Result<(), BuildError> {
        let rdata = record.rdata();
        let mut at = 0;
        for field in rdata::layout(record.rtype, record.class) {
            let len = match field {
                Field::CompressibleName | Field::PlainName => {
                    let (name, end) = record.rdata_name_and_end(at).ok_or(BuildError::Rdata)?;
                    if *field == Field::CompressibleName {
                        self.compressed_name(&name);
                    } else {
                        self.out.extend_from_slice(name.as_wire());
                    }
                    at = end;
                    continue;
                }
                Field::Bytes(len) => *len,
                Field::CharacterString => 1 + usize::from(*rdata.get(at).ok_or(BuildError::Rdata)?),
                Field::Rest => rdata.len().saturating_sub(at),
            };
            let bytes = rdata.get(at..at + len).ok_or(BuildError::Rdata)?;
            self.out.extend_from_slice(bytes);
            at += len;
        }
        if at == rdata.len() { Ok(()) } else { Err(BuildError::Rdata) }
    }

    fn compressed_name(&mut self, name: &Name) {
        let written = Written {
            qname: self.qname.as_wire(),
            tail: self.out.get(self.tail_from..).unwrap_or_default(),
        };
        let (literal_len, pointer) = self.compressor.place(name, written);
        let wire = name.as_wire();
        self.out.extend_from_slice(wire.get(..literal_len).unwrap_or(wire));
        if let Some(pointer) = pointer {
            self.out.extend_from_slice(&pointer.to_be_bytes());
        }
    }

    fn tail_len(&self) -> usize {
        self.out.len() - self.tail_from
    }

    /// Overwrites two bytes of `out` that were left for it.
    fn patch(&mut self, at: usize, bytes: [u8; 2]) {
        let place = self.out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>());
        if let Some(place) = place {
            *place = bytes;
        }
    }
}
