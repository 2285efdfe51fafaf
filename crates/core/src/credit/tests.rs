use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms::of_window(1_000);
const A: WorkerRef = WorkerRef(1);
const B: WorkerRef = WorkerRef(2);

fn credit(workers: &[WorkerRef]) -> Credit {
    let mut credit = Credit::new(TERMS);
    workers.iter().for_each(|worker| credit.up(*worker));
    credit
}

fn live(workers: &[WorkerRef]) -> Feeding {
    Feeding { main: workers.iter().copied().collect(), catch_up: BTreeSet::new() }
}

#[test]
fn a_worker_without_credit_holds_only_the_lanes_that_feed_it() {
    let mut credit = credit(&[A, B]);
    credit.spend(A, 1_000, Tick(0));
    let feeding = Feeding { main: [B].into(), catch_up: [A].into() };
    assert_eq!(credit.held(|| feeding.clone()), Held { main: false, catch_up: true });
    assert_eq!(credit.held(|| live(&[A, B])), Held { main: true, catch_up: false });
    credit.give_back(A, 1, Tick(1));
    assert_eq!(credit.held(|| live(&[A, B])), Held::default());
}

#[test]
fn a_slow_worker_is_parked_and_asked_when_half_its_window_is_free() {
    let mut credit = credit(&[A, B]);
    credit.spend(A, 1_200, Tick(0));
    assert_eq!(credit.look(Tick(499), || live(&[A, B])), []);
    assert_eq!(credit.look(Tick(500), || live(&[A, B])), [Step::Park(A)]);
    assert!(credit.is_parked(A));
    assert_eq!(credit.held(|| live(&[B])), Held::default(), "the others go on");
    credit.give_back(A, 699, Tick(600));
    assert_eq!(credit.look(Tick(600), || live(&[B])), []);
    credit.give_back(A, 1, Tick(601));
    assert_eq!(credit.look(Tick(601), || live(&[B])), [Step::Ask(A)], "the first time without a wait");
    assert!(!credit.is_parked(A));
}

#[test]
fn credit_within_the_patience_begins_it_anew() {
    let mut credit = credit(&[A, B]);
    credit.spend(A, 1_000, Tick(0));
    credit.give_back(A, 10, Tick(400));
    credit.spend(A, 10, Tick(410));
    assert_eq!(credit.look(Tick(900), || live(&[A, B])), []);
    assert_eq!(credit.look(Tick(910), || live(&[A, B])), [Step::Park(A)]);
}

#[test]
fn nobody_is_parked_who_holds_nobody_up() {
    let mut credit = credit(&[A, B]);
    credit.spend(A, 1_000, Tick(0));
    assert_eq!(credit.look(Tick(9_000), || live(&[A])), [], "a worker alone");
    let apart = Feeding { main: [B].into(), catch_up: [A].into() };
    assert_eq!(credit.look(Tick(9_000), || apart), [], "nobody else is on its lane");
}

#[test]
fn when_the_commits_stall_nobody_is_parked() {
    let mut credit = credit(&[A, B]);
    credit.spend(B, 400, Tick(0));
    credit.spend(A, 1_000, Tick(10));
    assert_eq!(credit.look(Tick(9_000), || live(&[A, B])), [], "B has committed nothing either");
    credit.spend(B, 600, Tick(9_000));
    assert_eq!(credit.look(Tick(19_000), || live(&[A, B])), [], "all are without");
    credit.give_back(B, 100, Tick(19_001));
    assert_eq!(credit.look(Tick(19_001), || live(&[A, B])), [Step::Park(A)], "B commits, and A does not");
}

#[test]
fn a_worker_parked_again_and_again_waits_longer_each_time() {
    let mut credit = credit(&[A, B]);
    let mut now = 0;
    let mut park_and_return = |pause: u64| {
        now += pause;
        credit.spend(A, 1_000, Tick(now));
        now += TERMS.patience;
        assert_eq!(credit.look(Tick(now), || live(&[A, B])), [Step::Park(A)]);
        credit.give_back(A, 1_000, Tick(now));
        let ready = now;
        while credit.look(Tick(now), || live(&[B])) != [Step::Ask(A)] {
            now += 1;
        }
        now - ready
    };
    let waits: Vec<_> = (0..7).map(|_| park_and_return(0)).collect();
    assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
    assert_eq!(park_and_return(TERMS.recent), 0, "long ago is forgotten");
}

#[derive(Clone, Debug)]
enum Input {
    Spend(u8, u64),
    GiveBack(u8, u64),
    Reconnect(u8),
    Wait(u64),
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let worker = 0..4_u8;
    prop::collection::vec(
        prop_oneof![
            (worker.clone(), 1..900_u64).prop_map(|(worker, bytes)| Input::Spend(worker, bytes)),
            (worker.clone(), 1..900_u64).prop_map(|(worker, bytes)| Input::GiveBack(worker, bytes)),
            worker.prop_map(Input::Reconnect),
            (1..700_u64).prop_map(Input::Wait),
        ],
        0..200,
    )
}

proptest! {
    /// Whatever happens: somebody is always fed, a lane on which somebody is well is not held beyond the patience,
    /// and who is parked comes back as soon as its credit and its wait allow it.
    #[test]
    fn a_lane_is_held_no_longer_than_the_patience(inputs in inputs()) {
        let workers: Vec<_> = (0..4).map(WorkerRef).collect();
        let mut credit = credit(&workers);
        let mut fed: BTreeSet<WorkerRef> = workers.iter().copied().collect();
        let mut now = 0;
        for input in inputs {
            match input {
                Input::Spend(worker, bytes) => {
                    let worker = WorkerRef(worker.into());
                    if fed.contains(&worker) && !credit.held(|| live(&[worker])).main {
                        credit.spend(worker, bytes, Tick(now));
                    }
                }
                Input::GiveBack(worker, bytes) => {
                    credit.give_back(WorkerRef(worker.into()), bytes, Tick(now));
                }
                Input::Reconnect(worker) => {
                    let worker = WorkerRef(worker.into());
                    credit.down(worker);
                    credit.up(worker);
                    fed.insert(worker);
                }
                Input::Wait(span) => now += span,
            }
            loop {
                let steps = credit.look(Tick(now), || live(&fed.iter().copied().collect::<Vec<_>>()));
                if steps.is_empty() {
                    break;
                }
                for step in steps {
                    match step {
                        Step::Park(worker) => {
                            prop_assert!(fed.remove(&worker), "only who is fed is parked");
                            prop_assert!(credit.under_way(worker) >= TERMS.window);
                        }
                        Step::Ask(worker) => {
                            prop_assert!(fed.insert(worker), "only who is parked is asked");
                            prop_assert!(credit.under_way(worker) <= TERMS.window / 2);
                        }
                    }
                }
            }
            prop_assert!(!fed.is_empty(), "not everybody is parked");
            for worker in &workers {
                prop_assert_eq!(credit.is_parked(*worker), !fed.contains(worker));
            }
            let overdue = credit.impatient(Tick(now)).collect::<Vec<_>>();
            for (slow, since) in overdue {
                let well = fed.iter().find(|other| credit.is_well(**other, since));
                prop_assert_eq!(well, None, "{:?} holds it up", slow);
            }
        }
        now += 1;
        workers.iter().for_each(|worker| credit.give_back(*worker, u64::MAX, Tick(now)));
        for _ in 0..2 {
            for step in credit.look(Tick(now), Feeding::default) {
                if let Step::Ask(worker) = step {
                    fed.insert(worker);
                }
            }
            now += TERMS.longest_wait;
        }
        prop_assert_eq!(fed.len(), workers.len(), "all are back");
    }
}
