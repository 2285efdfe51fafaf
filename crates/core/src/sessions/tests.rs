use std::collections::BTreeMap;

use super::*;
use crate::{
    job::{AggregateFn, AggregateSpec, JobSpec, OperatorSpec},
    time::Span,
};
use proptest::prelude::*;

fn job(gap: i64, cut: Option<i64>) -> (JobSpec, SessionSpec) {
    let sessions = SessionSpec { gap: Span(gap), cut: cut.map(Span) };
    let job = JobSpec {
        aggregates: vec![AggregateSpec::new("n", AggregateFn::Count, None)],
        ..JobSpec::of(OperatorSpec::Sessions(sessions))
    };
    (job, sessions)
}

type Shown = BTreeMap<(String, i64), (i64, u64)>;

fn shown(sessions: &Sessions, layout: &Layout) -> Shown {
    let row = |session: Session<'_>| {
        let key = String::from_utf8_lossy(session.key).into_owned();
        ((key, session.start.0), (session.end.0, layout.records(session.row)))
    };
    sessions.iter(layout).map(row).collect()
}

/// By definition: the records of a key in order; one that comes `gap` or more behind the last, or across a multiple of `cut`, begins a
/// session.
fn batch(records: &[(u8, i64)], gap: i64, cut: Option<i64>) -> Shown {
    let mut records: Vec<_> = records.to_vec();
    records.sort_unstable();
    let cell = |time: i64| cut.map(|cut| time.div_euclid(cut));
    let mut sessions = Shown::new();
    let mut open: Option<(u8, i64, i64, u64)> = None;
    let mut close = |open: Option<(u8, i64, i64, u64)>| {
        if let Some((key, start, last, count)) = open {
            let next = cell(last).zip(cut).map(|(cell, cut)| (cell + 1) * cut);
            let end = next.map_or(last + gap, |next| next.min(last + gap));
            sessions.insert((key.to_string(), start), (end, count));
        }
    };
    for (key, time) in records {
        match &mut open {
            Some((k, _, last, count)) if *k == key && time - *last < gap && cell(time) == cell(*last) => {
                (*last, *count) = (time, *count + 1);
            }
            _ => close(open.replace((key, time, time, 1))),
        }
    }
    close(open);
    sessions
}

fn add(sessions: &mut Sessions, layout: &Layout, key: &str, time: i64, watermark: Watermark) {
    let (mut row, _) = sessions.session_mut(layout, key.as_bytes(), EventTime(time), watermark, false);
    layout.add_record(&mut row);
}

proptest! {
    #[test]
    fn whatever_the_order_sessions_are_those_of_the_definition(
        records in prop::collection::vec((0u8..4, -300i64..300), 0..60), gap in 1i64..40, more in prop::option::of(0i64..60)
    ) {
        let cut = more.map(|more| gap + more);
        let (job, spec) = job(gap, cut);
        let layout = Layout::new(&job);
        let mut sessions = Sessions::new(spec);
        for (key, time) in &records {
            add(&mut sessions, &layout, &key.to_string(), *time, None);
        }
        let expected = batch(&records, gap, cut);
        prop_assert_eq!(sessions.len(), expected.len());
        prop_assert_eq!(shown(&sessions, &layout), expected);
        prop_assert!(cut.is_none_or(|cut| sessions.iter(&layout).all(|s| s.end.0 - s.start.0 <= cut)));
    }

    /// What is told of changes is enough to follow: a second set that takes only these is the same.
    #[test]
    fn a_follower_of_the_changes_is_the_same(
        steps in prop::collection::vec((prop::collection::vec((0u8..4, 0i64..80), 0..8), 0i64..12), 1..20), gap in 1i64..30
    ) {
        let (job, spec) = job(gap, None);
        let layout = Layout::new(&job);
        let (mut owner, mut follower) = (Sessions::new(spec), Sessions::new(spec));
        let mut watermark = 0;
        for (records, progress) in steps {
            for (key, time) in records {
                // Not before what has been purged.
                add(&mut owner, &layout, &key.to_string(), watermark + time - 20, Some(EventTime(watermark)));
            }
            owner.take_retracted();
            owner.take_late();
            watermark += progress;
            owner.purge(EventTime(watermark - 20), false);
            for place in owner.take_dirty() {
                let Some(session) = owner.at(&layout, place) else { continue };
                let window = (session.start, session.end);
                follower.restore(&layout, session.key, window, session.emitted).set(session.row);
            }
            for (start, key) in owner.take_gone() {
                follower.delete(start, &key);
            }
            prop_assert_eq!(shown(&owner, &layout), shown(&follower, &layout));
            let emitted = |sessions: &Sessions| sessions.iter(&layout).map(|s| (s.key.to_vec(), s.start, s.emitted)).collect::<BTreeSet<_>>();
            prop_assert_eq!(emitted(&owner), emitted(&follower));
        }
        owner.purge(EventTime(i64::MAX), false);
        prop_assert!(owner.is_empty() && owner.key_bytes() == 0 && owner.table.is_empty());
    }
}

#[test]
fn records_a_gap_apart_are_two_sessions_and_one_between_them_makes_them_one() {
    let (job, spec) = job(10, None);
    let layout = Layout::new(&job);
    let mut sessions = Sessions::new(spec);
    add(&mut sessions, &layout, "a", 0, None);
    add(&mut sessions, &layout, "a", 10, None);
    let two = [(("a".to_owned(), 0), (10, 1)), (("a".to_owned(), 10), (20, 1))];
    assert_eq!(shown(&sessions, &layout), two.into());
    add(&mut sessions, &layout, "a", 5, None);
    assert_eq!(shown(&sessions, &layout), [(("a".to_owned(), 0), (20, 3))].into());
}

#[test]
fn what_is_out_is_retracted_when_a_late_record_makes_it_part_of_something_else() {
    let (job, spec) = job(10, None);
    let layout = Layout::new(&job);
    let mut sessions = Sessions::new(spec);
    let w = Some(EventTime(30));
    add(&mut sessions, &layout, "a", 0, None);
    add(&mut sessions, &layout, "a", 15, None);
    // Both have ended and are out: [0, 10) and [15, 25). A record within changes the second's result only.
    add(&mut sessions, &layout, "a", 15, w);
    assert_eq!(sessions.take_retracted(), []);
    let corrected = sessions.take_late();
    assert_eq!(corrected.iter().map(|(_, revision, _)| *revision).collect::<Vec<_>>(), [1]);
    // One between them makes both part of [0, 25).
    add(&mut sessions, &layout, "a", 7, w);
    let retracted: BTreeSet<_> =
        sessions.take_retracted().into_iter().map(|r| (r.start.0, r.end.0, r.emitted)).collect();
    assert_eq!(retracted, [(0, 10, 1), (15, 25, 2)].into());
    assert_eq!(sessions.take_late().iter().map(|(_, revision, _)| *revision).collect::<Vec<_>>(), [0]);
    // A late record that begins a session of its own has nothing to retract, nor when it grows before it is out.
    add(&mut sessions, &layout, "b", 0, w);
    add(&mut sessions, &layout, "b", 3, w);
    assert_eq!(sessions.take_retracted(), []);
    assert_eq!(sessions.take_late().len(), 1);
}

#[test]
fn a_session_that_is_out_and_joins_an_open_one_is_open_again() {
    let (job, spec) = job(10, None);
    let layout = Layout::new(&job);
    let mut sessions = Sessions::new(spec);
    add(&mut sessions, &layout, "a", 0, None);
    add(&mut sessions, &layout, "a", 18, None);
    add(&mut sessions, &layout, "a", 9, Some(EventTime(12)));
    assert_eq!(sessions.take_retracted().len(), 1);
    assert_eq!(sessions.take_late(), [], "its result comes when it ends");
    assert_eq!(shown(&sessions, &layout), [(("a".to_owned(), 0), (28, 3))].into());
}
