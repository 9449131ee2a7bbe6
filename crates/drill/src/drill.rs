//! A whole drill: gateway, stand-in and fallback are put together, and each failure is rehearsed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::args::{CommandLine, GatewayArgs, LoadArgs};
use crate::fallback::Fallback;
use crate::faults::{FAULTS, Fault};
use crate::gateway::{Copy, Gateway};
use crate::judgement::Source;
use crate::load::{Kind, Load, Pace, Phase, Record, rounded};
use crate::nonces::Nonces;
use crate::rehearsal::{Lengths, Models, rehearse};
use crate::report::{PROGRAM, Report, SHAPE, Subject, unix_now_s};
use crate::stand_in::StandIn;
use crate::verdict::{Outcome, Verdict, overall};
use crate::{DrillError, advice};
use backstop_client::{Endpoint, read_key};

/// How long the fallback may take to say what it is.
const FALLBACK_PATIENCE: Duration = Duration::from_secs(60);
/// Between two requests before the first failure.
const WARM_UP_PAUSE: Duration = Duration::from_millis(200);

/// All that a drill needs, running.
struct Stage {
    load: Arc<Load>,
    models: Models,
    subject: Subject,
    stand_in: SocketAddr,
    /// Ends with the drill.
    _gateway: Option<Gateway>,
}

/// Holds a drill.
pub(crate) async fn drill(command_line: &CommandLine) -> Result<Report, DrillError> {
    let faults = chosen(&command_line.stand_in.only)?;
    let (began_unix_s, begun) = (unix_now_s(), Instant::now());
    let stage = set_up(command_line).await?;
    warm_up(&stage, command_line.load.warm_up).await?;
    let args = &command_line.load;
    let lengths = Lengths {
        before: args.before,
        during: args.during,
        recovery_max: args.recovery_limit,
    };
    let limit_s = args.first_token_limit.as_secs_f64();
    let mut failures = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        let rehearsal = rehearse(&stage.load, fault, &stage.models, lengths).await?;
        let outcome = Outcome::of(fault, rehearsal, limit_s);
        let of = format!("{} of {}", number + 1, faults.len());
        tell(&of, &outcome);
        failures.push(outcome);
    }
    Ok(Report {
        shape: SHAPE,
        program: PROGRAM,
        verdict: overall(&failures),
        began_unix_s,
        took_s: rounded(begun.elapsed()),
        fallback: stage
            .load
            .fallback
            .as_ref()
            .map(|fallback| fallback.identity.clone()),
        pace: stage.load.pace.clone(),
        first_token_limit_s: limit_s,
        advice: advice::advice(&failures, stage.subject.settings.as_ref()),
        subject: stage.subject,
        failures,
    })
}

fn tell(of: &str, outcome: &Outcome) {
    let (name, verdict) = (outcome.name, outcome.verdict.text());
    match outcome.verdict {
        Verdict::Passed => {
            let longest = outcome
                .during
                .fallback_first_token_s
                .map_or(0.0, |waits| waits.max);
            tracing::info!(
                "{of}: {name}: {verdict}, first token of the fallback within {longest:.1} s"
            );
        }
        Verdict::Failed | Verdict::NotRehearsed => {
            tracing::warn!("{of}: {name}: {verdict}: {}", outcome.reasons.join("; "));
        }
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Fault>, DrillError> {
    if names.is_empty() {
        Ok(FAULTS.iter().collect())
    } else {
        names.iter().map(|name| Fault::named(name)).collect()
    }
}

async fn set_up(command_line: &CommandLine) -> Result<Stage, DrillError> {
    let gateway = &command_line.gateway;
    match (&gateway.gateway_config, &gateway.gateway_url) {
        (Some(config), _) => set_up_litellm(command_line, config).await,
        (None, Some(url)) => set_up_running(command_line, url).await,
        (None, None) => Err(DrillError::new(
            "neither --gateway-url nor --gateway-config is given",
        )),
    }
}

/// With a gateway that the operator runs.
async fn set_up_running(command_line: &CommandLine, url: &str) -> Result<Stage, DrillError> {
    let args = &command_line.gateway;
    let stand_in = StandIn::start(command_line.stand_in.stand_in)?;
    let model = args.model.clone().unwrap_or_default();
    let endpoint = operators_gateway(args, url)?;
    let fallback = operators_fallback(args).await?;
    Ok(Stage {
        stand_in: stand_in.address(),
        load: Arc::new(Load {
            gateway: endpoint,
            fallback,
            stand_in: Some(stand_in),
            nonces: Nonces::default(),
            pace: pace(&command_line.load),
        }),
        models: Models {
            primary: model.clone(),
            over_tls: None,
        },
        subject: Subject {
            gateway: url.to_owned(),
            model,
            parties: None,
            settings: None,
        },
        _gateway: None,
    })
}

/// With LiteLLM's proxy, which is started for it.
async fn set_up_litellm(command_line: &CommandLine, config: &Path) -> Result<Stage, DrillError> {
    let args = &command_line.gateway;
    let stand_in = StandIn::start(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let key = new_key()?;
    let copy = Copy::of(config, args.model.as_deref(), stand_in.address(), &key)?;
    let fallback = match (operators_fallback(args).await?, &copy.fallback_url) {
        (None, Some(url)) => Some(meet(url, copy.fallback_key.as_deref(), None).await?),
        (fallback, _) => fallback,
    };
    tracing::info!(
        "starting LiteLLM with {:?} as the primary and {:?} behind it",
        copy.parties.primary,
        copy.parties.fallback
    );
    let mut gateway = Gateway::start(&args.gateway_program, &copy.json, &key)?;
    let endpoint = Endpoint::new(&gateway.url, Some(&key), None)?;
    gateway.wait_until_ready(&endpoint).await?;
    Ok(Stage {
        stand_in: stand_in.address(),
        load: Arc::new(Load {
            gateway: endpoint,
            fallback,
            stand_in: Some(stand_in),
            nonces: Nonces::default(),
            pace: pace(&command_line.load),
        }),
        models: Models {
            primary: copy.parties.primary.clone(),
            over_tls: Some(copy.parties.primary_over_tls.clone()),
        },
        subject: Subject {
            gateway: config
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            model: copy.parties.primary.clone(),
            parties: Some(copy.parties),
            settings: Some(copy.settings),
        },
        _gateway: Some(gateway),
    })
}

/// Sends one request after the other until the stand-in has answered one: a drill without it would say nothing. The first
/// ones of a gateway that has just started take long.
async fn warm_up(stage: &Stage, limit: Duration) -> Result<(), DrillError> {
    let begun = Instant::now();
    loop {
        let kind = Kind {
            phase: Phase::Before,
            model: &stage.models.primary,
            streams_only: false,
            origin: begun,
        };
        let record = stage.load.run_one(kind).await?;
        if record.source == Source::Primary {
            return Ok(());
        }
        if begun.elapsed() > limit {
            return Err(not_asked(stage.stand_in, limit, &record));
        }
        tokio::time::sleep(WARM_UP_PAUSE).await;
    }
}

fn not_asked(stand_in: SocketAddr, limit: Duration, last: &Record) -> DrillError {
    let last = match &last.lost {
        Some(lost) => format!("was lost: {lost}"),
        None => "was answered by something else".to_owned(),
    };
    DrillError::new(format!(
        "no answer came from the stand-in within {} s. The gateway's primary must be http://{stand_in}/v1 while it is drilled. \
         The last request {last}",
        limit.as_secs_f64()
    ))
}

/// A gateway that the operator runs, with its key.
pub(crate) fn operators_gateway(args: &GatewayArgs, url: &str) -> Result<Endpoint, DrillError> {
    let key = args.api_key_file.as_deref().map(read_key).transpose()?;
    Ok(Endpoint::new(url, key.as_deref(), args.ca_file.as_deref())?)
}

/// Backstop, if the command line says where it is.
pub(crate) async fn operators_fallback(args: &GatewayArgs) -> Result<Option<Fallback>, DrillError> {
    let Some(url) = &args.fallback_url else {
        return Ok(None);
    };
    let key = args
        .fallback_api_key_file
        .as_deref()
        .map(read_key)
        .transpose()?;
    meet(url, key.as_deref(), args.ca_file.as_deref())
        .await
        .map(Some)
}

async fn meet(
    url: &str,
    key: Option<&str>,
    ca_file: Option<&Path>,
) -> Result<Fallback, DrillError> {
    Fallback::meet(Endpoint::new(url, key, ca_file)?, FALLBACK_PATIENCE).await
}

pub(crate) fn pace(args: &LoadArgs) -> Pace {
    Pace {
        requests_per_second: args.rate,
        concurrency: usize::from(args.concurrency),
        max_tokens: args.max_tokens,
        patience: args.request_timeout,
    }
}

/// What the gateway that is started accepts, and nobody else knows.
fn new_key() -> Result<String, DrillError> {
    let random =
        || getrandom::u64().map_err(|error| DrillError::new(format!("no random numbers: {error}")));
    Ok(format!("sk-{:016x}{:016x}", random()?, random()?))
}
