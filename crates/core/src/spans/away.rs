//! Spans of keys that are not in memory, by the hash of their keys.
//!
//! ```text
//! hashes  0 ────────────── 2^64       a leaf: a range of hashes, and the pages with the spans of its keys
//!         [ leaf ][ leaf   ][leaf]    too long ──► cut in two or more, as a B-tree is
//! ```
//! A key's span is in memory or here, never in both. While spans are built anew nothing is brought back, and a leaf may have a key's span
//! in several pieces, the later behind the earlier.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use super::key_span::KeySpan;
use crate::{
    aggregate::{Layout, put_varint},
    block::{put_bytes, take_bytes},
    entry::take_u64,
    scratch::{Page, Pages, ScratchError, damaged},
    time::EventTime,
};

/// The spans that are not in memory.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) pages: Pages,
    /// About how many bytes a page has.
    pub(super) page: usize,
    /// By the first hash of each. Below the first begins the one at 0.
    leaves: BTreeMap<u64, Leaf>,
    /// Spans whose last record was before are of no use.
    from: EventTime,
}

#[derive(Debug)]
struct Leaf {
    pages: Vec<Page>,
    bytes: usize,
    /// When the last record in it was.
    newest: EventTime,
    /// Some span in it has pages of its own.
    has_pages: bool,
}

/// A span as it is written.
#[derive(Debug)]
struct Entry<'a> {
    hash: u64,
    newest: EventTime,
    has_pages: bool,
    span: Cow<'a, [u8]>,
}

/// A leaf is written anew when it would have more pages, and cut then and when it would have more times the bytes of one.
const MOST_PAGES: usize = 4;

impl Away {
    pub(super) const fn new(pages: Pages, page: usize) -> Self {
        Self { pages, page, leaves: BTreeMap::new(), from: EventTime(i64::MIN) }
    }

    /// Number of leaves.
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Bytes of memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        self.leaves.len() * (size_of::<(u64, Leaf)>() + MOST_PAGES * size_of::<Page>())
    }

    /// Takes spans with the hashes of their keys, of which none is here unless they are its later pieces.
    pub(super) fn put(
        &mut self,
        mut spans: Vec<(u64, KeySpan)>,
        layout: &Layout,
    ) -> Result<(), ScratchError> {
        spans.sort_by_key(|(hash, _)| *hash);
        let mut spans = spans.into_iter().peekable();
        while let Some((hash, _)) = spans.peek() {
            let start = self.leaf_of(*hash);
            let end = self.leaves.range((Excluded(start), Unbounded)).next().map(|(start, _)| *start);
            let mut entries = Vec::new();
            while let Some((hash, span)) = spans.next_if(|(hash, _)| end.is_none_or(|end| *hash < end)) {
                entries.push(Entry::of(hash, &span, layout));
            }
            self.put_entries(start, entries, layout)?;
        }
        Ok(())
    }

    fn leaf_of(&self, hash: u64) -> u64 {
        self.leaves.range(..=hash).next_back().map_or(0, |(start, _)| *start)
    }

    fn put_entries(
        &mut self,
        start: u64,
        entries: Vec<Entry<'_>>,
        layout: &Layout,
    ) -> Result<(), ScratchError> {
        let more: usize = entries.iter().map(Entry::bytes).sum();
        let known = self.leaves.entry(start).or_insert_with(Leaf::empty);
        if known.bytes + more <= MOST_PAGES * self.page && known.pages.len() < MOST_PAGES {
            return known.push(&entries, &mut self.pages);
        }
        let known = std::mem::replace(known, Leaf::empty()).take(&mut self.pages)?;
        let mut all = Entry::all_of(&known)?;
        for stale in all.extract_if(.., |entry| entry.newest < self.from).filter(|stale| stale.has_pages) {
            KeySpan::decode(&stale.span, layout)?.free(&mut self.pages);
        }
        all.extend(entries);
        // Stable: the pieces of a key stay in order.
        all.sort_by_key(|entry| entry.hash);
        let sum: usize = all.iter().map(Entry::bytes).sum();
        let piece = sum.div_ceil((sum / self.page.max(1)).max(1));
        let (mut start, mut leaf, mut bytes) = (start, Vec::new(), 0);
        for of_hash in chunks_by_hash(all) {
            let more: usize = of_hash.iter().map(Entry::bytes).sum();
            if bytes >= piece {
                self.leaves.entry(start).or_insert_with(Leaf::empty).push(&leaf, &mut self.pages)?;
                start = of_hash.first().map_or(start, |entry| entry.hash);
                (leaf, bytes) = (Vec::new(), 0);
            }
            bytes += more;
            leaf.extend(of_hash);
        }
        self.leaves.entry(start).or_insert_with(Leaf::empty).push(&leaf, &mut self.pages)
    }

    /// Takes the spans of the keys with that hash, the pieces of a key in order.
    pub(super) fn take(&mut self, hash: u64, layout: &Layout) -> Result<Vec<KeySpan>, ScratchError> {
        let start = self.leaf_of(hash);
        let Some(leaf) = self.leaves.get_mut(&start) else { return Ok(Vec::new()) };
        let (mut spans, mut left) = (Vec::new(), Vec::with_capacity(leaf.pages.len()));
        for page in std::mem::take(&mut leaf.pages) {
            let bytes = self.pages.read(page)?;
            let (mut others, mut rest) = (Vec::new(), bytes.as_slice());
            while !rest.is_empty() {
                let before = rest;
                let entry = Entry::take(&mut rest).ok_or_else(damaged)?;
                if entry.hash == hash {
                    spans.push(KeySpan::decode(&entry.span, layout)?);
                } else {
                    others.extend_from_slice(before.get(..before.len() - rest.len()).unwrap_or_default());
                }
            }
            if others.len() == bytes.len() {
                left.push(page);
                continue;
            }
            self.pages.free(page);
            leaf.bytes -= bytes.len() - others.len();
            if !others.is_empty() {
                left.push(self.pages.write(&others)?);
            }
        }
        leaf.pages = left;
        Ok(spans)
    }

    /// Forgets the leaves of which all records are before `from`, and the empty ones.
    pub(super) fn drop_before(&mut self, from: EventTime, layout: &Layout) -> Result<(), ScratchError> {
        self.from = from;
        let stale = self.leaves.iter().filter(|(_, leaf)| leaf.newest < from);
        let stale: Vec<_> = stale.map(|(start, _)| *start).collect();
        for leaf in stale.iter().filter_map(|start| self.leaves.remove(start)).collect::<Vec<_>>() {
            if !leaf.has_pages {
                leaf.pages.into_iter().for_each(|page| self.pages.free(page));
                continue;
            }
            let bytes = leaf.take(&mut self.pages)?;
            for entry in Entry::all_of(&bytes)?.iter().filter(|entry| entry.has_pages) {
                KeySpan::decode(&entry.span, layout)?.free(&mut self.pages);
            }
        }
        Ok(())
    }
}

fn chunks_by_hash(entries: Vec<Entry<'_>>) -> impl Iterator<Item = Vec<Entry<'_>>> {
    let mut entries = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut chunk = vec![entries.next()?];
        while let Some(entry) =
            entries.next_if(|entry| chunk.first().is_some_and(|one| one.hash == entry.hash))
        {
            chunk.push(entry);
        }
        Some(chunk)
    })
}

impl Leaf {
    const fn empty() -> Self {
        Self { pages: Vec::new(), bytes: 0, newest: EventTime(i64::MIN), has_pages: false }
    }

    /// Writes `entries` as one more page.
    fn push(&mut self, entries: &[Entry<'_>], pages: &mut Pages) -> Result<(), ScratchError> {
        let mut bytes = Vec::new();
        for entry in entries {
            entry.encode(&mut bytes);
            self.newest = self.newest.max(entry.newest);
            self.has_pages |= entry.has_pages;
        }
        self.bytes += bytes.len();
        self.pages.push(pages.write(&bytes)?);
        Ok(())
    }

    /// Takes its pages as one, in the order in which they were written.
    fn take(self, pages: &mut Pages) -> Result<Vec<u8>, ScratchError> {
        let mut bytes = Vec::with_capacity(self.bytes);
        for page in self.pages {
            bytes.extend(pages.take(page)?);
        }
        Ok(bytes)
    }
}

impl<'a> Entry<'a> {
    fn all_of(mut bytes: &'a [u8]) -> Result<Vec<Self>, ScratchError> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            entries.push(Self::take(&mut bytes).ok_or_else(damaged)?);
        }
        Ok(entries)
    }

    fn of(hash: u64, span: &KeySpan, layout: &Layout) -> Self {
        let mut bytes = Vec::new();
        span.encode(layout, &mut bytes);
        let newest = span.newest().unwrap_or(EventTime(i64::MIN));
        Self { hash, newest, has_pages: span.has_pages(), span: bytes.into() }
    }

    /// Bytes that it takes in a page, about.
    fn bytes(&self) -> usize {
        self.span.len() + 24
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_be_bytes());
        out.extend_from_slice(&crate::entry::ordered(self.newest));
        put_varint(out, u128::from(self.has_pages));
        put_bytes(out, &self.span);
    }

    fn take(bytes: &mut &'a [u8]) -> Option<Self> {
        let (hash, rest) = bytes.split_first_chunk::<8>()?;
        let (newest, rest) = rest.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(Self {
            hash: u64::from_be_bytes(*hash),
            newest: crate::entry::unordered(*newest),
            has_pages: take_u64(bytes)? > 0,
            span: take_bytes(bytes)?.into(),
        })
    }
}
