//! The Block options (RFC 7959 section 2.2). Of our own, for that of `coap-lite` has 12 bits for the number of a block: in
//! blocks of 16 bytes no more than 64 KiB.

/// Exponent of the largest block, 1,024 bytes: with the options it fits the datagram that RFC 7252 section 4.6 takes for safe.
pub const EXPONENT_MAX: u8 = 6;
/// Highest number of a block: 20 bits.
const NUMBER_MAX: u32 = (1 << 20) - 1;

/// A block of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub number: u32,
    /// Others follow.
    pub more: bool,
    /// 0 to [`EXPONENT_MAX`].
    pub exponent: u8,
}

impl Block {
    /// Reads an option; `None` if it is none. Exponent 7 is reserved.
    pub fn read(option: &[u8]) -> Option<Self> {
        if option.len() > 3 {
            return None;
        }
        let value = option.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        let exponent = (value & 7) as u8;
        (exponent <= EXPONENT_MAX).then_some(Self { number: value >> 4, more: value & 8 != 0, exponent })
    }

    /// The option, without leading zeros (RFC 7252 section 3.2).
    pub fn write(self) -> Vec<u8> {
        uint(self.number << 4 | u32::from(self.more) << 3 | u32::from(self.exponent))
    }

    /// Bytes of the block, the last one of a body aside.
    pub fn bytes(self) -> usize {
        16 << self.exponent
    }

    /// Where in the body it begins.
    pub fn offset(self) -> usize {
        self.number as usize * self.bytes()
    }

    /// Block `number` in this size of a body of so many bytes; `None` if the body has no such block.
    pub fn of(self, number: u32, body_bytes: usize) -> Option<Self> {
        let block = Self { number, more: false, exponent: self.exponent };
        let last = number == 0 || block.offset() < body_bytes;
        let more = block.offset() + block.bytes() < body_bytes;
        (number <= NUMBER_MAX && last).then_some(Self { more, ..block })
    }
}

/// A number as an option has it.
pub fn uint(value: u32) -> Vec<u8> {
    value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_are_read_as_the_examples_of_the_specification_have_them() {
        let block = |number, more, exponent| Some(Block { number, more, exponent });
        assert_eq!(Block::read(&[]), block(0, false, 0));
        assert_eq!(Block::read(&[0x0e]), block(0, true, 6));
        assert_eq!(Block::read(&[0x22]), block(2, false, 2));
        assert_eq!(Block::read(&[0xff, 0xff, 0xf6]), block(NUMBER_MAX, false, 6));
        assert_eq!(Block::read(&[0x07]), None, "reserved");
        assert_eq!(Block::read(&[0, 0, 0, 0]), None, "too long");
    }

    #[test]
    fn a_body_has_blocks_up_to_its_end() {
        let size = Block { number: 0, more: false, exponent: 0 };
        let more = |number, bytes| size.of(number, bytes).map(|block| block.more);
        assert_eq!(
            [more(0, 0), more(0, 16), more(0, 17), more(1, 17)],
            [Some(false), Some(false), Some(true), Some(false)]
        );
        assert_eq!([more(1, 16), more(2, 17), size.of(NUMBER_MAX + 1, usize::MAX).map(|b| b.more)], [None; 3]);
    }

    proptest! {
        #[test]
        fn an_option_is_read_as_it_was_written(number in 0..=NUMBER_MAX, more: bool, exponent in 0..=EXPONENT_MAX) {
            let block = Block { number, more, exponent };
            prop_assert!(block.write().first() != Some(&0));
            prop_assert_eq!(Block::read(&block.write()), Some(block));
        }
    }
}
