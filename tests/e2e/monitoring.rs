//! Metrics, alerts and dashboard: against each other, against the manual, and on a running system.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use tidegate_tests::Requirement;

use crate::{
    dev::{Run, root, signal_to},
    prometheus::{self, Prometheus, monitoring, promtool},
};

/// The log files of `tidegate dev` and the scrape job of each.
const PROCESSES: [(&str, &str); 4] = [
    ("coordinator", "tidegate-coordinator"),
    ("ingest-0", "tidegate-ingest"),
    ("worker-0", "tidegate-worker"),
    ("worker-1", "tidegate-worker-1"),
];
/// What the manual says of a metric that is not always there.
const NOT_ALWAYS: &str = "no series";

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    if !Requirement::all_met(&[Requirement::Prometheus], "the tests of the alert rules") {
        return;
    }
    promtool(&["check", "rules", "monitoring/alerts.yaml"], None);
    promtool(&["test", "rules", "monitoring/alerts.test.yaml"], None);
}

#[test]
fn each_alert_has_a_test_and_a_runbook() {
    let (rules, tests) = (monitoring("alerts.yaml"), monitoring("alerts.test.yaml"));
    let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in alerts {
        assert!(
            tests.contains(&format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"")),
            "{alert} has no test"
        );
        assert!(manual.contains(&format!("\n### {alert}\n")), "{alert} has no runbook in docs/operations.md");
        let link = format!("runbook: docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} does not say where its runbook is");
    }
}

/// The operator's resource is the rules file under four lines of its own: `make rules` writes it.
#[test]
fn the_prometheus_rule_is_the_rules_file() {
    let indented: String = monitoring("alerts.yaml")
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    let (_, spec) = monitoring("prometheus-rule.yaml")
        .split_once("\nspec:\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert!(spec == indented, "monitoring/prometheus-rule.yaml is not what `make rules` writes");
}

#[test]
fn each_panel_has_a_title_a_unit_a_description_and_a_query() {
    let rows: Vec<String> =
        panels().iter().filter(|panel| panel["type"] == "row").map(text_of("title")).collect();
    let questions =
        ["Is it keeping up?", "Is time moving?", "Who holds it back?", "What is late?", "Is state bounded?"];
    assert_eq!(rows, questions);
    let mut titles = BTreeSet::new();
    for panel in panels().iter().filter(|panel| panel["type"] != "row") {
        let title = text_of("title")(panel);
        assert!(!title.is_empty() && !text_of("description")(panel).is_empty(), "{panel}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert!(!queries(panel).is_empty(), "{title} has no query");
        titles.insert((panel["gridPos"]["y"].as_u64(), title));
    }
    assert!(titles.len() > 20);
}

#[test]
fn a_real_prometheus_scrapes_the_running_system_and_rules_and_dashboard_find_what_they_name() {
    if !Requirement::all_met(&[Requirement::Prometheus], "the rules and the dashboard on a running system") {
        return;
    }
    let mut run = Run::start(tempfile::tempdir().unwrap(), &[]);
    let coordinator = run.pid_of("coordinator");
    let targets = PROCESSES.map(|(process, job)| (job, run.metrics_of(process)));
    let mut prometheus = Prometheus::start(&targets);
    prometheus.until("results of closed windows", |prometheus| {
        prometheus.get("/api/v1/rules")?;
        let closed = prometheus.query("sum(rate(tidegate_worker_windows_closed_total[30s])) > 0");
        (!closed.is_empty()).then_some(())
    });

    let mut exposed = BTreeMap::new();
    for (_, address) in &targets {
        let text = prometheus::get(address, "/metrics").unwrap();
        exposed.extend(families(&text));
        promtool(&["check", "metrics"], Some(&classic(&text)));
    }
    let documented = documented();
    for (name, labels) in &exposed {
        assert_eq!(
            documented.get(name).map(|(labels, _)| labels),
            Some(labels),
            "{name} is exposed; docs/operations.md has it otherwise, or not"
        );
    }
    for (name, (_, always)) in &documented {
        assert!(
            exposed.contains_key(name) || !always,
            "docs/operations.md has {name}, which no process exposes"
        );
    }

    let rules = prometheus.until("an evaluation of each rule", |prometheus| {
        let groups = prometheus.get("/api/v1/rules")?["groups"].as_array()?.clone();
        let rules: Vec<Value> =
            groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    let mut derived = BTreeSet::new();
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            derived.insert(text_of("name")(rule));
        }
    }
    let known =
        |name: &str| derived.contains(name) || base_names(name).any(|base| documented.contains_key(base));
    for rule in &rules {
        for name in metrics_in(&text_of("query")(rule)) {
            assert!(known(&name), "{name} in {} is no metric", rule["name"]);
        }
    }
    for panel in panels() {
        for query in queries(&panel) {
            for name in metrics_in(&query) {
                assert!(known(&name), "{name} in panel {} is no metric", panel["title"]);
            }
            let shown = |name: &String| {
                derived.contains(name) || base_names(name).any(|base| exposed.contains_key(base))
            };
            if metrics_in(&query).iter().all(shown) {
                let shown =
                    prometheus.until(&format!("data for {} by {query}", panel["title"]), |prometheus| {
                        let shown = prometheus.query(&query);
                        (!shown.is_empty()).then_some(shown)
                    });
                assert!(shown.len() <= 32, "{query} shows {} series", shown.len());
            }
        }
    }

    let alerts = |prometheus: &Prometheus, name: &str| -> Vec<Value> {
        let alerts = prometheus.get("/api/v1/alerts").unwrap();
        let alerts = alerts["alerts"].as_array().unwrap().clone();
        alerts.into_iter().filter(|alert| alert["labels"]["alertname"] == name).collect()
    };
    for name in
        ["TidegateProcessDown", "TidegateNoLeader", "TidegateShardsUnowned", "TidegatePartitionsUnread"]
    {
        assert_eq!(alerts(&prometheus, name), Vec::<Value>::new(), "nothing is wrong");
    }
    signal_to(coordinator, "-STOP");
    let halted = prometheus.until("the alert of a halted coordinator", |prometheus| {
        alerts(prometheus, "TidegateProcessDown").into_iter().next()
    });
    signal_to(coordinator, "-CONT");
    assert_eq!(halted["labels"]["job"], "tidegate-coordinator", "{halted}");
    let summary = halted["annotations"]["summary"].as_str().unwrap();
    assert!(summary.contains("cannot be scraped"), "{summary}");
    prometheus
        .until("its end", |prometheus| alerts(prometheus, "TidegateProcessDown").is_empty().then_some(()));

    run.signal("-TERM");
    run.end();
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&monitoring("dashboard.json")).unwrap();
    dashboard["panels"].as_array().unwrap().clone()
}

fn text_of(field: &str) -> impl Fn(&Value) -> String {
    move |value| value[field].as_str().unwrap_or_default().to_owned()
}

/// The queries of a panel, for the job of the demo.
fn queries(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    targets.map(|target| text_of("expr")(target).replace("$tidegate_job", "clicks")).collect()
}

/// Names of metrics in an expression: what is ours, and what all processes have.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let metric = |word: &&str| {
        *word != "tidegate_job" && (word.starts_with("tidegate_") || word.starts_with("process_"))
    };
    words.filter(metric).map(str::to_owned).collect()
}

/// A histogram's series have names that are longer than its own.
fn base_names(name: &str) -> impl Iterator<Item = &str> {
    let stripped = ["_bucket", "_count", "_sum"].into_iter().filter_map(|end| name.strip_suffix(end));
    std::iter::once(name).chain(stripped)
}

/// Names and labels as the manual has them, and whether a running system always shows them: the rows under *Metrics*.
fn documented() -> BTreeMap<String, (BTreeSet<String>, bool)> {
    let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, section) = manual.split_once("\n## Metrics\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells
        .map(|(cell, text)| {
            let (name, labels) = cell.split_once('{').unwrap_or((cell, ""));
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
            (name.to_owned(), (labels.map(str::to_owned).collect(), !text.contains(NOT_ALWAYS)))
        })
        .collect()
}

/// Names and labels as a process exposes them, without what every series has.
fn families(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families = BTreeMap::new();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (family, kind) in types {
        let (name, sample) = match kind {
            "counter" => (format!("{family}_total"), format!("{family}_total{{")),
            "info" => (format!("{family}_info"), format!("{family}_info{{")),
            "histogram" => (family.to_owned(), format!("{family}_bucket{{")),
            _ => (family.to_owned(), format!("{family}{{")),
        };
        let Some(labels) = text.lines().find_map(|line| line.strip_prefix(&sample)) else { continue };
        let (labels, _) = labels.rsplit_once('}').unwrap();
        let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        families.insert(name, names.filter(|label| label != "tidegate_job" && label != "le").collect());
    }
    families
}

/// OpenMetrics as the older text format, which is what promtool lints: there a counter's family has the name of its samples.
fn classic(text: &str) -> String {
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let line = |line: &str| {
        let comment = ["# TYPE ", "# HELP "]
            .into_iter()
            .find_map(|start| Some((start, line.strip_prefix(start)?.split_once(' ')?)));
        match comment {
            Some((start, (family, rest))) if counters.contains(family) => {
                format!("{start}{family}_total {rest}\n")
            }
            Some((start, (family, "info"))) => format!("{start}{family}_info gauge\n"),
            Some((start, (family, rest))) if text.contains(&format!("\n# TYPE {family} info\n")) => {
                format!("{start}{family}_info {rest}\n")
            }
            _ if line == "# EOF" || line.starts_with("# UNIT ") => String::new(),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}
