//! `os-release`: what the image calls itself.
//!
//! Specification: `os-release(5)`.

/// `text` with `IMAGE_ID` and `IMAGE_VERSION` set; everything else stays as it is, in its order.
pub fn with_image(text: &str, id: &str, version: &str) -> String {
    let is_ours = |line: &&str| line.starts_with("IMAGE_ID=") || line.starts_with("IMAGE_VERSION=");
    let mut result: String = text.lines().filter(|line| !is_ours(line)).flat_map(|line| [line, "\n"]).collect();
    result.push_str(&format!("IMAGE_ID={}\nIMAGE_VERSION={}\n", quoted(id), quoted(version)));
    result
}

/// The value of `key`, without quotes; the last one counts.
pub fn get(text: &str, key: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    let inner = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut plain = String::new();
    let mut characters = inner.unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(plain)
}

/// The value as a shell reads it.
fn quoted(value: &str) -> String {
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return value.to_owned();
    }
    let escaped = value.chars().flat_map(|c| "\"\\$`".contains(c).then_some('\\').into_iter().chain([c]));
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_the_image_and_keeps_the_rest() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 13\"\nIMAGE_ID=old\nID=debian\nIMAGE_VERSION=0";
        let changed = with_image(text, "minimal", "1.2~rc1");
        let expected = "PRETTY_NAME=\"Debian GNU/Linux 13\"\nID=debian\nIMAGE_ID=minimal\nIMAGE_VERSION=\"1.2~rc1\"\n";
        assert_eq!(changed, expected);
        assert_eq!(get(&changed, "IMAGE_VERSION").as_deref(), Some("1.2~rc1"));
        assert_eq!(get(&changed, "PRETTY_NAME").as_deref(), Some("Debian GNU/Linux 13"));
        assert_eq!(get(&changed, "IMAGE"), None);
    }

    #[test]
    fn what_is_quoted_reads_back() {
        for value in ["", "a b", "$`\"\\", "plain"] {
            assert_eq!(get(&with_image("", value, "1"), "IMAGE_ID").as_deref(), Some(value));
        }
    }
}
