//! Why what boots an image differs: partitions, and the sections of the kernel image.

use super::{Causes, Chain, Effect};
use crate::manifest::Manifest;

impl Chain<'_> {
    pub(super) fn partition(&mut self, partition: &str) -> usize {
        let name = partition.to_owned();
        self.node(Effect::Partition { partition: name.clone() }, |chain| {
            let mut because: Vec<usize> = chain.identifiers().into_iter().collect();
            match name.as_str() {
                "root-verity" if chain.before.verity.root_hash != chain.after.verity.root_hash => {
                    because.push(chain.root_hash());
                }
                "esp" => {
                    let sections: Vec<String> =
                        chain.difference.boot.sections.iter().map(|section| section.part.clone()).collect();
                    because.extend(sections.iter().map(|section| chain.section(section)));
                    because.extend(chain.epoch());
                }
                _ => {}
            }
            let because = if because.is_empty() { chain.tool().into_iter().collect() } else { because };
            chain.or_unknown(Causes { because, perhaps: Vec::new() }, "what it is made from is the same")
        })
    }

    fn section(&mut self, name: &str) -> usize {
        let section = name.to_owned();
        self.node(Effect::Section { name: section.clone() }, |chain| {
            let causes = match section.as_str() {
                ".cmdline" => chain.command_line(),
                ".osrel" => chain.os_release(),
                ".linux" | ".uname" => Causes::among(chain.kernel_packages()),
                ".initrd" => Causes::among(chain.initrd_inputs()),
                // All else is systemd's stub.
                _ => Causes::among(chain.package("initrd", "systemd-boot-efi").into_iter().collect()),
            };
            let causes = match chain.tool() {
                Some(tool) if causes.is_empty() => Causes { because: vec![tool], perhaps: Vec::new() },
                _ => causes,
            };
            chain.or_unknown(causes, "what it is made from is the same")
        })
    }

    fn command_line(&mut self) -> Causes {
        let mut because = Vec::new();
        if self.before.verity.root_hash != self.after.verity.root_hash {
            because.push(self.root_hash());
        }
        because.extend(self.recipe_nodes(|change| change.field == "command_line"));
        Causes { because, perhaps: Vec::new() }
    }

    /// It is the file in the image.
    fn os_release(&mut self) -> Causes {
        let because = self.recipe_nodes(|change| ["name", "version"].contains(&&*change.field));
        let package = self.package("system", "base-files");
        match (because.is_empty(), package) {
            (true, package) => Causes { because: package.into_iter().collect(), perhaps: Vec::new() },
            (false, package) => Causes { because, perhaps: package.into_iter().collect() },
        }
    }

    /// Packages that have the kernel and its modules, and differ.
    fn kernel_packages(&mut self) -> Vec<usize> {
        let Some((old, new)) = self.records else { return Vec::new() };
        let mut names: Vec<&str> = [old, new].into_iter().flat_map(owners_of_kernels).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| self.package("system", name)).collect()
    }

    fn initrd_inputs(&mut self) -> Vec<usize> {
        let all = self.difference.packages.names().filter(|(set, _)| *set != "system");
        let all: Vec<(String, String)> = all.map(|(set, name)| (set.to_owned(), name.to_owned())).collect();
        let mut inputs: Vec<usize> = all.iter().filter_map(|(set, name)| self.package(set, name)).collect();
        inputs.extend(self.kernel_packages());
        inputs.extend(self.recipe_nodes(|change| {
            change.field.starts_with("initrd.") || change.field == "state" || change.field == "debian.suite"
        }));
        inputs.extend(self.epoch());
        inputs.extend(self.tool());
        inputs
    }
}

fn owners_of_kernels(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let is_kernel = |path: &str| path.starts_with("/boot/vmlinuz-") || path.starts_with("/usr/lib/modules/");
    let files = manifest.files.iter().filter(move |file| is_kernel(&file.path));
    let packages = files.filter_map(|file| manifest.packages.get(file.package? as usize));
    packages.map(|package| package.name.as_str())
}
