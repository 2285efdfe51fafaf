//! The rules of design §5 one by one.

use super::*;

const SHARDS: u32 = 6;

fn name(worker: &str) -> WorkerId {
    WorkerId(worker.to_owned())
}

fn id(term: u64, number: u64) -> AssignmentId {
    AssignmentId { term: Term(term), number }
}

/// A machine that moves all shards at once that balance takes.
fn machine() -> AssignmentMachine {
    let config = AssignmentConfig { moves_at_once: usize::MAX, ..AssignmentConfig::default() };
    AssignmentMachine::new(Term(9), SHARDS, config)
}

fn registration(worker: &str, stream: u64, claims: &[(u32, AssignmentId)]) -> Registration {
    Registration {
        worker: name(worker),
        stream: StreamId(stream),
        address: format!("{worker}:7000"),
        incarnation: stream,
        claims: claims.iter().map(|(shard, claim)| (Shard(*shard), *claim)).collect(),
    }
}

/// The effects as `what shard worker number`.
fn told(effects: &[AssignmentEffect]) -> Vec<String> {
    let tell = |effect: &AssignmentEffect| match effect {
        AssignmentEffect::Assign { shard, worker, assignment } => {
            format!("assign {shard} {worker} {}", assignment.number)
        }
        AssignmentEffect::Release { shard, worker, assignment } => {
            format!("release {shard} {worker} {}", assignment.number)
        }
        AssignmentEffect::Fence { shard } => format!("fence {shard}"),
    };
    effects.iter().map(tell).collect()
}

fn owners(machine: &AssignmentMachine) -> Vec<(u32, &str, u64)> {
    let owners = machine.owners().owners.iter();
    owners.map(|(shard, owner)| (shard.0, owner.worker.0.as_str(), owner.assignment.number)).collect()
}

/// Two workers with three shards each, by assignments 1 to 6, at 1000 ms.
fn two_workers() -> AssignmentMachine {
    let mut m = machine();
    assert_eq!(m.registered(registration("a", 1, &[]), Tick(0)), []);
    assert_eq!(m.registered(registration("b", 2, &[]), Tick(400)), []);
    m.tick(Tick(1000));
    m
}

#[test]
fn a_first_start_assigns_balanced_once_no_worker_has_come_for_a_while() {
    let mut m = machine();
    assert_eq!(m.tick(Tick(60_000)), [], "nobody there");
    m.registered(registration("a", 1, &[]), Tick(60_000));
    m.registered(registration("b", 2, &[]), Tick(60_400));
    assert_eq!(m.tick(Tick(60_899)), []);
    assert!(!m.is_settled());
    assert_eq!(
        told(&m.tick(Tick(60_900))),
        ["assign 0 a 1", "assign 1 b 2", "assign 2 a 3", "assign 3 b 4", "assign 4 a 5", "assign 5 b 6"]
    );
    assert_eq!(m.tick(Tick(70_000)), []);
}

#[test]
fn a_first_start_waits_for_stragglers_at_most_the_grace_period() {
    let mut m = machine();
    for n in 0..20_u64 {
        let effects = m.registered(registration(&format!("w{n:02}"), n, &[]), Tick(n * 300));
        if n * 300 < 5000 {
            assert_eq!(effects, [], "worker {n}");
        }
    }
    assert_eq!(m.owners().owners.len(), 6);
}

#[test]
fn after_a_restart_claims_are_kept_and_nothing_moves() {
    let mut m = machine();
    m.registered(registration("b", 1, &[(3, id(4, 7)), (4, id(4, 8)), (5, id(4, 2))]), Tick(0));
    assert_eq!(m.tick(Tick(4999)), [], "claims: the others are waited for");
    m.registered(registration("a", 2, &[(0, id(4, 1)), (1, id(4, 3)), (2, id(4, 4))]), Tick(4999));
    assert!(m.is_settled(), "every shard is claimed");
    assert_eq!(m.tick(Tick(20_000)), []);
    assert_eq!(owners(&m), [(0, "a", 1), (1, "a", 3), (2, "a", 4), (3, "b", 7), (4, "b", 8), (5, "b", 2)]);
}

#[test]
fn after_a_restart_unclaimed_shards_wait_for_the_grace_period() {
    let mut m = machine();
    m.registered(registration("a", 1, &[(0, id(4, 1)), (1, id(4, 3)), (2, id(4, 4))]), Tick(100));
    assert_eq!(m.registered(registration("b", 2, &[]), Tick(200)), []);
    assert_eq!(m.tick(Tick(5099)), []);
    assert_eq!(told(&m.tick(Tick(5100))), ["assign 3 b 1", "assign 4 b 2", "assign 5 b 3"]);
}

#[test]
fn the_highest_claim_wins_and_the_loser_is_told() {
    let mut m = machine();
    m.registered(registration("a", 1, &[(0, id(3, 9)), (1, id(4, 5))]), Tick(0));
    assert_eq!(
        told(&m.registered(registration("b", 2, &[(0, id(4, 1)), (1, id(4, 4))]), Tick(1))),
        ["release 0 a 9", "release 1 b 4"]
    );
    assert_eq!(owners(&m), [(0, "b", 1), (1, "a", 5)]);
    assert_eq!(m.fenced(Shard(0), &name("a"), id(3, 9), Tick(2)), [], "the loser's word is void");
}

#[test]
fn a_claim_of_a_later_term_deposes_the_coordinator() {
    let mut m = two_workers();
    assert_eq!(m.registered(registration("a", 3, &[(0, id(10, 1))]), Tick(1100)), []);
    assert_eq!(m.deposed_by(), Some(Term(10)));
    assert_eq!(m.lost(&name("b"), StreamId(2), Tick(1200)), []);
    assert_eq!(m.tick(Tick(60_000)), []);
}

#[test]
fn a_new_worker_gets_its_share_by_planned_moves() {
    let mut m = two_workers();
    assert_eq!(m.registered(registration("c", 3, &[]), Tick(2000)), []);
    assert_eq!(m.tick(Tick(2499)), []);
    assert_eq!(told(&m.tick(Tick(2500))), ["release 5 b 6", "release 4 a 5"]);
    assert_eq!(m.owners().owners.len(), 4, "what is on its way has no owner");
    assert_eq!(told(&m.released(Shard(4), &name("a"), id(9, 5), Tick(2600))), ["assign 4 c 7"]);
    assert_eq!(m.released(Shard(4), &name("a"), id(9, 5), Tick(2601)), [], "said twice");
    // Fenced while draining: it has left as well.
    assert_eq!(told(&m.fenced(Shard(5), &name("b"), id(9, 6), Tick(2700))), ["assign 5 c 8"]);
    assert_eq!(m.tick(Tick(20_000)), []);
}

#[test]
fn a_shard_on_its_way_is_redirected_before_another_is_moved() {
    let mut m = two_workers();
    m.registered(registration("c", 3, &[]), Tick(2000));
    assert_eq!(told(&m.tick(Tick(2500))), ["release 5 b 6", "release 4 a 5"]);
    m.registered(registration("d", 4, &[]), Tick(2600));
    assert_eq!(m.tick(Tick(3100)), []);
    assert_eq!(told(&m.released(Shard(4), &name("a"), id(9, 5), Tick(3200))), ["assign 4 d 7"]);
    assert_eq!(told(&m.released(Shard(5), &name("b"), id(9, 6), Tick(3200))), ["assign 5 c 8"]);
    assert_eq!(m.tick(Tick(20_000)), []);
}

#[test]
fn a_lost_workers_shards_are_fenced_at_once_and_wait_for_it() {
    let mut m = two_workers();
    assert_eq!(told(&m.lost(&name("b"), StreamId(2), Tick(2000))), ["fence 1", "fence 3", "fence 5"]);
    assert_eq!(m.lost(&name("b"), StreamId(2), Tick(2001)), [], "said twice");
    assert_eq!(m.tick(Tick(11_999)), []);
    // What it still claims was fenced.
    assert_eq!(
        told(&m.registered(registration("b", 3, &[(1, id(9, 2))]), Tick(11_999))),
        ["assign 1 b 7", "assign 3 b 8", "assign 5 b 9"]
    );
    assert_eq!(m.tick(Tick(60_000)), []);
}

#[test]
fn a_worker_that_stays_away_loses_its_shards_and_gets_a_fair_share_when_it_comes_back() {
    let mut m = two_workers();
    m.lost(&name("b"), StreamId(2), Tick(2000));
    assert_eq!(told(&m.tick(Tick(12_000))), ["assign 1 a 7", "assign 3 a 8", "assign 5 a 9"]);
    assert_eq!(
        told(&m.registered(registration("b", 3, &[(1, id(9, 2))]), Tick(20_000))),
        ["release 1 b 2"],
        "it learns that its old claim has ended"
    );
    assert_eq!(told(&m.tick(Tick(20_500))), ["release 5 a 9", "release 4 a 5", "release 3 a 8"]);
}

#[test]
fn nothing_moves_for_balance_while_a_lost_worker_may_return() {
    let mut m = two_workers();
    m.lost(&name("b"), StreamId(2), Tick(2000));
    m.registered(registration("c", 3, &[]), Tick(2100));
    assert_eq!(m.tick(Tick(11_999)), []);
    assert_eq!(told(&m.tick(Tick(12_000))), ["assign 1 c 7", "assign 3 c 8", "assign 5 c 9"]);
}

#[test]
fn the_end_of_an_older_stream_loses_nothing() {
    let mut m = two_workers();
    let claims = [(1, id(9, 2)), (3, id(9, 4)), (5, id(9, 6))];
    assert_eq!(m.registered(registration("b", 3, &claims), Tick(2000)), [], "a reconnect, all in force");
    assert_eq!(m.lost(&name("b"), StreamId(2), Tick(2001)), []);
    assert_eq!(m.owners().owners.len(), 6);
}

#[test]
fn a_restarted_process_noticed_before_its_old_stream_closed_gets_its_shards_again() {
    let mut m = two_workers();
    let version = m.owners().version;
    let again = Registration { address: "elsewhere:1".to_owned(), ..registration("b", 3, &[]) };
    assert_eq!(told(&m.registered(again, Tick(2000))), ["assign 1 b 7", "assign 3 b 8", "assign 5 b 9"]);
    assert_eq!(m.owners().version, version + 1);
    assert_eq!(m.owners().owners[&Shard(1)].address, "elsewhere:1");
}

#[test]
fn a_reconnect_in_the_middle_of_a_move_takes_up_where_it_was() {
    let mut m = two_workers();
    m.registered(registration("c", 3, &[]), Tick(2000));
    assert_eq!(told(&m.tick(Tick(2500))), ["release 5 b 6", "release 4 a 5"]);
    // The release did not arrive.
    let claims = [(0, id(9, 1)), (2, id(9, 3)), (4, id(9, 5))];
    assert_eq!(told(&m.registered(registration("a", 4, &claims), Tick(2600))), ["release 4 a 5"]);
    // The answer did not arrive.
    let claims = [(1, id(9, 2)), (3, id(9, 4))];
    assert_eq!(told(&m.registered(registration("b", 5, &claims), Tick(2600))), ["assign 5 c 7"]);
}

#[test]
fn a_lost_receiver_is_replaced_before_the_release_is_done() {
    let mut m = two_workers();
    m.registered(registration("c", 3, &[]), Tick(2000));
    m.tick(Tick(2500));
    m.lost(&name("c"), StreamId(3), Tick(2600));
    assert_eq!(told(&m.released(Shard(5), &name("b"), id(9, 6), Tick(2700))), ["assign 5 b 7"]);
}

#[test]
fn a_worker_lost_in_the_middle_of_a_move_gives_way_at_once() {
    let mut m = two_workers();
    m.registered(registration("c", 3, &[]), Tick(2000));
    m.tick(Tick(2500));
    assert_eq!(
        told(&m.lost(&name("b"), StreamId(2), Tick(2600))),
        ["fence 1", "fence 3", "fence 5", "assign 5 c 7"]
    );
}

#[test]
fn a_fenced_owner_gets_its_shard_again_and_a_zombie_does_not() {
    let mut m = two_workers();
    assert_eq!(told(&m.fenced(Shard(1), &name("b"), id(9, 2), Tick(2000))), ["assign 1 b 7"]);
    assert_eq!(m.fenced(Shard(1), &name("b"), id(9, 2), Tick(2001)), [], "an older assignment");
    assert_eq!(m.fenced(Shard(1), &name("a"), id(9, 7), Tick(2002)), [], "not its own");
    assert_eq!(m.fenced(Shard(77), &name("a"), id(9, 7), Tick(2003)), [], "no such shard");
}

#[test]
fn a_draining_workers_shards_move_while_there_are_others() {
    let mut m = two_workers();
    assert_eq!(
        told(&m.draining(&name("b"), Tick(2000))),
        ["release 1 b 2", "release 3 b 4", "release 5 b 6"]
    );
    assert_eq!(told(&m.released(Shard(1), &name("b"), id(9, 2), Tick(2100))), ["assign 1 a 7"]);
    assert_eq!(
        told(&m.lost(&name("b"), StreamId(2), Tick(2200))),
        ["fence 3", "fence 5", "assign 3 a 8", "assign 5 a 9"]
    );
}

#[test]
fn the_last_worker_keeps_its_shards_while_it_drains() {
    let mut m = machine();
    m.registered(registration("a", 1, &[]), Tick(0));
    m.tick(Tick(500));
    assert_eq!(m.draining(&name("a"), Tick(1000)), []);
    assert_eq!(told(&m.fenced(Shard(0), &name("a"), id(9, 1), Tick(1100))), ["assign 0 a 7"]);
    assert_eq!(m.lost(&name("a"), StreamId(1), Tick(1200)).len(), 6, "fenced, held for its return");
    assert_eq!(m.registered(registration("a", 2, &[]), Tick(1300)).len(), 6);
}

#[test]
fn when_all_workers_are_gone_the_next_start_gathers_again() {
    let mut m = two_workers();
    m.lost(&name("a"), StreamId(1), Tick(2000));
    m.lost(&name("b"), StreamId(2), Tick(2000));
    assert_eq!(m.tick(Tick(12_000)), []);
    assert!(!m.is_settled());
    assert_eq!(m.registered(registration("c", 3, &[]), Tick(20_000)), []);
    assert_eq!(m.registered(registration("d", 4, &[]), Tick(20_100)), []);
    assert_eq!(m.tick(Tick(20_600)).len(), 6);
}

#[test]
fn the_status_names_workers_with_their_shards() {
    let mut m = two_workers();
    m.lost(&name("b"), StreamId(2), Tick(2000));
    let status: Vec<_> =
        m.workers().into_iter().map(|w| (w.worker.0, w.presence, w.shards.len(), w.incarnation)).collect();
    assert_eq!(
        status,
        [
            ("a".to_owned(), Presence::Live, 3, 1),
            ("b".to_owned(), Presence::Lost { since: Tick(2000) }, 3, 2)
        ]
    );
    assert_eq!(m.shards().filter(|(_, s)| matches!(s, ShardState::Held { .. })).count(), 3);
}
