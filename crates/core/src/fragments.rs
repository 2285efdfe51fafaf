//! Sessions in runs, as fragments: what a key's records between two spills made of its sessions.
//!
//! ```text
//! key 1  [====)   [==)          in run 1        join by overlap        [=======)   [==)
//!           [====)              in memory   ──────────────────────►
//! ```
//! A fragment is a union of its records' intervals, so that fragments of a key which overlap are of one session, wherever they are.
//! A run has for each of its keys one row of fragments, by key, and for each fragment its end and key, by end: the first says what a
//! session is, the second when to look. A row may *hide* what older runs have of its key: it stands in memory's place of them.
//!
//! Where an early result is out of a fragment's very interval and the session has come to be another, it is *outdated*, and has to be
//! taken back. A fragment without records keeps it in mind where fragments are joined and nothing can be taken back.

use crate::{
    aggregate::{Layout, RowBuf, put_varint, take_varint, unzigzag, zigzag},
    block::{put_bytes, take_bytes},
    entry::{ordered, take_u64, unordered},
    runs::{Runs, Unreadable, Walk},
    sessions::Session,
    time::{EventTime, Watermark},
};

/// The slice of the parts that have rows by key: they are never purged as a whole. Those by end are in the slice of their last end,
/// which is below this.
pub(crate) const BY_KEY: EventTime = EventTime(i64::MAX);

/// A part of a session, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) start: EventTime,
    pub(crate) end: EventTime,
    /// Results that are out of this very interval, where late records made it necessary to count them.
    pub(crate) emitted: u32,
    pub(crate) row: RowBuf,
}

/// A session, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) session: Fragment,
    /// What is out of other intervals than its own, in order.
    pub(crate) outdated: Vec<Outdated>,
    /// How many fragments it was.
    pub(crate) parts: u32,
}

/// An interval that has had results and is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outdated {
    pub(crate) start: EventTime,
    pub(crate) end: EventTime,
    pub(crate) emitted: u32,
}

/// A key's row in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRow {
    /// Older runs do not count for this key.
    pub(crate) hides: bool,
    pub(crate) fragments: Vec<Fragment>,
}

impl Fragment {
    pub(crate) fn of(session: &Session<'_>) -> Self {
        let Session { start, end, emitted, row, .. } = *session;
        Self { start, end, emitted, row: row.to_owned() }
    }
}

impl KeyRow {
    /// Appends the row to `out`. Frozen by `a_row_is_written_as_ever`.
    pub(crate) fn encode(&self, layout: &Layout, out: &mut Vec<u8>) {
        out.push(u8::from(self.hides));
        let mut row = Vec::new();
        for fragment in &self.fragments {
            put_varint(out, zigzag(i128::from(fragment.start.0)));
            put_varint(out, u128::from(fragment.end.0.abs_diff(fragment.start.0)));
            put_varint(out, u128::from(fragment.emitted));
            row.clear();
            layout.encode(fragment.row.row(), &mut row);
            put_bytes(out, &row);
        }
    }

    /// Reads [`KeyRow::encode`]; `None` when the bytes are not one.
    pub(crate) fn decode(bytes: &[u8], layout: &Layout) -> Option<Self> {
        let (hides, mut bytes) = bytes.split_first()?;
        let bytes = &mut bytes;
        let mut fragments = Vec::new();
        while !bytes.is_empty() {
            let start = i64::try_from(unzigzag(take_varint(bytes)?)).ok()?;
            let length = i64::try_from(take_u64(bytes)?).ok()?;
            let emitted = u32::try_from(take_u64(bytes)?).ok()?;
            let mut row = RowBuf::new(layout);
            layout.decode(take_bytes(bytes)?, &mut row.row_mut())?;
            let (start, end) = (EventTime(start), EventTime(start.checked_add(length)?));
            fragments.push(Fragment { start, end, emitted, row });
        }
        (*hides <= 1).then_some(Self { hides: *hides == 1, fragments })
    }
}

/// Makes one of fragments that overlap; they come out in order.
pub(crate) fn join(mut fragments: Vec<Fragment>, layout: &Layout) -> Vec<Joined> {
    fragments.sort_by_key(|fragment| fragment.start);
    let mut joined: Vec<Joined> = Vec::with_capacity(fragments.len());
    for fragment in fragments {
        match joined.last_mut().filter(|last| fragment.start < last.session.end) {
            None => joined.push(Joined::begin(fragment)),
            Some(last) => last.take(&fragment, layout),
        }
    }
    joined.iter_mut().for_each(Joined::end);
    joined
}

impl Joined {
    fn begin(fragment: Fragment) -> Self {
        let mut joined = Self { session: fragment, outdated: Vec::new(), parts: 1 };
        joined.outdated.extend(Outdated::of(&joined.session));
        joined
    }

    fn take(&mut self, fragment: &Fragment, layout: &Layout) {
        self.parts += 1;
        self.session.end = self.session.end.max(fragment.end);
        self.outdated.extend(Outdated::of(fragment));
        layout.merge(&mut self.session.row.row_mut(), fragment.row.row());
    }

    /// All of it is there: what is out of its own interval is not outdated.
    fn end(&mut self) {
        let Fragment { start, end, .. } = self.session;
        let own = self.outdated.extract_if(.., |out| (out.start, out.end) == (start, end));
        self.session.emitted = own.map(|out| out.emitted).max().unwrap_or(0);
        self.outdated.sort_unstable();
    }

    /// Fragments that come to the same, now and with others.
    pub(crate) fn into_fragments(self, layout: &Layout) -> impl Iterator<Item = Fragment> {
        let outdated = self.outdated.into_iter().map(|out| out.without_records(layout));
        std::iter::once(self.session).chain(outdated)
    }
}

impl Outdated {
    fn of(fragment: &Fragment) -> Option<Self> {
        let Fragment { start, end, emitted, .. } = *fragment;
        (emitted > 0).then_some(Self { start, end, emitted })
    }

    /// What keeps it in mind among other fragments.
    pub(crate) fn without_records(self, layout: &Layout) -> Fragment {
        let Self { start, end, emitted } = self;
        Fragment { start, end, emitted, row: RowBuf::new(layout) }
    }
}

/// Takes away the sessions that ended at or before `purged`, and what was outdated by then: when W_s passed its end it was taken back.
/// All fragments of the key have to be joined before.
pub(crate) fn drop_ended(sessions: &mut Vec<Joined>, purged: Watermark) {
    sessions.retain_mut(|joined| {
        joined.outdated.retain(|out| Some(out.end) > purged);
        Some(joined.session.end) > purged
    });
}

/// The key of an entry by end.
pub(crate) fn by_end(end: EventTime, key: &[u8]) -> Vec<u8> {
    let mut bytes = ordered(end).to_vec();
    bytes.push(0);
    bytes.extend_from_slice(key);
    bytes
}

/// Below all entries of sessions that end behind `done`.
pub(crate) fn behind_end(done: Watermark) -> Vec<u8> {
    done.map(|done| ordered(EventTime(done.0.saturating_add(1))).to_vec()).unwrap_or_default()
}

/// Reads [`by_end`].
pub(crate) fn end_and_key(bytes: &[u8]) -> Option<(EventTime, &[u8])> {
    let (end, rest) = bytes.split_first_chunk::<8>()?;
    Some((unordered(*end), rest.get(1..)?))
}

/// Takes the next key of a walk over parts by key, with what its rows in all of them come to; not joined.
pub(crate) fn take_key(
    walk: &mut Walk,
    runs: &Runs,
    layout: &Layout,
) -> Result<Option<(Vec<u8>, KeyRow)>, Unreadable> {
    let Some((key, _)) = walk.row() else { return Ok(None) };
    let key = key.to_vec();
    let mut all = KeyRow::default();
    // The newest first.
    while let Some((_, value)) = walk.row().filter(|(other, _)| **other == *key) {
        if !all.hides {
            let row = KeyRow::decode(value, layout).ok_or_else(|| runs.damaged(BY_KEY))?;
            all.hides = row.hides;
            all.fragments.extend(row.fragments);
        }
        walk.advance(runs)?;
    }
    Ok(Some((key, all)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::{AggregateFn, AggregateSpec, JobSpec, OperatorSpec, SessionSpec},
        time::Span,
    };
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn layout() -> Layout {
        let job = JobSpec::of(OperatorSpec::Sessions(SessionSpec { gap: Span(1), cut: None }));
        Layout::new(&JobSpec { aggregates: vec![AggregateSpec::new("n", AggregateFn::Count, None)], ..job })
    }

    fn fragment(start: i64, length: i64, layout: &Layout) -> Fragment {
        let mut row = RowBuf::new(layout);
        layout.add_record(&mut row.row_mut());
        Fragment { start: EventTime(start), end: EventTime(start + length), emitted: 0, row }
    }

    /// What is in a local store and in a changelog has to read for ever.
    #[test]
    fn a_row_is_written_as_ever() {
        let layout = layout();
        let later = Fragment { emitted: 2, ..fragment(300, 1, &layout) };
        let mut bytes = Vec::new();
        KeyRow { hides: true, fragments: vec![fragment(-1, 200, &layout), later] }
            .encode(&layout, &mut bytes);
        assert_eq!(bytes, [1, 1, 200, 1, 0, 1, 1, 216, 4, 1, 2, 1, 1]);
        assert_eq!(by_end(EventTime(-1), b"k"), [127, 255, 255, 255, 255, 255, 255, 255, 0, b'k']);
    }

    proptest! {
        #[test]
        fn joining_in_steps_is_joining_at_once(
            pieces in prop::collection::vec((0i64..100, 1i64..20, 0u32..3, any::<bool>()), 0..12), purged in prop::option::of(0i64..100)
        ) {
            let layout = layout();
            let made = |which: Option<bool>| pieces.iter().filter(|(.., first)| which.is_none_or(|which| which == *first))
                .map(|(start, length, emitted, _)| Fragment { emitted: *emitted, ..fragment(*start, *length, &layout) }).collect::<Vec<_>>();
            let at_once = join(made(None), &layout);
            let mut steps: Vec<_> = join(made(Some(true)), &layout).into_iter().flat_map(|joined| joined.into_fragments(&layout)).collect();
            steps.extend(made(Some(false)));
            let uncounted = |joined: Vec<Joined>| joined.into_iter().map(|joined| Joined { parts: 0, ..joined }).collect::<Vec<_>>();
            prop_assert_eq!(uncounted(join(steps, &layout)), uncounted(at_once.clone()));
            let out = |fragments: &[Fragment]| fragments.iter().filter(|piece| piece.emitted > 0).map(|piece| (piece.start, piece.end)).collect::<BTreeSet<_>>();
            let kept: Vec<_> = at_once.iter().cloned().flat_map(|joined| joined.into_fragments(&layout)).collect();
            prop_assert_eq!(out(&kept), out(&made(None)), "nothing that is out is forgotten");
            let mut left = at_once;
            drop_ended(&mut left, purged.map(EventTime));
            prop_assert!(left.iter().all(|joined| Some(joined.session.end.0) > purged && joined.outdated.iter().all(|out| Some(out.end.0) > purged)));
        }

        #[test]
        fn a_row_reads_back(pieces in prop::collection::vec((any::<i32>(), 0i64..1 << 40), 0..5), hides in any::<bool>(), garbage in any::<Vec<u8>>()) {
            let layout = layout();
            let fragments = pieces.iter().map(|(start, length)| fragment((*start).into(), *length, &layout)).collect();
            let row = KeyRow { hides, fragments };
            let mut bytes = Vec::new();
            row.encode(&layout, &mut bytes);
            prop_assert_eq!(KeyRow::decode(&bytes, &layout), Some(row));
            let _ = KeyRow::decode(&garbage, &layout);
        }

        #[test]
        fn entries_by_end_are_in_order(a in any::<(i64, Vec<u8>)>(), b in any::<(i64, Vec<u8>)>()) {
            let entry = |(end, key): &(i64, Vec<u8>)| by_end(EventTime(*end), key);
            prop_assert_eq!(entry(&a).cmp(&entry(&b)), a.cmp(&b));
            let bytes = entry(&a);
            prop_assert_eq!(end_and_key(&bytes), Some((EventTime(a.0), a.1.as_slice())));
            prop_assert_eq!(behind_end(Some(EventTime(a.0))) < entry(&b), a.0 < b.0 || a.0 == i64::MAX && b.0 == i64::MAX);
        }
    }
}
