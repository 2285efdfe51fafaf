use super::*;
use crate::{
    job::SessionSpec,
    shard::savepoint::{Unaligned, resharded},
    time::Tick,
};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn jobs() -> [JobSpec; 4] {
    let sessions = OperatorSpec::Sessions(SessionSpec { gap: Span(5), cut: None });
    [spec(20, 5, 10), JobSpec { operator: sessions, ..spec(10, 10, 10) }, reordering(), sliding(10)]
}

/// What shard `shard` of `shards` gets of records that come one at each offset from `from` on.
fn part(shard: u32, shards: u32, from: u64, watermark: i64, rows: &[(i64, &str, i64)]) -> ShardFrame {
    let whole = frame(0, from, watermark, rows);
    let mut own = Rows::new(1);
    for (row, (time, key, value)) in (0u32..).zip(rows) {
        if Shard::of(key.as_bytes(), shards) == Shard(shard) {
            let payload =
                (u32::try_from(own.times.len()).unwrap(), Arc::clone(&whole.rows.payloads[row as usize].1));
            own.push(row, EventTime(*time), key.as_bytes(), &[Some(*value)], &[]);
            own.payloads.push(payload);
        }
    }
    ShardFrame { rows: own, ..whole }
}

/// The states of all shards after these records, everything committed.
fn states(job: &JobSpec, shards: u32, records: &[(i64, usize, i64)], watermark: i64) -> Vec<CanonicalState> {
    states_with(job, shards, records, (watermark, None))
}

/// The same, where no more than `memory` is in memory, and early results come with every commit.
fn states_with(
    job: &JobSpec,
    shards: u32,
    records: &[(i64, usize, i64)],
    (watermark, memory): (i64, Option<usize>),
) -> Vec<CanonicalState> {
    let rows: Vec<_> = records.iter().map(|(time, key, value)| (*time, KEYS[*key], *value)).collect();
    (0..shards)
        .map(|shard| {
            let mut machine = owner(job);
            machine.announce(&announcement(1, 1, 1_000, &[]));
            machine.set_memory(memory);
            machine.set_early(memory.map(|_| Span(1)), Tick(0));
            for (from, rows) in (0..).step_by(7).zip(rows.chunks(7)) {
                let up_to = i64::try_from(from).unwrap().min(watermark);
                machine.apply(&part(shard, shards, from, up_to, rows));
                machine.begin_early(Tick(from));
                while machine.is_dirty() {
                    commit(&mut machine);
                }
            }
            machine.apply(&part(shard, shards, rows.len() as u64, watermark, &[]));
            while machine.plan().is_some_and(|commit| {
                machine.committed(commit.block.sequence, Offset(commit.block.sequence));
                true
            }) {}
            machine.state().canonical()
        })
        .collect()
}

/// What a log that begins with this state folds to; its blocks have at most about so many bytes.
fn begun(job: &JobSpec, state: &CanonicalState, bytes: usize) -> CanonicalState {
    let mut folded = ShardState::empty(job);
    let blocks = state.blocks(JobId([9; 16]), &folded.layout.clone(), bytes);
    for block in &blocks {
        folded.fold(block).unwrap();
    }
    assert_eq!(folded.job(), Some(JobId([9; 16])));
    CanonicalState { sequence: state.sequence, ..folded.canonical() }
}

proptest! {
    #[test]
    fn a_log_that_begins_with_a_state_folds_to_it(
        records in prop::collection::vec((0i64..60, 0usize..6, -9i64..9), 0..60), watermark in 0i64..60, bytes in 1usize..600,
        memory in prop_oneof![Just(None), Just(Some(0)), Just(Some(400))]
    ) {
        for job in jobs() {
            for state in states_with(&job, 2, &records, (watermark, memory)) {
                prop_assert_eq!(begun(&job, &state, bytes), state);
            }
        }
    }

    #[test]
    fn the_same_records_make_the_same_state_however_many_shards_there_were(
        records in prop::collection::vec((0i64..60, 0usize..6, -9i64..9), 0..60), watermark in 0i64..60,
        before in 1u32..5, after in 1u32..5
    ) {
        for job in jobs() {
            let cut = resharded(&states(&job, before, &records, watermark), after).unwrap();
            let direct = states(&job, after, &records, watermark);
            prop_assert_eq!(cut.len(), direct.len());
            let counted = |states: &[CanonicalState]| -> Vec<(u64, u64)> {
                states.iter().flat_map(|state| &state.inputs).map(|input| (input.applied, input.dead)).collect()
            };
            let sum = |counts: &[(u64, u64)]| counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
            prop_assert_eq!(sum(&counted(&cut)), sum(&counted(&direct)));
            for (cut, direct) in cut.into_iter().zip(direct) {
                let uncounted = |mut state: CanonicalState| {
                    state.inputs.iter_mut().for_each(|input| (input.applied, input.dead) = (0, 0));
                    CanonicalState { sequence: 0, ..state }
                };
                prop_assert_eq!(uncounted(cut), uncounted(direct));
            }
        }
    }
}

#[test]
fn shards_at_different_places_are_not_cut() {
    let job = spec(10, 10, 0);
    let records = [(1, 0, 1), (2, 1, 1), (3, 2, 1)];
    let aligned = states(&job, 2, &records, 10);
    let mut behind = aligned.clone();
    behind[1].inputs[0].next = Offset(2);
    let position = Unaligned::Position { shard: 1, partition: 0, next: 2, first: 3 };
    assert_eq!(resharded(&behind, 3), Err(position));
    let mut earlier = aligned.clone();
    earlier[1].watermark = None;
    assert_eq!(resharded(&earlier, 3), Err(Unaligned::Watermark(1)));
    let mut closing = aligned;
    closing[0].closing = Some(crate::block::Closing::default());
    assert_eq!(resharded(&closing, 3), Err(Unaligned::Closing(0)));
}
