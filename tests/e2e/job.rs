//! Job files over records `{"user":…,"ts":…}`, by user; `ts` is the event time in ms.

use tidegate_tests::clients;

/// A name for a job that no other has, and its source topic `<name>-in`, made with so many partitions.
pub fn new_source(bootstrap: &str, stem: &str, partitions: i32) -> (String, String) {
    let name = clients::unique(stem);
    let source = format!("{name}-in");
    clients::create_topic_named(bootstrap, &source, partitions, &[]).unwrap();
    (name, source)
}

/// The job `name` over `<name>-in`, which puts out to `<name>-out` and `<name>-dead`; the rest is in `sections`.
pub fn text(name: &str, sections: &str) -> String {
    text_over(&format!("{name}-in"), name, sections)
}

/// The same over another source topic.
pub fn text_over(source: &str, name: &str, sections: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {source}
  key: {{ field: /user }}
  event_time: [{{ field: /ts, unit: ms }}]
{sections}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
"
    )
}
