//! Looking on at a gateway, without making anything fail.

use std::sync::Arc;
use std::time::Instant;

use crate::DrillError;
use crate::args::CommandLine;
use crate::drill::{operators_fallback, operators_gateway, pace};
use crate::load::{Kind, Load, Phase, rounded};
use crate::nonces::Nonces;
use crate::report::{PROGRAM, SHAPE, Watch, unix_now_s};
use crate::statistics::Summary;
use crate::verdict::Verdict;

/// Asks for as long as the command line says.
pub(crate) async fn watch(command_line: &CommandLine, url: &str) -> Result<Watch, DrillError> {
    let args = &command_line.gateway;
    let (began_unix_s, begun) = (unix_now_s(), Instant::now());
    let model = args.model.clone().unwrap_or_default();
    let load = Arc::new(Load {
        gateway: operators_gateway(args, url)?,
        fallback: operators_fallback(args).await?,
        stand_in: None,
        nonces: Nonces::default(),
        pace: pace(&command_line.load),
    });
    let kind = Kind {
        phase: Phase::Before,
        model: &model,
        streams_only: false,
        origin: begun,
    };
    let asked = load.run(kind, args.duration, |_| false).await?;
    let summary = Summary::of(&asked.records, Phase::Before);
    let is_whole = summary.lost + summary.twice + summary.foreign + summary.restarted == 0;
    Ok(Watch {
        shape: SHAPE,
        program: PROGRAM,
        verdict: if is_whole {
            Verdict::Passed
        } else {
            Verdict::Failed
        },
        began_unix_s,
        took_s: rounded(begun.elapsed()),
        gateway: url.to_owned(),
        fallback: load
            .fallback
            .as_ref()
            .map(|fallback| fallback.identity.clone()),
        pace: load.pace.clone(),
        summary,
        held_back: asked.held_back,
        records: asked.records,
        model,
    })
}
