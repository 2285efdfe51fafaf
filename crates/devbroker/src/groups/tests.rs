use tokio::sync::oneshot::{self, Receiver};

use super::*;

const SESSION: Duration = Duration::from_secs(6);
const REBALANCE: Duration = Duration::from_secs(60);

fn group() -> Group {
    Group::new(Duration::ZERO)
}

fn asking(member_id: &str) -> Join {
    Join {
        member_id: member_id.to_owned(),
        instance: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range"), protocol("roundrobin")],
        id_first: false,
    }
}

fn protocol(name: &str) -> Protocol {
    Protocol { name: name.to_owned(), metadata: Bytes::from_static(b"topics") }
}

fn join(group: &mut Group, join: Join, now: Instant) -> Receiver<Result<Joined, JoinRefused>> {
    let (reply, receiver) = oneshot::channel();
    group.join(join, reply, now);
    receiver
}

fn sync(
    group: &mut Group,
    member: &Joined,
    assignments: &[(&str, &'static str)],
    now: Instant,
) -> Receiver<Result<Bytes, ResponseError>> {
    let (reply, receiver) = oneshot::channel();
    let assignments = assignments
        .iter()
        .map(|&(id, assignment)| (id.to_owned(), Bytes::from_static(assignment.as_bytes())));
    group.sync(caller(member), assignments.collect(), reply, now);
    receiver
}

fn caller(member: &Joined) -> Caller<'_> {
    Caller { member_id: &member.member_id, instance: None, generation: member.generation }
}

fn answered<T, E>(mut receiver: Receiver<Result<T, E>>) -> Result<T, E> {
    receiver.try_recv().expect("no answer yet")
}

/// One member, alone and stable.
fn settled(group: &mut Group, now: Instant) -> Joined {
    let member = answered(join(group, asking(""), now)).unwrap();
    assert_eq!(answered(sync(group, &member, &[(&member.member_id, "all")], now)), Ok(Bytes::from("all")));
    member
}

#[test]
fn two_members_share_by_what_the_leader_assigns() {
    let now = Instant::now();
    let mut group = group();
    let alone = settled(&mut group, now);
    assert_eq!(alone.leader, alone.member_id);

    let second = join(&mut group, asking(""), now);
    assert_eq!(group.heartbeat(caller(&alone), now), Err(ResponseError::RebalanceInProgress));
    let leader = answered(join(&mut group, asking(&alone.member_id), now)).unwrap();
    let follower = answered(second).unwrap();
    assert_eq!((leader.generation, follower.generation), (2, 2));
    assert_eq!(leader.members.len(), 2);
    assert!(follower.members.is_empty());
    assert_eq!(leader.protocol, "range");

    let waiting = sync(&mut group, &follower, &[], now);
    let assignments = [(&*leader.member_id, "one"), (&*follower.member_id, "two")];
    assert_eq!(answered(sync(&mut group, &leader, &assignments, now)), Ok(Bytes::from("one")));
    assert_eq!(answered(waiting), Ok(Bytes::from("two")));
    assert_eq!(group.state_name(), "Stable");
    assert_eq!(group.heartbeat(caller(&alone), now), Err(ResponseError::IllegalGeneration));
    assert_eq!(group.heartbeat(caller(&follower), now), Ok(()));
}

#[test]
fn a_new_member_is_told_its_id_first_and_the_rebalance_waits_for_it() {
    let now = Instant::now();
    let mut group = group();
    let mut first = asking("");
    first.id_first = true;
    let refused = answered(join(&mut group, first.clone(), now)).unwrap_err();
    assert_eq!(refused.error, ResponseError::MemberIdRequired);
    first.member_id = refused.member_id.clone();
    let joined = answered(join(&mut group, first, now)).unwrap();
    assert_eq!(joined.member_id, refused.member_id);

    let refused = answered(join(&mut group, asking("made-up"), now)).unwrap_err();
    assert_eq!(refused.error, ResponseError::UnknownMemberId);
}

#[test]
fn a_silent_member_is_removed_and_the_others_go_on() {
    let now = Instant::now();
    let mut group = group();
    let alone = settled(&mut group, now);
    let second = join(&mut group, asking(""), now);
    let later = now + SESSION / 2;
    group.tick(later);
    group.tick(now + SESSION);
    let second = answered(second).unwrap();
    assert_eq!(second.leader, second.member_id, "the leader is gone");
    assert_eq!(group.heartbeat(caller(&alone), now), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_left_behind() {
    let now = Instant::now();
    let mut group = group();
    let alone = settled(&mut group, now);
    let mut second = join(&mut group, asking(""), now);
    let mut beat = now;
    while beat < now + REBALANCE - SESSION {
        beat += SESSION / 2;
        assert!(group.heartbeat(caller(&alone), beat).is_err());
        group.tick(beat);
    }
    assert!(second.try_recv().is_err(), "the first still has time");
    group.tick(now + REBALANCE);
    assert_eq!(answered(second).unwrap().generation, 2);
}

#[test]
fn a_leader_that_never_assigns_is_removed_with_all_who_did_not_sync() {
    let now = Instant::now();
    let mut group = group();
    let alone = answered(join(&mut group, asking(""), now)).unwrap();
    let mut beat = now;
    while beat < now + REBALANCE {
        assert_eq!(group.heartbeat(caller(&alone), beat), Ok(()));
        beat += SESSION / 2;
        group.tick(beat);
    }
    assert_eq!(group.state_name(), "Empty");
    assert!(group.is_empty());
}

#[test]
fn leaving_starts_a_rebalance_and_the_last_one_empties_the_group() {
    let now = Instant::now();
    let mut group = group();
    let alone = settled(&mut group, now);
    let second = join(&mut group, asking(""), now);
    assert_eq!(group.leave(&alone.member_id, None, now), Ok(()));
    let second = answered(second).unwrap();
    assert_eq!(group.leave(&alone.member_id, None, now), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.leave(&second.member_id, None, now), Ok(()));
    assert_eq!(group.state_name(), "Empty");
}

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let now = Instant::now();
    let mut group = Group::new(Duration::from_secs(3));
    let first = join(&mut group, asking(""), now);
    let second = join(&mut group, asking(""), now);
    group.tick(now + Duration::from_secs(3));
    assert_eq!(answered(first).unwrap().generation, 1);
    assert_eq!(answered(second).unwrap().generation, 1);
}

#[test]
fn members_without_a_common_protocol_are_refused() {
    let now = Instant::now();
    let mut group = group();
    settled(&mut group, now);
    let mut other = asking("");
    other.protocols = vec![protocol("sticky")];
    let refused = answered(join(&mut group, other, now)).unwrap_err();
    assert_eq!(refused.error, ResponseError::InconsistentGroupProtocol);
    let mut other = asking("");
    other.protocol_type = "connect".to_owned();
    let refused = answered(join(&mut group, other, now)).unwrap_err();
    assert_eq!(refused.error, ResponseError::InconsistentGroupProtocol);
}

#[test]
fn a_static_member_comes_back_to_its_assignment_and_fences_its_older_self() {
    let now = Instant::now();
    let mut group = group();
    let mut asked = asking("");
    asked.instance = Some("one".to_owned());
    let before = answered(join(&mut group, asked.clone(), now)).unwrap();
    _ = sync(&mut group, &before, &[(&before.member_id, "all")], now);

    let after = answered(join(&mut group, asked, now)).unwrap();
    assert_eq!(after.generation, before.generation, "no rebalance");
    assert_ne!(after.member_id, before.member_id);
    assert_eq!(answered(sync(&mut group, &after, &[], now)), Ok(Bytes::from("all")));
    let older = Caller { instance: Some("one"), ..caller(&before) };
    assert_eq!(group.heartbeat(older, now), Err(ResponseError::FencedInstanceId));
}

#[test]
fn commits_need_the_current_generation_while_there_are_members() {
    let now = Instant::now();
    let mut group = group();
    let nobody = Caller { member_id: "", instance: None, generation: -1 };
    assert_eq!(group.check_commit(nobody, false), Ok(()));
    let member = settled(&mut group, now);
    assert_eq!(group.check_commit(caller(&member), false), Ok(()));
    assert_eq!(group.check_commit(nobody, false), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.check_commit(nobody, true), Ok(()), "a transaction without group metadata");
    let stale = Caller { generation: member.generation - 1, ..caller(&member) };
    assert_eq!(group.check_commit(stale, true), Err(ResponseError::IllegalGeneration));
}
