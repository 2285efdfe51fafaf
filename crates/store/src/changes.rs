//! What one apply carries, and the record that says which commit the cache is at.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// First byte of the stored identity: the version of the layout of the whole store (entries, meta and identity).
pub const FORMAT: u8 = 2;

/// The last commit included in a store: where in which changelog its contents stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Uuid of the job.
    pub job: [u8; 16],
    /// Incarnation of the owner that wrote the commit.
    pub incarnation: u64,
    /// Sequence number of the commit.
    pub sequence: u64,
    /// Changelog offset of the commit's delta block.
    pub changelog_offset: u64,
}

/// What is stored under the identity's key: the identity, and the sum of everything else it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) identity: Identity,
    /// The wrapping sum of [`hash`] over the entries and the meta.
    pub(crate) sum: u64,
}

/// What one stored key and its value add to the sum. Frozen by a golden test.
pub(crate) fn hash(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key))
}

impl Seal {
    const LENGTH: usize = 1 + 16 + 4 * 8;

    /// Format, job, then four big-endian integers. Frozen by a golden test.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Identity { job, incarnation, sequence, changelog_offset } = self.identity;
        let mut bytes = Vec::with_capacity(Self::LENGTH);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&job);
        for number in [incarnation, sequence, changelog_offset, self.sum] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads [`Seal::to_bytes`]; `None` for another format or length.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&format, rest) = bytes.split_first()?;
        let (&job, rest) = rest.split_first_chunk::<16>()?;
        let (&incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (&sequence, rest) = rest.split_first_chunk::<8>()?;
        let (&changelog_offset, rest) = rest.split_first_chunk::<8>()?;
        let (&sum, rest) = rest.split_first_chunk::<8>()?;
        (format == FORMAT && rest.is_empty()).then(|| Self {
            identity: Identity {
                job,
                incarnation: u64::from_be_bytes(incarnation),
                sequence: u64::from_be_bytes(sequence),
                changelog_offset: u64::from_be_bytes(changelog_offset),
            },
            sum: u64::from_be_bytes(sum),
        })
    }
}

/// The coalesced changes of one or more commits, applied as one: upserts, then deletes, then purges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Entries written, by key.
    pub upserts: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys removed; a key that is also upserted is removed.
    pub deletes: BTreeSet<Vec<u8>>,
    /// Ranges `[from, to)` of keys removed, upserted ones included.
    pub purge_below: Vec<(Vec<u8>, Vec<u8>)>,
    /// Everything of the shard that is not an entry; `None` keeps what is stored.
    pub meta: Option<Vec<u8>>,
    /// The last commit included.
    pub identity: Identity,
}

impl Changes {
    /// Changes that carry nothing but the identity.
    #[must_use]
    pub const fn at(identity: Identity) -> Self {
        Self {
            upserts: BTreeMap::new(),
            deletes: BTreeSet::new(),
            purge_below: Vec::new(),
            meta: None,
            identity,
        }
    }

    /// The upserts that outlive the deletes and purges of the same changes.
    pub(crate) fn surviving_upserts(&self) -> impl Iterator<Item = (&Vec<u8>, &Vec<u8>)> {
        self.upserts.iter().filter(|(key, _)| !self.deletes.contains(*key) && !self.purges(key))
    }

    fn purges(&self, key: &[u8]) -> bool {
        self.purge_below.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal {
        identity: Identity {
            job: *b"0123456789abcdef",
            incarnation: 0x0102_0304_0506_0708,
            sequence: 9,
            changelog_offset: u64::MAX - 1,
        },
        sum: 0x1112_1314_1516_1718,
    };

    #[test]
    fn the_stored_bytes_of_an_identity_are_frozen() {
        let golden = b"\x020123456789abcdef\
            \x01\x02\x03\x04\x05\x06\x07\x08\
            \x00\x00\x00\x00\x00\x00\x00\x09\
            \xff\xff\xff\xff\xff\xff\xff\xfe\
            \x11\x12\x13\x14\x15\x16\x17\x18";
        assert_eq!(SEAL.to_bytes(), golden);
        assert_eq!(Seal::from_bytes(golden), Some(SEAL));
    }

    #[test]
    fn the_hash_of_an_entry_is_frozen() {
        assert_eq!(hash(b"ekey", b"value"), 17_817_229_005_723_428_367);
    }

    #[test]
    fn another_format_or_length_is_no_identity() {
        let bytes = SEAL.to_bytes();
        let mut newer = bytes.clone();
        newer[0] = FORMAT + 1;
        assert_eq!(Seal::from_bytes(&newer), None);
        assert_eq!(Seal::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Seal::from_bytes(&[bytes, vec![0]].concat()), None);
        assert_eq!(Seal::from_bytes(&[]), None);
    }
}
