//! What `serve` gives up: files that it does not read, programs that it does not start, and connections.

use std::path::{Path, PathBuf};

use backstop_models::{LocateError, ModelLocator, files_of};
use backstop_sandbox::{FilesConfinement, Sandbox};

use crate::args::ServeArgs;
use crate::listening;

/// There if a driver is loaded.
const NVIDIA_DRIVER: &str = "/proc/driver/nvidia/version";
/// The device through which CUDA has memory. CUDA starts a privileged program to make it.
const NVIDIA_MEMORY: &str = "/dev/nvidia-uvm";
/// How to go without, for whom the sandbox is in the way.
const WITHOUT: &str = "--no-sandbox goes without";

/// Confines what this process does with files, before it has other threads. `None` if it is not to be.
pub(crate) fn confine_files(args: &ServeArgs) -> Result<Option<FilesConfinement>, String> {
    if args.server.no_sandbox {
        return Ok(None);
    }
    if Path::new(NVIDIA_DRIVER).exists() && !Path::new(NVIDIA_MEMORY).exists() {
        tracing::warn!(
            "{NVIDIA_MEMORY} is not there, and a confined process cannot let it be made: run `nvidia-modprobe -u -c=0` \
             before, or nvidia-persistenced; {WITHOUT}"
        );
    }
    let confinement = sandbox(args).confine_files();
    confinement
        .map(Some)
        .map_err(|error| format!("{error}; {WITHOUT}"))
}

/// Refuses the calls that a server that listens does not make, and says in the log what holds now.
pub(crate) fn confine_calls(files: Option<&FilesConfinement>) -> Result<(), String> {
    let Some(files) = files else {
        tracing::warn!("--no-sandbox: this process may read and do whatever its user may");
        return Ok(());
    };
    let calls = backstop_sandbox::confine_calls();
    let calls = calls.map_err(|error| format!("{error}; {WITHOUT}"))?;
    match files.is_enforced() && calls.is_enforced() {
        true => tracing::info!("confined: files: {files}; calls: {calls}"),
        false => tracing::warn!("confined: files: {files}; calls: {calls}"),
    }
    Ok(())
}

/// What a server with these settings reads, and where it listens.
fn sandbox(args: &ServeArgs) -> Sandbox {
    let mut sandbox = Sandbox::of_this_program();
    let locator = ModelLocator::from_environment();
    // Manifests, and models that they are beside.
    for directory in locator.directories() {
        sandbox.allow_reading(directory);
    }
    let head = args.model.speculative_config.as_ref();
    let head = head.and_then(|config| config.head().ok().flatten());
    let models = [
        args.model.model.as_deref().map(Path::new),
        args.encoders.embedding_model.as_deref(),
        args.encoders.reranker_model.as_deref(),
        head.as_ref().map(|head| Path::new(head.model)),
    ];
    for model in models.into_iter().flatten() {
        for path in places(&locator, model) {
            sandbox.allow_reading(&path);
        }
    }
    let cubins = std::env::var_os(backstop_card::cubins::DIRECTORY_VARIABLE);
    sandbox.read.extend(cubins.map(PathBuf::from));
    let integrity = &args.model.integrity;
    for file in [&integrity.require_signature, &integrity.signature] {
        sandbox.read.extend(file.clone());
    }
    sandbox.write.extend(args.weight_cache.clone());
    if let Some(file) = &args.callers.api_key_file {
        sandbox.allow_reading_anew(file);
    }
    if let Some(log) = &args.audit.audit_log {
        sandbox.allow_writing_beside(log);
    }
    let tls = [
        &args.tls.ssl_certfile,
        &args.tls.ssl_keyfile,
        &args.tls.ssl_ca_certs,
    ];
    for file in tls.into_iter().flatten() {
        sandbox.allow_reading_anew(file);
    }
    if let Some(socket) = &args.listening.uds {
        sandbox.allow_removing(socket);
    }
    let probes = args.server.probe_address;
    let addresses = listening::addresses(args).into_iter().chain(probes);
    sandbox.bind_ports = addresses.map(|address| address.port()).collect();
    sandbox
}

/// Where the files of a model are, and its manifest beside them.
fn places(locator: &ModelLocator, model: &Path) -> Vec<PathBuf> {
    let mut places = vec![model.to_owned()];
    match locator.locate(&model.to_string_lossy()) {
        Ok(located) => places.extend(files_of(&located.directory)),
        Err(LocateError::NoWeights { directory, .. }) => places.push(directory),
        Err(_) => {}
    }
    let actual = places.iter().filter_map(|place| place.canonicalize().ok());
    places.extend(actual.collect::<Vec<PathBuf>>());
    let beside = places.iter().map(|place| place.with_extension("toml"));
    let named = places.iter().map(|place| {
        let mut name = place.clone().into_os_string();
        name.push(".toml");
        PathBuf::from(name)
    });
    let manifests = beside.chain(named).filter(|path| path.is_file());
    places.extend(manifests.collect::<Vec<PathBuf>>());
    places
}
