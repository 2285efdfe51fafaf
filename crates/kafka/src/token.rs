//! Why there is no token to show to the brokers: what librdkafka says when the token endpoint gave none.
//!
//! It says it twice: in its log, with endpoint and HTTP status, then as an error without them. Answers that are no token are
//! said as an error only.

/// The facilities of the log line: the two grants.
const FACILITIES: [&str; 2] = ["OIDC", "JWT"];
/// How the error begins.
const ERROR: &str = "Failed to acquire SASL OAUTHBEARER token: ";
/// An answer may be a whole page.
const MOST: usize = 300;

/// No token was got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoToken {
    /// The token endpoint, where librdkafka names it.
    pub(crate) endpoint: Option<String>,
    /// What went wrong: the answer, or why there was none.
    pub(crate) reason: String,
    /// The endpoint has answered, and the same question gets the same answer.
    pub(crate) refused: bool,
}

impl NoToken {
    /// From a line of librdkafka's log: `Failed to retrieve OIDC token from "URL": REASON (STATUS)`, where the status is -1 if
    /// there was no answer.
    pub(crate) fn from_log(facility: &str, message: &str) -> Option<Self> {
        if !FACILITIES.contains(&facility) {
            return None;
        }
        let (endpoint, rest) = message.split_once('"')?.1.split_once("\": ")?;
        let (reason, status) = rest.rsplit_once(" (")?;
        let status = status.trim_end_matches(')').parse::<u16>().ok();
        // These pass: a timeout, too early, too many requests, and whatever is the server's own fault.
        let refused = status.is_some_and(|status| status < 500 && ![408, 425, 429].contains(&status));
        let reason = match status {
            Some(status) => format!("HTTP status {status}: {}", line(reason)),
            None => line(reason),
        };
        Some(Self { endpoint: Some(endpoint.to_owned()), reason, refused })
    }

    /// From an error of the client; `None` where it is about something else.
    pub(crate) fn from_error(reason: &str) -> Option<Self> {
        let reason = reason.strip_prefix(ERROR)?;
        Some(Self { endpoint: None, reason: line(reason), refused: true })
    }

    /// Whether `later`, an error, only repeats what the log has said better.
    pub(crate) fn says_more_than(&self, later: &Self) -> bool {
        self.endpoint.is_some() && later.endpoint.is_none() && self.reason.ends_with(&later.reason)
    }
}

/// The beginning of a text, on one line.
fn line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "https://login.example/token";

    fn logged(reason: &str) -> NoToken {
        let message = format!("Failed to retrieve OIDC token from \"{ENDPOINT}\": {reason}");
        NoToken::from_log("OIDC", &message).unwrap()
    }

    #[test]
    fn the_log_names_endpoint_and_status_and_tells_a_refusal_from_what_passes() {
        let wrong = logged("{\"error\": \"invalid_client\",\n \"hint\": \"(none)\"} (401)");
        assert_eq!(wrong.endpoint.as_deref(), Some(ENDPOINT));
        assert_eq!(wrong.reason, r#"HTTP status 401: {"error": "invalid_client", "hint": "(none)"}"#);
        assert!(wrong.refused);
        let away = logged("Failed to connect to login.example port 443 (-1)");
        assert_eq!(away.reason, "Failed to connect to login.example port 443");
        assert!(!away.refused);
        for passing in [408, 429, 500, 503] {
            assert!(!logged(&format!("later ({passing})")).refused, "{passing}");
        }
        assert_eq!(NoToken::from_log("FAIL", "Failed to connect"), None);
    }

    #[test]
    fn an_error_repeats_the_log_or_tells_of_an_answer_that_is_no_token() {
        let away = logged("Could not resolve host: login.example (-1)");
        let repeated = NoToken::from_error(
            "Failed to acquire SASL OAUTHBEARER token: Could not resolve host: login.example",
        );
        assert!(away.says_more_than(&repeated.unwrap()));
        let strange =
            "Failed to acquire SASL OAUTHBEARER token: Expected JSON response with \"access_token\" field";
        let strange = NoToken::from_error(strange).unwrap();
        assert!(strange.refused && !away.says_more_than(&strange));
        assert_eq!(NoToken::from_error("Connection refused"), None);
    }

    #[test]
    fn a_page_for_an_answer_is_cut() {
        let page = logged(&format!("<html>{}</html> (404)", "ü ".repeat(10_000)));
        assert!(page.refused && page.reason.chars().count() < MOST + 30, "{}", page.reason);
    }
}
