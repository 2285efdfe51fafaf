use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn coordinator() -> Transactions {
    Transactions::new(Duration::from_secs(900))
}

fn partition(index: i32) -> TopicPartition {
    ("topic".to_owned(), index)
}

#[test]
fn a_second_producer_fences_the_first_and_aborts_its_transaction() {
    let mut transactions = coordinator();
    let now = Instant::now();
    let (first, ended) = transactions.init("t", TIMEOUT, None).unwrap();
    assert_eq!(ended, None);
    transactions.add_partitions("t", first, [partition(0)], now).unwrap();

    let (second, ended) = transactions.init("t", TIMEOUT, None).unwrap();
    let ended = ended.unwrap();
    assert_eq!((second.id, second.epoch), (first.id, first.epoch + 1));
    assert_eq!((ended.producer, ended.commit), (second, false));
    assert!(ended.partitions.contains(&partition(0)));

    let fenced = Err(ResponseError::ProducerFenced);
    assert_eq!(transactions.add_partitions("t", first, [partition(0)], now), fenced);
    assert_eq!(transactions.add_group("t", first, "g", now), fenced);
    assert_eq!(transactions.check_produce("t", first, &partition(0)), fenced);
    assert_eq!(transactions.end("t", first, true), Err(ResponseError::ProducerFenced));
}

#[test]
fn an_end_may_be_asked_again_but_not_turned_round() {
    let mut transactions = coordinator();
    let (producer, _) = transactions.init("t", TIMEOUT, None).unwrap();
    assert_eq!(transactions.end("t", producer, true), Err(ResponseError::InvalidTxnState));
    transactions.add_group("t", producer, "g", Instant::now()).unwrap();
    let ended = transactions.end("t", producer, true).unwrap().unwrap();
    assert!(ended.commit && ended.groups.contains("g"));
    assert_eq!(transactions.end("t", producer, true), Ok(None));
    assert_eq!(transactions.end("t", producer, false), Err(ResponseError::InvalidTxnState));
}

#[test]
fn only_partitions_and_groups_of_the_open_transaction_may_be_written() {
    let mut transactions = coordinator();
    let (producer, _) = transactions.init("t", TIMEOUT, None).unwrap();
    let refused = Err(ResponseError::InvalidTxnState);
    assert_eq!(transactions.check_produce("t", producer, &partition(0)), refused);
    transactions.add_partitions("t", producer, [partition(0)], Instant::now()).unwrap();
    assert_eq!(transactions.check_produce("t", producer, &partition(0)), Ok(()));
    assert_eq!(transactions.check_produce("t", producer, &partition(1)), refused);
    assert_eq!(transactions.check_offsets("t", producer, "g"), refused);
    transactions.end("t", producer, true).unwrap();
    assert_eq!(transactions.check_produce("t", producer, &partition(0)), refused);
}

#[test]
fn a_timeout_aborts_and_fences() {
    let mut transactions = coordinator();
    let now = Instant::now();
    let (producer, _) = transactions.init("t", TIMEOUT, None).unwrap();
    transactions.add_partitions("t", producer, [partition(0)], now).unwrap();
    assert_eq!(transactions.expire(now + TIMEOUT / 2), []);
    let ended = transactions.expire(now + TIMEOUT);
    assert_eq!(ended.len(), 1);
    assert!(!ended[0].commit);
    assert_eq!(transactions.end("t", producer, true), Err(ResponseError::ProducerFenced));
    assert_eq!(transactions.init("t", TIMEOUT, Some(producer)).unwrap_err(), ResponseError::ProducerFenced);
    assert!(transactions.init("t", TIMEOUT, None).is_ok());
}

#[test]
fn a_producer_may_bump_its_own_epoch_and_ask_again() {
    let mut transactions = coordinator();
    let (first, _) = transactions.init("t", TIMEOUT, None).unwrap();
    let (second, _) = transactions.init("t", TIMEOUT, Some(first)).unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    assert_eq!(transactions.init("t", TIMEOUT, Some(first)).unwrap().0, second);
    transactions.init("t", TIMEOUT, None).unwrap();
    assert_eq!(transactions.init("t", TIMEOUT, Some(second)).unwrap_err(), ResponseError::ProducerFenced);
}

#[test]
fn timeouts_out_of_bounds_and_unknown_ids_are_refused() {
    let mut transactions = coordinator();
    assert_eq!(
        transactions.init("t", Duration::from_secs(901), None).unwrap_err(),
        ResponseError::InvalidTransactionTimeout
    );
    let producer = Producer { id: 1, epoch: 0 };
    assert_eq!(transactions.end("t", producer, true), Err(ResponseError::InvalidProducerIdMapping));
}

#[test]
fn used_up_epochs_lead_to_a_new_producer_id() {
    let mut transactions = coordinator();
    let (first, _) = transactions.init("t", TIMEOUT, None).unwrap();
    let mut last = first;
    while last.id == first.id {
        (last, _) = transactions.init("t", TIMEOUT, None).unwrap();
    }
    assert_eq!(last.epoch, 0);
}
