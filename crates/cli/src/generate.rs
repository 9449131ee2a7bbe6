//! `backstop generate`: one prompt, answered in the terminal.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use backstop_engine::{Generation, GenerationEvent, GenerationRequest, Lifecycle, LifecycleState};
use backstop_text::{
    ChatTemplateInput, OutputParser, ParsedEvent, ParserOptions, StreamOptions, TextStream,
    chat_format,
};
use backstop_types::{FinishReason, SamplingParams, StopConditions, TokenId};
use serde_json::{Map, json};

use crate::args::GenerateArgs;
use crate::load::{self, ModelText, OpenModel};
use crate::start;

pub(crate) fn run(args: GenerateArgs) -> Result<ExitCode, String> {
    crate::runtime()?.block_on(generate(args))
}

async fn generate(args: GenerateArgs) -> Result<ExitCode, String> {
    let lifecycle = Lifecycle::new();
    let open = load::open(&args.model)?;
    let text = open.text.clone();
    let (prompt, parser) = prompt(&args, &open)?;
    let prepared = start::Prepared::new(&args.model, &open, lifecycle.timeline())?;
    let running =
        tokio::task::block_in_place(|| start::start(&args.model, open, prepared, 1, &lifecycle))?;
    lifecycle.advance(LifecycleState::Ready);

    let room = running.max_model_len.saturating_sub(prompt.len() as u32);
    if room == 0 {
        return Err(format!(
            "the prompt has {} tokens, and prompt and answer may have {} together",
            prompt.len(),
            running.max_model_len
        ));
    }
    let request = GenerationRequest {
        sampling: Arc::new(sampling(&args, &text)?),
        stop: Arc::new(StopConditions {
            max_tokens: args.max_tokens.clamp(1, room),
            min_tokens: 0,
            stop_token_ids: text.end_ids(),
        }),
        prompt: prompt.into(),
        priority: 0,
        tenant: 0,
        cache_salt: 0,
        queue_timeout: None,
    };
    let generation = running
        .engine
        .submit(request)
        .await
        .map_err(|error| error.to_string())?;
    let stream = TextStream::new(
        Arc::clone(&text.tokenizer),
        StreamOptions {
            stop: Vec::new(),
            min_tokens: 0,
            include_stop: false,
            skip_special_tokens: true,
            hidden_tokens: text.end_ids(),
            parser,
        },
    );
    let result = print(generation, stream).await;
    tokio::task::block_in_place(|| running.thread.stop());
    result
}

/// The prompt's tokens and the parser of the answer to it.
fn prompt(
    args: &GenerateArgs,
    open: &OpenModel,
) -> Result<(Vec<TokenId>, Box<dyn OutputParser>), String> {
    let encode = |text: &str, add_special_tokens: bool| {
        let tokens = open.text.tokenizer.encode(text, add_special_tokens);
        tokens.map_err(|error| error.to_string())
    };
    if args.raw {
        let plain = chat_format("plain").ok_or("there is no plain format")?;
        let parser = plain.parser(ParserOptions::default());
        return Ok((encode(&args.prompt, true)?, parser));
    }
    let templates = open
        .text
        .templates
        .as_ref()
        .ok_or_else(|| format!("{} has no chat template: use --raw", open.name))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let input = ChatTemplateInput {
        messages: vec![json!({"role": "user", "content": args.prompt})],
        tools: None,
        documents: None,
        add_generation_prompt: true,
        bos_token: Some(open.text.bos_token.clone()),
        eos_token: Some(open.text.eos_token.clone()),
        extra: Map::new(),
        now_unix_seconds: now.map_or(0, |since| since.as_secs() as i64),
    };
    let template = templates
        .choose(None, &input)
        .map_err(|_| format!("{} has no default chat template: use --raw", open.name))?;
    let rendered = template.render(&input).map_err(|error| error.to_string())?;
    let format = open.chat_format;
    let parser = format.parser(ParserOptions {
        opening: format.opening(&rendered),
        ..ParserOptions::default()
    });
    Ok((encode(&rendered, false)?, parser))
}

fn sampling(args: &GenerateArgs, text: &ModelText) -> Result<SamplingParams, String> {
    let temperature = args
        .temperature
        .or(text.defaults.temperature)
        .unwrap_or(1.0);
    if !(0.0..=2.0).contains(&temperature) {
        return Err("--temperature must lie between 0 and 2".into());
    }
    Ok(SamplingParams {
        temperature,
        top_p: text.defaults.top_p.unwrap_or(1.0),
        top_k: text.defaults.top_k.unwrap_or(0),
        min_p: text.defaults.min_p.unwrap_or(0.0),
        repetition_penalty: text.defaults.repetition_penalty.unwrap_or(1.0),
        // The standard library seeds its hash maps from the operating system's randomness.
        seed: args.seed.unwrap_or_else(|| RandomState::new().hash_one(())),
        ..SamplingParams::default()
    })
}

/// Prints the answer as it comes; reasoning goes to standard error.
async fn print(mut generation: Generation, mut stream: TextStream) -> Result<ExitCode, String> {
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Admitted { .. } | GenerationEvent::PromptLogprobs(_) => {}
            GenerationEvent::Token(token) => show(&stream.push(token.id).events)?,
            GenerationEvent::Finished { reason, usage } => {
                show(&stream.finish())?;
                show(&[ParsedEvent::ContentDelta("\n".into())])?;
                tracing::info!(
                    "{} prompt tokens, {} generated, {}",
                    usage.prompt_tokens,
                    usage.generated_tokens,
                    match reason {
                        FinishReason::Stop(_) => "ended by the model",
                        FinishReason::Length => "ended by --max-tokens",
                        _ => return Err(format!("the generation ended with {reason:?}")),
                    }
                );
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Err("the engine died".into())
}

fn show(events: &[ParsedEvent]) -> Result<(), String> {
    let (mut output, mut error_output) = (std::io::stdout().lock(), std::io::stderr().lock());
    for event in events {
        match event {
            ParsedEvent::ReasoningDelta(text) => write!(error_output, "{text}"),
            ParsedEvent::ContentDelta(text) => write!(output, "{text}"),
            ParsedEvent::ToolCallStart { name, .. } => writeln!(output, "\n{name}"),
            ParsedEvent::ToolCallArgumentsDelta { delta, .. } => write!(output, "{delta}"),
        }
        .map_err(|error| error.to_string())?;
    }
    output.flush().map_err(|error| error.to_string())
}
