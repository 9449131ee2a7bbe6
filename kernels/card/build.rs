//! Chooses the compiled kernels that go into the library.
//!
//! The repository holds one cubin for each `cuda/*.cu` and, in `cuda/cubins/manifest.toml`, the
//! digest of the sources that each was made of. A cubin whose sources have changed since is made
//! again here if there is an nvcc of the right release; `scripts/card/cubins` renews the committed ones.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "nvidia")]
    if let Err(message) = cubins::choose() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

#[cfg(feature = "nvidia")]
mod cubins {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::Mutex;
    use std::{env, fs};

    use sha2::{Digest, Sha256};

    /// Later releases make cubins that a driver of this release need not accept.
    const RELEASE: &str = "13.0";

    /// A kernel file and the cubin of it.
    struct Unit {
        name: String,
        source: PathBuf,
        digest: String,
        cubin: PathBuf,
        /// The repository has the cubin of these sources.
        committed: bool,
    }

    pub(crate) fn choose() -> Result<(), String> {
        let own = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
        // `kernels`, where the sources are.
        let root = own.join("..");
        let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
        let cuda = root.join("cuda");
        println!("cargo::rerun-if-changed=../cuda");
        for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        let manifest = fs::read_to_string(cuda.join("cubins/manifest.toml")).unwrap_or_default();
        let committed = digests(&manifest);
        let mut units = units(&cuda)?;
        let mut stale = Vec::new();
        for unit in &mut units {
            let fresh = committed.get(&unit.name) == Some(&unit.digest);
            unit.committed = fresh && unit.cubin.exists();
            if !unit.committed {
                stale.push(unit);
            }
        }
        renew(&mut stale, &root, &out)?;
        write(&out.join("cubins.rs"), &table(&units))
    }

    /// All kernel files, in the order of their names, with the cubins of the repository.
    fn units(cuda: &Path) -> Result<Vec<Unit>, String> {
        let listing = fs::read_dir(cuda).map_err(|e| format!("{}: {e}", cuda.display()))?;
        let mut units = Vec::new();
        for source in listing.flatten().map(|entry| entry.path()) {
            if source.extension().is_none_or(|extension| extension != "cu") {
                continue;
            }
            let name = source.file_stem().unwrap_or_default().to_string_lossy();
            units.push(Unit {
                digest: digest(cuda, &source)?,
                cubin: cuda.join("cubins").join(format!("{name}.cubin")),
                name: name.into_owned(),
                source,
                committed: false,
            });
        }
        units.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(units)
    }

    /// SHA-256 of the compiler's options, the file and all headers of ours that it includes, each
    /// preceded by its name; `scripts/card/cubins` computes the same.
    fn digest(cuda: &Path, source: &Path) -> Result<String, String> {
        let mut files = BTreeSet::from([cuda.join("nvcc-options")]);
        let mut open = vec![source.to_path_buf()];
        while let Some(path) = open.pop() {
            if files.insert(path.clone()) {
                open.extend(includes(cuda, &read(&path)?));
            }
        }
        let mut hash = Sha256::new();
        for path in files {
            let name = path.strip_prefix(cuda).unwrap_or(&path);
            hash.update(format!("{}\n{}", name.display(), read(&path)?));
        }
        let bytes = hash.finalize();
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Headers that a text includes, other than those for the processor.
    fn includes(cuda: &Path, text: &str) -> Vec<PathBuf> {
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("#include \"")?.split('"').next());
        names
            .filter(|name| !name.starts_with("host/"))
            .map(|name| cuda.join(name))
            .collect()
    }

    /// The digests of the committed cubins' sources.
    fn digests(manifest: &str) -> BTreeMap<String, String> {
        let mut digests = BTreeMap::new();
        let mut name = String::new();
        for line in manifest.lines() {
            if let Some(rest) = line.strip_prefix("[cubins.") {
                name = rest.trim_end_matches(']').to_owned();
            } else if let Some(value) = line.strip_prefix("sources = ") {
                digests.insert(name.clone(), value.trim_matches('"').to_owned());
            }
        }
        digests
    }

    /// Compiles what has changed, or says how the reader can.
    fn renew(stale: &mut [&mut Unit], root: &Path, out: &Path) -> Result<(), String> {
        if stale.is_empty() {
            return Ok(());
        }
        if let Some(nvcc) = nvcc(root) {
            return compile_all(stale, &nvcc, root, out);
        }
        let advice = format!(
            "run `scripts/card/cubins --install`, or set CUDA_HOME to a CUDA toolkit {RELEASE}"
        );
        for unit in stale {
            let name = &unit.name;
            if !unit.cubin.exists() {
                return Err(format!("cuda/{name}.cu is not compiled: {advice}"));
            }
            println!(
                "cargo::warning=cuda/{name}.cu differs from what cuda/cubins/{name}.cubin was \
                 made of, and the old one is used: {advice}"
            );
        }
        Ok(())
    }

    /// Compiles with as many processes as Cargo allows.
    fn compile_all(
        stale: &mut [&mut Unit],
        nvcc: &Path,
        root: &Path,
        out: &Path,
    ) -> Result<(), String> {
        let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
        let failure = Mutex::new(None);
        let queue = Mutex::new(stale.iter_mut());
        let next = || queue.lock().ok()?.next();
        std::thread::scope(|scope| {
            for _ in 0..jobs.unwrap_or(1) {
                scope.spawn(|| {
                    while let Some(unit) = next() {
                        if let Err(message) = compile(unit, nvcc, root, out) {
                            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(message);
                        }
                    }
                });
            }
        });
        let failure = failure.into_inner().unwrap_or_else(|e| e.into_inner());
        failure.map_or(Ok(()), Err)
    }

    /// Compiles one, unless an earlier build has.
    fn compile(unit: &mut Unit, nvcc: &Path, root: &Path, out: &Path) -> Result<(), String> {
        unit.cubin = out.join(format!("{}.cubin", unit.name));
        let made_of = out.join(format!("{}.digest", unit.name));
        if unit.cubin.exists() && fs::read_to_string(&made_of).is_ok_and(|d| d == unit.digest) {
            return Ok(());
        }
        let output = Command::new(nvcc)
            .arg("--options-file")
            .arg(root.join("cuda/nvcc-options"))
            .arg("-o")
            .args([&unit.cubin, &unit.source])
            .output()
            .map_err(|error| format!("{}: {error}", nvcc.display()))?;
        if !output.status.success() {
            return Err(format!(
                "nvcc cannot compile cuda/{}.cu:\n{}{}",
                unit.name,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        write(&made_of, &unit.digest)
    }

    /// An nvcc of the right release: where variables say, where `scripts/card/cubins --install` puts
    /// one, or in the path.
    fn nvcc(root: &Path) -> Option<PathBuf> {
        println!("cargo::rerun-if-env-changed=PATH");
        let mut candidates: Vec<PathBuf> =
            env::var_os("NVCC").map(PathBuf::from).into_iter().collect();
        let homes = ["CUDA_HOME", "CUDA_PATH"]
            .into_iter()
            .filter_map(env::var_os);
        candidates.extend(homes.map(|home| Path::new(&home).join("bin/nvcc")));
        let pythons = fs::read_dir(root.join("../.venv/cuda/lib"))
            .into_iter()
            .flatten();
        candidates.extend(
            pythons
                .flatten()
                .map(|python| python.path().join("site-packages/nvidia/cu13/bin/nvcc")),
        );
        let path = env::var_os("PATH").unwrap_or_default();
        candidates.extend(env::split_paths(&path).map(|directory| directory.join("nvcc")));
        candidates.into_iter().find(|nvcc| {
            let version = Command::new(nvcc).arg("--version").output();
            let right = format!("release {RELEASE}");
            version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&right))
        })
    }

    /// Rust text of the list of all cubins, each where its tables can be read in place.
    fn table(units: &[Unit]) -> String {
        let rows = units.iter().map(|unit| {
            let (name, committed) = (&unit.name, unit.committed);
            let path = unit.cubin.display().to_string();
            format!(
                "Cubin {{ name: {name:?}, committed: {committed}, \
                 image: &Aligned(*include_bytes!({path:?})).0 }},\n"
            )
        });
        let rows: String = rows.collect();
        if rows.is_empty() {
            return "&[]".into();
        }
        format!("{{\n#[repr(align(16))]\nstruct Aligned<T>(T);\n&[\n{rows}]\n}}\n")
    }

    fn read(path: &Path) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn write(path: &Path, text: &str) -> Result<(), String> {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}
