//! Bytes taken from the front of a binary payload, each read checked: what Avro and protobuf have in common.

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    EndsEarly,
    LongNumber,
    NotText,
    NoSuchVariant,
    TooDeep,
    TooMany,
    Left,
    WireType,
    Group,
}

impl Broken {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::EndsEarly => "it ends within a field",
            Self::LongNumber => "a number has more bytes than its type allows",
            Self::NotText => "a text is not UTF-8",
            Self::NoSuchVariant => "it names a variant that its schema does not have",
            Self::TooDeep => "it is nested too deeply",
            Self::TooMany => "a list has more items than the payload can hold",
            Self::Left => "bytes are left behind its end",
            Self::WireType => "a field is written as another type than its schema says",
            Self::Group => "a group ends that did not begin",
        }
    }
}

/// The rest of a payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    payload: &'a [u8],
    at: usize,
    end: usize,
}

/// A range of the payload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

impl Place {
    /// Of `part`, a slice of `document`.
    pub(crate) fn of(part: &str, document: &str) -> Self {
        Self { start: part.as_ptr().addr().wrapping_sub(document.as_ptr().addr()), length: part.len() }
    }
}

impl<'a> Cursor<'a> {
    /// At the byte `at` of `payload`; places count from the beginning of the payload.
    pub(crate) const fn new(payload: &'a [u8], at: usize) -> Self {
        Self { payload, at, end: payload.len() }
    }

    pub(crate) const fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The next byte.
    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Broken> {
        if self.at >= self.end {
            return Err(Broken::EndsEarly);
        }
        let byte = self.payload.get(self.at).ok_or(Broken::EndsEarly)?;
        self.at += 1;
        Ok(*byte)
    }

    /// The next `length` bytes.
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<Place, Broken> {
        if length > self.left() {
            return Err(Broken::EndsEarly);
        }
        let place = Place { start: self.at, length };
        self.at += length;
        Ok(place)
    }

    /// The next `length` bytes, as a payload of their own whose places count from the same beginning.
    pub(crate) fn inside(&mut self, length: usize) -> Result<Self, Broken> {
        let place = self.take(length)?;
        Ok(Self { payload: self.payload, at: place.start, end: self.at })
    }

    /// The bytes of a place.
    pub(crate) fn bytes(&self, place: Place) -> &'a [u8] {
        self.payload.get(place.start..).and_then(|rest| rest.get(..place.length)).unwrap_or_default()
    }

    /// So many bytes as an array.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let place = self.take(N)?;
        self.bytes(place).try_into().map_err(|_| Broken::EndsEarly)
    }

    /// A number in groups of seven bits, the lowest first.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for shift in 0..10_u32 {
            let byte = u64::from(self.byte()?);
            if shift == 9 && byte > 1 {
                return Err(Broken::LongNumber);
            }
            number |= (byte & 0x7f) << (shift * 7);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken::LongNumber)
    }

    /// A signed number whose sign is its lowest bit.
    #[inline]
    pub(crate) fn zigzag(&mut self) -> Result<i64, Broken> {
        Ok(zigzag(self.varint()?))
    }

    /// The length of what follows.
    #[inline]
    pub(crate) fn length(&mut self) -> Result<usize, Broken> {
        usize::try_from(self.varint()?).map_err(|_| Broken::EndsEarly)
    }
}

/// 0, 1, 2, 3, … as 0, −1, 1, −2, …
#[inline]
pub(crate) const fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_groups_of_seven_bits() {
        for (bytes, number) in [
            (&[0][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], u64::from(u32::MAX)),
        ] {
            assert_eq!(Cursor::new(bytes, 0).varint(), Ok(number));
        }
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&most, 0).varint(), Ok(u64::MAX));
        assert_eq!(Cursor::new(&most, 0).zigzag(), Ok(i64::MIN));
        assert_eq!(Cursor::new(&[0x01], 0).zigzag(), Ok(-1));
        assert_eq!(Cursor::new(&[0x02], 0).zigzag(), Ok(1));
    }

    #[test]
    fn a_number_that_does_not_end_or_fit_is_broken() {
        assert_eq!(Cursor::new(&[0x80], 0).varint(), Err(Broken::EndsEarly));
        assert_eq!(Cursor::new(&[0x80; 11], 0).varint(), Err(Broken::LongNumber));
        let more = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Cursor::new(&more, 0).varint(), Err(Broken::LongNumber));
    }

    #[test]
    fn what_is_inside_ends_where_it_is_said_to() {
        let mut cursor = Cursor::new(&[1, 2, 3], 0);
        let mut inside = cursor.inside(2).unwrap();
        assert_eq!((inside.byte(), inside.byte(), inside.byte()), (Ok(1), Ok(2), Err(Broken::EndsEarly)));
        assert_eq!((cursor.byte(), cursor.left()), (Ok(3), 0));
        assert_eq!(cursor.take(1).err(), Some(Broken::EndsEarly));
    }
}
