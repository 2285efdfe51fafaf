//! Sliding windows, where the simulation has no such jobs.

use super::*;

#[test]
fn a_window_takes_values_as_they_are() {
    let aggregates = vec![AggregateSpec::new("which", AggregateFn::Collect { limit: 5 }, Some(0))];
    let spec = JobSpec { columns: vec![ColumnSpec::as_is("/v")], aggregates, ..sliding(10) };
    let mut shard = owner(&spec);
    shard.announce(&announcement(1, 1, 1_000, &[]));
    let mut asked = frame(0, 0, 20, &[]);
    asked.rows = Rows::of(&spec.columns);
    for (row, (time, value)) in
        (0..).zip([(1, Some("\"one")), (5, None), (6, Some("\"six")), (12, Some("12"))])
    {
        let text = value.unwrap_or_default().as_bytes();
        let end = value.map(|value| i64::try_from(value.len()).unwrap());
        asked.rows.push(row, EventTime(time), b"a", &[end], text);
        asked.rows.payloads.push((row, Arc::default()));
    }
    asked.to = Offset(4);
    shard.apply(&asked);
    let commit = commit(&mut shard);
    let values: Vec<_> = commit.results.iter().map(|row| row.values[0].to_string()).collect();
    assert_eq!(values, [r#"["one"]"#, r#"["one"]"#, r#"["one","six"]"#, r#"["six",12]"#]);
}
