//! A log or a local store that lacks something.

use tidegate_core::{
    block::Block,
    shard::{RestoreError, ShardState},
    time::{Offset, Partition},
};

use crate::{
    changelog::JOB,
    scenario::Scenario,
    store::{Found, restore},
};

#[test]
fn a_log_without_its_beginning_is_an_error() {
    let job = Scenario::plain().job;
    let block = Block { incarnation: 7, sequence: 1, ..Block::default() };
    assert_eq!(ShardState::empty(&job).fold(&block), Err(RestoreError::NoBeginning { found: 1 }));
}

#[test]
fn a_store_ahead_of_the_log_is_said() {
    let job = Scenario::plain().job;
    let genesis = ShardState::genesis(JOB, &[(Partition(0), Offset(0))]);
    let next = Block { incarnation: 7, sequence: 1, ..Block::default() };
    let log = [(Offset(0), genesis.clone())];
    let longer = [(Offset(0), genesis), (Offset(2), next)];
    let mut store = None;
    assert_eq!(restore(&job, &mut store, &longer, false).1, Found::LogAlone);
    assert_eq!(restore(&job, &mut store.clone(), &log, false).1, Found::Ahead);
    assert_eq!(restore(&job, &mut store, &longer, false).1, Found::Store);
}
