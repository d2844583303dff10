//! The command line as a user meets it: the program itself is run.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::image::Sketch;

fn adamant(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
    command.args(arguments).env_remove("NO_COLOR").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = adamant(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_is_data_and_says_what_exit_codes_mean() {
    let (code, stdout, stderr) = output(&["help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in ["  5    verification failed", "  schema       ", "  130  interrupted"] {
        assert!(stdout.contains(line), "{line} is not in\n{stdout}");
    }
    for verb in ["init", "schema", "completions"] {
        let (code, stdout, _) = output(&["help", verb]);
        assert_eq!(code, Some(0));
        assert!(stdout.contains("Example"), "{verb} has no example");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_names_what_was_meant() {
    let (code, stdout, stderr) = output(&["shcema"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("unrecognized subcommand 'shcema'") && stderr.contains("'schema'"), "{stderr}");
    assert_eq!(output(&[]).0, Some(2));
    assert_eq!(output(&["init", "--nmae", "x"]).0, Some(2));
}

#[test]
fn schema_prints_the_json_schema_of_recipes() {
    let (code, stdout, _) = output(&["schema"]);
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(schema["title"], "adamant recipe");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["packages"]["items"]["type"], "string");
    assert_eq!(serde_json::from_str::<Value>(&output(&["schema", "--json"]).1).unwrap(), schema);
}

#[test]
fn init_writes_a_recipe_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images/My Web.toml");
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = output(&["init", path]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert_eq!(stderr, format!("wrote {path}; build the image with `adamant build '{path}'`\n"));
    let written = fs::read_to_string(path).unwrap();
    assert!(written.contains("\nname = \"my-web\"\n"));
    fs::write(path, "mine").unwrap();
    let (code, _, stderr) = output(&["init", path]);
    assert_eq!(code, Some(4));
    assert_eq!(
        stderr,
        format!(
            "error: cannot write {path}: File exists (os error 17)\n\
             hint: choose another file: `adamant init FILE`; nothing was overwritten\n"
        )
    );
    assert_eq!(fs::read_to_string(path).unwrap(), "mine");
}

#[test]
fn init_refuses_a_name_that_no_image_can_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    let (code, _, stderr) = output(&["init", "--name", "My_Web", path.to_str().unwrap()]);
    assert_eq!(code, Some(3));
    assert!(
        stderr.starts_with("error: an image cannot be called \"My_Web\"") && stderr.contains("\"my-web\""),
        "{stderr}"
    );
    assert!(!path.exists());
}

#[test]
fn with_json_standard_output_is_one_object_also_on_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    let path = path.to_str().unwrap();
    let (code, stdout, _) = output(&["--json", "init", "--name", "web", path]);
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, object["schema"].as_str(), object["name"].as_str()),
        (Some(0), Some("adamant.init/1"), Some("web"))
    );
    let (code, stdout, stderr) = output(&["init", path, "--json"]);
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, Some(4));
    assert_eq!(object["schema"], "adamant.error/1");
    assert_eq!((object["kind"].as_str(), object["code"].as_i64()), (Some("environment"), Some(4)));
    assert_eq!(object["message"], format!("cannot write {path}"));
    assert_eq!(object["causes"][0], "File exists (os error 17)");
    assert!(stderr.starts_with("error: cannot write"));
}

#[test]
fn quiet_leaves_errors_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    let (code, stdout, stderr) = output(&["-q", "init", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
    assert!(output(&["-q", "init", path.to_str().unwrap()]).2.starts_with("error: "));
}

#[test]
fn colour_is_as_asked() {
    let colored = |arguments: &[&str]| output(arguments).2.contains('\x1b');
    assert!(!colored(&["init", "--name", "A", "/nonexistent/a/b"]));
    assert!(colored(&["--color", "always", "init", "--name", "A", "/nonexistent/a/b"]));
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = output(&["completions", shell]);
        assert_eq!(code, Some(0), "{shell}");
        assert!(stdout.contains("completions") && stdout.contains("schema"), "{shell}");
    }
    assert_eq!(output(&["completions", "tcsh"]).0, Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = adamant(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_is_a_failure() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let output = adamant(&["schema"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "error: cannot write to standard output: No space left on device (os error 28)\n\
         hint: free some room on that file system, then run the command again\n"
    );
}

#[test]
fn an_interrupt_exits_with_130() {
    // A pipe that is full keeps the program busy writing.
    let (reader, mut writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut child = adamant(&["schema"]).stdout(writer).spawn().unwrap();
    let blocked = || {
        let state = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
        state.contains("pipe")
    };
    for _ in 0..100 {
        if blocked() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(reader.as_raw_fd() >= 0);
}

#[test]
fn a_manifest_that_names_another_file_is_not_booted() {
    let mut built = Sketch::default().build();
    built.manifest.disk.file = "/etc/passwd".into();
    built.write_manifest();
    let store = tempfile::tempdir().unwrap();
    let (path, store) = (built.path().to_str().unwrap(), store.path().to_str().unwrap());
    let (code, _, stderr) = output(&["boot", path, "--offline", "--store", store]);
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("the manifest names the file \"/etc/passwd\""), "{stderr}");
}

#[test]
fn each_cause_is_told_once() {
    let built = Sketch::default().build();
    let path = built.path().to_str().unwrap();
    fs::write(built.path().join("manifest.json"), "{\"schema\":}").unwrap();
    let (code, _, stderr) = output(&["verify", path]);
    assert_eq!(code, Some(5));
    let expected = ": the manifest cannot be read: not a manifest: expected value at line 1 column 11\n";
    assert!(stderr.contains(", byte 10: ") && stderr.ends_with(expected), "{stderr}");
}

#[test]
fn a_lock_that_is_no_text_says_how_to_get_another() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("a.toml");
    fs::write(&recipe, "name = \"a\"\nversion = \"1\"\npackages = [\"bash\"]\n[debian]\nsuite = \"trixie\"\n").unwrap();
    fs::write(folder.path().join("a.lock"), b"schema = 1\n\xff").unwrap();
    let store = folder.path().join("store");
    let (recipe, store) = (recipe.to_str().unwrap(), store.to_str().unwrap());
    let (code, _, stderr) = output(&["build", recipe, "--offline", "--store", store]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("`adamant lock` makes a new one: byte 11 is not UTF-8"), "{stderr}");
}
