//! `/usr/share/info/dir`, the menu of Info manuals, in an order of its own.
//!
//! `update-info-dir` adds manuals in the order in which the file system lists them, so the order of sections and entries
//! is the host's. The format is that of GNU install-info (Texinfo manual, "Installing Info Files"): a preamble up to
//! `* Menu:`, then sections apart by empty lines, each a title and entries that begin with `* `; other lines go on.

/// The line that ends the preamble.
const MENU: &[u8] = b"* Menu:";

/// The menu with its sections, and the entries of each, sorted; `None` for a file without a menu.
pub(super) fn sorted(text: &[u8]) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let menu = lines.iter().position(|line| line.trim_ascii_end() == MENU)?;
    let (preamble, rest) = lines.split_at(menu + 1);
    let mut sections: Vec<Vec<u8>> = rest
        .split(|line| line.trim_ascii().is_empty())
        .filter(|section| !section.is_empty())
        .map(sorted_section)
        .collect();
    sections.sort();
    let mut result = preamble.concat();
    for section in sections {
        result.push(b'\n');
        result.extend(section);
    }
    Some(result)
}

fn sorted_section(lines: &[&[u8]]) -> Vec<u8> {
    let first = lines.iter().position(|line| line.starts_with(b"* ")).unwrap_or(lines.len());
    let (title, rest) = lines.split_at(first);
    let mut entries: Vec<Vec<u8>> = rest.chunk_by(|_, next| !next.starts_with(b"* ")).map(with_line_end).collect();
    entries.sort();
    [with_line_end(title), entries.concat()].concat()
}

/// The last line of a file may lack its end, and may not be the last one any more.
fn with_line_end(lines: &[&[u8]]) -> Vec<u8> {
    let mut text = lines.concat();
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_manuals_were_added_does_not_show() {
        let one = b"top\n\n* Menu:\n\nZip\n* b: (b).  B.\n* a: (a).  A,\n     more.\n\nArt\n* c: (c).  C.";
        let other = b"top\n\n* Menu:\n\nArt\n* c: (c).  C.\n\n\nZip\n* a: (a).  A,\n     more.\n* b: (b).  B.\n";
        let expected = "top\n\n* Menu:\n\nArt\n* c: (c).  C.\n\nZip\n* a: (a).  A,\n     more.\n* b: (b).  B.\n";
        for text in [&one[..], other] {
            assert_eq!(String::from_utf8(sorted(text).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn a_file_without_a_menu_stays() {
        assert_eq!(sorted(b"Zip\n* b: (b).\n* a: (a).\n"), None);
        assert_eq!(sorted(b""), None);
    }
}
