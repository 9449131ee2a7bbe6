//! Energy of processors, as RAPL counts it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::EnergySource;

const POWERCAP: &str = "/sys/class/powercap";
const TEXT_BYTES_MAX: u64 = 256;

/// Counters of packages, as they stood at the beginning.
pub(super) struct Processors {
    begun: BTreeMap<PathBuf, f64>,
}

impl Processors {
    pub(super) fn start() -> Option<Self> {
        Self::at(Path::new(POWERCAP))
    }

    /// Packages are `intel-rapl:N`; what is `intel-rapl:N:M` is part of one.
    fn at(root: &Path) -> Option<Self> {
        let entries = std::fs::read_dir(root).ok()?.flatten();
        let packages = entries.filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.strip_prefix("intel-rapl:")
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        });
        let begun: BTreeMap<PathBuf, f64> = packages
            .map(|entry| entry.path())
            .filter_map(|path| Some((path.clone(), joules(&path, "energy_uj")?)))
            .collect();
        (!begun.is_empty()).then_some(Self { begun })
    }

    /// A counter begins anew when it is full. That it did so twice within a run is not seen: it takes an hour or so.
    pub(super) fn stop(self) -> Vec<EnergySource> {
        let source = |(path, begun): (PathBuf, f64)| {
            let taken = joules(&path, "energy_uj")? - begun;
            let full = joules(&path, "max_energy_range_uj").unwrap_or_default();
            Some(EnergySource {
                name: text(&path, "name").unwrap_or_else(|| path.display().to_string()),
                interface: "rapl".to_owned(),
                joules: if taken < 0.0 { taken + full } else { taken },
            })
        };
        self.begun.into_iter().filter_map(source).collect()
    }
}

fn joules(package: &Path, counter: &str) -> Option<f64> {
    let microjoules: f64 = text(package, counter)?.parse().ok()?;
    Some(microjoules / 1e6)
}

fn text(package: &Path, name: &str) -> Option<String> {
    let text = backstop_input::read_text_file(&package.join(name), TEXT_BYTES_MAX).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_packages_are_read_and_may_begin_anew() {
        let root = std::env::temp_dir().join(format!("backstop-rapl-{}", std::process::id()));
        let write = |package: &str, name: &str, value: &str| {
            let directory = root.join(package);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), format!("{value}\n")).unwrap();
        };
        write("intel-rapl:0", "name", "package-0");
        write("intel-rapl:0", "energy_uj", "5000000");
        write("intel-rapl:0", "max_energy_range_uj", "10000000");
        write("intel-rapl:0:0", "energy_uj", "1000000");
        write("intel-rapl", "enabled", "1");
        let started = Processors::at(&root).unwrap();
        write("intel-rapl:0", "energy_uj", "2000000");
        let sources = started.stop();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!(
            (sources[0].name.as_str(), sources[0].joules),
            ("package-0", 7.0)
        );
        assert!(Processors::at(&root).is_none());
    }
}
