//! The content of a JSON string: borrowed where it is written plainly, else unescaped into a buffer that is kept.

/// The text between the quotes of `raw`, a string that the JSON grammar has accepted; `None` if it escapes a lone
/// surrogate, which no UTF-8 text can hold.
pub(crate) fn content<'a>(raw: &'a str, buffer: &'a mut String) -> Option<&'a str> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.as_bytes().contains(&b'\\') {
        return Some(inner);
    }
    buffer.clear();
    let mut rest = inner;
    while let Some((plain, escape)) = rest.split_once('\\') {
        buffer.push_str(plain);
        let mut chars = escape.chars();
        match chars.next()? {
            'b' => buffer.push('\u{8}'),
            'f' => buffer.push('\u{c}'),
            'n' => buffer.push('\n'),
            'r' => buffer.push('\r'),
            't' => buffer.push('\t'),
            'u' => {
                let (character, after) = unicode(chars.as_str())?;
                buffer.push(character);
                chars = after.chars();
            }
            itself => buffer.push(itself),
        }
        rest = chars.as_str();
    }
    buffer.push_str(rest);
    Some(buffer)
}

/// The character of the escape whose digits `text` starts with, of two escapes for a surrogate pair, and what follows.
fn unicode(text: &str) -> Option<(char, &str)> {
    let (first, rest) = unit(text)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, rest));
    }
    let (second, rest) = unit(rest.strip_prefix("\\u")?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, rest))
}

fn unit(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescaped(raw: &str) -> Option<String> {
        content(raw, &mut String::from("left over")).map(str::to_owned)
    }

    #[test]
    fn escapes_are_resolved() {
        for (raw, expected) in [
            (r#""""#, ""),
            (r#""plain é""#, "plain é"),
            (r#""a\"b\\c\/d""#, "a\"b\\c/d"),
            (r#""\b\f\n\r\t""#, "\u{8}\u{c}\n\r\t"),
            (r#""\u00e9\u4E2D""#, "é中"),
            (r#""x\ud83d\ude00y""#, "x😀y"),
            (r#""\u0000""#, "\0"),
        ] {
            assert_eq!(unescaped(raw).as_deref(), Some(expected), "{raw}");
        }
    }

    #[test]
    fn a_lone_surrogate_is_no_text() {
        for raw in [
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83dx""#,
            r#""\ud83d\n""#,
            r#""\ud83d\u0041""#,
            r#""\ud83d\ud83d""#,
        ] {
            assert_eq!(unescaped(raw), None, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(pieces in proptest::collection::vec(
            prop_oneof![
                "[a-z é😀]{0,3}",
                Just(r"\n".to_owned()), Just(r"\\".to_owned()), Just(r#"\""#.to_owned()), Just(r"\/".to_owned()),
                any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
                (0xd800_u16..0xe000).prop_map(|unit| format!("\\u{unit:04X}")),
                any::<char>().prop_map(|c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()),
            ], 0..8))
        {
            let raw = format!("\"{}\"", pieces.concat());
            prop_assert_eq!(unescaped(&raw), serde_json::from_str::<String>(&raw).ok(), "{}", raw);
        }
    }
}
