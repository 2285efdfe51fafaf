//! Whether a peer has said that it leaves: a GOAWAY among the frames of its HTTP/2. A server that hears one closes the connection
//! itself, before it sees that the peer has.

/// Length, type, flags and stream of a frame.
const HEADER: usize = 9;
const GOAWAY: u8 = 7;

/// Follows the frames of one peer, behind the preface.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes of the present frame that are still to come.
    payload: usize,
    said: bool,
}

impl Farewell {
    /// Takes the next bytes, however they are cut.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.said {
            let (frame, rest) = bytes.split_at(self.payload.min(bytes.len()));
            self.payload -= frame.len();
            let mut room = self.header.iter_mut().skip(self.filled);
            let header = rest.iter().zip(&mut room).map(|(byte, place)| *place = *byte).count();
            bytes = rest.get(header..).unwrap_or_default();
            self.filled += header;
            if self.filled == HEADER {
                let [high, middle, low, kind, ..] = self.header;
                self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                self.filled = 0;
                self.said = kind == GOAWAY;
            }
        }
    }

    /// Whether it has.
    pub(super) const fn is_said(&self) -> bool {
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    proptest! {
        #[test]
        fn a_farewell_is_heard_however_the_bytes_are_cut_and_nothing_else_is_one(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            kinds in prop::collection::vec(prop_oneof![0_u8..7, 8_u8..10], 6),
            cuts in prop::collection::vec(1_usize..200, 1..50),
            leaves in any::<bool>(),
        ) {
            let mut bytes: Vec<u8> =
                payloads.iter().zip(kinds).flat_map(|(payload, kind)| frame(kind, payload)).collect();
            if leaves {
                bytes.extend(frame(GOAWAY, &[0; 8]));
            }
            let mut farewell = Farewell::default();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, later) = rest.split_at((*cut).min(rest.len()));
                farewell.hear(part);
                rest = later;
            }
            prop_assert_eq!(farewell.is_said(), leaves);
        }
    }
}
