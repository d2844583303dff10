//! The QEMU Machine Protocol: as much of it as a machine's life needs.
//!
//! JSON objects, one a line, over a socket. Events and answers come mixed; commands are few and their answers are not
//! waited for, except that errors are handed on. Specification: QEMU's `docs/interop/qmp-spec.rst`.

use serde_json::{Value, json};

/// What QEMU tells of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest's kernel panicked, and said so to the pvpanic device.
    Panicked,
    /// The guest has turned itself off.
    PoweredOff,
    /// The guest has reset itself.
    Reset,
    /// The machine has ended for another reason, in QEMU's words.
    Ended(String),
    /// The machine stands still though nobody asked: the accelerator cannot run the guest.
    InternalError,
    /// A command was refused, in QEMU's words.
    Refused(String),
}

/// Understands a line; `None` for all that is of no interest here.
pub fn parse(line: &str) -> Option<Event> {
    let value: Value = serde_json::from_str(line).ok()?;
    if let Some(error) = value.get("error") {
        return Some(Event::Refused(error.get("desc").and_then(Value::as_str).unwrap_or_default().to_owned()));
    }
    if value.pointer("/return/status").and_then(Value::as_str) == Some("internal-error") {
        return Some(Event::InternalError);
    }
    match value.get("event")?.as_str()? {
        "GUEST_PANICKED" => Some(Event::Panicked),
        "SHUTDOWN" => Some(match value.pointer("/data/reason").and_then(Value::as_str).unwrap_or_default() {
            "guest-shutdown" => Event::PoweredOff,
            "guest-reset" => Event::Reset,
            "guest-panic" => Event::Panicked,
            reason => Event::Ended(reason.to_owned()),
        }),
        _ => None,
    }
}

/// The line for a command without arguments.
pub fn command(name: &str) -> String {
    format!("{}\n", json!({ "execute": name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_a_machine_ended() {
        let event =
            |reason: &str| parse(&format!(r#"{{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}}}}"#));
        assert_eq!(event("guest-shutdown"), Some(Event::PoweredOff));
        assert_eq!(event("guest-reset"), Some(Event::Reset));
        assert_eq!(event("guest-panic"), Some(Event::Panicked));
        assert_eq!(event("host-signal"), Some(Event::Ended("host-signal".into())));
    }

    #[test]
    fn tells_an_accelerator_that_cannot_run_the_guest() {
        assert_eq!(parse(r#"{"return":{"status":"internal-error","running":false}}"#), Some(Event::InternalError));
        assert_eq!(parse(r#"{"return":{"status":"running","running":true}}"#), None);
    }

    #[test]
    fn junk_is_no_event() {
        for line in ["", "{", "[]", "1", r#"{"event":1}"#, r#"{"return":{}}"#] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
