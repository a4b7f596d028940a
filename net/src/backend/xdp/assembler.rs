//! An assembler for BPF: named instructions and labels, jumps forward only, so that a program ends.
//!
//! A `W` at the end of a name says that the instruction works on the lower 32 bits of its register.

use crate::sys::bpf::Insn;

/// A register. A call overwrites [`R0`](Reg::R0) to [`R5`](Reg::R5).
#[derive(Clone, Copy, Debug)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    /// The end of the stack's 512 bytes; cannot be written.
    Frame = 10,
}

/// Bytes that a load or a store moves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

/// A place to jump to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label(usize);

/// A program under construction.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Insn>,
    /// Where each label is.
    places: Vec<Option<usize>>,
    /// The instructions that jump, and whereto.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label that has no place yet.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The next instruction is what this label stands for.
    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.instructions.len());
    }

    /// `to = from`
    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        self.push(0xbf, to, from, 0, 0);
    }

    /// `to = value`
    pub(super) fn set(&mut self, to: Reg, value: i32) {
        self.push(0xb7, to, Reg::R0, 0, value);
    }

    /// `to = value`, of 64 bits; one instruction, with the room of two.
    pub(super) fn set_double(&mut self, to: Reg, value: u64) {
        self.push(0x18, to, Reg::R0, 0, value as u32 as i32);
        self.push(0, Reg::R0, Reg::R0, 0, (value >> 32) as u32 as i32);
    }

    /// `to = the map of this descriptor`
    pub(super) fn set_map(&mut self, to: Reg, map: i32) {
        // The source register BPF_PSEUDO_MAP_FD says what the value is.
        self.push(0x18, to, Reg::R1, 0, map);
        self.push(0, Reg::R0, Reg::R0, 0, 0);
    }

    /// `to += value`
    pub(super) fn add(&mut self, to: Reg, value: i32) {
        self.push(0x07, to, Reg::R0, 0, value);
    }

    /// `to &= value`
    pub(super) fn and_w(&mut self, to: Reg, value: i32) {
        self.push(0x54, to, Reg::R0, 0, value);
    }

    /// `to = *(base + offset)`, the upper bits zero
    pub(super) fn load(&mut self, size: Size, to: Reg, base: Reg, offset: i16) {
        self.push(0x61 | size as u8, to, base, offset, 0);
    }

    /// `*(base + offset) = from`
    pub(super) fn store(&mut self, size: Size, base: Reg, offset: i16, from: Reg) {
        self.push(0x63 | size as u8, base, from, offset, 0);
    }

    /// `*(base + offset) = value`
    pub(super) fn store_value(&mut self, size: Size, base: Reg, offset: i16, value: i32) {
        self.push(0x62 | size as u8, base, Reg::R0, offset, value);
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.branch(0x05, Reg::R0, Reg::R0, 0, label);
    }

    /// Jumps if `a > b`, as addresses are compared.
    pub(super) fn jump_above(&mut self, a: Reg, b: Reg, label: Label) {
        self.branch(0x2d, a, b, 0, label);
    }

    /// Jumps if `a == b`.
    pub(super) fn jump_equal(&mut self, a: Reg, b: Reg, label: Label) {
        self.branch(0x1d, a, b, 0, label);
    }

    /// Jumps if `a != b`.
    pub(super) fn jump_unequal(&mut self, a: Reg, b: Reg, label: Label) {
        self.branch(0x5d, a, b, 0, label);
    }

    /// Jumps if `a == 0`.
    pub(super) fn jump_zero(&mut self, a: Reg, label: Label) {
        self.branch(0x15, a, Reg::R0, 0, label);
    }

    /// Jumps if `a == value`.
    pub(super) fn jump_equal_w(&mut self, a: Reg, value: i32, label: Label) {
        self.branch(0x16, a, Reg::R0, value, label);
    }

    /// Jumps if `a != value`.
    pub(super) fn jump_unequal_w(&mut self, a: Reg, value: i32, label: Label) {
        self.branch(0x56, a, Reg::R0, value, label);
    }

    /// `R0 = helper(R1, R2, ..)`
    pub(super) fn call(&mut self, helper: i32) {
        self.push(0x85, Reg::R0, Reg::R0, 0, helper);
    }

    /// Ends the program with what is in `R0`.
    pub(super) fn exit(&mut self) {
        self.push(0x95, Reg::R0, Reg::R0, 0, 0);
    }

    /// The program. Panics if a label has no place or one too far away: a mistake in what was
    /// assembled, whose length is bounded.
    pub(super) fn finish(mut self) -> Vec<Insn> {
        for (at, label) in self.jumps {
            let place = self.places[label.0].expect("each label is placed");
            let distance = place as i64 - (at as i64 + 1);
            self.instructions[at].offset = i16::try_from(distance).expect("a short program");
        }
        self.instructions
    }

    fn branch(&mut self, code: u8, a: Reg, b: Reg, value: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.push(code, a, b, 0, value);
    }

    fn push(&mut self, code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) {
        let (to, from) = (to as u8, from as u8);
        // The kernel's structure has two bit fields here.
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        self.instructions.push(Insn { code, registers, offset, immediate });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_counts_from_the_instruction_behind_it() {
        let mut program = Assembler::default();
        let (near, far) = (program.label(), program.label());
        program.jump_zero(Reg::R3, far);
        program.jump(near);
        program.place(near);
        program.set_double(Reg::R2, 0x1_0000_0002);
        program.place(far);
        program.exit();
        let program = program.finish();
        let offsets: Vec<_> = program.iter().map(|insn| insn.offset).collect();
        assert_eq!(offsets, [3, 0, 0, 0, 0]);
        assert_eq!((program[2].immediate, program[3].immediate), (2, 1));
    }
}
