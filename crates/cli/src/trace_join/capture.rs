//! What `tshark -T json` prints: an array of packets, each a tree of fields in which names come several times.
//!
//! A packet belongs to a trace when it carries a `traceparent`, or an `x-request-id` that is a trace id: in a header that
//! tshark understood (HTTP, HTTP/2, Kafka), or anywhere in its bytes: of Kafka tshark knows old versions only, and what travels
//! inside gRPC messages it does not know at all. An answer belongs to the trace of its request. What is compressed,
//! encrypted, or cut apart between two packets is not seen.

use std::{collections::HashMap, fmt, io::Read};

use anyhow::Result;
use jiff::Timestamp;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::TraceId;

/// A packet that belongs to a trace.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Packet {
    /// When it was captured.
    #[serde(serialize_with = "super::as_text")]
    pub(crate) time: Timestamp,
    /// Its trace.
    pub(crate) trace_id: TraceId,
    /// `kafka`, `http`, `http2` or `tcp`.
    pub(crate) protocol: &'static str,
    /// Address and port.
    pub(crate) from: String,
    /// Address and port.
    pub(crate) to: String,
    /// What it is, in a few words.
    pub(crate) what: String,
    /// Its number in the capture.
    pub(crate) frame: u64,
    /// Since the packet before it in its connection (`tcp.time_delta`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network_latency_ms: Option<f64>,
    /// From request to answer (`http.time`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_ms: Option<f64>,
    /// Of an answer (`http.response.code`, `:status`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status_code: Option<u16>,
}

/// Calls `on_packet` for each packet of a trace, once for each trace that it carries; gives the number of all packets. Only
/// one packet is in memory at a time.
///
/// # Errors
/// When it is no array of packets.
pub(crate) fn read(json: impl Read, on_packet: impl FnMut(Packet)) -> Result<u64> {
    let mut reader = serde_json::Deserializer::from_reader(json);
    let packets = Packets { on_packet, conversations: Conversations::default() }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(packets)
}

/// A field of a packet.
#[derive(Debug)]
enum Field {
    Text(String),
    Tree(Vec<(String, Field)>),
    List(Vec<Field>),
}

impl Field {
    /// All that have this name, wherever they are.
    fn all<'a>(&'a self, name: &str, found: &mut Vec<&'a Field>) {
        match self {
            Self::Text(_) => {}
            Self::Tree(fields) => {
                for (key, field) in fields {
                    if key == name {
                        found.push(field);
                    }
                    field.all(name, found);
                }
            }
            Self::List(fields) => fields.iter().for_each(|field| field.all(name, found)),
        }
    }

    fn texts(&self, name: &str) -> Vec<&str> {
        let mut found = Vec::new();
        self.all(name, &mut found);
        found.iter().flat_map(|field| field.text()).collect()
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.texts(name).first().copied()
    }

    /// Of a field, or of each in a list.
    fn text(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(fields) => fields.iter().flat_map(Self::text).collect(),
            Self::Tree(_) => Vec::new(),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.first(name)?.parse().ok()
    }
}

/// Which trace a conversation is of.
#[derive(Default)]
struct Conversations {
    requests: HashMap<u64, TraceId>,
    streams: HashMap<(u64, u64), TraceId>,
}

impl Conversations {
    /// The packet, once for each trace.
    fn packets(&mut self, source: &Field) -> Option<Vec<Packet>> {
        let frame = source.number("frame.number")?;
        let time = time(source.first("frame.time_epoch")?)?;
        let connection = source.number("tcp.stream").unwrap_or(u64::MAX);
        let mut traces = Vec::new();
        for line in source.texts("http.request.line") {
            traces.extend(line.split_once(':').and_then(|(name, value)| of_header(name, value)));
        }
        self.of_streams(source, connection, &mut traces);
        traces.extend(
            ["tcp.payload", "tcp.reassembled.data", "tcp.segment_data", "kafka.header_value"]
                .iter()
                .flat_map(|name| {
                    source.texts(name).into_iter().flat_map(|hexadecimal| in_bytes(&bytes(hexadecimal)))
                }),
        );
        for request in ["http.request_in", "kafka.request_frame"] {
            let asked = source.number(request).and_then(|frame: u64| self.requests.get(&frame));
            traces.extend(asked.cloned());
        }
        traces.sort();
        traces.dedup();
        if let Some(trace) = traces.first() {
            self.requests.insert(frame, trace.clone());
        }
        let packet = |trace_id| Packet {
            time,
            trace_id,
            protocol: protocol(source),
            from: end(source, "ip.src", "ipv6.src", "tcp.srcport"),
            to: end(source, "ip.dst", "ipv6.dst", "tcp.dstport"),
            what: what(source),
            frame,
            network_latency_ms: source.number("tcp.time_delta").map(|seconds: f64| seconds * 1000.0),
            response_ms: source.number("http.time").map(|seconds: f64| seconds * 1000.0),
            status_code: source
                .number("http.response.code")
                .or_else(|| source.number("http2.headers.status")),
        };
        Some(traces.into_iter().map(packet).collect())
    }

    /// Of HTTP/2, where a connection has many streams and only the first frame of one has its headers.
    fn of_streams(&mut self, source: &Field, connection: u64, traces: &mut Vec<TraceId>) {
        let mut frames = Vec::new();
        source.all("http2.stream", &mut frames);
        for frame in frames {
            let Some(stream) = frame.number("http2.streamid") else { continue };
            let mut headers = Vec::new();
            frame.all("http2.header", &mut headers);
            let own = headers.iter().find_map(|header| {
                of_header(header.first("http2.header.name")?, header.first("http2.header.value")?)
            });
            if let Some(trace) = own {
                self.streams.insert((connection, stream), trace);
            }
            traces.extend(self.streams.get(&(connection, stream)).cloned());
        }
    }
}

fn of_header(name: &str, value: &str) -> Option<TraceId> {
    match name.trim().to_ascii_lowercase().as_str() {
        "traceparent" => TraceId::of_traceparent(value),
        "x-request-id" => TraceId::parse(value).ok(),
        _ => None,
    }
}

/// Every `traceparent` in a run of bytes.
fn in_bytes(bytes: &[u8]) -> Vec<TraceId> {
    /// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
    const LENGTH: usize = 55;
    let candidates = bytes.windows(LENGTH).filter(|window| window.starts_with(b"00-"));
    candidates.filter_map(|window| TraceId::of_traceparent(std::str::from_utf8(window).ok()?)).collect()
}

/// `30:30:2d` → `00-`
fn bytes(hexadecimal: &str) -> Vec<u8> {
    hexadecimal.split(':').map_while(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// Seconds since the epoch, as older versions of tshark write it, or RFC 3339, as newer ones do.
fn time(text: &str) -> Option<Timestamp> {
    let Some((seconds, fraction)) = text.split_once('.').filter(|_| !text.contains('T')) else {
        return text.parse().ok();
    };
    let nanoseconds: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Timestamp::new(seconds.parse().ok()?, nanoseconds.parse().ok()?).ok()
}

fn protocol(source: &Field) -> &'static str {
    let layers = source.first("frame.protocols").unwrap_or_default();
    let known = ["kafka", "http2", "http"];
    known.into_iter().find(|known| layers.split(':').any(|layer| layer == *known)).unwrap_or("tcp")
}

fn end(source: &Field, address: &str, other: &str, port: &str) -> String {
    let address = source.first(address).or_else(|| source.first(other)).unwrap_or("?");
    format!("{address}:{}", source.first(port).unwrap_or("?"))
}

fn what(source: &Field) -> String {
    let field = |name| source.first(name).unwrap_or_default();
    match protocol(source) {
        "http" => match source.first("http.request.method") {
            Some(method) => format!("{method} {}", field("http.request.uri")),
            None => format!("answer {}", field("http.response.code")),
        },
        "kafka" => match (source.first("kafka.api_key"), field("kafka.api_version")) {
            (Some("0"), version) => format!("Produce v{version}"),
            (Some("1"), version) => format!("Fetch v{version}"),
            (Some(key), version) => format!("request {key} v{version}"),
            (None, _) => "answer".to_owned(),
        },
        "http2" => match source.first("http2.headers.path") {
            Some(path) => path.to_owned(),
            None => "data".to_owned(),
        },
        _ => "data".to_owned(),
    }
}

/// The array; gives the number of packets.
struct Packets<F> {
    on_packet: F,
    conversations: Conversations,
}

impl<'de, F: FnMut(Packet)> DeserializeSeed<'de> for Packets<F> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Packet)> Visitor<'de> for Packets<F> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of packets")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut packets: A) -> Result<u64, A::Error> {
        let mut count = 0;
        while let Some(packet) = packets.next_element::<Field>()? {
            count += 1;
            self.conversations.packets(&packet).into_iter().flatten().for_each(&mut self.on_packet);
        }
        Ok(count)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyField)
    }
}

struct AnyField;

impl<'de> Visitor<'de> for AnyField {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of a packet")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Field, E> {
        Ok(Field::Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Field, E> {
        Ok(Field::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Field, E> {
        Ok(Field::Text(number.to_string()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Field, E> {
        Ok(Field::Text(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Text(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Field, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = elements.next_element()? {
            fields.push(field);
        }
        Ok(Field::List(fields))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(Field::Tree(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn packets(layers: &[&str]) -> Vec<Packet> {
        let packet = |(number, layers): (usize, &&str)| {
            format!(
                r#"{{"_source":{{"layers":{{"frame":{{"frame.number":"{number}","frame.time_epoch":"1700000000.{number}","frame.protocols":"eth:ip:tcp:{}"}},"ip":{{"ip.src":"10.0.0.1","ip.dst":"10.0.0.2"}},{}}}}}}}"#,
                layers.split_once('|').unwrap().0,
                layers.split_once('|').unwrap().1
            )
        };
        let all: Vec<_> = layers.iter().enumerate().map(packet).collect();
        let mut found = Vec::new();
        assert_eq!(
            read(format!("[{}]", all.join(",")).as_bytes(), |packet| found.push(packet)).unwrap(),
            all.len() as u64
        );
        found
    }

    #[test]
    fn an_answer_has_the_trace_of_its_request_its_status_and_its_time() {
        let found = packets(&[
            r#"http|"http":{"GET /x HTTP/1.1":{"http.request.method":"GET","http.request.uri":"/x"},"http.request.line":"host: y","http.request.line":"X-Request-Id: 4bf92f35-77b3-4da6-a3ce-929d0e0e4736\r\n"}"#,
            r#"http|"tcp":{"tcp.stream":"3","tcp.srcport":"80","tcp.dstport":"9","Timestamps":{"tcp.time_delta":"0.002"}},"http":{"http.response.code":"503","http.time":"0.25","http.request_in":"0"}"#,
            r#"http|"http":{"http.response.code":"200"}"#,
        ]);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].what.as_str(), found[0].trace_id.to_string().as_str()), ("GET /x", TRACE));
        let answer = &found[1];
        assert_eq!(
            (answer.status_code, answer.response_ms, answer.network_latency_ms),
            (Some(503), Some(250.0), Some(2.0))
        );
        assert_eq!((answer.from.as_str(), answer.to.as_str()), ("10.0.0.1:80", "10.0.0.2:9"));
        assert_eq!(answer.trace_id, found[0].trace_id);
    }

    #[test]
    fn a_stream_of_http2_has_the_trace_of_its_headers_and_its_neighbour_does_not() {
        let headers = format!(
            r#"http2|"tcp":{{"tcp.stream":"1"}},"http2":{{"http2.stream":{{"http2.streamid":"5","http2.header":{{"http2.header.name":":path","http2.header.value":"/a"}},"http2.header":{{"http2.header.name":"traceparent","http2.header.value":"00-{TRACE}-00f067aa0ba902b7-01"}}}}}}"#
        );
        let data = r#"http2|"tcp":{"tcp.stream":"1"},"http2":{"http2.stream":{"http2.streamid":"5"}}"#;
        let neighbour = r#"http2|"tcp":{"tcp.stream":"1"},"http2":{"http2.stream":{"http2.streamid":"7"}}"#;
        let other = r#"http2|"tcp":{"tcp.stream":"2"},"http2":{"http2.stream":{"http2.streamid":"5"}}"#;
        let frames: Vec<u64> =
            packets(&[&headers, neighbour, data, other]).iter().map(|packet| packet.frame).collect();
        assert_eq!(frames, [0, 2]);
    }

    #[test]
    fn every_traceparent_in_the_bytes_counts() {
        let other = "0af7651916cd43dd8448eb211c80319c";
        let payload = format!(
            "\0\x1etraceparent\x6e00-{TRACE}-00f067aa0ba902b7-01xx00-{other}-b7ad6b7169203331-00 00-zz"
        );
        let payload: Vec<String> = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
        let packet = format!(
            r#"kafka|"tcp":{{"tcp.payload":"{}"}},"kafka":{{"kafka.api_key":"0","kafka.api_version":"10"}}"#,
            payload.join(":")
        );
        let found = packets(&[&packet]);
        let traces: Vec<String> = found.iter().map(|packet| packet.trace_id.to_string()).collect();
        assert_eq!(traces, [other, TRACE]);
        assert_eq!((found[0].protocol, found[0].what.as_str()), ("kafka", "Produce v10"));
    }

    #[test]
    fn both_forms_of_time_are_read() {
        assert_eq!(time("1700000000.5").unwrap().to_string(), "2023-11-14T22:13:20.5Z");
        assert_eq!(time("1700000000.000000001").unwrap().as_nanosecond(), 1_700_000_000_000_000_001);
        assert_eq!(time("2023-11-14T22:13:20.5Z"), time("1700000000.5"));
        assert_eq!(time("yesterday"), None);
    }

    #[test]
    fn what_is_no_array_of_packets_is_refused() {
        assert!(read(&b"{}"[..], |_| {}).is_err());
        assert!(read(&b"[{}"[..], |_| {}).is_err());
        assert_eq!(read(&b"[]"[..], |_| {}).unwrap(), 0);
    }
}
