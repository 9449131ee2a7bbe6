//! `backstop generate`: one prompt, answered in the terminal.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use backstop_engine::{
    Generation, GenerationEvent, GenerationRequest, Lifecycle, LifecycleState,
};
use backstop_text::{
    ChatTemplateInput, IncrementalDetokenizer, ParsedEvent, StreamOptions, TextStream,
    chat_format,
};
use backstop_types::{FinishReason, SamplingParams, StopConditions, TokenId};

use crate::args::GenerateArgs;
use crate::load::{self, OpenModel};
use crate::warm_up::warm_up;
