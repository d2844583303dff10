//! The frame of a clearsigned text.
//!
//! ```text
//! -----BEGIN PGP SIGNED MESSAGE-----
//! Hash: SHA512                          only `Hash` headers
//!                                       an empty line
//! Origin: Debian                        the text; a line that starts with `-` has `- ` in front
//! -----BEGIN PGP SIGNATURE-----
//! iQIz...                               one armoured block with all signatures
//! -----END PGP SIGNATURE-----           and nothing after it
//! ```
//!
//! Nothing may stand before or after the frame, and there is one frame: whoever reads such a file in another way than
//! its verifier does can be shown a text that nobody signed. Specification: RFC 9580, section 7.

use super::OpenPgpError;

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// A clearsigned text, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cleartext<'a> {
    /// The text that the signatures cover: dashes unescaped, no blanks at line ends, lines ended by `\n` except for
    /// the last one, whose end belongs to the frame.
    pub text: String,
    /// The armoured signatures, with their first and last line.
    pub signatures: &'a str,
}

/// Takes the frame apart.
pub(super) fn split(bytes: &[u8]) -> Result<Cleartext<'_>, OpenPgpError> {
    let input = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8 text"))?;
    if input.contains('\r') {
        return Err(malformed("it has carriage returns"));
    }
    let rest = input.strip_prefix(BEGIN).and_then(|rest| rest.strip_prefix('\n'));
    let mut rest = rest.ok_or_else(|| malformed("it does not begin with a signed message"))?;
    loop {
        let (line, after) = rest.split_once('\n').ok_or(OpenPgpError::Truncated)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        if !line.starts_with("Hash: ") {
            return Err(malformed("a header other than Hash stands before the text"));
        }
    }
    let mut text = String::with_capacity(rest.len());
    loop {
        if let Some(after) = rest.strip_prefix(SIGNATURE).filter(|after| after.starts_with('\n')) {
            let length = SIGNATURE.len() + after.find(END).ok_or(OpenPgpError::Truncated)? + END.len();
            if !matches!(&rest[length..], "" | "\n") {
                return Err(malformed("something follows the signatures"));
            }
            text.pop();
            return Ok(Cleartext { text, signatures: &rest[..length] });
        }
        let (line, after) = rest.split_once('\n').ok_or(OpenPgpError::Truncated)?;
        rest = after;
        let line = match line.strip_prefix("- ") {
            Some(unescaped) => unescaped,
            None if line.starts_with('-') => return Err(malformed("a line of the text starts with a bare dash")),
            None => line,
        };
        text.push_str(line.trim_end_matches([' ', '\t']));
        text.push('\n');
    }
}

fn malformed(why: &'static str) -> OpenPgpError {
    OpenPgpError::Malformed { why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nA: 1 \n- -B\n\n-----BEGIN PGP SIGNATURE-----\n\nxx\n-----END PGP SIGNATURE-----\n";

    #[test]
    fn unescapes_the_text_and_keeps_the_armour() {
        let parts = split(GOOD.as_bytes()).unwrap();
        assert_eq!(parts.text, "A: 1\n-B\n");
        assert_eq!(parts.signatures, "-----BEGIN PGP SIGNATURE-----\n\nxx\n-----END PGP SIGNATURE-----");
    }

    #[test]
    fn refuses_anything_outside_of_the_frame() {
        for text in [
            format!("\n{GOOD}"),
            format!("Origin: Evil\n{GOOD}"),
            format!("{GOOD}\n"),
            format!("{GOOD}Origin: Evil\n"),
            format!("{GOOD}{GOOD}"),
            GOOD.replace("Hash:", "Comment:"),
            GOOD.replace("- -B", "-B"),
            GOOD.replace('\n', "\r\n"),
        ] {
            assert!(matches!(split(text.as_bytes()), Err(OpenPgpError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_text_that_was_cut_off_is_called_truncated() {
        for length in BEGIN.len() + 1..GOOD.len() - 1 {
            assert_eq!(split(&GOOD.as_bytes()[..length]), Err(OpenPgpError::Truncated), "{length}");
        }
    }

    proptest! {
        #[test]
        fn mutated_input_never_panics(at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..GOOD.len()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = split(&bytes);
            let _ = split(&bytes[cut..]);
        }
    }
}
