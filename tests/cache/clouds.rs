//! Google Cloud Storage and Azure Blob Storage as cache, as far as a server of these tests speaks their languages.

use std::fs;
use std::process::Command;

use super::{Commons, build, build_without_mirror, came, said, warnings};
use crate::support::blobs::Blobs;
use crate::support::workshop::{Ended, Workshop};

#[track_caller]
fn shares(url: &str, prefix: &str, environment: impl Fn(&mut Command, &Commons, u16)) {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let (commons, blobs) = (Commons::new(&first), Blobs::serve());
    let mut command = build(&first, url, &commons.signing("ci"));
    environment(&mut command, &commons, blobs.port());
    let ended = Ended::of(&mut command);
    assert_eq!(came(&said(&first, &ended)), (0, 0));
    assert_eq!(warnings(&ended), [] as [&str; 0]);
    let names = blobs.names();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with(prefix)), "{names:?}");
    let mut command = build_without_mirror(&second, &first, url, &commons.listing("ci"));
    environment(&mut command, &commons, blobs.port());
    let ended = Ended::of(&mut command);
    assert_eq!(came(&said(&second, &ended)), (1, 0));
    assert_eq!(warnings(&ended), [] as [&str; 0]);
}

#[test]
fn what_one_machine_built_another_takes_from_google_cloud_storage() {
    shares("gs://team/some/prefix", "/team/some/prefix/", |command, commons, port| {
        let account = format!(
            "{{\"gcs_base_url\": \"http://127.0.0.1:{port}\", \"disable_oauth\": true, \"client_email\": \"\", \
             \"private_key\": \"\", \"private_key_id\": \"\"}}"
        );
        fs::write(commons.path("account.json"), account).unwrap();
        command.env("GOOGLE_SERVICE_ACCOUNT", commons.path("account.json"));
    });
}

#[test]
fn what_one_machine_built_another_takes_from_azure() {
    shares("az://box/some/prefix", "/box/some/prefix/", |command, _, port| {
        command.env("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{port}"));
        command.env("AZURE_STORAGE_ACCOUNT_NAME", "team").env("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0");
    });
}
