//! All models that are to be served: one that generates, encoders, or both.

use backstop_engine::{EngineThread, StartPhase, Timeline};
use backstop_server::Server;

use super::generating::Generating;
use crate::args::{ModelArgs, ServeArgs};
use crate::encoders::{self, PlannedEncoder};
use crate::queue::Queues;
use crate::standby::{CanaryFile, Standby};

/// A path, and a body to try it with.
pub(super) type Example = (&'static str, String);

/// What is to be served. No weights are loaded.
pub(super) struct Models {
    generating: Option<Generating>,
    encoders: Vec<PlannedEncoder>,
}

impl Models {
    /// Those that the settings name. Without any, the bundled model; encoders may be alone.
    pub(super) fn open(
        args: &ServeArgs,
        queues: &Queues,
        timeline: &Timeline,
    ) -> Result<Self, String> {
        timeline.begin(StartPhase::Texts);
        let encoders = encoders::planned(&args.encoders, &args.model)?;
        let generating = match args.model.model.is_none() && !encoders.is_empty() {
            true => {
                check_unused(args)?;
                None
            }
            false => Some(Generating::open(args, queues, timeline)?),
        };
        if let (false, Some(threads)) = (encoders.is_empty(), args.model.num_threads) {
            // The pool of all libraries, which has a thread for each core unless it is told.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            if let Err(error) = pool.build_global() {
                tracing::warn!("--num-threads does not count for encoders: {error}");
            }
        }
        let models = Self {
            generating,
            encoders,
        };
        let generating = models.generating.as_ref();
        let names = generating.map_or(&[][..], |model| &model.names);
        encoders::check_names(names, &models.encoders)?;
        Ok(models)
    }

    /// Whether any of them is to be computed on a GPU.
    pub(super) fn on_gpu(&self) -> bool {
        let generating = self.generating.as_ref().is_some_and(Generating::on_gpu);
        generating || self.encoders.iter().any(PlannedEncoder::on_gpu)
    }

    /// What they are called by themselves, for the log.
    pub(super) fn names(&self) -> String {
        let generating = self.generating.iter().map(Generating::name);
        let encoders = self.encoders.iter().map(|encoder| encoder.name.as_str());
        let names: Vec<&str> = generating.chain(encoders).collect();
        names.join(", ")
    }

    /// How to try each.
    pub(super) fn examples(&self) -> Vec<Example> {
        let generating = self.generating.iter().map(example);
        let encoders = self.encoders.iter().map(PlannedEncoder::example);
        generating.chain(encoders).collect()
    }

    /// Loads and proves all, and gives them to the server. Returns the engine's thread and what keeps it ready, if there is
    /// a model that generates.
    pub(super) async fn bring_up(
        self,
        server: &Server,
        canary_file: Option<CanaryFile>,
    ) -> Result<Option<(EngineThread, Standby)>, String> {
        for encoder in self.encoders {
            server.lifecycle().timeline().begin(StartPhase::Encoders);
            let loaded = tokio::task::spawn_blocking(move || encoder.load()).await;
            let loaded = loaded.map_err(|error| format!("loading panicked: {error}"))??;
            let installed = server.install_encoder(loaded);
            installed.map_err(|error| format!("no thread for an encoder: {error}"))?;
        }
        match self.generating {
            Some(generating) => generating.bring_up(server, canary_file).await.map(Some),
            None => Ok(None),
        }
    }
}

fn example(model: &Generating) -> Example {
    let name = model.names.iter().find(|name| *name != "*");
    let name = name.map_or("any", String::as_str);
    let body = format!(
        "{{\"model\": \"{name}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}"
    );
    ("/v1/chat/completions", body)
}

/// Refuses settings of a model that generates where there is none.
fn check_unused(args: &ServeArgs) -> Result<(), String> {
    let for_all = ModelArgs {
        device: args.model.device,
        num_threads: args.model.num_threads,
        integrity: args.model.integrity.clone(),
        ..ModelArgs::default()
    };
    let is_unused = format!("{:?}", args.model) != format!("{for_all:?}");
    match is_unused || args.weight_cache.is_some() || !args.server.served_model_name.is_empty() {
        true => Err(
            "there are settings for a model that generates, and none is named: give MODEL as \
                     well (demo is the bundled one), or leave them out"
                .to_owned(),
        ),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::serve_args;

    #[test]
    fn settings_of_a_model_that_is_not_served_are_refused() {
        let check = |line: &[&str]| check_unused(&serve_args(line));
        assert!(
            check(&[
                "--embedding-model",
                "a",
                "--num-threads",
                "2",
                "--port",
                "1"
            ])
            .is_ok()
        );
        assert!(check(&["--embedding-model", "a", "--max-model-len", "2"]).is_err());
        assert!(check(&["--embedding-model", "a", "--served-model-name", "x"]).is_err());
    }
}
